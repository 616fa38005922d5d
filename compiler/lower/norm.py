"""RMS norm: from the residual to int8 in the activation buffers."""

from typing import Any

from arch.isa import Alu, ErUse, Func, Red, Sat
from compiler.ir import BURST_SLOT, Act, As, Imm, Mem, Reg
from program.integer import NORM_OPERAND_BITS, RESIDUAL

from .builder import FRAC, Builder

NORM_SLOT = 3
"""Reduction slot of a norm's sum of squares, if it goes on in a second burst."""


def norm(b: Builder, residual: Reg | Mem, label: str, *, gain: As, site: str, post: int,
         acts: dict[str, Act] | None = None) -> tuple[dict[str, Act], int | None]:
    """(the normed residual in the activation buffers of both sides, register of its exponent if that is dynamic).

    Reads the residual, writes the tensors "xg" and, with an exponent, "h16". gain: channel gains. site: name among
    `integer.SITES`. post: shift of gained operand * rsqrt. acts: entries to write, by default new ones.
    The caller returns the exponent.
    """
    n, exponent = b.geometry.dim, None
    r, er = _gained(b, residual, label, gain)
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


def _gained(b: Builder, residual: Reg | Mem, label: str, gain: As) -> tuple[Reg, int]:
    """Gained operands in "xg"; (register of 1 / root of the mean square, register of its exponent)."""
    s, n = b.shifts, b.geometry.dim
    r, er = b.regs(1), b.exponents.take()
    shift, shifter = _operand_shift(b, residual, label)
    square = {**shift, "func": Func.SQUARE, "post": s.norm_sq}
    if shifter is None:
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
    b.free_exponent(shifter)
    return r, er


def _operand_shift(b: Builder, residual: Reg | Mem, label: str) -> tuple[dict[str, Any], int | None]:
    """Fields of an operation that make a norm's operand of the residual; the register of the token's exponent among
    them, if there is one: the caller returns it."""
    if RESIDUAL not in b.model.dynamic:
        return {"pre": b.shifts.norm_x}, None
    er, cluster = b.exponents.take(), b.cluster(label)
    _, largest = cluster.alu(a=residual, n=b.geometry.dim, red=Red.MAXABS, red_slot=BURST_SLOT)
    b.exponent(cluster, largest, er, NORM_OPERAND_BITS)
    return {"er_use": ErUse.PRE, "er": er}, er
