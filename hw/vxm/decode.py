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
        "s1_arithmetic": ~shift.logical, "s1_round": shift.round & ~shift.logical,
        **{f"s2_{one.name.lower()}": func(normalise, one) for one in (Func.MUL, Func.SQUARE, Func.SIGMOID)},
        "s2_mantissa": func(normalise, Func.RECIP, Func.RSQRT, Func.LOG2),
        "s3_rsqrt": func(choose, Func.RSQRT), "s3_signed": func(choose, Func.MUL, Func.SQUARE),
        "s3_interpolate": func(choose, *INTERPOLATED),
        **{f"s4_{one.name.lower()}": func(lookup, one)
           for one in (Func.PASS, Func.BITLEN, Func.EXP2, Func.RSQRT, Func.LOG2)},
        "s4_interpolate": func(lookup, *INTERPOLATED),
        "s4_table": any_of([Mux(lookup.func == one, tables.TABLES[one].start >> 6, 0) for one in INTERPOLATED]),
        "s4_invert_c": ops(lookup, Alu.SUB, Alu.LT, Alu.MIN, Alu.MAX, Alu.EQ, Alu.ANDN, Alu.OR, Alu.INDEX),
        "s5_pass": func(multiply, Func.PASS), "s5_bypass": func(multiply, Func.PASS, Func.BITLEN, Func.EXP2),
        "s6_round": near.round,
        "s7_invert_q": ops(alu, Alu.RSUB, Alu.GT, Alu.OR), "s7_carry": ~ops(alu, Alu.ADD),
        "s7_sum": ops(alu, Alu.ADD, Alu.SUB, Alu.RSUB, Alu.LT, Alu.GT, Alu.EQ),
        "s7_min": ops(alu, Alu.MIN), "s7_max": ops(alu, Alu.MAX), "s7_index": ops(alu, Alu.INDEX),
        "s7_conjunction": ops(alu, Alu.AND, Alu.ANDN, Alu.OR, Alu.XOR), "s7_parity": ops(alu, Alu.XOR),
        "s7_invert_y": ops(alu, Alu.OR),
        "s8_limit": Mux(compares, 0, limit), "s8_symmetric": saturate.sat != Sat.S32,
        "s8_compare": compares, "s8_equal": ops(saturate, Alu.EQ),
        "s9_exponent_is_k": func(write, Func.RECIP, Func.RSQRT),
    }


DECODED = data.StructLayout({
    **dict.fromkeys(("s1_arithmetic", "s1_round", "s2_mul", "s2_square", "s2_sigmoid", "s2_mantissa",
                     "s3_rsqrt", "s3_signed", "s3_interpolate",
                     "s4_pass", "s4_bitlen", "s4_exp2", "s4_rsqrt", "s4_log2", "s4_interpolate"), 1),
    "s4_table": 2,
    **dict.fromkeys(("s4_invert_c", "s5_pass", "s5_bypass", "s6_round",
                     "s7_invert_q", "s7_carry", "s7_sum", "s7_min", "s7_max", "s7_index", "s7_conjunction",
                     "s7_parity", "s7_invert_y"), 1),
    "s8_limit": 31, "s8_symmetric": 1, "s8_compare": 1, "s8_equal": 1, "s9_exponent_is_k": 1,
})
"""Controls of a lane, the same for all lanes. `s4_exp2` is EXP2 in stage 4, the stage that uses it."""
