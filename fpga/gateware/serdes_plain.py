"""The pins of a link on any FPGA and in simulation: flip-flops at both edges of clocks, no cells of a technology."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.link.parameters import BEAT, LinkParameters


class PlainPins(wiring.Component):
    """The pins of a `hw.link.endpoint.Endpoint`, one bit a clock of domain `bit`.

    The clock changes in the middle of the data's bits, so a receiver samples them there without a delay: it needs no
    training of delays (`LinkParameters.taps` 1), and lines of one length to a third of a bit.

    link: parameters of the link. Domain `bit` has 2 * ratio times the clock of `sync`, in phase or late by less than a
    bit.
    index: number of the link. Its receiving domain is rx<index>, without reset, which a parent defines; here it gets
    its clock.
    beats, sampled, delay_load, delay_step: ports of the endpoint; the last two do nothing.
    out_data, out_clock, in_data, in_clock: to the buffers of the pins.
    """

    def __init__(self, link: LinkParameters, index: int = 0):
        self._link, self._index = link, index
        super().__init__({
            "beats": In(link.ratio * link.beat_bits), "sampled": Out(link.beat_bits),
            "delay_load": In(link.pins), "delay_step": In(link.pins),
            "out_data": Out(link.pins), "out_clock": Out(1), "in_data": In(link.pins), "in_clock": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._send(m)
        self._receive(m)
        return m

    def _send(self, m: Module) -> None:
        link = self._link
        turn, last, odd = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        left = Signal((BEAT * link.ratio - 1) * link.pins, reset_less=True)
        now = Mux(turn == last, left, self.beats)
        m.domains += ClockDomain("bit_middle", clk_edge="neg", reset_less=True, local=True)
        m.d.comb += ClockSignal("bit_middle").eq(ClockSignal("bit"))
        m.d.sync += turn.eq(~turn)
        m.d.bit += [last.eq(turn), Cat(self.out_data, left).eq(now), odd.eq((turn == last) & ~odd)]
        m.d.bit_middle += self.out_clock.eq(~odd)

    def _receive(self, m: Module) -> None:
        pins, rx, fall = self._link.pins, f"rx{self._index}", f"fall{self._index}"
        m.domains += ClockDomain(fall, clk_edge="neg", reset_less=True, local=True)
        m.d.comb += [ClockSignal(rx).eq(self.in_clock), ClockSignal(fall).eq(self.in_clock)]
        first, second = Signal(pins, reset_less=True), Signal(pins, reset_less=True)
        m.d[rx] += [first.eq(self.in_data), self.sampled.eq(Cat(first, second))]
        m.d[fall] += second.eq(self.in_data)
