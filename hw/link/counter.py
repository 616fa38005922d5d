"""The rack's counter on a chip, and the start of tokens by it."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .parameters import COUNTER_BITS, SLOT_BITS


class Counter(wiring.Component):
    """Counts cycles; all chips of a rack count alike, and start a token when a slot that the root has named begins.

    phase_bits: of a slot's cycles. own_clock: the chip has a clock of its own, so that its counter is set again and
    again, and a START may come several times.

    root: the counter is the rack's by itself. go: start a token `ahead` slots on (a pulse): of the root, or of a chip
    that can no longer hear the root. The START must reach all chips in these slots.
    load, load_value: what to count from the next cycle on in the lowest bits, from the parent's link; ignored once
    counted, but for a chip with a clock of its own. leave: forget that it was counted.
    started, started_slot: a START has come from there (a pulse).
    counter, counted: the present cycle's; whether it is the rack's, in its phase and the slot's lowest SLOT_BITS.
    start, start_slot: a START for all other links (a pulse). due, begin: the last cycle before a token, as `Chip.begin`
    takes it, and the token's first one. waiting: of a chip with a clock of its own: a START has come.
    """

    def __init__(self, *, phase_bits: int, own_clock: bool = False):
        self._phase_bits, self._own_clock = phase_bits, own_clock
        bits = SLOT_BITS + phase_bits
        super().__init__({
            "root": In(1), "ahead": In(SLOT_BITS), "go": In(1), "load": In(1), "load_value": In(bits), "leave": In(1),
            "started": In(1), "started_slot": In(SLOT_BITS),
            "counter": Out(COUNTER_BITS + phase_bits), "counted": Out(1),
            "start": Out(1), "start_slot": Out(SLOT_BITS), "due": Out(1), "begin": Out(1),
            **({"waiting": Out(1)} if own_clock else {}),
        })

    def elaborate(self, platform):
        m = Module()
        joined, waiting, asked, follows = Signal(), Signal(), Signal(), Signal()
        heard, loads = self.started, self.load & ~self.counted
        if self._own_clock:
            heard, loads = self.started & ~waiting, self.load
            m.d.comb += self.waiting.eq(waiting)
        slot = self.counter[self._phase_bits :]
        begins = (slot + 1)[:SLOT_BITS] == self.start_slot
        m.d.comb += [
            self.counted.eq(joined | self.root),
            follows.eq(heard & self.counted & ~self.root), asked.eq(self.go | follows),
            self.due.eq(waiting & begins & self.counter[: self._phase_bits].all() & ~asked),
        ]
        m.d.sync += [self.counter.eq(self.counter + 1), self.start.eq(asked), self.begin.eq(self.due)]
        with m.If(loads):
            m.d.sync += [self.counter.eq(self.load_value), joined.eq(1)]
        with m.If(self.leave):
            m.d.sync += joined.eq(0)
        with m.If(asked):
            m.d.sync += [self.start_slot.eq(Mux(follows, self.started_slot, slot + self.ahead)), waiting.eq(1)]
        with m.Elif(self.due):
            m.d.sync += waiting.eq(0)
        return m
