"""The pins of a link on any FPGA and in simulation: flip-flops at both edges of clocks, no cells of a technology."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, Mux, Signal

from hw.link.parameters import BEAT

from .serdes import Pins


class PlainPins(Pins):
    """`Pins` that send a bit in each clock of domain `bit`.

    Domain `bit` has 2 * ratio times the clock of `sync`, in phase or late by less than a bit.

    The forwarded clock changes in the middle of the data's bits. A receiver samples them there without a delay. The
    lines must have one length to a third of a bit. Delays are not trained (`LinkParameters.taps` is 1): `delay_load`
    and `delay_step` do nothing.
    """

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
