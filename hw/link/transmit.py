"""The sending side: what goes into each slot, its codeword, and the beats of it."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .crc import Crc32
from .frame import Kind, Prbs, crc_part_bits, crc_parts, layout, start_bits
from .parameters import COUNTER_BITS, WORDS, LinkParameters


class Transmitter(wiring.Component):
    """A flit, or a control frame, in every slot; or the training word on every pin.

    counter: cycles, `phase_bits` of them within the slot; a slot begins where these are 0. counted: it is the rack's.
    send, data: the flit of the slot that begins in this cycle. Without one it is a control frame.
    start, start_slot: the next control frame is a START; `start` is a pulse, start_slot holds till then.
    token_end: a token's last cycle, and a slot's. The CRC of its flits goes into the slots behind it: a token has no
    flits in its last slot, nor in its first `quiet_slots`.
    training, trained: the pins carry the training word; pin 0 its complement once `trained`.
    beats: of a core cycle. The first bit of a flit is in `beats` one cycle after `send`.
    """

    def __init__(self, link: LinkParameters):
        self._link = link
        super().__init__({
            "counter": In(COUNTER_BITS + link.phase_bits), "counted": In(1),
            "send": In(1), "data": In(link.flit_bits),
            "start": In(1), "start_slot": In(COUNTER_BITS), "token_end": In(1),
            "training": In(1), "trained": In(1), "beats": Out(link.ratio * link.beat_bits),
        })

    def elaborate(self, platform):
        m, link = Module(), self._link
        phase = self.counter[: link.phase_bits]
        begins = Signal()
        m.d.comb += begins.eq(phase == 0)
        flit, word = Signal(link.flit_bits), Signal(link.code.bits)
        carrying = Signal()  # a flit, not a control frame
        m.d.comb += flit.eq(Mux(self.send, self.data, self._control(m, begins, carrying)))
        training = word_of_pins(link)
        with m.If(self.training):
            m.d.sync += word.eq(training)
            for bit in range(0, link.code.bits, link.pins):
                m.d.sync += word[bit].eq(training[bit] ^ self.trained)
        with m.Elif(begins):
            m.d.sync += word.eq(link.code.encoded(m, flit))
        with m.If(begins):
            m.d.sync += carrying.eq(self.send)
        m.d.comb += self.beats.eq(word.word_select((phase - 1)[: link.phase_bits], len(self.beats)))
        return m

    def _control(self, m: Module, begins: Value, carrying: Value) -> Value:
        """The control frame of a slot that begins now."""
        link = self._link
        prbs, starting = Signal(Prbs.BITS, init=1), Signal()
        crc, left = self._crc(m, carrying, begins & ~self.send & ~starting)
        frame = Signal(layout(link))
        with m.If(self.start):
            m.d.sync += starting.eq(1)
        with m.Elif(begins & ~self.send):
            m.d.sync += starting.eq(0)
        with m.If(begins):
            m.d.sync += prbs.eq(Cat(reversed([prbs[Prbs.BITS - 1 - n] ^ prbs[Prbs.TAP - 1 - n]
                                              for n in range(Prbs.STEP)]), prbs))
        m.d.comb += [
            frame.counted.eq(self.counted), frame.counter.eq(self.counter[link.phase_bits :]),
            frame.kind.eq(Mux(starting, Kind.START, Mux(left, Kind.CRC, Kind.IDLE))),
            frame.argument.eq(Mux(starting, self.start_slot[: start_bits(link)],
                                  Mux(left, crc[: crc_part_bits(link)], prbs))),
        ]
        return frame.as_value()

    def _crc(self, m: Module, carrying: Value, free: Value) -> tuple[Value, Value]:
        """The CRC of the last token, of which the lowest part goes next, and whether parts are left. free: one goes."""
        link = self._link
        parts = crc_parts(link)
        m.submodules.crc = crc = Crc32(link.crc_step).create(crc_part_bits(link) if parts > 1 else 0)
        left, goes = Signal(range(parts + 1)), Signal()
        m.d.comb += [
            crc.word.eq(Cat(self.beats[link.beat_bits * k :][: link.beat_data] for k in range(link.ratio))),
            crc.enable.eq(carrying), goes.eq(free & left.any()), crc.shift.eq(goes), crc.clear.eq(goes & (left == 1)),
        ]
        with m.If(self.token_end):
            m.d.sync += left.eq(parts)
        with m.Elif(goes):
            m.d.sync += left.eq(left - 1)
        return crc.value, left.any()


def word_of_pins(link: LinkParameters) -> Value:
    """The bits of a slot, as of a codeword, in which every pin carries the training word."""
    word = WORDS[link.beats]
    return Const(sum((word >> bit // link.pins & 1) << bit for bit in range(link.code.bits)), link.code.bits)
