"""Bytes on a serial line: 8 bits, no parity, one start bit and one stop bit.

A bit may last a fractional number of cycles. Timers count parts of a cycle, so an edge is at most one cycle off.
"""

from fractions import Fraction

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

PARTS = 16
"""Most parts that a cycle is divided into."""
LEAST = 4
"""Least cycles a bit."""
BITS = 10
"""Bits of a byte on the line."""


def divisor_of(mhz: float, baud: int) -> Fraction:
    """Cycles a bit of a line at a clock, to the nearest fraction with at most PARTS parts of a cycle."""
    return Fraction(mhz * 1e6 / baud).limit_denominator(PARTS)


def in_parts(divisor: int | Fraction) -> tuple[int, int]:
    """(parts in a bit, parts in a cycle). Raises ValueError if a bit has fewer cycles than LEAST."""
    ratio = Fraction(divisor)
    if ratio < LEAST or ratio.denominator > PARTS:
        raise ValueError(f"divisor must be at least {LEAST} in parts of at most 1/{PARTS}, not {divisor!r}")
    return ratio.numerator, ratio.denominator


class Receiver(wiring.Component):
    """Receives bytes from a line.

    `valid` pulses with `data` half a bit before the end of the stop bit. `data` changes with the first bit of the next
    byte. A byte with a low stop bit is dropped.

    divisor: cycles a bit.
    """

    line: In(1, init=1)
    data: Out(8)
    valid: Out(1)

    def __init__(self, *, divisor: int | Fraction):
        self._bit, self._cycle = in_parts(divisor)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        line, left = Signal(init=1), Signal(range(BITS))
        timer = Signal(range(2 * self._bit))
        m.submodules.synchronizer = FFSynchronizer(self.line, line, init=1)
        m.d.sync += self.valid.eq(0)
        with m.If(left == 0):
            m.d.sync += timer.eq(self._bit + self._bit // 2 - 2 * self._cycle)
            with m.If(~line):
                m.d.sync += left.eq(BITS - 1)
        with m.Elif(timer >= self._cycle):
            m.d.sync += timer.eq(timer - self._cycle)
        with m.Else():
            m.d.sync += [timer.eq(timer + (self._bit - self._cycle)), left.eq(left - 1)]
            with m.If(left == 1):  # the stop bit
                m.d.sync += self.valid.eq(line)
            with m.Else():
                m.d.sync += self.data.eq(Cat(self.data[1:], line))
        return m


class Sender(wiring.Component):
    """Sends bytes to a line. It takes a byte in a cycle in which `valid` and `ready` are high.

    divisor: cycles a bit.
    """

    data: In(8)
    valid: In(1)
    ready: Out(1)
    line: Out(1, init=1)

    def __init__(self, *, divisor: int | Fraction):
        self._bit, self._cycle = in_parts(divisor)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        bits, left = Signal(9, init=0x1FF), Signal(range(BITS + 1))
        timer = Signal(range(2 * self._bit))
        m.d.comb += self.ready.eq(left == 0)
        with m.If(self.ready & self.valid):
            m.d.sync += [self.line.eq(0), bits.eq(Cat(self.data, 1)), left.eq(BITS),
                         timer.eq(self._bit - self._cycle)]
        with m.Elif(timer >= self._cycle):
            m.d.sync += timer.eq(timer - self._cycle)
        with m.Elif(left != 0):
            m.d.sync += [timer.eq(timer + (self._bit - self._cycle)), left.eq(left - 1), self.line.eq(bits[0]),
                         bits.eq(Cat(bits[1:], 1))]
        return m


class Crc(wiring.Component):
    """The CRC-32 of zlib, one bit a cycle.

    data, valid: a byte. The next byte may come 8 cycles later.
    clear: start again, and ignore a byte in this cycle.
    seed: start from `zlib.crc32(b"", seed)`. Data with the CRC of one seed never pass with another.
    busy: high in the 8 cycles after a byte.
    value: the CRC of the bytes since `clear`.
    good: the last four bytes are the CRC of those before them.
    """

    POLYNOMIAL, RESIDUE = 0xEDB88320, 0xDEBB20E3

    data: In(8)
    valid: In(1)
    clear: In(1)
    seed: In(1)
    busy: Out(1)
    value: Out(32)
    good: Out(1)

    def elaborate(self, platform):
        m = Module()
        bits, left, rest = Signal(8, reset_less=True), Signal(range(9)), Signal(32, init=0xFFFFFFFF)
        m.d.comb += [self.busy.eq(left != 0), self.value.eq(~rest), self.good.eq(rest == self.RESIDUE)]
        with m.If(self.clear):
            m.d.sync += [rest.eq(Cat(~self.seed, Const(0x7FFFFFFF, 31))), left.eq(0)]
        with m.Elif(self.valid):
            m.d.sync += [bits.eq(self.data), left.eq(8)]
        with m.Elif(self.busy):
            odd = rest[0] ^ bits[0]
            m.d.sync += [rest.eq(rest[1:] ^ (odd.replicate(32) & self.POLYNOMIAL)), bits.eq(bits[1:]),
                         left.eq(left - 1)]
        return m
