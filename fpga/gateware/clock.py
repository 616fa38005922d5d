"""Clock and reset of a board: its family's PLL, and a reset that is released when the PLL has locked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import Elaboratable


@dataclass(frozen=True, kw_only=True)
class Pll:
    """A family's PLL with feedback from its output.

    Its output has mhz_out = mhz_in / reference * feedback. Its oscillator runs at mhz_out * output.

    vco: least and greatest MHz of the oscillator.
    phase_detector: least MHz after the reference divider.
    feedbacks, outputs: allowed values of these dividers.
    cell: the instance, of (source, clock, locked, mhz_in, mhz_out).
    doubled: the same, of (source, clock, twice, locked, mhz_in, mhz_out), with a second output of twice the clock, in
    phase; None if there is no such.
    """

    vco: tuple[float, float]
    phase_detector: float
    feedbacks: Sequence[int]
    outputs: Sequence[int]
    cell: Callable[[Signal, Signal, Signal, float, float], Instance]
    doubled: Callable[[Signal, Signal, Signal, Signal, float, float], Instance] | None = None

    def dividers(self, mhz_in: float, mhz_out: float) -> tuple[int, int, int]:
        """(reference, feedback, output) for exactly this output clock. Raises ValueError if there are none."""
        for reference, feedback, output in self._legal(mhz_in):
            if abs(mhz_in / reference * feedback - mhz_out) < 1e-9:
                return reference, feedback, output
        raise ValueError(
            f"mhz_out must be a multiple of a fraction of {mhz_in} MHz that the PLL can make, not {mhz_out!r}")

    def _legal(self, mhz_in: float) -> Iterator[tuple[int, int, int]]:
        least, greatest = self.vco
        for reference in range(1, 1 + int(mhz_in / self.phase_detector)):
            for feedback in self.feedbacks:
                out = mhz_in / reference * feedback
                output = max((output for output in self.outputs if out * output <= greatest), default=1)
                if least <= out * output <= greatest:
                    yield reference, feedback, output


def _ehxplll(source: Signal, clock: Signal, locked: Signal, mhz_in: float, mhz_out: float, **more: Any) -> Instance:
    reference, feedback, output = PLLS["EHXPLLL"].dividers(mhz_in, mhz_out)
    return Instance(
        "EHXPLLL",
        ("a", "FREQUENCY_PIN_CLKI", str(mhz_in)), ("a", "FREQUENCY_PIN_CLKOP", str(mhz_out)),
        ("a", "ICP_CURRENT", "12"), ("a", "LPF_RESISTOR", "8"), ("a", "MFG_ENABLE_FILTEROPAMP", "1"),
        ("a", "MFG_GMCREF_SEL", "2"),
        p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
        p_OUTDIVIDER_MUXA="DIVA", p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=output, p_CLKOP_CPHASE=output - 1,
        p_CLKOP_FPHASE=0, p_FEEDBK_PATH="CLKOP", p_CLKFB_DIV=feedback, p_CLKI_DIV=reference,
        i_CLKI=source, i_CLKFB=clock, i_RST=Const(0), i_STDBY=Const(0), i_PHASESEL0=Const(0),
        i_PHASESEL1=Const(0), i_PHASEDIR=Const(0), i_PHASESTEP=Const(0), i_PHASELOADREG=Const(0),
        i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(0),
        o_CLKOP=clock, o_LOCK=locked, **more,
    )


def _ehxplll_doubled(source: Signal, clock: Signal, twice: Signal, locked: Signal, mhz_in: float,
                     mhz_out: float) -> Instance:
    _, _, output = PLLS["EHXPLLL"].dividers(mhz_in, mhz_out)
    if output % 2:
        raise ValueError(f"mhz_out must leave the oscillator an even divider for its double, not {mhz_out!r}")
    half = output // 2
    return _ehxplll(source, clock, locked, mhz_in, mhz_out, p_CLKOS_ENABLE="ENABLED", p_CLKOS_DIV=half,
                    p_CLKOS_CPHASE=half - 1, p_CLKOS_FPHASE=0, p_OUTDIVIDER_MUXB="DIVB", i_ENCLKOS=Const(0),
                    o_CLKOS=twice)


def _rpll(source: Signal, clock: Signal, locked: Signal, mhz_in: float, mhz_out: float) -> Instance:
    reference, feedback, output = PLLS["rPLL"].dividers(mhz_in, mhz_out)
    return Instance(
        "rPLL", p_DEVICE="GW2A-18C", p_FCLKIN=f"{mhz_in:g}", p_IDIV_SEL=reference - 1, p_FBDIV_SEL=feedback - 1,
        p_ODIV_SEL=output, p_CLKFB_SEL="internal",
        i_CLKIN=source, i_CLKFB=Const(0), i_RESET=Const(0), i_RESET_P=Const(0), i_FBDSEL=Const(0, 6),
        i_IDSEL=Const(0, 6), i_ODSEL=Const(0, 6), i_PSDA=Const(0, 4), i_DUTYDA=Const(0, 4), i_FDLY=Const(0, 4),
        o_CLKOUT=clock, o_LOCK=locked,
    )


PLLS = {
    "EHXPLLL": Pll(vco=(400.0, 800.0), phase_detector=3.125, feedbacks=range(1, 81), outputs=range(1, 129),
                   cell=_ehxplll, doubled=_ehxplll_doubled),
    "rPLL": Pll(vco=(500.0, 1250.0), phase_detector=3.0, feedbacks=range(1, 65),
                outputs=(2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128), cell=_rpll),  # of speed grade C8/I7
}
"""The PLLs by `Board.pll`, the name of the cell."""


class Clock(Elaboratable):
    """The `sync` domain of the chip, made from the board's clock.

    The domain is in reset until the PLL has locked, or for the first cycles if there is no PLL. The reset comes from a
    register after the synchroniser. Fanout duplication (`fpga.flow.passes.fanout`) may copy this register, and all
    copies release in the same cycle.

    source: the pin's signal, of mhz_in MHz.
    mhz_out: the chip's clock.
    pll: the PLL that makes it, or None if it is the board's clock.
    doubled: also make domain `fast`, of twice the clock and in phase, without reset.
    """

    def __init__(self, source: Signal, *, pll: Pll | None, mhz_in: float, mhz_out: float, doubled: bool = False):
        self._source, self._pll, self._in, self._out, self._doubled = source, pll, mhz_in, mhz_out, doubled

    def elaborate(self, platform):
        if self._pll is None and self._in != self._out:
            raise ValueError(f"mhz_out must be {self._in} without a PLL, not {self._out!r}")
        m = Module()
        clock, locked = Signal(name="chip_clk"), Signal(name="pll_locked")
        m.domains.sync = ClockDomain()
        m.domains.pll = ClockDomain(local=True)
        if self._doubled:
            m.submodules.pll = self._make_doubled(m, clock, locked, platform)
        elif self._pll:
            m.submodules.pll = self._pll.cell(self._source, clock, locked, self._in, self._out)
        else:
            m.d.comb += [clock.eq(self._source), locked.eq(1)]
        m.submodules.reset = ResetSynchronizer(~locked, domain="pll")
        held = Signal(name="held_in_reset", init=1)
        m.d.pll += held.eq(0)
        m.d.comb += [ClockSignal("pll").eq(clock), ClockSignal().eq(clock), ResetSignal().eq(held)]
        if platform is not None:
            platform.add_clock_constraint(clock, self._out * 1e6)
        return m

    def _make_doubled(self, m: Module, clock: Signal, locked: Signal, platform: Any) -> Instance:
        if self._pll is None or self._pll.doubled is None:
            raise ValueError("doubled must be False without a PLL that has a second output")
        twice = Signal(name="doubled_clk")
        m.domains.fast = fast = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal("fast").eq(twice)
        if platform is not None:
            platform.add_clock_constraint(fast.clk, 2 * self._out * 1e6)
        return self._pll.doubled(self._source, clock, twice, locked, self._in, self._out)
