"""Stages 1 and 2: the pre shift, and the first steps of normalisation."""

from amaranth.hdl import Cat, Const, Module, Mux, Value
from amaranth.lib import data

from ..idioms import any_of, named
from .arithmetic import FACTOR_BITS, MANTISSA_BITS, kept, pick


def pre_shift(m: Module, decoded: data.View, a: Value, amount: Value) -> Value:
    """Stage 1: a shifted right by the amount, or left if the amount is negative.

    A left shift by n is the upper half of {a, 0} >> (32 - n).
    """
    left, far, fill = amount[5], amount[4], decoded.s1_arithmetic & a[31]
    right_near, right_far, left_near, left_far = (named(m, value, name) for name, value in (
        ("right_near", ~left & ~far), ("right_far", ~left & far),
        ("left_near", left & ~far), ("left_far", left & far)))
    far_fill, fill = named(m, right_far & fill, "far_fill"), named(m, ~left & fill, "fill")

    def choose(x, take_x, y, take_y):
        return pick(x, take_x.replicate(len(x)), y, take_y.replicate(len(y)))

    x = named(m, Cat(
        right_far & a[15],
        choose(a[:16], right_near, a[16:], right_far),
        choose(a[16:], named(m, right_near | far_fill, "take_high"), a[:16], named(m, left_far | far_fill, "take_low")),
        choose(a[:15], named(m, left_near | fill, "left_low"), a[16:31], named(m, left_far | fill, "left_high")),
    ), "shifted16")
    for bit in (3, 2, 1, 0):
        x = named(m, Mux(amount[bit], x[1 << bit :], x[: len(x) - (1 << bit)]), f"shifted{1 << bit}")
    return (x[1:] + (decoded.s1_round & x[0]))[:32]


def _normalise(m: Module, x: Value) -> tuple[Value, Value]:
    """x (31 bits, unsigned) shifted left by 16, 8 and 4 while its upper bits are 0.

    At most 3 leading zeros are left, unless x is 0. All three shifts are decided from the nibbles of the unshifted x.

    Returns which of the shifts by 4, 8 and 16 were made, and the shifted x.
    """
    x = named(m, Cat(Const(0, 1), x), "wide")
    some = [kept(m, x[4 * n : 4 * n + 4].any(), f"some{n}") for n in range(8)]
    zeros16 = kept(m, ~any_of(some[4:]), "zeros16")
    zeros8 = kept(m, ~Mux(zeros16, some[3] | some[2], some[7] | some[6]), "zeros8")
    zeros4 = kept(m, ~Mux(zeros8, named(m, Mux(zeros16, some[1], some[5]), "some1_5"),
                           named(m, Mux(zeros16, some[3], some[7]), "some3_7")), "zeros4")
    for width, zeros in ((16, zeros16), (8, zeros8), (4, zeros4)):
        x = shift_zeros(m, x, width, zeros)
    return Cat(zeros4, zeros8, zeros16), x


def shift_zeros(m: Module, x: Value, width: int, zeros: Value) -> Value:
    """x shifted left by `width` if `zeros` is set, without the low bits that can no longer reach the mantissa."""
    return named(m, Mux(zeros, x << width, x)[: len(x)], f"normal{width}")[len(x) - MANTISSA_BITS - width :]


def prepare(m: Module, decoded: data.View, a: Value, b: Value, c: Value) -> dict[str, Value]:
    """Stage 2: the first steps of normalising a, the difference a - c, and the right factor of a product.

    It also makes the controls of `clamped` for a: 18 bits as a left factor, 16 bits as the argument of SIGMOID. Both
    clamps are symmetric. Stage 4 adds the right factor of the table functions.
    """
    sign = a[31]
    zeros, normal = _normalise(m, a[:31] ^ sign.replicate(31))

    low, middle, high = a[:15].any(), a[15:17], a[17:31] ^ sign.replicate(14)
    far = named(m, high.any(), "far")
    over18 = named(m, far | (sign & ~low & ~middle.any()), "over18")
    over16 = named(m, far | (middle ^ sign.replicate(2)).any() | (sign & ~low), "over16")

    def clamping(taken, over):
        """Controls of `clamped`: take the value, set its lowest bit, set its other bits."""
        return Cat(taken & ~over, taken & over, taken & over & ~sign)

    take, lowest, ones = square = named(m, clamping(decoded.s2_square, over18), "square")
    x, most = Cat(a[:17], sign), Cat(lowest, ones.replicate(16))
    right = pick(x, Cat(take.replicate(17) | most, decoded.s2_square),
                  b, Cat(most, Const(0, 1)) | decoded.s2_mul.replicate(FACTOR_BITS))
    return {"zeros": zeros, "normal": normal, "right": right, "below": a.as_signed() - c.as_signed(),
            "factor": square | clamping(decoded.s2_mul, over18), "argument": clamping(decoded.s2_sigmoid, over16),
            "above": decoded.s2_sigmoid & ~sign, "mantissa": decoded.s2_mantissa & ~sign}


def clamped(value: Value, controls: Value) -> Value:
    """A value without its sign, clamped by the `controls` from `prepare`."""
    take, lowest, ones = controls
    return (value & take.replicate(len(value))) | Cat(lowest, ones.replicate(len(value) - 1))
