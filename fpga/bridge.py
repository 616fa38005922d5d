"""A serial line that reads and writes a chip's host port: bytes in, accesses out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from hw.host import WORD
from hw.isa import HOST_READ, Space

READ = 0x80
"""Bit of the first byte: a read."""
FRAME = 1 + 4 + WORD // 8
"""Bytes of an access: space (and READ), address, data, all little-endian."""


class Receiver(wiring.Component):
    """8N1 bytes from a line. divisor: cycles a bit. `valid` pulses with `data`."""

    line: In(1, init=1)
    data: Out(8)
    valid: Out(1)

    def __init__(self, *, divisor: int):
        if divisor < 4:
            raise ValueError(f"divisor must be at least 4, not {divisor!r}")
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        line, timer, left = Signal(init=1), Signal(range(2 * self._divisor)), Signal(range(11))
        m.submodules.synchronizer = FFSynchronizer(self.line, line, init=1)
        m.d.sync += self.valid.eq(0)
        with m.If(left == 0):
            m.d.sync += timer.eq(self._divisor + self._divisor // 2 - 2)
            with m.If(~line):
                m.d.sync += left.eq(9)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self._divisor - 1), left.eq(left - 1)]
            with m.If(left == 1):  # the stop bit
                m.d.sync += self.valid.eq(line)
            with m.Else():
                m.d.sync += self.data.eq(Cat(self.data[1:], line))
        return m


class Sender(wiring.Component):
    """8N1 bytes to a line. divisor: cycles a bit. A byte is taken in a cycle in which `valid` and `ready` are high."""

    data: In(8)
    valid: In(1)
    ready: Out(1)
    line: Out(1, init=1)

    def __init__(self, *, divisor: int):
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        bits, timer, left = Signal(9, init=0x1FF), Signal(range(self._divisor)), Signal(range(11))
        m.d.comb += self.ready.eq(left == 0)
        with m.If(self.ready & self.valid):
            m.d.sync += [self.line.eq(0), bits.eq(Cat(self.data, 1)), left.eq(10), timer.eq(self._divisor - 1)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(left != 0):
            m.d.sync += [timer.eq(self._divisor - 1), left.eq(left - 1), self.line.eq(bits[0]),
                         bits.eq(Cat(bits[1:], 1))]
        return m


class Bridge(wiring.Component):
    """Accesses to the host port in frames of FRAME bytes, without check or reply to a write.

    A frame is space | READ, address, data. A read is answered by the 16 bytes of its data; the next frame may not begin
    before the last of them has come.

    divisor: cycles a bit of the line. rx, tx: the line. host_*: to the port of the chip.
    """

    def __init__(self, *, divisor: int):
        self._divisor = divisor
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1),
            "host_space": Out(Space), "host_addr": Out(32), "host_wdata": Out(WORD), "host_write": Out(1),
            "host_read": Out(1), "host_rdata": In(WORD),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = Receiver(divisor=self._divisor)
        m.submodules.sender = sender = Sender(divisor=self._divisor)
        frame, count = Signal(8 * FRAME, reset_less=True), Signal(range(FRAME))
        reply, left, waiting = Signal(WORD, reset_less=True), Signal(range(WORD // 8 + 1)), Signal(range(HOST_READ + 1))
        whole = Signal()
        m.d.comb += [
            receiver.line.eq(self.rx), self.tx.eq(sender.line),
            self.host_space.eq(frame[:3]), self.host_addr.eq(frame[8:40]), self.host_wdata.eq(frame[40:]),
            self.host_write.eq(whole & ~frame[7]), self.host_read.eq(whole & frame[7]),
            sender.data.eq(reply[:8]), sender.valid.eq(left != 0),
        ]
        m.d.sync += whole.eq(receiver.valid & (count == FRAME - 1))
        with m.If(receiver.valid):
            m.d.sync += [frame.eq(Cat(frame[8:], receiver.data)), count.eq(Mux(count == FRAME - 1, 0, count + 1))]
        with m.If(self.host_read):
            m.d.sync += waiting.eq(HOST_READ)
        with m.Elif(waiting != 0):
            m.d.sync += waiting.eq(waiting - 1)
        with m.If(waiting == 1):
            m.d.sync += [reply.eq(self.host_rdata), left.eq(WORD // 8)]
        with m.Elif(sender.valid & sender.ready):
            m.d.sync += [reply.eq(reply[8:]), left.eq(left - 1)]
        return m
