"""Second half of a layer on a chip of a rack.

Each chip computes its channels of the inner layer, and its rows of W2's product with the channels of all chips. W2's
product with what is here runs while the rest is computed, or on its way.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from arch.isa import Alu, ErUse, Fmt, Func, Red, Sat
from arch.vectors import SIDES
from compiler.ir import Acc, Act, As, Cluster, Imm, Mem, Stream
from compiler.place.geometry import DRAIN_BURST
from compiler.place.share import Share

from .builder import Builder, less
from .exchange import gather, sent_interval
from .feed_forward import Inner, gate, multiply_down, vector_groups
from .norm import gain_of, norm
from .product import add_to_residual, last_of, product
from .state import TokenState

ALIGN = 16
"""Of the first activation entry."""
EXPONENT_BITS = 7
"""Bits that an exponent leaves of the greatest magnitude."""

Pieces = list[tuple[range, dict[str, Act]]]
"""Vectors of the inner layer, and the activation entries that they are in."""


@dataclass(eq=False)
class _Products:
    """W1's and W3's products of the chip's vectors, DRAIN_BURST by DRAIN_BURST: one is computed ahead."""

    b: Builder
    inner: Inner
    inputs: dict[str, Act]
    first: int
    chunks: list[range]

    def __post_init__(self) -> None:
        self._ready: list[list[Acc]] = []

    def __call__(self, chunk: range) -> list[Acc]:
        """Accumulators of a chunk, a side each. Chunks are asked for in order."""
        number = self.chunks.index(chunk)
        for part in self.chunks[len(self._ready) : number + 2]:
            self._ready.append([product(self.b, self.inner.matrix, self.inputs[side], part.start - self.first,
                                        len(part)) for side in SIDES])
        return self._ready[number]


def feed_forward_of_all(b: Builder, state: TokenState) -> None:
    """residual += W2 (silu(W1 x) * W3 x), x = norm(residual)."""
    share = _share(b)
    room = _Entries(b)
    inputs, er = norm(b, state, "ffn norm", gain=gain_of(b, "g_layer", 1), site="ffn_norm",
                      post=b.shifts.norm_ffn, acts=room.take(b.geometry.dim))
    inner = Inner(state=state, matrix=b.placement.matrices["w13"], er=er, gated=None)
    dynamic = "silu" in b.model.dynamic
    rounds = _rounds(share, [range(*group) for group in vector_groups(b)] if dynamic else [range(b.geometry.inner)])
    own = share.hidden[b.chip]
    chunks = [chunk for groups in rounds for group in groups for chunk in _chunks(_common(own, group), own.start)]
    products = _Products(b, inner, inputs, own.start, chunks)
    for groups in rounds:
        parts = [[_common(hidden, group) for hidden in share.hidden] for group in groups]
        if dynamic:
            _dynamic(b, inner, products, parts, room, fresh=groups is rounds[0], complete=groups is rounds[-1])
        else:
            _static(b, inner, products, *parts, room)
    b.free_exponent(er)


def _rounds(share: Share, groups: Sequence[range]) -> list[list[range]]:
    """Groups that the chips compute at the same time: in a round, each chip has some of one group at most. Those of
    several chips come first, because their exponents take longer."""
    def owners(group: range) -> set[int]:
        return {chip for chip, part in enumerate(share.hidden) if _common(part, group)}

    rounds: list[tuple[set[int], list[range]]] = []
    for group in sorted(groups, key=lambda group: -len(owners(group))):
        own = owners(group)
        found = next((each for each in rounds if not each[0] & own), None)
        if found is None:
            rounds.append(found := (set(), []))
        found[0].update(own)
        found[1].append(group)
    return [found for _, found in rounds]


class _Entries:
    """The layer's entries in the activation buffers: neighbours from one of few places on, so that the buckets have few
    distinct instructions. A buffer that does not hold all of them gives each value the next place."""

    def __init__(self, b: Builder) -> None:
        self._b, self._next, count = b, 0, b.geometry.dim + b.geometry.inner
        fits = count <= min(ring.size for ring in b.activations.values())
        self._block = b.acts(count, ALIGN) if fits else None

    def take(self, count: int) -> dict[str, Act]:
        """Entries of both sides, for a new value."""
        if not self._block:
            return self._b.acts(count)
        first, self._next = self._next, self._next + count
        return {side: Act(side, act.base + first, count) for side, act in self._block.items()}

    def for_down(self, vectors: range) -> dict[str, Act]:
        """Entries for vectors of the inner layer, of the sides that compute some of W2's product."""
        return self._b.placement.matrices["w2"].inputs(self.take(len(vectors)))


def _share(b: Builder) -> Share:
    assert b.geometry.share
    return b.geometry.share


def _common(one: range, other: range) -> range:
    start = max(one.start, other.start)
    return range(start, max(start, min(one.stop, other.stop)))


def _chunks(vectors: range, first: int) -> list[range]:
    """Bursts of some vectors; first: vector that a burst may begin with, as each DRAIN_BURST-th from it on."""
    begin = vectors.start - (vectors.start - first) % DRAIN_BURST
    parts = [_common(range(start, start + DRAIN_BURST), vectors) for start in range(begin, vectors.stop, DRAIN_BURST)]
    return [part for part in parts if part]


# --- static input of W2 --------------------------------------------------------------------------------------------


def _static(b: Builder, inner: Inner, products: _Products, parts: Sequence[range], room: "_Entries") -> None:
    """The chips exchange their vectors chunk by chunk. The product with those of others is a chunk behind."""
    chunks = [_chunks(part, part.start) for part in parts]
    sums, last, matrix = dict[str, Acc](), dict[str, Acc](), b.placement.matrices["w2"]
    for k in range(max(map(len, chunks))):
        now = [own[k] if k < len(own) else range(0) for own in chunks]
        acts = {chip: room.for_down(part) for chip, part in enumerate(now) if part}
        mine, op = now[b.chip], dict[str, Any]()
        if mine:
            op = gate(b, inner, mine.start - products.first, products(mine), sat=Sat.S8)
        gather(b, "gates", now, acts=_others(b, acts), own=functools.partial(_load, b, op, acts.get(b.chip, {})))
        sums = _down(b, [(mine, acts[b.chip])] if mine else [], sums)
        sums = _down(b, [(now[chip], entries) for chip, entries in _others(b, acts).items()], sums)
        for n, (chip, entries) in enumerate(acts.items()):
            last_of(b, matrix, entries, now[chip].start, SIDES[n % 2], last)
    _add(b, inner, sums, None, last=last)


def _load(b: Builder, op: dict[str, Any], acts: dict[str, Act], cluster: Cluster) -> Stream:
    """An operation whose results are loaded, and sent."""
    stream, _ = cluster.alu(**op, interval=sent_interval(b, op["n"]))
    b.load(cluster, stream, acts)
    return stream


def _others(b: Builder, acts: dict[int, dict[str, Act]]) -> dict[int, dict[str, Act]]:
    return {chip: entries for chip, entries in acts.items() if chip != b.chip}


def _down(b: Builder, pieces: Pieces, sums: dict[str, Acc]) -> dict[str, Acc]:
    """W2's sums with the product of some pieces; the first of them makes new sums."""
    matrix = b.placement.matrices["w2"]
    for part, acts in pieces:
        fresh = not sums
        if fresh:
            sums = {side: Acc(side, b.accumulators[side].take(count), count)
                    for side in acts if (count := len(matrix.vectors[side]))}
        multiply_down(b, part.start, acts, sums, fresh)
    return sums


def _add(b: Builder, inner: Inner, sums: dict[str, Acc], er: int | None, *, fresh: bool = True, complete: bool = True,
         last: dict[str, Acc]) -> None:
    add_to_residual(b, inner.state, b.placement.matrices["w2"], sums, pre=b.shifts.w2_pre, post=b.shifts.w2,
                    fresh=fresh, complete=complete, last=last, **less(er))


# --- input of W2 with exponents ------------------------------------------------------------------------------------


def _dynamic(b: Builder, inner: Inner, products: _Products, groups: Sequence[Sequence[range]], room: "_Entries", *,
             fresh: bool, complete: bool) -> None:
    """A round of groups of channels. The exponent of each is the greatest of all chips that have some of it.

    groups: of each group, the part of each chip. fresh, complete: it is the first or the last round.
    """
    f = dict[int, Mem]()
    for n, parts in enumerate(groups):
        if mine := parts[b.chip]:
            f[n] = _unquantised(b, inner, products, mine)
    exponents = list[int]()
    for parts in groups:
        gather(b, "exponents", [range(chip, chip + bool(part)) for chip, part in enumerate(parts)])
        exponents.append(_greatest_exponent(b, [chip for chip, part in enumerate(parts) if part]))
    entries = list[dict[int, dict[str, Act]]]()
    for n, parts in enumerate(groups):
        acts = {chip: room.for_down(part) for chip, part in enumerate(parts) if part}
        op = {"a": f.get(n), "er_use": ErUse.PRE, "er": exponents[n], "sat": Sat.S8, "n": len(parts[b.chip])}
        gather(b, "gates", parts, acts=_others(b, acts), own=functools.partial(_load, b, op, acts.get(b.chip, {})))
        entries.append(acts)
    for n, (parts, acts) in enumerate(zip(groups, entries, strict=True)):
        order = sorted(acts, key=lambda chip: chip != b.chip)
        pieces, last = [(parts[chip], acts[chip]) for chip in order], dict[str, Acc]()
        sums = _down(b, pieces, {})
        for part, entries_of in pieces:
            last_of(b, b.placement.matrices["w2"], entries_of, part.start, SIDES[n % 2], last)
        _add(b, inner, sums, exponents[n], fresh=fresh and not n, complete=complete and n == len(groups) - 1, last=last)
        b.free_exponent(exponents[n])


def _unquantised(b: Builder, inner: Inner, products: _Products, mine: range) -> Mem:
    """This chip's channels of a group, before they are quantised. Their exponent goes to the chip's place."""
    f = b.tensor("f", mine.start - products.first, len(mine))
    for chunk in _chunks(mine, products.first):
        dst = f[chunk.start - mine.start : chunk.stop - mine.start]
        op = gate(b, inner, chunk.start - products.first, products(chunk), dst=dst, sat=Sat.S32, red=Red.MAXABS,
                  red_slot=3, red_keep=int(chunk.start > mine.start))
        cluster = b.cluster("gate")
        _, largest = b.alu(cluster, **op)
        if chunk.stop == mine.stop:
            _exponent(b, cluster, largest)
    return f


def _exponent(b: Builder, cluster: Cluster, largest: Stream) -> None:
    """Into the chip's place: the shift that leaves EXPONENT_BITS of the largest lane."""
    b.alu(cluster, a=b.across_lanes(cluster, largest, Red.MAX), func=Func.BITLEN, alu=Alu.ADD, c=Imm(-EXPONENT_BITS),
          dst=b.tensor("exponents", b.chip, 1))


def _greatest_exponent(b: Builder, owners: Sequence[int]) -> int:
    """An exponent register with the greatest exponent of these chips. The caller returns it."""
    er, greatest = b.exponents.take(), b.regs(1)
    for n, chip in enumerate(owners):
        exponent = As(replace(b.tensor("exponents", chip, 1), planes=1), Fmt.B0)
        fields = {"alu": Alu.MAX, "c": greatest} if n else {}
        last = {"er_dst": er} if n == len(owners) - 1 else {}
        b.op("ffn exponent", a=exponent, **fields, **last, dst=greatest)
    b.free(greatest)
    return er
