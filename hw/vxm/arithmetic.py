"""Arithmetic that the stages of the VXM share: clamps, sums in one carry chain, selections in one LUT a bit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from ..idioms import named

FACTOR_BITS = 18
PRODUCT_BITS = 2 * FACTOR_BITS - 1
"""Bits of a product. At most one factor is -2**17, so the product needs no further bit."""
MANTISSA_BITS = 15


def pick(x: Value, take_x: Value, y: Value, take_y: Value) -> Value:
    """Select x or y, bit by bit, in one LUT: 0 if neither is taken, 1 if both are."""
    return (x & take_x) | (y & take_y) | (take_x & take_y)


def sum(m: Module, a: Value, b: Value, carry: Value, bits: int, name: str) -> Signal:
    """a + b + carry (signed) in one carry chain."""
    chain, out = Signal(bits + 1, name=f"{name}_chain"), Signal(signed(bits), name=name)
    m.d.comb += [
        chain.eq(Cat(Const(1, 1), Value.cast(a)).as_signed() + Cat(carry, Value.cast(b)).as_signed()),
        out.eq(chain[1:]),
    ]
    return out


def clamp(m: Module, value: Value, limit: int) -> Value:
    """A signed value clamped to +-limit, where limit = 2**n - 1. The result has n + 1 bits, two's complement."""
    bits = limit.bit_length()
    sign, upper = value[-1], value[bits:-1]
    most = named(m, ~sign & upper.any(), "most")
    least = named(m, sign & (~upper.all() | ~value[:bits].any()), "least")
    return Mux(most, limit, Mux(least, -limit & (2 * limit + 1), value[: bits + 1]))[: bits + 1]


def kept(m: Module, value: Value, name: str) -> Signal:
    """A value that the mapper must keep as a signal. Otherwise it splits the logic into more LUTs than the value has
    bits."""
    out = Signal(len(value), name=name, attrs={"keep": 1})
    m.d.comb += out.eq(value)
    return out
