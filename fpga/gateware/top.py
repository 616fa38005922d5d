"""The top of a board: clock and reset, the serial line, and the chip."""

from fractions import Fraction
from types import MappingProxyType
from typing import Any

from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Elaboratable, In, Out

from arch.config import ChipConfig
from arch.host_map import Trap
from fpga.boards import Board
from fpga.protocol import Identity
from hw.chip import HOST_PORT, Chip

from .bridge import Bridge
from .clock import PLLS, Clock
from .uart import divisor_of


class Core(wiring.Component):
    """The bridge and the chip, without clock and pins. `python -m fpga.simulate` connects this to a terminal.

    config: the chip's config.
    divisor: cycles a bit of the line.
    mhz: the clock that the board reports.
    rx, tx: the line.
    running: the chip runs tokens.
    errors: the chip's sticky trap bits.
    """

    PORTS = MappingProxyType({"rx": In(1, init=1), "tx": Out(1, init=1), "running": Out(1), "errors": Out(len(Trap))})

    def __init__(self, *, config: ChipConfig, divisor: int | Fraction, mhz: float):
        self._config, self._divisor, self._mhz = config, divisor, mhz
        super().__init__(self._ports())

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = bridge = Bridge(divisor=self._divisor, identity=self._identity().pack())
        m.submodules.chip = chip = self._chip()
        for name in HOST_PORT[:-1]:
            m.d.comb += getattr(chip, name).eq(self._host(name, bridge))
        m.d.comb += [bridge.host_rdata.eq(self._read(chip, bridge)), bridge.rx.eq(self.rx), self.tx.eq(bridge.tx),
                     self.running.eq(chip.running), self.errors.eq(chip.errors)]
        return m

    def _ports(self) -> dict:
        return dict(self.PORTS)

    def _identity(self) -> Identity:
        return Identity.of(self._config, self._mhz)

    def _chip(self) -> Any:
        return Chip(config=self._config)

    def _read(self, chip: Any, bridge: Bridge) -> Value:
        """What the bridge reads."""
        return chip.host_rdata

    def _host(self, name: str, bridge: Bridge) -> Value:
        """The source of an input of the chip's host port."""
        return getattr(bridge, name)


class Top(Elaboratable):
    """A board without links. Its first LED is lit while tokens run. Its second LED is lit if an error is latched."""

    def __init__(self, *, board: Board, config: ChipConfig):
        self._board, self._config = board, config

    def elaborate(self, platform):
        m = Module()
        clock = platform.request(platform.default_clk, dir="i")
        mhz_in, mhz = platform.default_clk_frequency / 1e6, self._board.mhz
        m.submodules.clock = Clock(clock.i, pll=PLLS.get(self._board.pll), mhz_in=mhz_in, mhz_out=mhz)
        m.submodules.core = core = Core(config=self._config, divisor=divisor_of(mhz, self._board.baud), mhz=mhz)
        uart, run, error = platform.request("uart"), platform.request("led", 0), platform.request("led", 1)
        m.d.comb += [core.rx.eq(uart.rx.i), uart.tx.o.eq(core.tx), run.o.eq(core.running),
                     error.o.eq(core.errors.any())]
        return m
