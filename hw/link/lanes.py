"""What the line's clock samples on each pin, and where bits are counted from on it."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .parameters import BEAT, LinkParameters

CHOICES = 2
"""By how many bits a pin's are taken later than they come: 0 or 1."""


class Lanes(wiring.Component):
    """Beats as they are sampled, each pin's as they are or one bit late; domain `rx`.

    sampled: pin p has bits p and pins + p, the earlier first. choice: a bit each pin. beat: one clock later.
    """

    def __init__(self, link: LinkParameters):
        self._pins = link.pins
        super().__init__({"sampled": In(link.beat_bits), "choice": In(link.pins), "beat": Out(link.beat_bits)})

    def elaborate(self, platform):
        m, pins = Module(), self._pins
        last, beat = Signal(pins, reset_less=True), Signal.like(self.beat, reset_less=True)
        m.d.rx += last.eq(self.sampled[pins:])
        m.d.comb += self.beat.eq(beat)
        for pin in range(pins):
            bits = last[pin], self.sampled[pin], self.sampled[pins + pin]
            for n in range(BEAT):
                m.d.rx += beat[n * pins + pin].eq(Mux(self.choice[pin], bits[n], bits[n + 1]))
        return m
