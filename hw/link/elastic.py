"""The elastic buffer: traffic is written by the clock that comes with it and read by the core's, at a fixed distance.

Both clocks have the same mean frequency. What varies is the phase between them; the buffer takes it up.
"""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .parameters import DEPTH

HIGH = DEPTH - 5
"""Greatest level; beyond it the writer could come near the place that is read."""

FIRST = 1, 2
"""Levels at which training leaves the reader; more than one, since what is seen of the writer wavers by one."""


class Writer(wiring.Component):
    """The side of the line's clock, domain `rx`: a beat a clock, into the next place.

    width: bits of a beat. ratio: beats in a core cycle.
    beat: written in every clock. slip: where it changes, the next beat is written over the last, once: what follows
    stands one beat earlier.
    gray: the place of the next beat, in Gray code. entry, beats: the other side's access to the memory, asynchronous.
    """

    def __init__(self, *, width: int, ratio: int):
        self._width, self._ratio = width, ratio
        super().__init__({
            "beat": In(width), "slip": In(1), "gray": Out(range(DEPTH * ratio)),
            "entry": In(range(DEPTH)), "beats": Out(width * ratio),
        })

    def elaborate(self, platform):
        m = Module()
        place = Signal(range(DEPTH * self._ratio))
        slipped, asked = Signal(), Signal()
        after = Signal.like(place)
        m.submodules.slip = FFSynchronizer(self.slip, asked, o_domain="rx")
        m.d.rx += slipped.eq(asked)
        m.d.comb += after.eq(place + (asked == slipped))
        m.d.rx += [place.eq(after), self.gray.eq(after ^ after[1:])]
        part_bits = len(place) - len(self.entry)
        for part in range(self._ratio):
            m.submodules[f"part{part}"] = memory = Memory(shape=self._width, depth=DEPTH, init=[])
            write, read = memory.write_port(domain="rx"), memory.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(place[part_bits:]), write.data.eq(self.beat),
                write.en.eq(place[:part_bits] == part if part_bits else 1),
                read.addr.eq(self.entry), self.beats.word_select(part, self._width).eq(read.data),
            ]
        return m


class Reader(wiring.Component):
    """The side of the core's clock: all beats of a core cycle in every cycle.

    gray, entry, beats: of the writer.
    hold: the next cycle reads the same place again, so that all that follows comes one cycle later.
    data, place: what was read in the cycle before, and where.
    level: cycles of traffic between what has been seen of the writer and the place that is read now. Legal is
    0..HIGH; the writer itself is two to four cycles ahead of what is seen of it.
    moving: the writer has moved since the last cycle.
    """

    def __init__(self, *, width: int, ratio: int):
        self._ratio = ratio
        super().__init__({
            "gray": In(range(DEPTH * ratio)), "entry": Out(range(DEPTH)), "beats": In(width * ratio), "hold": In(1),
            "data": Out(width * ratio), "place": Out(range(DEPTH)), "level": Out(range(DEPTH)), "moving": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        gray, before = Signal.like(self.gray), Signal.like(self.gray, reset_less=True)
        m.submodules.gray = FFSynchronizer(self.gray, gray)
        written = Signal(range(DEPTH))
        data = Signal.like(self.data, reset_less=True)
        with m.If(~self.hold):
            m.d.sync += self.entry.eq(self.entry + 1)
        m.d.comb += [written.eq(binary(gray)[self._ratio.bit_length() - 1:]), self.data.eq(data),
                     self.moving.eq(gray != before)]
        m.d.sync += [data.eq(self.beats), self.place.eq(self.entry), before.eq(gray),
                     self.level.eq(written - self.entry)]
        return m


def binary(gray: Value) -> Value:
    """The number of a Gray code."""
    return Cat(gray[n:].xor() for n in range(len(gray)))
