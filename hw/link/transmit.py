"""The sending side: what goes into each slot, its codeword, and the beats of it."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .crc import Crc32
from .frame import SYNC_BITS, crc_bits, fill_bits
from .parameters import BEAT, COUNTER_BITS, SLOT_BITS, WORDS, LinkParameters

STARTS = 16
"""Control frames in a row that are a START, where clocks are not one: the receiver may be leaving some out."""


class Transmitter(wiring.Component):
    """A flit, or a control frame, in every slot; or the training word on every pin.

    counter: cycles, `phase_bits` of them within the slot; a slot begins where these are 0. counted: it is the rack's.
    send, data: the flit of the slot that begins in this cycle. Without one it is a control frame.
    start, start_slot: the next control frame is a START; `start` is a pulse, start_slot holds till then.
    training, trained: the pins carry the training word; pin 0 its complement once `trained`.
    beats: of the next core cycle. The first bits of a flit are in `beats` in the cycle of `send`.
    """

    def __init__(self, link: LinkParameters):
        self._link = link
        super().__init__({
            "counter": In(COUNTER_BITS + link.phase_bits), "counted": In(1),
            "send": In(1), "data": In(link.flit_bits),
            "start": In(1), "start_slot": In(SLOT_BITS),
            "training": In(1), "trained": In(1), "beats": Out(link.cycle_bits),
        })

    def elaborate(self, platform):
        m, link = Module(), self._link
        code, bits = link.code, link.cycle_bits
        phase, slot = self.counter[: link.phase_bits], self.counter[link.phase_bits :]
        begins, loads, last = Signal(), Signal(), Signal()
        word = code.placed(self.data)
        self._trains = trains = Signal(init=1, name="trains")  # from one slot to the next: no slot holds half of each
        with m.If(last):
            m.d.sync += trains.eq(self.training)
        left = Signal(code.bits - bits, reset_less=True)  # of a flit: behind its end 0
        m.d.comb += [begins.eq(phase == 0), loads.eq(begins & self.send & ~self._trains),
                     last.eq(phase == link.slot - 1)]
        m.d.sync += left.eq(left >> bits)
        with m.If(loads):
            m.d.sync += left.eq(word[bits:])
        body, total, after = Signal(bits), Signal(code.check_bits, reset_less=True), Signal(code.check_bits)
        m.submodules.crc = crc = Crc32(bits).create()
        frame, renews = self._control(m, begins, slot, phase, crc_bits(link, crc.value))
        m.d.comb += [
            body.eq(left[:bits] | Mux(loads, word[:bits], 0) | frame), after.eq(code.after(total, body)),
            crc.word.eq(body), crc.clear.eq(self._trains | last & renews),
            self.beats.eq(body | Mux(last & ~self._trains, after ^ code.inverted, 0) << bits - len(after)),
        ]
        m.d.sync += total.eq(after)
        with m.If(last):
            m.d.sync += total.eq(0)
        return m

    def _control(self, m: Module, begins: Value, slot: Value, part: Value, crc: Value) -> tuple[Value, Value]:
        """The bits of this cycle if the slot holds a control frame, else 0; whether the CRC begins anew behind it.

        In training they are those of the training word, and all bits of the CRC are set: so the word chooses bits.
        """
        link = self._link
        idle, renews = Signal(), Signal()
        starting = self._starting(m, begins & ~self.send)
        with m.If(begins):
            m.d.sync += [idle.eq(~self.send), renews.eq(~self.send & (slot[:SYNC_BITS] == 0))]
        training = self._word(part)
        head = Cat(slot[:SLOT_BITS], self.counted, starting)
        terms: list[list[Value]] = [[] for _ in range(link.cycle_bits)]
        filled = [fill_bits(link, cycle) for cycle in range(link.slot)]
        shown = [(part == cycle) & (idle if cycle else ~self.send) & ~self._trains for cycle in range(link.slot)]
        chosen: dict[tuple, Signal] = {}
        for n, bit in enumerate(head):
            terms[n].append(bit & shown[0])
        for n in range(link.cycle_bits):
            cycles = [cycle for cycle, bits in enumerate(filled) if n in bits]
            time, pin = divmod(n, link.pins)
            key = (time, pin == 0, *cycles)
            if key not in chosen:
                chosen[key] = choose = Signal(name=f"shows_{'_'.join(map(str, map(int, key)))}")
                m.d.comb += choose.eq(Mux(self._trains, training[time] ^ (self.trained if pin == 0 else 0),
                                          Cat(shown[cycle] for cycle in cycles).any()))
            terms[n].append(crc[n] & chosen[key])
        end = link.code.bits - link.code.check_bits - SLOT_BITS
        for n in range(SLOT_BITS):
            cycle, place = divmod(end + n, link.cycle_bits)
            terms[place].append(self.start_slot[n] & shown[cycle])
        return Cat(Cat(given).any() for given in terms), renews

    def _starting(self, m: Module, sent: Value) -> Value:
        """Whether a control frame is a START, of which `sent` sends one."""
        frames = STARTS if self._link.slack else 1
        count = Signal(range(2 * frames), name="starting")  # the highest bit is set until so many are sent
        with m.If(self.start):
            m.d.sync += count.eq(frames)
        with m.Elif(sent & count[-1]):
            m.d.sync += count.eq(count + 1)
        return count[-1]

    def _word(self, phase: Value) -> Value:
        """The bits of the training word in this cycle."""
        link = self._link
        count = BEAT * link.ratio
        found = [WORDS[link.beats] >> count * n & (1 << count) - 1 for n in range(link.slot)]
        return Array([Const(bits, count) for bits in found])[phase]
