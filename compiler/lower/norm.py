"""RMS norm: from the residual to int8 in the activation buffers."""

from typing import Any

from arch.isa import Alu, ErUse, Func, Red, Sat
from compiler.ir import BURST_SLOT, Act, As, Cluster, Imm, Reg, Stream
from program.integer import NORM_OPERAND_BITS

from .builder import FRAC, Builder
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
    n, exponent = b.geometry.dim, None
    r, er = _gained(b, state, label, gain)
    cluster = b.cluster(label)
    scaled = {"a": b.tensor("xg"), "func": Func.MUL, "b": r, "post": post, "er_use": ErUse.POST, "er": er, "n": n}
    if site in b.model.dynamic:
        h16, exponent = b.tensor("h16"), b.exponents.take()
        _, largest = b.alu(cluster, **scaled, sat=Sat.S16, dst=h16, red=Red.MAXABS, red_slot=BURST_SLOT)
        b.exponent(cluster, largest, exponent)
        cluster = b.cluster(label)
        scaled = {"a": h16, "er_use": ErUse.PRE, "er": exponent, "n": n}
    h8, _ = cluster.alu(**scaled, sat=Sat.S8)
    acts = acts or b.acts(n)
    b.load(cluster, h8, acts)
    b.free(r)
    b.exponents.give(er)
    return acts, exponent


def gain_of(b: Builder, name: str, number: int = 0) -> As:
    """Gains of a norm: number `number` of those packed in `name`."""
    halves = b.placement.halves[name]
    return halves(number * halves.tensor.quads, b.geometry.dim)


def _gained(b: Builder, state: TokenState, label: str, gain: As) -> tuple[Reg, int]:
    """Gained operands in "xg"; (register of 1 / root of the mean square, register of its exponent)."""
    s, n, residual = b.shifts, b.geometry.dim, state.residual
    r, er = b.regs(1), b.exponents.take()
    shift = {"pre": s.norm_x} if state.shift is None else {"er_use": ErUse.PRE, "er": state.shift}
    square = {**shift, "func": Func.SQUARE, "post": s.norm_sq}
    if state.shift is None:
        cluster = b.cluster(label)
        _, total = cluster.alu(a=residual, **square, alu=Alu.ADD, c=Imm(b.model.eps), n=n, red=Red.SUM,
                               red_slot=BURST_SLOT)
    else:
        b.op(label, a=residual, **square, n=n, red=Red.SUM, red_slot=NORM_SLOT)
        cluster = b.cluster(label)
        _, total = cluster.alu(a=Imm(b.model.eps), **square, red=Red.SUM, red_slot=NORM_SLOT, red_keep=1)
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
    b.exponent(cluster, largest, er, NORM_OPERAND_BITS)
