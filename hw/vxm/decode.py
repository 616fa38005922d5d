"""Decoding: an instruction's fields travel with its elements, and registers hold the controls of each stage."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from arch import tables
from arch.isa import HALVES, Alu, Fmt, Func, Sat, Src
from arch.numerics import INT32, SAT_LIMIT

from ..idioms import any_of

CARRIED = ("func", "logical", "round", "alu", "sat", "rep", "dst_e", "dst_w", "rf_we", "er_we", "er_dst",
           "red", "red_slot", "red_keep", "red_e")
"""Instruction fields that travel down the pipeline with an element."""
INTERPOLATED = (Func.RECIP, Func.RSQRT, Func.SIGMOID, Func.LOG2)


def fault(word: data.View) -> Value:
    """`isa.fault` of an instruction."""
    two = (word.b_rf != word.c_rf) | (word.b_inc != word.c_inc)
    halves = [any_of([fmt == one for one in HALVES]) for fmt in (word.b_fmt, word.c_fmt)]
    index = (word.alu == Alu.INDEX) & ((word.b_src != Src.IOTA) | (word.b_fmt != Fmt.I32))
    return (word.b_src == Src.RF) & (word.c_src == Src.RF) & two | ~Cat(halves).all() | index


def decode(m: Module, control: list[data.View], following: SimpleNamespace | None = None) -> data.View:
    """The lanes' controls. Those of stage k are decoded from the fields in stage k - 1 and registered.

    control: the fields in all stages up to the last. The optional stage behind the product decodes nothing.
    following: fields that stage 0 has in the next cycle. With these, controls are decoded a cycle earlier and held in
    one more register, so that what drives all lanes is a register behind a register.
    """
    decoded = Signal(DECODED, reset_less=True)
    if following is None:
        m.d.sync += [getattr(decoded, name).eq(value) for name, value in _values(control[:-1]).items()]
        return decoded
    ahead = Signal(DECODED, name="decoded_ahead", reset_less=True)
    m.d.sync += [decoded.eq(ahead),
                 *(getattr(ahead, name).eq(value) for name, value in _values([following, *control[:-2]]).items())]
    return decoded


def _values(control: Sequence[Any]) -> dict[str, Value]:
    """The controls of each stage, from the fields one stage earlier."""
    shift, normalise, choose, lookup, *_, multiply, near, alu, saturate, write = control

    def func(stage, *funcs):
        return any_of([stage.func == one for one in funcs])

    def ops(stage, *alus):
        return any_of([stage.alu == one for one in alus])

    limits = {Sat.S32: INT32[1], **SAT_LIMIT}
    compares = ops(saturate, Alu.LT, Alu.GT, Alu.EQ)
    limit = any_of([Mux(saturate.sat == sat, Const(value, 31), 0) for sat, value in limits.items()])
    return {
        "arithmetic": ~shift.logical, "round1": shift.round & ~shift.logical,
        **{f"{one.name.lower()}2": func(normalise, one) for one in (Func.MUL, Func.SQUARE, Func.SIGMOID)},
        "mantissa2": func(normalise, Func.RECIP, Func.RSQRT, Func.LOG2),
        "rsqrt3": func(choose, Func.RSQRT), "signed3": func(choose, Func.MUL, Func.SQUARE),
        "interpolate3": func(choose, *INTERPOLATED),
        **{f"{one.name.lower()}4": func(lookup, one)
           for one in (Func.PASS, Func.BITLEN, Func.EXP2, Func.RSQRT, Func.LOG2)},
        "interpolate4": func(lookup, *INTERPOLATED),
        "table4": any_of([Mux(lookup.func == one, tables.TABLES[one].start >> 6, 0) for one in INTERPOLATED]),
        "invert_c4": ops(lookup, Alu.SUB, Alu.LT, Alu.MIN, Alu.MAX, Alu.EQ, Alu.ANDN, Alu.OR, Alu.INDEX),
        "pass5": func(multiply, Func.PASS), "bypass5": func(multiply, Func.PASS, Func.BITLEN, Func.EXP2),
        "round6": near.round,
        "invert_q": ops(alu, Alu.RSUB, Alu.GT, Alu.OR), "carry": ~ops(alu, Alu.ADD),
        "sum": ops(alu, Alu.ADD, Alu.SUB, Alu.RSUB, Alu.LT, Alu.GT, Alu.EQ),
        "min": ops(alu, Alu.MIN), "max": ops(alu, Alu.MAX), "index": ops(alu, Alu.INDEX),
        "conjunction": ops(alu, Alu.AND, Alu.ANDN, Alu.OR, Alu.XOR), "parity": ops(alu, Alu.XOR),
        "invert_y": ops(alu, Alu.OR),
        "limit": Mux(compares, 0, limit), "symmetric": saturate.sat != Sat.S32,
        "compare": compares, "equal": ops(saturate, Alu.EQ),
        "exponent_is_k": func(write, Func.RECIP, Func.RSQRT),
    }


DECODED = data.StructLayout({
    **dict.fromkeys(("arithmetic", "round1", "mul2", "square2", "sigmoid2", "mantissa2",
                     "rsqrt3", "signed3", "interpolate3",
                     "pass4", "bitlen4", "exp24", "rsqrt4", "log24", "interpolate4"), 1),
    "table4": 2,
    **dict.fromkeys(("invert_c4", "pass5", "bypass5", "round6",
                     "invert_q", "carry", "sum", "min", "max", "index", "conjunction",
                     "parity", "invert_y"), 1),
    "limit": 31, "symmetric": 1, "compare": 1, "equal": 1, "exponent_is_k": 1,
})
"""Controls of a lane, the same for all lanes.

A digit at the end of a name is the stage that uses it: `exp24` is EXP2 in stage 4. The names are part of the boards'
netlists and influence their placement, so they change with the next bitstreams.
"""
