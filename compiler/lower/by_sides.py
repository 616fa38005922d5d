"""Queries, keys and values of a token, all those of a side in one burst: few instructions, with more time between them.

That suits several sequences in one program, which fill each other's gaps, if heads have one vector each and keys static
scales. The results are those of `qkv.project`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from arch.isa import Alu, Func, Op, Rep, Sat
from arch.vectors import SIDES
from compiler.ir import Acc, Act, Mem
from compiler.place.geometry import DRAIN_BURST
from compiler.place.layout import Halves
from compiler.place.placement import Matrix, qkv_vectors
from program.arithmetic import ROPE_FRACTION
from program.integer import KEY_SHIFT, Q_SHIFT

from .builder import Builder, less
from .index import INDEX_K, register_of
from .product import product, requantise
from .qkv import SWAP_MAP, Queries, key_cells, value_temp
from .state import TokenState


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Outputs of the projection that are computed together.

    kind: "q", "k" or "v". start, count: among the side's output vectors. heads: (head set, query) of each. number: of
    the first of them among the side's outputs of this kind.
    """

    side: str
    kind: str
    start: int
    heads: list[tuple[int, int]]
    number: int

    @property
    def count(self) -> int:
        return len(self.heads)


def project_by_sides(b: Builder, state: TokenState, acts: dict[str, Act], er: int | None) -> Queries:
    """Queries, int8 in the activation buffers; keys into the cache, values into the tensor "vtemp". Arguments as of
    `qkv.project`."""
    matrix, queries = b.placement.matrices["qkv"], Queries()
    chunks = list(_chunks(b, matrix))
    accs = [product(b, matrix, acts[chunk.side], chunk.start, chunk.count) for chunk in chunks]
    for chunk, acc in zip(chunks, accs, strict=True):
        if chunk.kind == "v":
            requantise(b, b.cluster("value"), matrix, acc, chunk.start, pre=b.shifts.qkv_pre, post=b.shifts.v,
                       sat=Sat.S8, rep=Rep.REP8, dst=_values(b, chunk), **less(er))
            continue
        y = _rotated(b, state, matrix, chunk, acc, er)
        if chunk.kind == "k":
            _keys(b, chunk, y)
        else:
            queries |= _queries(b, chunk, y)
    return queries


def _chunks(b: Builder, matrix: Matrix) -> Iterator[Chunk]:
    """Chunks of both sides in turn. Their weights lie in one part, and their scales in one half."""
    found: dict[str, list[Chunk]] = {side: [] for side in SIDES}
    for side in SIDES:
        outputs = [output for other, output in qkv_vectors(b.geometry) if other == side]
        scale = matrix.scale[side]
        assert isinstance(scale, Halves)
        edges = {0, len(outputs), scale.tensor.quads, *range(DRAIN_BURST, len(outputs), DRAIN_BURST)}
        edges |= {n for n in range(1, len(outputs)) if outputs[n][0] != outputs[n - 1][0]}
        for start, stop in itertools.pairwise(sorted(edge for edge in edges if edge <= len(outputs))):
            kind = outputs[start][0]
            found[side].append(Chunk(side=side, kind=kind, start=start,
                                     heads=[(head_set, query) for _, head_set, query, _ in outputs[start:stop]],
                                     number=sum(output[0] == kind for output in outputs[:start])))
    for both in itertools.zip_longest(*found.values()):
        yield from filter(None, both)


def _rotated(b: Builder, state: TokenState, matrix: Matrix, chunk: Chunk, acc: Acc, er: int | None) -> Mem:
    """Queries or keys, 16 bits, requantised and rotated, in the tensor "q" or "k16"."""
    label, s = f"{chunk.kind} rotate", b.shifts
    first = sum(_of_kind(b, "W", chunk.kind)) * (chunk.side == "E") + chunk.number
    y = b.tensor("q" if chunk.kind == "q" else "k16", first, chunk.count)
    requantise(b, b.cluster(label), matrix, acc, chunk.start, pre=s.qkv_pre, post=s.qk, sat=Sat.S16, dst=y, **less(er))
    multiply = {"a": y, "func": Func.MUL, "post": ROPE_FRACTION, "n": chunk.count}
    cluster = b.cluster(label)
    crossed, _ = cluster.alu(**multiply, b=state.sin)
    swapped = cluster.sxm(crossed, Op.PERMUTE, map=SWAP_MAP)
    b.alu(cluster, **multiply, b=state.cos, alu=Alu.ADD, c=swapped, sat=Sat.S16, dst=y)
    return y


def _of_kind(b: Builder, side: str, kind: str) -> list[bool]:
    return [output[0] == kind for other, output in qkv_vectors(b.geometry) if other == side]


def _queries(b: Builder, chunk: Chunk, y: Mem) -> Queries:
    """int8 queries in their activation entries."""
    act = Act(chunk.side, b.queries[chunk.number], chunk.count)
    cluster = b.cluster("score")
    q8, _ = cluster.alu(a=y, pre=Q_SHIFT, sat=Sat.S8, n=chunk.count)
    cluster.load(q8, act)
    return {head: act.entries(n, 1) for n, head in enumerate(chunk.heads)}


def _keys(b: Builder, chunk: Chunk, y: Mem) -> None:
    """int8 keys, each byte on all planes, into the caches of their head sets."""
    heads = [head_set for head_set, _ in chunk.heads]
    offsets = b.constants("key_offset", 0, b.geometry.head_sets)[heads[0] : heads[-1] + 1 : 2]
    for part, count in _evenly_spaced(b, heads):
        cluster = b.cluster("key")
        k8, _ = cluster.alu(a=y[part : part + count], pre=KEY_SHIFT, alu=Alu.SUB, c=offsets[part : part + count],
                            sat=Sat.S8, rep=Rep.REP8, n=count)
        for group in range(1, b.config.weight_groups + 1):
            caches = [b.placement.k[head_set, group] for head_set in heads[part : part + count]]
            cells = tuple(cell for head_set in heads[part : part + count] for cell in key_cells(b, head_set, group))
            stride = caches[1].addr - caches[0].addr if count > 1 else 1
            cluster.write(k8, Mem(caches[0].slice, caches[0].addr, count, stride, rel=1,
                                  index=register_of(b.placement, INDEX_K), cells=cells))


def _evenly_spaced(b: Builder, heads: list[int]) -> list[tuple[int, int]]:
    """(first, count) of the heads whose keys are written together: all, if their caches are at one distance."""
    for group in range(1, b.config.weight_groups + 1):
        places = [b.placement.k[head_set, group].addr for head_set in heads]
        if len({after - before for before, after in itertools.pairwise(places)}) > 1:
            return [(n, 1) for n in range(len(heads))]
    return [(0, len(heads))]


def _values(b: Builder, chunk: Chunk) -> Mem:
    heads = [head_set for head_set, _ in chunk.heads]
    first = value_temp(b, heads[0], 0)
    return Mem(first.slice, first.addr, len(heads), 2)
