"""The top of a board: clock and reset, the serial line, and the chip."""

from amaranth.hdl import Module
from amaranth.lib.wiring import Elaboratable

from hw.chip import HOST_PORT, Chip
from hw.config import ChipConfig

from .boards import Board
from .bridge import Bridge
from .clock import Ecp5Clock


class Core(Elaboratable):
    """Everything but clock and pins: the bridge and the chip. rx, tx: the line. running: the chip is."""

    def __init__(self, *, config: ChipConfig, divisor: int):
        self.bridge = Bridge(divisor=divisor)
        self.chip = Chip(config=config)
        self.rx, self.tx, self.running = self.bridge.rx, self.bridge.tx, self.chip.running

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge, m.submodules.chip = self.bridge, self.chip
        for name in HOST_PORT[:-1]:
            m.d.comb += getattr(self.chip, name).eq(getattr(self.bridge, name))
        m.d.comb += self.bridge.host_rdata.eq(self.chip.host_rdata)
        return m


class Top(Elaboratable):
    """A board. Its first LED is lit while tokens run, its second where an error is latched."""

    def __init__(self, *, board: Board, config: ChipConfig):
        self._board, self._config = board, config

    def elaborate(self, platform):
        m = Module()
        clock = platform.request(platform.default_clk, dir="i")
        mhz_in = platform.default_clk_frequency / 1e6
        m.submodules.clock = Ecp5Clock(clock.i, mhz_in=mhz_in, mhz_out=self._board.mhz)
        divisor = round(self._board.mhz * 1e6 / self._board.baud)
        m.submodules.core = core = Core(config=self._config, divisor=divisor)
        uart, run, error = platform.request("uart"), platform.request("led", 0), platform.request("led", 1)
        m.d.comb += [core.rx.eq(uart.rx.i), uart.tx.o.eq(core.tx), run.o.eq(core.running),
                     error.o.eq(core.chip.errors.any())]
        return m
