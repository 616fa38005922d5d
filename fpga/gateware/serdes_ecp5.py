"""The pins of a link on an ECP5. They use ODDRX1F, IDDRX1F and DELAYF, which every pin has, and any pin for the clock.

This was routed, but never tried on a board. nextpnr knows nothing of the eye at the pins. Training finds the eye, or
reports the pin that has none.
"""

from amaranth.hdl import ClockSignal, Const, DomainRenamer, Instance, Module, Signal, Value

from .serdes import Pins

TAP_STEPS = 8
"""Steps of a DELAYF (25 ps each, 127 at most) in one step of training. 16 settings span 3 ns."""


class Ecp5Pins(Pins):
    """`Pins` of ODDRX1F, DELAYF and IDDRX1F.

    With ratio 2, domain `fast` has twice the clock of `sync`, in phase.

    The forwarded clock changes together with the data. The receiver delays the data, so that it samples the middle of
    a bit.
    """

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

    def _send(self, m: Module, n: int, first: Value, second: Value, pin: Value, domain: str) -> None:
        """The cell of an output."""
        m.submodules[f"out{n}"] = Instance(
            "ODDRX1F", i_D0=first, i_D1=second, i_SCLK=ClockSignal(domain), i_RST=Const(0), o_Q=pin)

    def _take(self, m: Module, pin: int, move: Value) -> None:
        """The cells of an input."""
        delayed = Signal(name=f"delayed{pin}")
        m.submodules[f"delay{pin}"] = Instance(
            "DELAYF", p_DEL_MODE="USER_DEFINED", p_DEL_VALUE=0, i_A=self.in_data[pin],
            i_LOADN=~self.delay_load[pin], i_MOVE=move, i_DIRECTION=Const(0), o_Z=delayed)
        m.submodules[f"in{pin}"] = Instance(
            "IDDRX1F", i_D=delayed, i_SCLK=ClockSignal(f"rx{self._index}"), i_RST=Const(0),
            o_Q0=self.sampled[pin], o_Q1=self.sampled[self._link.pins + pin])

    def _beat(self, m: Module) -> tuple[Value, str]:
        """The bits on the pins in the next clock of the link, and the domain of that clock."""
        if self._link.ratio == 1:
            return self.beats, "sync"
        turn, last = Signal(), Signal(reset_less=True)
        beat = Signal(self._link.beat_bits, reset_less=True)
        m.d.sync += turn.eq(~turn)
        m.d.fast += [last.eq(turn), beat.eq(self.beats.word_select(turn == last, self._link.beat_bits))]
        return beat, "fast"

    def _move(self, m: Module) -> Value:
        """TAP_STEPS pulses to the pin whose delay takes a step."""
        pins, left = Signal(self._link.pins), Signal(range(2 * TAP_STEPS + 1))
        with m.If(self.delay_step.any()):
            m.d.sync += [pins.eq(self.delay_step), left.eq(2 * TAP_STEPS)]
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
        pulses = Signal(self._link.pins)
        m.d.sync += pulses.eq(pins & left[0].replicate(self._link.pins))
        return pulses


def renamed(component, index: int):
    """An endpoint whose line clock is the receiving clock of the pins with this index."""
    return DomainRenamer({"rx": f"rx{index}"})(component)


