"""Stages 1 to 8 of one lane, and the registers between them."""

from types import SimpleNamespace

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.config import MAX_LANES, ChipConfig
from arch.isa import COUNT_BITS

from ..idioms import register
from .alu import alu, saturate
from .arithmetic import FACTOR_BITS
from .decode import DECODED
from .lookup import choose, look_up
from .multiply import FAR, multiply, round_product
from .shift import pre_shift, prepare

IOTA_BITS = (MAX_LANES - 1).bit_length() + COUNT_BITS
"""Bits of a lane number and an element number, concatenated, in the widest chip."""


class Lane(wiring.Component):
    """Stages 1..8 of one lane.

    decoded: controls, each valid in its stage.
    a, b, c: operands, in stage 0.
    pre, post: shift amounts, in stage 0.
    iota: the result of INDEX, in stage 7.
    y: the result, from a register, in stage 9.
    least: whether y is -2**31, in stage 9.
    exponent: the value for the exponent file, in stage 9.
    """

    decoded: In(DECODED)
    a: In(32)
    b: In(FACTOR_BITS)
    c: In(32)
    pre: In(6)
    post: In(9)
    iota: In(IOTA_BITS)
    y: Out(32)
    least: Out(1)
    exponent: Out(8)

    def __init__(self, config: ChipConfig):
        self._config = config
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        decoded = self.decoded

        def registers(stage, **values):
            return SimpleNamespace(**{name: register(m, value, f"{name}{stage}") for name, value in values.items()})

        s = registers(1, a=self.a, b=self.b, c=self.c, pre=self.pre, post=self.post)
        s = registers(2, a=pre_shift(m, decoded, s.a, s.pre), b=s.b, c=s.c, post=s.post)
        s = registers(3, **prepare(m, decoded, s.a, s.b, s.c), a=s.a, c=s.c, post=s.post)
        s = registers(4, **choose(m, decoded, s), right=s.right, above=s.above, below=s.below, a=s.a, c=s.c,
                      post=s.post)
        s = registers(5, **look_up(m, decoded, s), left=s.left)
        product = s.left.as_signed() * s.right.as_signed()
        if "multiply" in self._config.registers:
            product = register(m, product, "product6").as_signed()
            s = registers(6, passed=s.passed, post=s.post, c=s.c, k=s.k)
        s = registers(6, p=multiply(m, decoded, product, s.passed, s.post), post=s.post[:FAR], c=s.c, k=s.k)
        s = registers(7, **round_product(m, decoded, s.p, s.post), c=s.c, k=s.k)
        s = registers(8, **alu(m, decoded, s, self.iota), k=s.k)
        s = registers(9, **saturate(m, decoded, s.y, s.beyond), k=s.k)
        m.d.comb += [self.y.eq(s.y), self.least.eq(s.least),
                     self.exponent.eq(Mux(decoded.s9_exponent_is_k, s.k, s.y[:8]))]
        return m
