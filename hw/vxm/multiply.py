"""Stages 5 and 6: the product, and the post shift in two parts."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from arch import tables

from ..idioms import named
from .arithmetic import PRODUCT_BITS

FAR = 4
"""First bit of a post shift that acts in stage 5. Lower bits act in stage 6."""


def multiply(m: Module, decoded: data.View, product: Value, passed: Value, amount: Value) -> Value:
    """Stage 5: the product or the bypassed value, shifted right by the upper bits of the amount.

    The result has one more bit at its low end, for rounding.
    """
    p = Signal(signed(PRODUCT_BITS), name="product")
    by = Cat(decoded.s5_bypass.replicate(tables.CENTRE_BITS), decoded.s5_pass.replicate(32 - tables.CENTRE_BITS))
    m.d.comb += p.eq(product | (passed & by).as_signed())
    return _shifted(m, Cat(Const(0, 1), p), amount, range(FAR, len(amount)))


def _shifted(m: Module, x: Value, amount: Value, bits: range) -> Value:
    """x shifted right arithmetically by the given bits of the amount."""
    for bit in reversed(bits):
        x = named(m, Mux(amount[bit], Cat(x[1 << bit :], x[-1].replicate(1 << bit)), x), f"shifted{1 << bit}")
    return x


def round_product(m: Module, decoded: data.View, p: Value, amount: Value) -> dict[str, Value]:
    """Stage 6: p shifted right by the lower bits of the amount and rounded, and `over`: it exceeds 32 bits."""
    x, q = _shifted(m, p, amount, range(FAR)), Signal(PRODUCT_BITS, name="q")
    m.d.comb += q.eq(x[1:] + (decoded.s6_round & x[0]))
    sign = q[-1]
    return {"q": Cat(q[:31], sign), "over": q[31:-1] != sign.replicate(PRODUCT_BITS - 32)}
