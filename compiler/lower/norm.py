"""RMS norm: from the residual to int8 in the activation buffers.

Where each chip of a rack has its vectors of the residual only, it norms these. The chips exchange their sums of
squares, the exponents, and the result.
"""

from dataclasses import replace
from typing import Any

from arch.config import PLANES
from arch.isa import Alu, ErUse, Fmt, Func, Red, Sat
from compiler.ir import BURST_SLOT, Act, As, Cluster, Imm, Reg, Stream
from program.integer import NORM_OPERAND_BITS

from .builder import FRAC, Builder
from .exchange import gather, sent_interval
from .state import TokenState

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
        cluster, h16, exponent = b.cluster(label), b.tensor("h16"), b.exponents.take()
        _, largest = b.alu(cluster, **scaled, sat=Sat.S16, dst=h16, red=Red.MAXABS, red_slot=BURST_SLOT)
        exponent_of_all(b, cluster, largest, exponent)
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
    eps = {"a": Imm(b.model.eps), **square, "red": Red.SUM, "red_slot": NORM_SLOT}
    if state.shift is None:
        cluster = b.cluster(label)
        _, total = cluster.alu(a=residual, **square, alu=Alu.ADD, c=Imm(b.model.eps), n=n, red=Red.SUM,
                               red_slot=BURST_SLOT)
    elif b.chip and _scattered(b):  # the first chip adds it for all
        cluster = b.cluster(label)
        _, total = cluster.alu(a=residual, **square, n=n, red=Red.SUM, red_slot=NORM_SLOT)
    else:
        b.op(label, a=residual, **square, n=n, red=Red.SUM, red_slot=NORM_SLOT)
        cluster = b.cluster(label)
        _, total = cluster.alu(**eps, red_keep=1)
    if _scattered(b):
        cluster.write(total, b.tensor("squares", b.chip, 1))
        cluster, total = _sum_of_all(b, label)
    b.alu(cluster, a=b.across_lanes(cluster, total, Red.SUM), func=Func.RSQRT, post=FRAC[Func.RSQRT], alu=Alu.ADD,
          dst=r, er_dst=er)
    b.op(label, a=residual, **shift, func=Func.MUL, b=gain, post=s.norm_g, sat=Sat.S18, n=n, dst=b.tensor("xg"))
    return r, er


def largest_so_far(first: bool) -> dict[str, Any]:
    """Fields of the operations that write the residual, if norms shift it by a token's exponent: the greatest magnitude
    of all. first: the first of them."""
    return {"red": Red.MAXABS, "red_slot": NORM_SLOT, "red_keep": int(not first)}


def operand_shift(b: Builder, cluster: Cluster, largest: Stream, er: int) -> None:
    """Exponent register `er` = the shift that makes a norm's operand of a residual with this greatest magnitude."""
    exponent_of_all(b, cluster, largest, er, NORM_OPERAND_BITS)


# --- of all chips --------------------------------------------------------------------------------------------------


def _scattered(b: Builder) -> bool:
    """Whether each chip has its vectors of the residual only."""
    return bool(b.geometry.share and b.geometry.share.scattered)


def exponent_of_all(b: Builder, cluster: Cluster, largest: Stream, er: int, bits: int = 7) -> None:
    """`Builder.exponent` of the largest lane of this chip and, if the residual is scattered, of all others."""
    if not _scattered(b):
        b.exponent(cluster, largest, er, bits)
        return
    b.alu(cluster, a=b.across_lanes(cluster, largest, Red.MAX), func=Func.BITLEN, alu=Alu.ADD, c=Imm(-bits),
          dst=b.tensor("exponents", b.chip, 1))
    gather(b, "exponents", _each(b))
    cluster, every = b.cluster("exponent"), replace(b.tensor("exponents"), planes=1)
    _, greatest = cluster.alu(a=As(every, Fmt.B0), n=every.count, red=Red.MAX, red_slot=BURST_SLOT)
    b.alu(cluster, a=b.across_lanes(cluster, greatest, Red.MAX), er_dst=er)


def _each(b: Builder) -> list[range]:
    """A quad of each chip."""
    assert b.geometry.share
    return [range(chip, chip + 1) for chip in range(len(b.geometry.share.heads))]


def _sum_of_all(b: Builder, label: str) -> tuple[Cluster, Stream]:
    """The sum of all chips' "squares", lane by lane."""
    gather(b, "squares", _each(b), PLANES)
    cluster, every = b.cluster(label), b.tensor("squares")
    return cluster, cluster.alu(a=every, n=every.count, red=Red.SUM, red_slot=BURST_SLOT)[1]


def _load_of_all(b: Builder, op: dict[str, Any], acts: dict[str, Act]) -> None:
    """The results of an operation, one for each of this chip's vectors, into their entries of all chips."""
    share = b.geometry.share
    assert share
    entries = [{side: act.entries(part.start, len(part)) for side, act in acts.items()} for part in share.residual]

    def load(cluster: Cluster) -> Stream:
        stream, _ = cluster.alu(**op, interval=sent_interval(b, op["n"]))
        b.load(cluster, stream, entries[b.chip])
        return stream

    gather(b, "normed", share.residual, own=load,
           acts={chip: entry for chip, entry in enumerate(entries) if chip != b.chip})
