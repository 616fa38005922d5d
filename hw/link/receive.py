"""The receiving side: slots out of beats, their codewords, what control frames say, and all that can be wrong."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from .crc import Crc32
from .elastic import HIGH
from .frame import Kind, crc_part_bits, crc_parts, layout, start_bits
from .parameters import COUNTER_BITS, DEPTH, LinkParameters

QUIET = 3
"""Slots that arrive before the reader's place is judged again after it was held."""
LATENCY_BITS = 6


class Fault(enum.Enum, shape=3):
    """What can be wrong with a link that is up. Bit numbers of `Receiver.errors`."""

    FAILED = 0  #: a codeword had more than one wrong bit
    COUNTER = 1  #: a slot that no instruction took held no control frame, or one with another counter
    CRC = 2  #: the CRC of a token's flits is another, or did not come before the next token's
    UNDERFLOW = 3  #: the elastic buffer ran empty: the line's clock is late, or gone
    OVERFLOW = 4  #: the elastic buffer ran full
    LATENCY = 5  #: frames cannot be released at the declared latency
    DOWN = 6  #: the link was not up while a token ran


def record(link: LinkParameters) -> data.StructLayout:
    """The first failure: what (a bit each `Fault`), the slot in which it was seen, the codeword's syndrome."""
    return data.StructLayout({"faults": len(Fault), "slot": COUNTER_BITS, "syndrome": link.code.check_bits})


class Receiver(wiring.Component):
    """Flits and control frames, at a fixed distance from the sender's counter.

    linked: training is over; frames come. The receiver is *up* with the first good control frame.
    running: tokens run, for which flits must come.
    counter, counted: of this chip. latency: cycles from a slot's begin by the sender's counter to `arrived` by this
    chip's. parent: this chip's counter follows this link.
    data, place, level: of the elastic buffer's reader; hold: to it.
    load, load_value: the counter of the next cycle (of the parent's link).
    flit, arrived: what a slot held; `take`, in the cycle of `arrived`: an instruction takes it.
    started, started_slot: a START has come (a pulse).
    token_end: as for the sender. pending: the last token's CRC has yet to come; overdue: it should be here by now.
    up: flits can be relied on. errors: sticky, a bit each `Fault`, until `clear`; first: `record` of the first.
    corrected: single errors put right since `clear`, at most 65,535.
    least, greatest: level of the elastic buffer since `clear`.
    """

    def __init__(self, link: LinkParameters):
        self._link = link
        super().__init__({
            "linked": In(1), "running": In(1), "counter": In(COUNTER_BITS + link.phase_bits), "counted": In(1),
            "latency": In(LATENCY_BITS), "parent": In(1), "clear": In(1),
            "data": In(link.ratio * link.beat_bits), "place": In(range(DEPTH)), "level": In(range(DEPTH)),
            "hold": Out(1), "load": Out(1), "load_value": Out(COUNTER_BITS + link.phase_bits),
            "flit": Out(link.flit_bits), "arrived": Out(1), "take": In(1),
            "started": Out(1), "started_slot": Out(COUNTER_BITS), "token_end": In(1),
            "pending": Out(1), "overdue": In(1),
            "up": Out(1), "errors": Out(len(Fault)), "first": Out(record(link)), "corrected": Out(16),
            "least": Out(range(DEPTH), init=DEPTH - 1), "greatest": Out(range(DEPTH)),
        })

    def elaborate(self, platform):
        m, link = Module(), self._link
        m.submodules.decoder = decoder = link.code.decoder()
        word, valid = self._slots(m)
        m.d.comb += [
            decoder.code.eq(word), decoder.valid.eq(valid),
            self.flit.eq(decoder.data), self.arrived.eq(decoder.arrived),
        ]
        frame = data.View(layout(link), decoder.data)
        kinds = {kind: frame.kind == kind for kind in Kind}
        good = Signal()  # a control frame
        m.d.comb += good.eq(decoder.arrived & ~decoder.failed & ~self.take & Cat(kinds.values()).any())
        sent = Signal.like(self.counter)  # by the sender's counter, the cycle whose frame should arrive now
        m.d.comb += sent.eq(self.counter - self.latency)
        right = Signal()
        m.d.comb += right.eq((frame.counter == sent[link.phase_bits :]) & (sent[: link.phase_bits] == 0))
        late = self._join(m, good & frame.counted, frame.counter, sent, right)
        m.d.comb += [
            self.started.eq(good & self.up & right & kinds[Kind.START]),
            self.started_slot.eq(Cat(frame.argument[: start_bits(link)])),
        ]
        self._watch(m, {
            Fault.FAILED: decoder.failed,
            Fault.COUNTER: decoder.arrived & ~decoder.failed & ~self.take & ~(good & right),
            Fault.CRC: self._crc(m, decoder, good & kinds[Kind.CRC], frame),
            Fault.UNDERFLOW: self.level >= (HIGH + 1 + DEPTH) // 2,
            Fault.OVERFLOW: (self.level > HIGH) & (self.level < (HIGH + 1 + DEPTH) // 2),
        }, late, decoder)
        return m

    def _slots(self, m: Module) -> tuple[Value, Value]:
        """A codeword, and whether it is whole in this cycle."""
        link = self._link
        part = link.ratio * link.beat_bits
        parts = [Signal(part, name=f"part{k}", reset_less=True) for k in range(link.slot - 1)]
        phase = self.place[: link.phase_bits]
        for k, kept in enumerate(parts):
            with m.If(phase == k):
                m.d.sync += kept.eq(self.data)
        return Cat(*parts, self.data), (phase == link.slot - 1) & self.linked

    def _join(self, m: Module, counted: Value, counter: Value, sent: Value, right: Value) -> Value:
        """Holds the reader until frames arrive on time. Whether that cannot be."""
        link = self._link
        quiet, joined, hopeless = Signal(range(QUIET + 1), init=QUIET), Signal(), Signal()
        on_time = Mux(self.parent & ~self.counted, sent[: link.phase_bits] == 0, right)
        judge = Signal()
        m.d.comb += [
            judge.eq(counted & ~joined & ~quiet.any() & (self.counted | self.parent)),
            self.hold.eq(judge & ~on_time & (self.level < HIGH)),
            self.load.eq(judge & on_time & self.parent & ~self.counted),
            self.load_value.eq(Cat(sent[: link.phase_bits], counter) + self.latency + 1),
            self.up.eq(joined),
        ]
        with m.If(~self.linked):
            m.d.sync += [joined.eq(0), quiet.eq(QUIET), hopeless.eq(0)]
        with m.Elif(judge):
            m.d.sync += [joined.eq(on_time), hopeless.eq(~on_time & ~self.hold), quiet.eq(QUIET)]
        with m.Elif(self.arrived & quiet.any()):
            m.d.sync += quiet.eq(quiet - 1)
        return hopeless

    def _crc(self, m: Module, decoder: wiring.Component, came: Value, frame: data.View) -> Value:
        """Whether the CRC that comes is wrong, or has not come by the end of the next token."""
        link = self._link
        parts, bits = crc_parts(link), crc_part_bits(link)
        m.submodules.crc = crc = Crc32(link.crc_step).create(bits if parts > 1 else 0)
        left, taken = Signal(range(parts + 1)), self.arrived & self.take
        # The decoder holds a flit until the next one.
        part, more, forget = Signal(link.phase_bits), Signal(), Signal()
        with m.If(taken):
            m.d.sync += [part.eq(1), more.eq(1)]
        with m.Elif(more):
            m.d.sync += [part.eq(part + 1), more.eq(part != link.slot - 1)]
        m.d.comb += [crc.word.eq(decoder.data.word_select(Mux(taken, 0, part), link.crc_step)),
                     crc.enable.eq(taken | more), crc.shift.eq(came), crc.clear.eq(came & (left == 1) | forget),
                     forget.eq(~self.up | self.clear), self.pending.eq(left.any())]
        with m.If(forget | self.overdue):
            m.d.sync += left.eq(0)
        with m.Elif(self.token_end):
            m.d.sync += left.eq(parts)
        with m.Elif(came & left.any()):
            m.d.sync += left.eq(left - 1)
        return came & ((crc.value[:bits] != frame.argument[:bits]) | ~left.any()) \
            | (self.token_end | self.overdue) & left.any()

    def _watch(self, m: Module, faults: dict[Fault, Value], late: Value, decoder: wiring.Component) -> None:
        """Sticky errors, the first failure, and the counters."""
        link = self._link
        seen = Signal(len(Fault))
        m.d.comb += seen.eq(Mux(self.up, Cat(faults.values()), 0) | late << Fault.LATENCY.value
                              | (self.running & ~self.up) << Fault.DOWN.value)
        with m.If(self.clear):
            m.d.sync += [self.errors.eq(0), self.corrected.eq(0), self.least.eq(DEPTH - 1), self.greatest.eq(0)]
        with m.Else():
            m.d.sync += self.errors.eq(self.errors | seen)
            with m.If(decoder.corrected & self.up & ~self.corrected.all()):
                m.d.sync += self.corrected.eq(self.corrected + 1)
            with m.If(self.up & (self.level < self.least)):
                m.d.sync += self.least.eq(self.level)
            with m.If(self.up & (self.level > self.greatest)):
                m.d.sync += self.greatest.eq(self.level)
        with m.If(~self.errors.any()):
            m.d.sync += [self.first.faults.eq(seen), self.first.slot.eq(self.counter[link.phase_bits :]),
                         self.first.syndrome.eq(decoder.syndrome)]
