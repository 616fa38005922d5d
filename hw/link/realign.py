"""Links between chips that have clocks of their own: what runs apart is put right while no token runs.

The clocks differ by parts in 10,000. While a token runs the elastic buffer takes up the difference, by at most `slack`
cycles either way. Between tokens,

- the reader of the parent's link leaves a slot out, or reads one again, when the buffer's level comes too near to the
  slack. What arrives then has the number of the next slot, or of the one before, and the chip's counter is set by it;
- the reader of any other link does so when the other chip's counter has been set: frames arrive with another number
  than they should.

So all counters follow the root's, and at a token's begin every buffer has its slack on both sides.
"""

from collections.abc import Iterable

from amaranth.hdl import Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .parameters import LinkParameters

NEAR = 2
"""Bits of a difference of slots that are put right: -4..3. A greater one is an error."""


class Realigner(wiring.Component):
    """Moves the elastic buffer's reader by slots, and sets the counter.

    trained: the pins are; beats can be relied on. joined: frames have arrived on time. joining: their numbers are
    compared, to come there. parent: the counter follows this link.
    parked: no token runs. waiting: one will start in a named slot: the counter is set no more.
    level: of the elastic buffer.
    early, late: a frame has arrived whose slot should arrive later, or should have arrived before (a pulse).
    behind: the same as `late`, before frames arrive on time.
    skip, repeat: to the reader (a pulse). load: this frame sets the counter.
    busy: the reader is being moved: numbers and CRC are not to be compared.
    low: the level leaves less than the slack on one side.
    """

    def __init__(self, link: LinkParameters):
        self._link = link
        super().__init__({
            "trained": In(1), "joined": In(1), "joining": In(1), "parent": In(1), "parked": In(1), "waiting": In(1),
            "level": In(range(link.depth)), "early": In(1), "late": In(1), "behind": In(1),
            "skip": Out(1), "repeat": Out(1), "load": Out(1), "busy": Out(1), "low": Out(1),
        })

    def elaborate(self, platform):
        m, link = Module(), self._link
        free = Signal()
        # From the request until frames have arrived behind the slot that is left out or repeated.
        cycles = 4 * link.slot + 4
        top = 1 << cycles.bit_length()  # the bit that is set until the count is over
        count = Signal(range(2 * top), reset_less=True)
        low, high = link.slack + 1, link.slack + link.slot + 2  # moves lead between them
        wrapped = (link.high + 1 + link.depth) // 2
        numbered = self.parked & self.joined & ~self.busy
        m.d.comb += [
            self.busy.eq(count[-1]),
            free.eq(self.trained & self.parked & ~self.waiting & ~self.busy
                    & (self.parent & self.joined | ~self.joined & ~self.joining)),
            self.load.eq(numbered & ~self.waiting & self.parent & (self.early | self.late)),
            self.skip.eq(free & self._is(range(high + 1, wrapped)) | numbered & ~self.parent & self.late
                         | self.behind),
            self.repeat.eq(free & self._is({*range(low), *range(wrapped, link.depth)})
                           | numbered & ~self.parent & self.early),
            self.low.eq(self._is({*range(link.slack), *range(link.high - link.slack + 1, link.depth)})),
        ]
        with m.If(self.skip | self.repeat):
            m.d.sync += count.eq(2 * top - cycles)
        with m.Elif(self.busy):
            m.d.sync += count.eq(count + 1)
        return m

    def _is(self, levels: Iterable[int]) -> Value:
        """Whether the level is one of these. A table takes fewer LUTs than comparisons do."""
        return Const(sum(1 << level for level in levels), self._link.depth).bit_select(self.level, 1)
