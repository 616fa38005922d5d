"""The elastic buffer: traffic is written by the clock that comes with it and read by the core's, at a fixed distance.

If both clocks have the same mean frequency, what varies is the phase between them; the buffer takes it up. If not, the
reader is moved by whole slots between tokens (`hw.link.realign`).
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .parameters import DEPTH


class Writer(wiring.Component):
    """The side of the line's clock, domain `rx`: a beat a clock, into the next place.

    width: bits of a beat. ratio: beats in a core cycle. depth: core cycles of traffic that are held.
    beat: written in every clock. slip: where it changes, the next beat is written over the last, once: what follows
    stands one beat earlier.
    gray: the place of the next beat, in Gray code. entry, beats: the other side's access to the memory, asynchronous.
    """

    def __init__(self, *, width: int, ratio: int, depth: int = DEPTH):
        self._width, self._ratio, self._depth = width, ratio, depth
        super().__init__({
            "beat": In(width), "slip": In(1), "gray": Out(range(depth * ratio)),
            "entry": In(range(depth)), "beats": Out(width * ratio),
        })

    def elaborate(self, platform):
        m = Module()
        place = Signal(range(self._depth * self._ratio))
        slipped, asked = Signal(), Signal()
        after = Signal.like(place)
        m.submodules.slip = FFSynchronizer(self.slip, asked, o_domain="rx")
        m.d.rx += slipped.eq(asked)
        m.d.comb += after.eq(place + (asked == slipped))
        m.d.rx += [place.eq(after), self.gray.eq(after ^ after[1:])]
        part_bits = len(place) - len(self.entry)
        for part in range(self._ratio):
            m.submodules[f"part{part}"] = memory = Memory(shape=self._width, depth=self._depth, init=[])
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
    slot: cycles of a slot if the reader is moved by slots; 0 if it is not.
    hold: the next cycle reads the same place again, so that all that follows comes one cycle later.
    skip, repeat: of a reader that is moved: the next slot to begin is left out; the last one is read once more (a
    pulse).
    data, place: what was read in the cycle before, and where.
    level: cycles of traffic between what has been seen of the writer and the place that is read now. Legal is
    0..LinkParameters.high; the writer itself is two to four cycles ahead of what is seen of it.
    moving: the writer has moved by some beats; high in every second one of their cycles at least, while it moves.
    """

    def __init__(self, *, width: int, ratio: int, depth: int = DEPTH, slot: int = 0):
        self._ratio, self._depth, self._slot = ratio, depth, slot
        super().__init__({
            "gray": In(range(depth * ratio)), "entry": Out(range(depth)), "beats": In(width * ratio), "hold": In(1),
            "data": Out(width * ratio), "place": Out(range(depth)), "level": Out(range(depth)), "moving": Out(1),
            **({"skip": In(1), "repeat": In(1)} if slot else {}),
        })

    def elaborate(self, platform):
        m = Module()
        gray, before = Signal.like(self.gray), Signal(reset_less=True)
        m.submodules.gray = FFSynchronizer(self.gray, gray)
        written = Signal(range(self._depth))
        data = Signal.like(self.data, reset_less=True)
        if self._slot:
            self._move(m)
        else:
            with m.If(~self.hold):
                m.d.sync += self.entry.eq(self.entry + 1)
        m.d.comb += [written.eq(binary(gray)[self._ratio.bit_length() - 1:]), self.data.eq(data),
                     self.moving.eq(gray[1] != before)]
        m.d.sync += [data.eq(self.beats), self.place.eq(self.entry), before.eq(gray[1]),
                     self.level.eq(written - self.entry)]
        return m

    def _move(self, m: Module) -> None:
        """Leave out a slot, or read one again, where a slot ends: all slots stay whole."""
        skips = Signal()
        repeats = Signal()
        ends, slots = Signal(), Signal(2)
        bits = (self._slot - 1).bit_length()
        cycle, slot = self.entry[:bits], self.entry[bits:]
        m.d.comb += [ends.eq((cycle == self._slot - 1) & ~self.hold),
                     slots.eq(Mux(repeats, 0, Mux(skips, 2, 1)))]
        for asked, pulse in ((skips, self.skip), (repeats, self.repeat)):
            with m.If(pulse):
                m.d.sync += asked.eq(1)
            with m.Elif(ends):
                m.d.sync += asked.eq(0)
        with m.If(~self.hold):
            m.d.sync += cycle.eq(cycle + 1)
        with m.If(ends):
            m.d.sync += slot.eq(slot + slots)


def binary(gray: Value) -> Value:
    """The number of a Gray code."""
    return Cat(gray[n:].xor() for n in range(len(gray)))
