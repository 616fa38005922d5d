"""A board for simulation alone: the host port of its chip has a second way in, beside the serial line."""

from fractions import Fraction

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.config import ChipConfig
from arch.host_map import WORD, Space, Trap
from fpga.protocol import Identity
from hw.chip import Chip

from .bridge import Bridge


class BackDoor(wiring.Component):
    """As `fpga.gateware.top.Core`, and in a cycle with `back_write` the chip gets that write in place of the bridge's.

    config, divisor, mhz: as of `Core`. back_space, back_addr, back_wdata, back_write: a host write; the bridge must be
    at rest.
    """

    rx: In(1, init=1)
    tx: Out(1, init=1)
    running: Out(1)
    errors: Out(len(Trap))
    back_space: In(Space)
    back_addr: In(32)
    back_wdata: In(WORD)
    back_write: In(1)

    def __init__(self, *, config: ChipConfig, divisor: int | Fraction, mhz: float):
        self._config, self._divisor, self._identity = config, divisor, Identity.of(config, mhz).pack()
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = bridge = Bridge(divisor=self._divisor, identity=self._identity)
        m.submodules.chip = chip = Chip(config=self._config)
        for name in ("space", "addr", "wdata", "write"):
            of_line = getattr(bridge, f"host_{name}")
            m.d.comb += getattr(chip, f"host_{name}").eq(Mux(self.back_write, getattr(self, f"back_{name}"), of_line))
        m.d.comb += [chip.host_read.eq(bridge.host_read), bridge.host_rdata.eq(chip.host_rdata),
                     bridge.rx.eq(self.rx), self.tx.eq(bridge.tx),
                     self.running.eq(chip.running), self.errors.eq(chip.errors)]
        return m
