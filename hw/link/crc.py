"""The CRC-32 of all that a link has carried.

Its polynomial has five terms (Koopman's 0x80108400, 2002). In hardware that takes 16 bits a cycle it needs 64 LUTs
where the usual polynomial needs 155.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

WIDTH = 32
POLYNOMIAL = 1 << 21 | 1 << 16 | 1 << 11 | 1
"""Without x**32. No three wrong bits within 65,000 go unseen, and no burst of 32."""
INITIAL = (1 << WIDTH) - 1


@dataclass(frozen=True)
class Crc32:
    """The CRC of words of `step` bits, highest bit of a word first: in software, and in hardware that takes a word a
    cycle."""

    step: int

    def compute(self, words: list[int], start: int = INITIAL) -> int:
        """The CRC of the words."""
        state = start
        for word in words:
            for bit in reversed(range(self.step)):
                odd = state >> WIDTH - 1 ^ word >> bit & 1
                state = (state << 1 & INITIAL) ^ (POLYNOMIAL if odd else 0)
        return state

    def create(self) -> "Crc":
        """The hardware of `compute`."""
        return Crc(self)


class Crc(wiring.Component):
    """value: the CRC of the words of all cycles since the last one in which `clear` was high; this one's does not
    count, nor does the present cycle's."""

    def __init__(self, crc: Crc32):
        self._step = crc.step
        super().__init__({"word": In(crc.step), "clear": In(1), "value": Out(WIDTH, init=INITIAL)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.value.eq(self._after(m, self.value, self.word))
        with m.If(self.clear):
            m.d.sync += self.value.eq(INITIAL)
        return m

    def _after(self, m: Module, value: Value, word: Value) -> Value:
        """The CRC behind the word: a division bit by bit, whose quotient all bits share. As XORs of the word's bits and
        the value's it would take a fifth more LUTs, and fewer levels of them."""
        state = [[bit] for bit in value]
        for n in reversed(range(self._step)):
            quotient = Signal(name=f"quotient{n}")
            m.d.comb += quotient.eq(Cat(*state[-1], word[n]).xor())
            state = [[*terms, quotient] if POLYNOMIAL >> place & 1 else terms
                     for place, terms in enumerate([[], *state[:-1]])]
        return Cat(Cat(terms).xor() for terms in state)
