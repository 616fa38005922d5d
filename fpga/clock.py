"""Clock and reset of a board: an ECP5 PLL, and a reset that is let go when it has locked."""

from collections.abc import Iterator

from amaranth.hdl import ClockDomain, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import Elaboratable

VCO_MHZ = (400.0, 800.0)
PHASE_DETECTOR_MHZ = 3.125
"""Least frequency of the phase detector."""


def dividers(mhz_in: float, mhz_out: float) -> tuple[int, int, int]:
    """(reference, feedback, output) dividers of an EHXPLLL fed back from its output: exact, or ValueError."""
    for reference, feedback, output in _legal(mhz_in):
        if abs(mhz_in / reference * feedback - mhz_out) < 1e-9:
            return reference, feedback, output
    raise ValueError(f"mhz_out must be a multiple of a fraction of {mhz_in} MHz that the PLL can make, not {mhz_out!r}")


def _legal(mhz_in: float) -> Iterator[tuple[int, int, int]]:
    for reference in range(1, 1 + int(mhz_in / PHASE_DETECTOR_MHZ)):
        for feedback in range(1, 81):
            out = mhz_in / reference * feedback
            output = max(1, min(128, int(VCO_MHZ[1] / out)))
            if VCO_MHZ[0] <= out * output <= VCO_MHZ[1]:
                yield reference, feedback, output


class Ecp5Clock(Elaboratable):
    """The `sync` domain of the chip, out of the board's clock.

    source: the pin's signal, of mhz_in MHz. mhz_out: what the chip runs at. The domain is in reset until the PLL has
    locked, by a register behind the synchroniser: that one may be copied (`fpga.fanout`), for all to be let go at once.
    """

    def __init__(self, source: Signal, *, mhz_in: float, mhz_out: float):
        self._source, self._in, self._out = source, mhz_in, mhz_out

    def elaborate(self, platform):
        m = Module()
        reference, feedback, output = dividers(self._in, self._out)
        clock, locked = Signal(name="chip_clk"), Signal(name="pll_locked")
        m.domains.sync = ClockDomain()
        m.domains.pll = ClockDomain(local=True)
        m.submodules.pll = Instance(
            "EHXPLLL",
            ("a", "FREQUENCY_PIN_CLKI", str(self._in)), ("a", "FREQUENCY_PIN_CLKOP", str(self._out)),
            ("a", "ICP_CURRENT", "12"), ("a", "LPF_RESISTOR", "8"), ("a", "MFG_ENABLE_FILTEROPAMP", "1"),
            ("a", "MFG_GMCREF_SEL", "2"),
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA", p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=output, p_CLKOP_CPHASE=output - 1,
            p_CLKOP_FPHASE=0, p_FEEDBK_PATH="CLKOP", p_CLKFB_DIV=feedback, p_CLKI_DIV=reference,
            i_CLKI=self._source, i_CLKFB=clock, i_RST=Const(0), i_STDBY=Const(0), i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0), i_PHASEDIR=Const(0), i_PHASESTEP=Const(0), i_PHASELOADREG=Const(0),
            i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(0),
            o_CLKOP=clock, o_LOCK=locked,
        )
        m.submodules.reset = ResetSynchronizer(~locked, domain="pll")
        held = Signal(name="held_in_reset", init=1)
        m.d.pll += held.eq(0)
        m.d.comb += [ClockSignal("pll").eq(clock), ClockSignal().eq(clock), ResetSignal().eq(held)]
        if platform is not None:
            platform.add_clock_constraint(clock, self._out * 1e6)
        return m
