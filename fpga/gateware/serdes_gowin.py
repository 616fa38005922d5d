"""The pins of a link on a Gowin GW2A. They use ODDR, IDDR and IODELAY.

This was synthesised, but neither routed nor tried on a board.
"""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value

from .serdes_ddr import DdrPins


class GowinPins(DdrPins):
    """`DdrPins` of ODDR, IODELAY and IDDR. An IODELAY has up to 127 steps of about 18 ps: 16 settings span 2.2 ns."""

    def _send(self, m: Module, n: int, first: Value, second: Value, pin: Value, domain: str) -> None:
        m.submodules[f"out{n}"] = Instance(
            "ODDR", i_D0=first, i_D1=second, i_TX=Const(0), i_CLK=ClockSignal(domain), o_Q0=pin)

    def _take(self, m: Module, pin: int, move: Value) -> None:
        delayed = Signal(name=f"delayed{pin}")
        # SDTAP low loads C_STATIC_DLY; SETN low lengthens the delay with each pulse of VALUE.
        m.submodules[f"delay{pin}"] = Instance(
            "IODELAY", p_C_STATIC_DLY=0, i_DI=self.in_data[pin], i_SDTAP=~self.delay_load[pin], i_SETN=Const(0),
            i_VALUE=move, o_DO=delayed)
        m.submodules[f"in{pin}"] = Instance(
            "IDDR", i_D=delayed, i_CLK=ClockSignal(f"rx{self._index}"),
            o_Q0=self.sampled[pin], o_Q1=self.sampled[self._link.pins + pin])
