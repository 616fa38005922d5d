"""The pins of a link on an ECP5. They use ODDRX1F, IDDRX1F and DELAYF, which every pin has, and any pin for the clock.

This was routed, but never tried on a board. nextpnr knows nothing of the eye at the pins. Training finds the eye, or
reports the pin that has none.
"""

from amaranth.hdl import ClockSignal, Const, DomainRenamer, Instance, Module, Signal, Value

from .serdes_ddr import DdrPins


class Ecp5Pins(DdrPins):
    """`DdrPins` of ODDRX1F, DELAYF and IDDRX1F. A DELAYF has up to 127 steps of 25 ps, so 16 settings span 3 ns."""

    def _send(self, m: Module, n: int, first: Value, second: Value, pin: Value, domain: str) -> None:
        m.submodules[f"out{n}"] = Instance(
            "ODDRX1F", i_D0=first, i_D1=second, i_SCLK=ClockSignal(domain), i_RST=Const(0), o_Q=pin)

    def _take(self, m: Module, pin: int, move: Value) -> None:
        delayed = Signal(name=f"delayed{pin}")
        m.submodules[f"delay{pin}"] = Instance(
            "DELAYF", p_DEL_MODE="USER_DEFINED", p_DEL_VALUE=0, i_A=self.in_data[pin],
            i_LOADN=~self.delay_load[pin], i_MOVE=move, i_DIRECTION=Const(0), o_Z=delayed)
        m.submodules[f"in{pin}"] = Instance(
            "IDDRX1F", i_D=delayed, i_SCLK=ClockSignal(f"rx{self._index}"), i_RST=Const(0),
            o_Q0=self.sampled[pin], o_Q1=self.sampled[self._link.pins + pin])


def renamed(component, index: int):
    """An endpoint whose line clock is the receiving clock of the pins with this index."""
    return DomainRenamer({"rx": f"rx{index}"})(component)
