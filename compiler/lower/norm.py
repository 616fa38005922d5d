"""RMS norm: from the residual to int8 in the activation buffers.

Where each chip of a rack has its vectors of the residual only, it norms these. The chips exchange their sums of
squares, the exponents, and the result.
"""

from collections.abc import Callable, Sequence
from typing import Any

from arch.config import PLANES
from arch.isa import Alu, ErUse, Func, Red, Sat
from compiler.ir import BURST_SLOT, Act, As, Cluster, Imm, Reg, Stream
from program.integer import NORM_OPERAND_BITS

from .builder import FRAC, Builder
from .collectives import all_gather, all_reduce_max, all_reduce_sum
from .exchange import sent_interval
from .state import TokenState

SUM_LANES = PLANES.bit_length() - 1
"""log2 of the lanes that hold the bytes of a sum of squares."""
NORM_SLOT = 3
"""Reduction slot of a norm's sum of squares, if it goes on in a second burst, and of its operand's greatest
magnitude."""


def norm(b: Builder, state: TokenState, label: str, *, gain: As, site: str, post: int,
         acts: dict[str, Act] | None = None) -> tuple[dict[str, Act], int | None]:
    """(the normed residual in the activation buffers of both sides, register of its exponent if that is dynamic).

    Reads the residual and its shift, writes the tensors "xg" and, with an exponent, "h16". gain: channel gains. site:
    name among `integer.SITES`. post: shift of gained operand * rsqrt. acts: entries to write, by default new ones. The
    caller returns the exponent.
    """
    n, exponent = len(b.geometry.resident), None
    r, er = _gained(b, state, label, gain)
    scaled = {"a": b.tensor("xg"), "func": Func.MUL, "b": r, "post": post, "er_use": ErUse.POST, "er": er, "n": n}
    if site in b.model.dynamic:
        h16, exponent = b.tensor("h16"), b.exponents.take()
        rounded = {**scaled, "sat": Sat.S16, "dst": h16, "red": Red.MAXABS, "red_slot": BURST_SLOT}
        exponent_of_all(b, label, lambda cluster: b.alu(cluster, **rounded)[1], exponent)
        scaled = {"a": h16, "er_use": ErUse.PRE, "er": exponent, "n": n}
    acts = acts or b.acts(b.geometry.dim)
    if _scattered(b):
        _load_of_all(b, scaled | {"sat": Sat.S8}, acts)
    else:
        cluster = b.cluster(label)
        h8, _ = cluster.alu(**scaled, sat=Sat.S8)
        b.load(cluster, h8, acts)
    b.free(r)
    b.exponents.give(er)
    return acts, exponent


def gain_of(b: Builder, name: str, number: int = 0) -> As:
    """Gains of a norm: number `number` of those packed in `name`."""
    halves = b.placement.halves[name]
    return halves(number * halves.tensor.quads + b.geometry.resident.start, len(b.geometry.resident))


def _gained(b: Builder, state: TokenState, label: str, gain: As) -> tuple[Reg, int]:
    """Gained operands in "xg"; (register of 1 / root of the mean square, register of its exponent)."""
    s, n, residual = b.shifts, len(b.geometry.resident), state.residual
    r, er = b.regs(1), b.exponents.take()
    shift = {"pre": s.norm_x} if state.shift is None else {"er_use": ErUse.PRE, "er": state.shift}
    square = {**shift, "func": Func.SQUARE, "post": s.norm_sq}
    eps = {"a": Imm(b.model.eps), **square}
    if state.shift is None:
        last = {"a": residual, **square, "alu": Alu.ADD, "c": Imm(b.model.eps), "n": n, "red_slot": BURST_SLOT}
    elif b.chip and _scattered(b):  # the first chip adds it for all
        last = {"a": residual, **square, "n": n, "red_slot": NORM_SLOT}
    else:
        b.op(label, a=residual, **square, n=n, red=Red.SUM, red_slot=NORM_SLOT)
        last = {**eps, "red_slot": NORM_SLOT, "red_keep": 1}
    if _scattered(b):
        cluster, total = _sum_of_all(b, state, last)
    else:
        cluster = b.cluster(label)
        total = cluster.alu(**last, red=Red.SUM)[1]
    b.alu(cluster, a=b.across_lanes(cluster, total, Red.SUM, SUM_LANES if _scattered(b) else None), func=Func.RSQRT,
          post=FRAC[Func.RSQRT], alu=Alu.ADD, dst=r, er_dst=er)
    b.op(label, a=residual, **shift, func=Func.MUL, b=gain, post=s.norm_g, sat=Sat.S18, n=n, dst=b.tensor("xg"))
    return r, er


def largest_so_far(first: bool) -> dict[str, Any]:
    """Fields of the operations that write the residual, if norms shift it by a token's exponent: the greatest magnitude
    of all. first: the first of them."""
    return {"red": Red.MAXABS, "red_slot": NORM_SLOT, "red_keep": int(not first)}


def operand_shift(b: Builder, label: str, largest: Callable[[Cluster], Stream], er: int) -> None:
    """Exponent register `er` = the shift that makes a norm's operand of a residual with this greatest magnitude."""
    exponent_of_all(b, label, largest, er, NORM_OPERAND_BITS)


# --- of all chips --------------------------------------------------------------------------------------------------


def _scattered(b: Builder) -> bool:
    """Whether each chip has its vectors of the residual only."""
    return bool(b.geometry.share and b.geometry.share.scattered)


def exponent_of_all(b: Builder, label: str, largest: Callable[[Cluster], Stream], er: int, bits: int = 7) -> None:
    """`Builder.exponent` of the largest lane of this chip and, if the residual is scattered, of all others. largest:
    adds to a cluster what reduces to it."""
    if not _scattered(b):
        cluster = b.cluster(label)
        b.exponent(cluster, largest(cluster), er, bits)
        return

    def own(cluster: Cluster) -> Stream:
        return cluster.alu(a=b.across_lanes(cluster, largest(cluster), Red.MAX), func=Func.BITLEN, alu=Alu.ADD,
                           c=Imm(-bits))[0]

    all_reduce_max(b, own, er)


def _parts(b: Builder) -> Sequence[range]:
    """By chip, its vectors of the residual."""
    assert b.geometry.share
    return b.geometry.share.residual


def _sum_of_all(b: Builder, state: TokenState, squares: dict[str, Any]) -> tuple[Cluster, Stream]:
    """`all_reduce_sum` of the chips' squares. squares: the operation of this chip that reduces to its own."""
    assert state.bytes is not None

    def own(cluster: Cluster) -> Stream:
        return b.across_lanes(cluster, cluster.alu(**squares, red=Red.SUM)[1], Red.SUM)

    return all_reduce_sum(b, own, state.bytes)


def _load_of_all(b: Builder, op: dict[str, Any], acts: dict[str, Act]) -> None:
    """The results of an operation, one for each of this chip's vectors, into their entries of all chips."""
    entries = [{side: act.entries(part.start, len(part)) for side, act in acts.items()} for part in _parts(b)]

    def load(cluster: Cluster) -> Stream:
        stream, _ = cluster.alu(**op, interval=sent_interval(b, op["n"]))
        b.load(cluster, stream, entries[b.chip])
        return stream

    all_gather(b, "normed", _parts(b), own=load,
               acts={chip: entry for chip, entry in enumerate(entries) if chip != b.chip})
