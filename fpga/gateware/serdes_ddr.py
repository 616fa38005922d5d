"""The pins of a link on FPGAs whose pins have registers at both edges and delays: what all of them have in common."""

from abc import abstractmethod

from amaranth.hdl import ClockSignal, Const, Module, Signal, Value

from .serdes import Pins


class DdrPins(Pins):
    """`Pins` of DDR cells and input delays. A subclass has the cells of a family.

    With ratio 2, domain `fast` has twice the clock of `sync`, in phase.

    The forwarded clock changes together with the data. The receiver delays the data, so that it samples the middle of
    a bit.

    STEPS: steps of an input delay in one step of training.
    """

    STEPS = 8

    def elaborate(self, platform):
        m, link, rx = Module(), self._link, f"rx{self._index}"
        m.d.comb += ClockSignal(rx).eq(self.in_clock)
        beat, domain = self._beat(m)
        pairs = [(beat[pin], beat[link.pins + pin], self.out_data[pin]) for pin in range(link.pins)]
        for n, (first, second, pin) in enumerate([*pairs, (Const(1), Const(0), self.out_clock)]):
            self._send(m, n, first, second, pin, domain)
        move = self._move(m) if link.taps > 1 else Const(0, link.pins)
        for pin in range(link.pins):
            self._take(m, pin, move[pin])
        return m

    @abstractmethod
    def _send(self, m: Module, n: int, first: Value, second: Value, pin: Value, domain: str) -> None:
        """The cell of output n: `first` while the clock of the domain is high, then `second`."""

    @abstractmethod
    def _take(self, m: Module, pin: int, move: Value) -> None:
        """The cells of an input: its delay, 0 after a pulse of `delay_load`, a step longer after one of `move`; and its
        registers."""

    def _beat(self, m: Module) -> tuple[Value, str]:
        """The bits on the pins in the next clock of the link, and the domain of that clock.

        With ratio 2 both beats of a core cycle are taken at its end. Taken one after the other, the first would have
        half a cycle to come from the streams, and nextpnr does not constrain paths between two clocks.
        """
        if self._link.ratio == 1:
            return self.beats, "sync"
        bits = self._link.beat_bits
        turn, last = Signal(), Signal(reset_less=True)
        beat, second = (Signal(bits, name=name, reset_less=True) for name in ("beat", "second"))
        m.d.sync += turn.eq(~turn)
        m.d.fast += [last.eq(turn), beat.eq(second)]
        with m.If(turn == last):  # the core's clock rises with the next edge
            m.d.fast += [beat.eq(self.beats[:bits]), second.eq(self.beats[bits:])]
        return beat, "fast"

    def _move(self, m: Module) -> Value:
        """STEPS pulses to the pin whose delay takes a step."""
        pins, left = Signal(self._link.pins), Signal(range(2 * self.STEPS + 1))
        with m.If(self.delay_step.any()):
            m.d.sync += [pins.eq(self.delay_step), left.eq(2 * self.STEPS)]
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
        pulses = Signal(self._link.pins)
        m.d.sync += pulses.eq(pins & left[0].replicate(self._link.pins))
        return pulses
