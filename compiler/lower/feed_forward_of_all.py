"""Second half of a layer on a chip of a rack.

Each chip computes its channels of the inner layer, and its rows of W2's product with the channels of all chips. W2's
product with what is here runs while the rest is computed, or on its way. If W2 is divided by columns (`Share.summed`),
the chips add up their sums instead, see `sums`.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from arch.isa import Alu, ErUse, Fmt, Func, Red, Sat
from arch.vectors import SIDES
from compiler.ir import Acc, Act, As, Cluster, Imm, Mem, Stream
from compiler.place.placement import FIRST
from compiler.place.rounds import chunks as chunks_of
from compiler.place.rounds import common, own_chunks, rounds_of
from compiler.place.share import Share

from .builder import Builder, less
from .collectives import all_gather, all_gather_one
from .exchange import sent_interval
from .feed_forward import Inner, gate, multiply_down
from .norm import gain_of, norm
from .product import add_to_residual, last_of, product, product_as_it_comes
from .state import TokenState
from .sums import Pieces, add_sums

ALIGN = 16
"""Of the first activation entry."""
EXPONENT_BITS = 7
"""Bits that an exponent leaves of the greatest magnitude."""

AHEAD = 3
"""Bursts of W1's and W3's products that go before W2's, if the first of them takes its input as it comes: the exchange
of their results hides behind W2's."""



@dataclass(eq=False)
class _Products:
    """W1's and W3's products of the chip's vectors, DRAIN_BURST by DRAIN_BURST: one or AHEAD of them are computed
    ahead.

    first: the chip's first vector.
    """

    b: Builder
    inner: Inner
    inputs: dict[str, Act]
    first: int
    chunks: list[range]

    def __post_init__(self) -> None:
        self._ready: list[list[Acc]] = []
        self._early = self.b.placement.matrices.get(f"w13{FIRST}")

    def gate(self, chunk: range, **fields: Any) -> dict[str, Any]:
        """`feed_forward.gate` of a chunk. Chunks are asked for in order."""
        number = self.chunks.index(chunk)
        for part in self.chunks[len(self._ready) : number + 1 + (AHEAD if self._early else 1)]:
            inner, start = self._place(part)
            before = len(self.b.blocks[-1].clusters)
            if self._early and inner.matrix is self._early:
                self._ready.append([*product_as_it_comes(self.b, self._early, self.inputs).values()])
            else:
                self._ready.append([product(self.b, inner.matrix, self.inputs[side], start, len(part))
                                    for side in SIDES])
            if self._early:
                self.b.in_order(before, chain=True)
        inner, start = self._place(chunk)
        return gate(self.b, inner, start, self._ready[number], **fields)

    def _place(self, chunk: range) -> tuple[Inner, int]:
        """The matrix that has a chunk, and the number of its first vector there."""
        begin, start = self.chunks[0], chunk.start - self.first
        if not self._early:
            return self.inner, start
        if chunk == begin:
            return replace(self.inner, matrix=self._early), 0
        return self.inner, start - (len(begin) if chunk.start > begin.start else 0)


def feed_forward_of_all(b: Builder, state: TokenState) -> None:
    """residual += W2 (silu(W1 x) * W3 x), x = norm(residual)."""
    share = _share(b)
    room = _Entries(b)
    inputs, er = norm(b, state, "ffn norm", gain=gain_of(b, "g_layer", 1), site="ffn_norm",
                      post=b.shifts.norm_ffn, acts=room.take(b.geometry.dim))
    inner = Inner(state=state, matrix=b.placement.matrices["w13"], er=er, gated=None)
    dynamic = "silu" in b.model.dynamic
    rounds = rounds_of(b.geometry)
    products = _Products(b, inner, inputs, share.hidden[b.chip].start, own_chunks(b.geometry))
    for groups in rounds:
        parts = [[common(hidden, group) for hidden in share.hidden] for group in groups]
        if dynamic:
            _dynamic(b, inner, products, parts, room, fresh=groups is rounds[0], complete=groups is rounds[-1])
        else:
            _static(b, inner, products, parts[0], room)
    b.free_exponent(er)


class _Entries:
    """The layer's entries in the activation buffers: neighbours from one of few places on, so that the buckets have few
    distinct instructions. A buffer that does not hold all of them gives each value the next place."""

    def __init__(self, b: Builder) -> None:
        self._b, self._next, count = b, 0, b.geometry.dim + len(b.geometry.down)
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


# --- static input of W2 --------------------------------------------------------------------------------------------


def _static(b: Builder, inner: Inner, products: _Products, parts: Sequence[range], room: "_Entries") -> None:
    """The chips exchange their vectors chunk by chunk. The product with those of others is a chunk behind."""
    chunks = [chunks_of(part, part.start) for part in parts]
    sums, last, matrix = dict[str, Acc](), dict[str, Acc](), b.placement.matrices["w2"]
    if _share(b).summed:
        _static_sums(b, inner, products, chunks[b.chip], room)
        return
    for k in range(max(map(len, chunks))):
        now = [own[k] if k < len(own) else range(0) for own in chunks]
        acts = {chip: room.for_down(part) for chip, part in enumerate(now) if part}
        mine, op = now[b.chip], dict[str, Any]()
        if mine:
            op = products.gate(mine, sat=Sat.S8)
        all_gather(b, "gates", now, acts=_others(b, acts), own=functools.partial(_load, b, op, acts.get(b.chip, {})))
        sums = _down(b, [(mine, acts[b.chip])] if mine else [], sums)
        sums = _down(b, [(now[chip], entries) for chip, entries in _others(b, acts).items()], sums)
        for n, (chip, entries) in enumerate(acts.items()):
            last_of(b, matrix, entries, now[chip].start, SIDES[n % 2], last)
    _add(b, inner, sums, None, last=last)


def _static_sums(b: Builder, inner: Inner, products: _Products, chunks: Sequence[range], room: "_Entries") -> None:
    pieces: Pieces = []
    for chunk in chunks:
        op, acts, cluster = products.gate(chunk, sat=Sat.S8), room.for_down(chunk), b.cluster("gates")
        b.load(cluster, b.alu(cluster, **op)[0], acts)
        pieces.append((chunk, acts))
    add_sums(b, inner.state, range(len(_share(b).hidden)), pieces, by_chips=True)


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
    f, largest = dict[int, Mem](), dict[int, dict[str, Any]]()
    for n, parts in enumerate(groups):
        if mine := parts[b.chip]:
            f[n], largest[n] = _unquantised(b, inner, products, mine)
    exponents = list[int]()
    for n, parts in enumerate(groups):
        owners = [chip for chip, part in enumerate(parts) if part]
        all_gather_one(b, "exponents", owners, functools.partial(_exponent, b, largest.get(n, {})))
        exponents.append(_greatest_exponent(b, owners))
    entries = list[dict[int, dict[str, Act]]]()
    if _share(b).summed:
        _dynamic_sums(b, inner, groups, f, exponents, room, complete=complete)
        return
    for n, parts in enumerate(groups):
        acts = {chip: room.for_down(part) for chip, part in enumerate(parts) if part}
        op = {"a": f.get(n), "er_use": ErUse.PRE, "er": exponents[n], "sat": Sat.S8, "n": len(parts[b.chip])}
        all_gather(b, "gates", parts, acts=_others(b, acts), own=functools.partial(_load, b, op, acts.get(b.chip, {})))
        entries.append(acts)
    for n, (parts, acts) in enumerate(zip(groups, entries, strict=True)):
        order = sorted(acts, key=lambda chip: chip != b.chip)
        pieces, last = [(parts[chip], acts[chip]) for chip in order], dict[str, Acc]()
        before = len(b.blocks[-1].clusters)
        sums = _down(b, pieces, {})
        for part, entries_of in pieces:
            last_of(b, b.placement.matrices["w2"], entries_of, part.start, SIDES[n % 2], last)
        b.in_order(before, chain=False)
        _add(b, inner, sums, exponents[n], fresh=fresh and not n, complete=complete and n == len(groups) - 1, last=last)
        b.free_exponent(exponents[n])


def _dynamic_sums(b: Builder, inner: Inner, groups: Sequence[Sequence[range]], f: Mapping[int, Mem],
                  exponents: Sequence[int], room: "_Entries", *, complete: bool) -> None:
    """What the chips make of each group has one exponent, so it is added up by itself."""
    for n, parts in enumerate(groups):
        pieces, mine = Pieces(), parts[b.chip]
        if mine:
            acts, cluster = room.for_down(mine), b.cluster("gates")
            b.load(cluster, cluster.alu(a=f[n], er_use=ErUse.PRE, er=exponents[n], sat=Sat.S8, n=len(mine))[0], acts)
            pieces.append((mine, acts))
        sources = [chip for chip, part in enumerate(parts) if part]
        add_sums(b, inner.state, sources, pieces, complete=complete and n == len(groups) - 1, **less(exponents[n]))
        b.free_exponent(exponents[n])


def _unquantised(b: Builder, inner: Inner, products: _Products, mine: range) -> tuple[Mem, dict[str, Any]]:
    """This chip's channels of a group, before they are quantised, and the operation, yet to be written, that ends the
    last of them and reduces to the largest of all."""
    op = dict[str, Any]()
    f = b.tensor("f", mine.start - products.first, len(mine))
    for chunk in chunks_of(mine, products.first):
        dst = f[chunk.start - mine.start : chunk.stop - mine.start]
        op = products.gate(chunk, dst=dst, sat=Sat.S32, red=Red.MAXABS, red_slot=3,
                           red_keep=int(chunk.start > mine.start))
        if chunk.stop < mine.stop:
            b.alu(b.cluster("gate"), **op)
    return f, op


def _exponent(b: Builder, op: dict[str, Any], cluster: Cluster) -> Stream:
    """The shift that leaves EXPONENT_BITS of the largest lane that an operation reduces to."""
    largest = b.across_lanes(cluster, b.alu(cluster, **op)[1], Red.MAX)
    return cluster.alu(a=largest, func=Func.BITLEN, alu=Alu.ADD, c=Imm(-EXPONENT_BITS))[0]


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
