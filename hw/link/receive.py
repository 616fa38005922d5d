"""The receiving side: slots out of beats, their codewords, what control frames say, and all that can be wrong."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from .crc import Crc32
from .frame import HEAD, HEAD_BITS, SYNC_BITS, compared, crc_bits
from .parameters import COUNTER_BITS, SLOT_BITS, LinkParameters
from .realign import NEAR, Realigner

QUIET = 3
"""Slots that arrive before the reader's place is judged, at first and again after it was held."""
LATENCY_BITS = 6


OWN_CLOCK = "parked", "waiting", "begin"
"""Inputs of a `Receiver` between chips with clocks of their own that come from the chip."""


class Fault(enum.Enum, shape=3):
    """What can be wrong with a link that is up. Bit numbers of `Receiver.errors`."""

    FAILED = 0  #: a codeword had more than one wrong bit
    COUNTER = 1  #: a slot that no instruction took held no control frame with the right counter
    CRC = 2  #: the CRC of all that came before a control frame is another
    UNDERFLOW = 3  #: the elastic buffer ran empty: the line's clock is late, or gone
    OVERFLOW = 4  #: the elastic buffer ran full
    LATENCY = 5  #: frames cannot be released at the declared latency, or not with the declared slack
    DOWN = 6  #: the link was not up while a token ran


def record(link: LinkParameters) -> data.StructLayout:
    """The first failure: what (a bit each `Fault`), the slot in which it was seen, the codeword's syndrome."""
    return data.StructLayout({"faults": len(Fault), "slot": COUNTER_BITS, "syndrome": link.code.check_bits})


class Receiver(wiring.Component):
    """Flits and control frames, at a fixed distance from the sender's counter.

    linked: training is over; frames come. The receiver is *up* when control frames are on time and the CRC has begun
    with one of them. running: tokens run, for which it must be.
    counter, counted: of this chip. latency: cycles from a slot's begin by the sender's counter to `arrived` by this
    chip's. parent: this chip's counter follows this link.
    data, place, level: of the elastic buffer's reader; hold: to it.
    load, load_value: the counter of the next cycle (of the parent's link).
    flit, arrived: what a slot held; `take`, in the cycle of `arrived`: an instruction takes it.
    started, started_slot: a START has come (a pulse).
    up: flits can be relied on. errors: sticky, a bit each `Fault`, until `clear`; first: `record` of the first. The CRC
    is not compared behind an error until it has begun anew.
    corrected: single errors put right since `clear`, at most 32,768.
    least, greatest: level of the elastic buffer since `clear`.

    Where the chips have clocks of their own (`hw.link.realign`): trained: the pins are. parked: no token runs. waiting:
    a START has come. begin: a token begins (a pulse); every buffer must have its slack then, and the CRC be known.
    skip, repeat: to the reader.
    """

    def __init__(self, link: LinkParameters):
        self._link = link
        super().__init__({
            "linked": In(1), "running": In(1), "counter": In(COUNTER_BITS + link.phase_bits), "counted": In(1),
            "latency": In(LATENCY_BITS), "parent": In(1), "clear": In(1),
            "data": In(link.cycle_bits), "place": In(range(link.depth)), "level": In(range(link.depth)),
            "hold": Out(1), "load": Out(1), "load_value": Out(SLOT_BITS + link.phase_bits),
            "flit": Out(link.flit_bits), "arrived": Out(1), "take": In(1),
            "started": Out(1), "started_slot": Out(SLOT_BITS),
            "up": Out(1), "errors": Out(len(Fault)), "first": Out(record(link)), "corrected": Out(16),
            "least": Out(range(link.depth), init=link.depth - 1), "greatest": Out(range(link.depth)),
            **(self._own_clock() if link.slack else {}),
        })

    def _own_clock(self) -> dict:
        return {name: In(1) for name in (*OWN_CLOCK, "trained")} | {"skip": Out(1), "repeat": Out(1)}

    def elaborate(self, platform):
        m, link = Module(), self._link
        phase = self.place[: link.phase_bits]
        m.submodules.decoder = decoder = link.code.decoder(link.ratio)
        m.d.comb += [
            decoder.beats.eq(self.data), decoder.last.eq((phase == link.slot - 1) & self.linked),
            self.flit.eq(decoder.data), self.arrived.eq(decoder.arrived),
        ]
        head = data.View(HEAD, decoder.word[:HEAD_BITS])
        good, right = Signal(), Signal()  # a control frame; with the right counter
        sent = Signal(SLOT_BITS + link.phase_bits)  # by the sender's counter, the cycle whose frame should arrive now
        m.d.comb += [good.eq(decoder.arrived & ~decoder.failed & ~self.take), sent.eq(self.counter - self.latency)]
        begins, slot = sent[: link.phase_bits] == 0, sent[link.phase_bits :]
        joined, wrong = Signal(), good & ~right
        if link.slack:
            m.submodules.realigner = self._realigner = Realigner(link)
            off = Signal(SLOT_BITS)  # slots by which the frame is early; late ones are negative
            some = off[:-1].any()
            m.d.comb += [off.eq(head.slot - slot), right.eq(~some & ~off[-1] & begins)]
            wrong &= ~self._realign(m, good & head.counted & ~right, off, begins, joined)
            late = self._join(m, good & head.counted, head.slot, sent, right, joined, some == off[-1])
        else:
            m.d.comb += right.eq((head.slot == slot) & begins)
            late = self._join(m, good & head.counted, head.slot, sent, right, joined)
        places = link.code.places
        started = good & joined & right & head.start
        if link.slack:  # else the counter would be set no more, while the number of frames is still to change
            started &= ~self._realigner.busy
        m.d.comb += [self.started.eq(started), self.started_slot.eq(decoder.word[places[-SLOT_BITS] : len(places)])]
        self._watch(m, joined, {
            Fault.FAILED: decoder.failed,
            Fault.COUNTER: wrong,
            Fault.CRC: self._crc(m, decoder, good, head.slot, phase, joined),
            Fault.UNDERFLOW: self.level >= (link.high + 1 + link.depth) // 2,
            Fault.OVERFLOW: (self.level > link.high) & (self.level < (link.high + 1 + link.depth) // 2),
        }, late, decoder)
        return m

    def _join(self, m: Module, counted: Value, counter: Value, sent: Value, right: Value, joined: Signal,
              begun: Value | None = None) -> Value:
        """Holds the reader until frames arrive on time, or moves it. Whether that cannot be.

        begun: the frame's slot should have arrived already, or begin now. Between chips with clocks of their own.
        """
        link = self._link
        quiet, hopeless = Signal(range(QUIET + 1), init=QUIET), Signal()
        # Whether a frame sets the counter. A counter that has been set before may have run apart since.
        follows = self.parent if link.slack else self.parent & ~self.counted
        on_time = Mux(follows, sent[: link.phase_bits] == 0, right)
        judge = Signal()
        judges = counted & ~joined & ~quiet.any() & (self.counted | self.parent)
        loads = judge & on_time & follows if link.slack else judge & on_time & self.parent & ~self.counted
        off, moved = judge & ~on_time, self.hold
        if link.slack:
            moves, behind = self._realigner, Signal()
            judges, loads, moved = judges & ~moves.busy, loads | moves.load, self.hold | moves.behind
            # The level is not the least one, if frames have come for long before they are judged.
            m.d.comb += [behind.eq(off & begun & ~follows),
                         moves.behind.eq(behind & (self.level > link.slot) & (self.level <= link.high))]
            off &= ~behind
            with m.If(~self.linked):
                m.d.sync += moves.joining.eq(0)
            with m.Elif(judge):
                m.d.sync += moves.joining.eq(1)
        m.d.comb += [
            judge.eq(judges), self.hold.eq(off & (self.level < link.high - link.slack)),
            self.load.eq(loads),
            self.load_value.eq(Cat(sent[: link.phase_bits], counter) + self.latency + 1),
        ]
        with m.If(~self.linked):
            m.d.sync += [joined.eq(0), quiet.eq(QUIET), hopeless.eq(0)]
        with m.Elif(judge):
            m.d.sync += [joined.eq(on_time), hopeless.eq(~on_time & ~moved), quiet.eq(QUIET)]
        with m.Elif(self.arrived & quiet.any()):
            m.d.sync += quiet.eq(quiet - 1)
        return hopeless

    def _realign(self, m: Module, other: Value, off: Value, begins: Value, joined: Value) -> Value:
        """Between tokens, moves the reader or sets the counter by frames with the number of a slot nearby. Whether this
        frame is such.

        other: a frame has arrived with another number than it should have, by `off`. begins: when a slot begins.
        """
        moves = self._realigner
        near = Signal()
        m.d.comb += [
            near.eq(other & self.parked & begins & (off[NEAR:].all() | ~off[NEAR:].any())),
            moves.early.eq(near & ~off[-1]), moves.late.eq(near & off[-1]), moves.joined.eq(joined),
            moves.level.eq(self.level), self.skip.eq(moves.skip), self.repeat.eq(moves.repeat),
            *(getattr(moves, name).eq(getattr(self, name)) for name in ("trained", "parent", "parked", "waiting")),
        ]
        return near

    def _crc(self, m: Module, decoder: wiring.Component, good: Value, slot: Value, phase: Value,
             joined: Value) -> Value:
        """Whether the CRC in a control frame is another."""
        link = self._link
        cycles, bits = compared(link)
        m.submodules.crc = crc = Crc32(link.cycle_bits).create()
        control, renews, known = Signal(), Signal(), Signal()
        differs = Signal()
        with m.If(decoder.arrived):
            m.d.sync += [control.eq(good), renews.eq(good & (slot[:SYNC_BITS] == 0))]
        m.d.comb += [
            crc.word.eq(decoder.word[: link.cycle_bits]), crc.clear.eq(renews & (phase == link.slot - 1)),
            differs.eq(control & Cat(phase == cycle for cycle in cycles).any() & known
                       & (crc_bits(link, crc.value)[:bits] != decoder.word[:bits])),
            self.up.eq(joined & known),
        ]
        lost = ~joined | decoder.failed | differs  # the sender's is another from now on
        with m.If(lost | self._realigner.busy if link.slack else lost):
            m.d.sync += known.eq(0)
        with m.Elif(crc.clear):
            m.d.sync += known.eq(1)
        return differs

    def _watch(self, m: Module, joined: Value, faults: dict[Fault, Value], late: Value,
               decoder: wiring.Component) -> None:
        """Sticky errors, the first failure, and the counters."""
        link = self._link
        seen = Signal(len(Fault))
        down = self.running & ~joined
        if link.slack:
            late, down = late | self.begin & self._realigner.low, down | self.begin & ~self.up
        m.d.comb += seen.eq(Mux(joined, Cat(faults.values()), 0) | late << Fault.LATENCY.value
                              | down << Fault.DOWN.value)
        with m.If(self.clear):
            m.d.sync += [self.errors.eq(0), self.corrected.eq(0), self.least.eq(link.depth - 1), self.greatest.eq(0)]
        with m.Else():
            for n in range(len(Fault)):
                with m.If(seen[n]):
                    m.d.sync += self.errors[n].eq(1)
            with m.If(decoder.corrected & joined & ~self.corrected[-1]):
                m.d.sync += self.corrected.eq(self.corrected + 1)
            with m.If(joined & (self.level < self.least)):
                m.d.sync += self.least.eq(self.level)
            with m.If(joined & (self.level > self.greatest)):
                m.d.sync += self.greatest.eq(self.level)
        with m.If(~self.errors.any()):
            m.d.sync += [self.first.faults.eq(seen), self.first.slot.eq(self.counter[link.phase_bits :]),
                         self.first.syndrome.eq(decoder.syndrome)]
