"""What the line's clock samples on each pin, and where bits are counted from on it."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .parameters import BEAT, LinkParameters

CHOICES = 3
"""By how many bits a pin may be counted earlier: 0, 1 or 2."""


class Lanes(wiring.Component):
    """Beats as they are sampled, each pin delayed by 0, 1 or 2 bits; domain `rx`.

    sampled: pin p has bits p and pins + p, the earlier first. choice: of pin p, bits 2p and 2p + 1. beat: one clock
    later.
    """

    def __init__(self, link: LinkParameters):
        self._pins = link.pins
        super().__init__({"sampled": In(link.beat_bits), "choice": In(BEAT * link.pins), "beat": Out(link.beat_bits)})

    def elaborate(self, platform):
        m, pins = Module(), self._pins
        last = Signal.like(self.sampled, reset_less=True)
        beat = Signal.like(self.beat, reset_less=True)
        m.d.rx += last.eq(self.sampled)
        m.d.comb += self.beat.eq(beat)
        for pin in range(pins):
            choice = self.choice.word_select(pin, BEAT)
            bits = Cat(last[pin], last[pins + pin], self.sampled[pin], self.sampled[pins + pin])
            for n in range(BEAT):
                m.d.rx += beat[n * pins + pin].eq(
                    Mux(choice[1], bits[n], Mux(choice[0], bits[n + 1], bits[n + 2])))
        return m
