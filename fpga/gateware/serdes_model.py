"""`DdrPins` with models of cells, for simulation. What lies between the endpoint and the cells is as on an FPGA."""

from amaranth.hdl import ClockDomain, ClockSignal, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hw.link.parameters import LinkParameters

from .serdes_ddr import DdrPins

STEP_PS, LONGEST = 25, 127
"""Picoseconds of a step of a DELAYF, and its most steps."""


class ModelPins(DdrPins):
    """`DdrPins` whose cells are flip-flops at both edges.

    A delay of picoseconds is not for a simulation by clock edges. `moves` has the pulses that lengthen a pin's delay by
    a step, and `loads` those that make it 0. Who drives `in_data` delays it.
    """

    def __init__(self, link: LinkParameters, index: int = 0):
        super().__init__(link, index)
        self.moves, self.loads = Signal(link.pins), Signal(link.pins)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        rx, fall = f"rx{self._index}", f"fall{self._index}"
        m.domains += ClockDomain(fall, clk_edge="neg", reset_less=True, local=True)
        m.d.comb += [ClockSignal(fall).eq(ClockSignal(rx)), self.loads.eq(self.delay_load)]
        return m

    def _send(self, m: Module, n: int, first: Value, second: Value, pin: Value, domain: str) -> None:
        one, other = (Signal(name=f"{name}{n}", reset_less=True) for name in ("high", "low"))
        m.d[domain] += [one.eq(first), other.eq(second)]
        m.d.comb += pin.eq(Mux(ClockSignal(domain), one, other))

    def _take(self, m: Module, pin: int, move: Value) -> None:
        rise, fall = (Signal(name=f"{name}{pin}", reset_less=True) for name in ("rise", "fall"))
        m.d[f"rx{self._index}"] += [rise.eq(self.in_data[pin]), self.sampled[pin].eq(rise),
                                    self.sampled[self._link.pins + pin].eq(fall)]
        m.d[f"fall{self._index}"] += fall.eq(self.in_data[pin])
        m.d.comb += self.moves[pin].eq(move)


def line_ports(link: LinkParameters) -> dict:
    """The ports of a board to the lines of a link."""
    return {"out_data": Out(link.pins), "out_clock": Out(1), "in_data": In(link.pins), "in_clock": In(1),
            "moves": Out(link.pins), "loads": Out(link.pins)}
