"""Stages 7 and 8: the ALU and the final saturation."""

from itertools import pairwise
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Value
from amaranth.lib import data

from arch.numerics import INT32, SAT_LIMIT

from ..idioms import any_of, named
from .arithmetic import sum

SATURATED_BITS = sorted(limit.bit_length() for limit in (*SAT_LIMIT.values(), INT32[1]))


def alu(m: Module, decoded: data.View, s: SimpleNamespace, iota: Value) -> dict[str, Value]:
    """Stage 7: y = sat32(q) alu c, before the final saturation. INDEX yields iota.

    Stage 4 has inverted c where the ALU subtracts it or needs its complement. A comparison yields its difference. An
    INDEX that has found nothing sets `beyond`, which saturates in stage 8.
    """
    c, sign = s.c, s.q[-1]
    lower = Mux(s.over, (~sign).replicate(31), s.q[:31])
    q = named(m, Cat(lower, sign) ^ decoded.s7_invert_q.replicate(32), "limited")
    total = sum(m, q.as_signed(), c.as_signed(), decoded.s7_carry, 33, "total")
    less = total[-1]
    take_c = named(m, (decoded.s7_min & ~less) | (decoded.s7_max & less), "take_c")
    both, parity = decoded.s7_conjunction, named(m, decoded.s7_parity | take_c, "parity_or_c")
    logic = named(m, Mux(both, Mux(parity, q ^ c, q & c), Mux(parity, c, q)), "logic")
    inverted = named(m, decoded.s7_invert_y | take_c, "inverted")
    y = named(m, Mux(decoded.s7_sum, total[:33], Cat(logic, logic[-1]) ^ inverted.replicate(33)), "unsaturated")
    found = named(m, decoded.s7_index & ~less, "found")
    return {"y": Mux(found, iota, y), "beyond": decoded.s7_index & less}


def saturate(m: Module, decoded: data.View, y: Value, beyond: Value) -> dict[str, Value]:
    """Stage 8: y clamped to its limit, and `least`, which is set if the result is -2**31.

    A comparison has the limit 0 and yields all ones or all zeros. y exceeds the limit if a bit above the limit's bits
    differs from the sign. A symmetric limit is also exceeded by y = -limit - 1.
    """
    sign, limit = y[-1], decoded.s8_limit
    spans = list(pairwise((0, *SATURATED_BITS, 32)))
    differs = [named(m, (y[low:high] ^ sign.replicate(high - low)).any(), f"differs{low}") for low, high in spans[1:]]
    excess = any_of([d & ~(limit[low] if low < 31 else 0) for d, (low, _) in zip(differs, spans[1:], strict=True)])
    some = named(m, y[spans[0][0] : spans[0][1]].any(), "some")
    zero = ~any_of([some, *(y[low:high].any() & limit[low] for low, high in spans[1:-1])])
    lowest = named(m, sign & zero, "lowest")
    beneath = named(m, Mux(decoded.s8_equal, ~(sign | some | any_of(differs)), sign & ~beyond), "beneath")
    over = named(m, excess | (decoded.s8_symmetric & lowest) | decoded.s8_compare | beyond, "saturated")
    first = Mux(beneath, decoded.s8_symmetric | decoded.s8_compare, limit[0])
    return {"y": Mux(over, Cat(first, limit[1:] ^ beneath.replicate(30), beneath), y[:32]),
            "least": ~decoded.s8_symmetric & ~decoded.s8_compare & Mux(over, beneath, lowest)}
