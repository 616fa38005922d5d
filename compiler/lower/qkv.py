"""First part of attention: queries, keys and values of the token, and its entries of the K/V cache."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from arch.config import ChipConfig
from arch.isa import Alu, ErUse, Fmt, Func, Op, Red, Rep, Sat
from arch.row import SXM
from arch.vectors import SIDES
from compiler.ir import BURST_SLOT, Acc, Act, As, Cell, Cluster, Mem, Reg, Stream
from compiler.place.placement import Matrix, qkv_vectors
from program.arithmetic import ROPE_FRACTION
from program.integer import KEY_SHIFT

from .builder import FRAC, Builder, less
from .collectives import multicast
from .exchange import sent_interval
from .index import INDEX_K, INDEX_SCALE, INDEX_V, register_of
from .product import product, product_as_it_comes, requantise
from .state import TokenState

Vectors = list[tuple[Acc, int]]
"""Of each vector of a projected head, the accumulator and the number among its side's vectors."""
Queries = dict[tuple[int, int], Reg | Mem | Act]
"""Rotated queries by (head set, query), in registers or in the tensor "q"; or int8 in activation buffers."""
SWAP_MAP = 0
"""Permutation map that exchanges neighbouring lanes (RoPE pairs)."""


def permutations(config: ChipConfig) -> dict[int, list[int]]:
    """The permutation maps of all programs, by number."""
    return {SWAP_MAP: [lane ^ 1 for lane in range(config.lanes)]}


def project(b: Builder, state: TokenState, acts: dict[str, Act], er: int | None) -> Queries:
    """Queries, whose registers the caller returns; keys into the cache, values into the tensor "vtemp".

    acts: the normed residual. er: register of its exponent, if it has one.
    """
    matrix, outputs = b.placement.matrices["qkv"], qkv_vectors(b.geometry)
    by_side = {side: [output for other, output in outputs if other == side] for side in SIDES}
    heads: dict[tuple[str, int, int], dict[int, tuple[str, int]]] = {}
    for side, output in outputs:
        kind, head_set, query, v = output
        heads.setdefault((kind, head_set, query), {})[v] = side, by_side[side].index(output)
    if b.geometry.share and b.geometry.share.scattered:
        whole = product_as_it_comes(b, matrix, acts)
        accs = {(side, start): Acc(side, acc.vector + start)
                for side, acc in whole.items() for start in range(acc.count)}
    else:
        accs = {(side, start): product(b, matrix, acts[side], start, 1)
                for places in heads.values() for side, start in places.values()}
    queries: Queries = {}
    outputs = {head: [(accs[places[v]], places[v][1]) for v in range(b.geometry.head_vectors)]
               for head, places in heads.items()}
    dealt = b.geometry.share and b.geometry.share.dealt
    if dealt:
        _dealt_keys(b, state, matrix, outputs, er)
    for (kind, head_set, query), vectors in outputs.items():
        if kind == "q":
            y = _requantised(b, matrix, "q rotate", vectors, er)
            queries[head_set, query] = home = _query_home(b, head_set, query) or y
            rotate(b, state, b.cluster("q rotate"), y, dst=home)
            if home is not y:
                b.free(y)
        elif kind == "k" and not dealt:
            key = _static_key if b.geometry.static_keys else _key
            key(b, state, head_set, _requantised(b, matrix, "k rotate", vectors, er))
        elif not dealt:
            _value(b, matrix, head_set, vectors, er)
    if dealt:
        _dealt_values(b, matrix, outputs, er)
    return queries


def _query_home(b: Builder, head_set: int, query: int) -> Mem | None:
    """Where a query goes if not into registers of its own."""
    g = b.geometry
    if g.queries_in_registers:
        return None
    return b.tensor("q", g.query_vectors().index((head_set, query, 0)), g.head_vectors)


def _requantised(b: Builder, matrix: Matrix, label: str, vectors: list[tuple[Acc, int]], er: int | None) -> Reg:
    """A query or key, 16 bits. vectors: of each of its vectors the accumulator and the number among the side's."""
    s, y = b.shifts, b.regs(b.geometry.head_vectors)
    for v, (acc, start) in enumerate(vectors):
        requantise(b, b.cluster(label), matrix, acc, start, pre=s.qkv_pre, post=s.qk, sat=Sat.S16,
                   dst=Reg(y.base + v), **less(er))
    return y


def rotate(b: Builder, state: TokenState, cluster: Cluster, y: Reg, *, dst: Reg | Mem, **fields: Any) -> Stream:
    """dst = RoPE of a head's vectors, y * cos + swap(y * sin); returns the reduction that `fields` ask for."""
    multiply = {"a": y, "func": Func.MUL, "post": ROPE_FRACTION, "n": b.geometry.head_vectors}
    crossed, _ = cluster.alu(**multiply, b=state.sin)
    swapped = cluster.sxm(crossed, Op.PERMUTE, map=SWAP_MAP)
    return b.alu(cluster, **multiply, b=state.cos, alu=Alu.ADD, c=swapped, sat=Sat.S16, dst=dst, **fields)[1]


# --- keys ----------------------------------------------------------------------------------------------------------


def _static_key(b: Builder, state: TokenState, head_set: int, y: Reg) -> None:
    """Rotated int8 keys of a static scale into the cache. Returns the registers of `y`."""
    rotate(b, state, b.cluster("key"), y, dst=y)
    cluster = b.cluster("key")
    _write_keys(b, cluster, head_set, _less_offset(b, cluster, y, head_set))
    b.free(y)


def _less_offset(b: Builder, cluster: Cluster, y: Reg, number: int, **fields: Any) -> Stream:
    """int8 keys of a static scale, from 16 bits. number: of the head set among the keys that this chip computes."""
    n = b.geometry.head_vectors
    k8, _ = cluster.alu(a=y, pre=KEY_SHIFT, alu=Alu.SUB, c=b.constants("key_offset", number * n, n), sat=Sat.S8,
                        rep=Rep.REP8, n=n, **fields)
    return k8


def _key(b: Builder, state: TokenState, head_set: int, y: Reg) -> None:
    """Rotated int8 keys into the cache, their scales into its table. Returns the registers of `y`."""
    label, g, r, er = "key", b.geometry, b.regs(1), b.exponents.take()
    temp = b.tensor("mtemp", head_set % 2, 1)
    cluster = b.cluster(label)
    largest = rotate(b, state, cluster, y, dst=y, red=Red.MAXABS, red_slot=BURST_SLOT)
    spread = b.across_lanes(cluster, largest, Red.MAX, min(b.model.head_size, g.lanes).bit_length() - 1)
    cluster.write(spread, temp)
    b.alu(cluster, a=spread, func=Func.RECIP, post=FRAC[Func.RECIP], alu=Alu.ADD, dst=r, er_dst=er)
    cluster = b.cluster(label)
    k8, _ = cluster.alu(a=y, func=Func.MUL, b=r, post=8, er_use=ErUse.POST, er=er, sat=Sat.S8, rep=Rep.REP8,
                        n=g.head_vectors)
    _write_keys(b, cluster, head_set, k8)
    for member in range(g.heads_per_vector):
        kv = head_set * g.heads_per_vector + member
        if kv < b.model.kv_heads:
            cluster = b.cluster(label)
            both, _ = cluster.alu(a=temp, rep=Rep.REP16)
            lanes = cluster.sxm(both, Op.SHIFT, lane=member * b.model.head_size % g.lanes, distribute=1)
            for half in g.halves(head_set):
                cluster.write(lanes, _new_scale(b, kv + (half - head_set) * g.heads_per_vector))
    b.free(y, r)
    b.exponents.give(er)


def _write_keys(b: Builder, cluster: Cluster, head_set: int, k8: Stream) -> None:
    """int8 keys, each byte on all planes, into the cache; of two halves, index registers let one keep them."""
    for half in b.geometry.halves(head_set):
        for group in range(1, b.config.weight_groups + 1):
            cluster.write(k8, _new_keys(b, half, group))


def _new_keys(b: Builder, head_set: int, group: int) -> Mem:
    """Where the token's keys go."""
    return b.placement.k[head_set, group].mem(0, b.geometry.head_vectors, index=register_of(b.placement, INDEX_K),
                                              cells=key_cells(b, head_set, group))


def key_cells(b: Builder, head_set: int, group: int) -> tuple[Cell, ...]:
    """What stands for the keys of the token that is being computed."""
    return (("K", head_set, group, b.placement.sequence),)


def keys(b: Builder, head_set: int, group: int, start: int, count: int, *, now: bool) -> Mem:
    """Keys of `count` vectors of positions from `start` on; now: the token's own may be among them."""
    per_chunk = b.geometry.vector_entries * b.geometry.head_vectors
    return b.placement.k[head_set, group].mem(start * per_chunk, count * per_chunk,
                                              cells=key_cells(b, head_set, group) if now else ())


def key_scales(b: Builder, kv: int, start: int, count: int, *, now: bool, index: int = 0) -> As:
    """Scales of keys; now: the token's own is written, or may be among them. Two heads share a quad."""
    g = b.geometry
    side = SIDES[kv // g.heads_per_vector % 2]
    pair, half = divmod(g.kv_heads(side).index(kv), 2)
    cells = (("kscale", side, pair, b.placement.sequence),) if now else ()
    mem = b.placement.tensors[f"kscale_{side}"].mem(
        pair * g.cached_chunks + start, count, planes=3 << 2 * half, cells=cells,
        **({"index": index} if index else {}))
    return As(mem, (Fmt.LO16, Fmt.HI16)[half])


def _new_scale(b: Builder, kv: int) -> Mem:
    """Where the scale of the token's key goes."""
    return key_scales(b, kv, 0, 1, now=True, index=register_of(b.placement, INDEX_SCALE)).loc


# --- values --------------------------------------------------------------------------------------------------------


def _value(b: Builder, matrix: Matrix, head_set: int, vectors: list[tuple[Acc, int]], er: int | None) -> None:
    """int8 values of a head set into SRAM, each byte on all planes."""
    for v, (acc, start) in enumerate(vectors):
        requantise(b, b.cluster("value"), matrix, acc, start, pre=b.shifts.qkv_pre, post=b.shifts.v, sat=Sat.S8,
                   rep=Rep.REP8, dst=value_temp(b, head_set, v), **less(er))


def value_temp(b: Builder, head_set: int, vector: int) -> Mem:
    return b.tensor("vtemp", head_set * b.geometry.head_vectors + vector, 1)


def spread_values(b: Builder, head_set: int) -> None:
    """Values of a head set lane by lane into the transposed cache; a burst fills one plane of one weight group."""
    g, rows = b.geometry, b.config.rows
    if _copies(b, head_set * g.heads_per_vector)[0] < head_set * g.heads_per_vector:
        return  # it goes with the first copy
    span = min(b.model.head_size, g.lanes)
    for v in range(g.head_vectors):
        for member in range(g.heads_per_vector):
            kv = head_set * g.heads_per_vector + member
            if kv >= b.model.kv_heads:
                continue
            cluster = b.cluster("value")
            copies = cluster.read(value_temp(b, head_set, v), SXM["E"], span)
            for row in range(rows):
                lanes = cluster.sxm(copies, Op.SHIFT, first=row * (span // rows), count=span // rows,
                                    lane=member * span + row, lane_inc=rows % g.lanes, distribute=1)
                group, plane = row // 4 + 1, row % 4
                for copy in _copies(b, kv):
                    tensor = b.placement.v[copy, group]
                    cluster.write(lanes, tensor.mem(v * g.vector_entries, span // rows, planes=1 << plane,
                                                    index=register_of(b.placement, INDEX_V),
                                                    cells=_value_cells(b, copy, v, [row])))


def _value_cells(b: Builder, kv: int, vector: int, rows: Iterable[int]) -> tuple[Cell, ...]:
    """What stands for some rows of the values of the token that is being computed."""
    return tuple(("V", kv, vector, row, b.placement.sequence) for row in rows)


def values(b: Builder, kv: int, group: int, chunks: int) -> Mem:
    """Values of the first `chunks` vectors of positions, the token's own among them."""
    g = b.geometry
    cells = tuple(cell for v in range(g.head_vectors)
                  for cell in _value_cells(b, kv, v, range(4 * (group - 1), 4 * group)))
    return b.placement.v[kv, group].mem(0, chunks * g.head_entries, cells=cells)


# --- keys and values that chips compute for each other -------------------------------------------------------------


def _copies(b: Builder, kv: int) -> list[int]:
    """This chip's K/V heads that are copies of one of them, or halves, itself among them."""
    share, g = b.geometry.share, b.geometry
    if g.halved:
        return [kv, kv + g.heads_per_vector]
    if not (share and share.dealt):
        return [kv]
    held = share.heads[b.chip].kv
    return [n for n, head in enumerate(held) if head == held[kv]]


def _held(b: Builder, head: int) -> list[int]:
    """This chip's K/V heads that are a head of the model."""
    assert b.geometry.share
    if b.geometry.halved:
        return [0, 1] if head in b.geometry.share.heads[b.chip].kv else []
    return [n for n, each in enumerate(b.geometry.share.heads[b.chip].kv) if each == head]


def _deals(b: Builder, kind: str) -> list[tuple[int, int, int, list[int]]]:
    """(head, chip that computes it, its number there, chips that hold it) of the keys or values of all heads of the
    model, in the order of the heads."""
    share = b.geometry.share
    assert share
    own = [heads.keys if kind == "k" else heads.values for heads in share.heads]
    return [(head, chip, numbers.index(head), [n for n, heads in enumerate(share.heads) if head in heads.kv])
            for head in sorted(set().union(*own)) for chip, numbers in enumerate(own) if head in numbers]


def _dealt_keys(b: Builder, state: TokenState, matrix: Matrix, outputs: dict[tuple[str, int, int], Vectors],
                er: int | None) -> None:
    """Keys, and their scales if they are dynamic, into the caches of all chips that need them."""
    if b.geometry.static_keys:
        _dealt_static_keys(b, state, matrix, outputs, er)
        return
    for head, source, number, holders in _deals(b, "k"):
        y, r, shift = None, None, 0
        if source == b.chip:
            y = _requantised(b, matrix, "k rotate", outputs["k", number, 0], er)
            r, shift = b.regs(1), b.exponents.take()
            _key_scale(b, state, head, y, r, shift)
        multicast(b, "key", source, holders, count=b.geometry.head_vectors, planes=15,
                  own=partial(_made_key, b, head, y, r, shift), keep=partial(_keep_key, b, head))
        for plane in range(2):  # a scale has 16 bits, in each half of a quad
            multicast(b, "key", source, holders, count=1, planes=5 << plane, plane=plane,
                      own=partial(_made_scale, b, head, 5 << plane), keep=partial(_keep_scale, b, head, 5 << plane))
        if source == b.chip:
            b.free(y, r)
            b.exponents.give(shift)


def _dealt_static_keys(b: Builder, state: TokenState, matrix: Matrix, outputs: dict[tuple[str, int, int], Vectors],
                       er: int | None) -> None:
    for head, source, number, holders in _deals(b, "k"):
        y = None
        if source == b.chip:
            y = _requantised(b, matrix, "k rotate", outputs["k", number, 0], er)
            rotate(b, state, b.cluster("key"), y, dst=y)
        multicast(b, "key", source, holders, count=b.geometry.head_vectors, planes=15,
                  own=partial(_made_static_key, b, head, y, number), keep=partial(_keep_key, b, head))
        b.free(y)


def _made_static_key(b: Builder, head: int, y: Reg | None, number: int, cluster: Cluster) -> Stream:
    """The int8 key, which this chip keeps if it holds the head."""
    assert y
    stream = _less_offset(b, cluster, y, number, interval=sent_interval(b, b.geometry.head_vectors))
    _keep_key(b, head, cluster, stream)
    return stream


def _key_scale(b: Builder, state: TokenState, head: int, y: Reg, r: Reg, er: int) -> None:
    """y = the rotated key; its greatest magnitude, the key's scale, into a quad of "mtemp", and the reciprocal."""
    cluster = b.cluster("key")
    largest = rotate(b, state, cluster, y, dst=y, red=Red.MAXABS, red_slot=BURST_SLOT)
    spread = b.across_lanes(cluster, largest, Red.MAX)
    cluster.write(spread, b.tensor("mtemp", head % 2, 1))
    b.alu(cluster, a=spread, func=Func.RECIP, post=FRAC[Func.RECIP], alu=Alu.ADD, dst=r, er_dst=er)


def _made_key(b: Builder, head: int, y: Reg | None, r: Reg | None, er: int, cluster: Cluster) -> Stream:
    """The int8 key, which this chip keeps if it holds the head."""
    n = b.geometry.head_vectors
    stream, _ = cluster.alu(a=y, func=Func.MUL, b=r, post=8, er_use=ErUse.POST, er=er, sat=Sat.S8, rep=Rep.REP8,
                            n=n, interval=sent_interval(b, n))
    _keep_key(b, head, cluster, stream)
    return stream


def _keep_key(b: Builder, head: int, cluster: Cluster, stream: Stream) -> None:
    for copy in _held(b, head):
        for group in range(1, b.config.weight_groups + 1):
            cluster.write(stream, _new_keys(b, copy, group))


def _made_scale(b: Builder, head: int, planes: int, cluster: Cluster) -> Stream:
    """The key's scale, of which this chip keeps the bytes of some planes if it holds the head."""
    stream, _ = cluster.alu(a=b.tensor("mtemp", head % 2, 1), rep=Rep.REP16)
    _keep_scale(b, head, planes, cluster, stream)
    return stream


def _keep_scale(b: Builder, head: int, planes: int, cluster: Cluster, stream: Stream) -> None:
    for copy in _held(b, head):
        mem = _new_scale(b, copy)
        cluster.write(stream, replace(mem, planes=mem.planes & planes))


def _dealt_values(b: Builder, matrix: Matrix, outputs: dict[tuple[str, int, int], Vectors], er: int | None) -> None:
    """Values into "vtemp" of all chips that need them."""
    n = b.geometry.head_vectors
    for head, source, number, holders in _deals(b, "v"):
        sent = b.tensor("vsent", number * n, n) if source == b.chip else None
        if sent:
            for v, (acc, start) in enumerate(outputs["v", number, 0]):
                requantise(b, b.cluster("value"), matrix, acc, start, pre=b.shifts.qkv_pre, post=b.shifts.v, sat=Sat.S8,
                           rep=Rep.REP8, dst=sent[v : v + 1], **less(er))
        multicast(b, "value", source, holders, count=n, planes=15,
                  own=partial(_made_value, b, head, sent), keep=partial(_keep_value, b, head))


def _made_value(b: Builder, head: int, sent: Mem | None, cluster: Cluster) -> Stream:
    assert sent
    stream, _ = cluster.alu(a=sent, n=sent.count, interval=sent_interval(b, sent.count))
    _keep_value(b, head, cluster, stream)
    return stream


def _keep_value(b: Builder, head: int, cluster: Cluster, stream: Stream) -> None:
    for copy in _held(b, head)[:1]:  # of several, `spread_values` reads the first
        cluster.write(stream, b.tensor("vtemp", copy * b.geometry.head_vectors, b.geometry.head_vectors))
