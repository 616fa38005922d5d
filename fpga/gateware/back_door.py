"""The tops of simulated boards, which have a second way to the chip's host port. No bitstream has them."""

from fractions import Fraction
from types import MappingProxyType

from amaranth.hdl import ClockDomain, ClockSignal, Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from arch.config import ChipConfig
from arch.host_map import WORD, Space
from fpga.protocol import IDENTITY
from hw.link.parameters import LinkParameters
from hw.linked_chip import LinkedChip

from .bridge import Bridge
from .linked import PORTS, LinkedCore, connect
from .serdes_model import ModelPins, line_ports
from .top import Core

BACK_PORTS = MappingProxyType({"back_space": In(Space), "back_addr": In(32), "back_wdata": In(WORD),
                               "back_write": In(1)})
CLOCK_LINK_AT, CLOCK_LINK_BITS = 48, 8
"""Place and width of `Identity.clock_link` in the identity's first word."""


class BackDoor(Core):
    """`Core` with a back door, for simulation.

    back_write: in this cycle the chip gets the write of `back_*` in place of the bridge's access. The bridge must be
    at rest.
    back_space, back_addr, back_wdata: the write.
    """

    def _ports(self) -> dict:
        return super()._ports() | dict(BACK_PORTS)

    def _host(self, name: str, bridge: Bridge) -> Value:
        own = getattr(self, name.replace("host_", "back_"), None)
        return getattr(bridge, name) if own is None else Mux(self.back_write, own, getattr(bridge, name))


class LinkedBackDoor(BackDoor, LinkedCore):
    """`LinkedCore` with a back door.

    follows: `Identity.clock_link`, which is an input so that one model serves all boards of a rack.
    """

    def _ports(self) -> dict:
        return super()._ports() | {"follows": In(CLOCK_LINK_BITS)}

    def _read(self, chip: LinkedChip, bridge: Bridge) -> Value:
        first = (Value.cast(bridge.host_space) == IDENTITY) & ~bridge.host_addr[0]
        return chip.host_rdata | Mux(first, self.follows << CLOCK_LINK_AT, 0)


class LinkedBoard(wiring.Component):
    """A board with links up to its pins, with a back door.

    fast: the clock of domain `fast`; see `fpga.gateware.serdes_ddr.DdrPins`.
    Of each link n: out_data_n, out_clock_n, in_data_n, in_clock_n: the pins. moves_n, loads_n: of its `ModelPins`.
    Other ports are those of `LinkedBackDoor` but for its links.
    """

    def __init__(self, *, config: ChipConfig, link: LinkParameters, divisor: int | Fraction, mhz: float):
        self._core, self._link, self._count = (
            LinkedBackDoor(config=config, link=link, divisor=divisor, mhz=mhz), link, sum(config.ports))
        ports = {name: member for name, member in self._core.signature.members.items() if not name.startswith(PORTS)}
        for n in range(self._count):
            ports |= {f"{name}_{n}": member for name, member in line_ports(link).items()}
        super().__init__(ports | {"fast": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self._core
        for name, member in core.signature.members.items():
            if not name.startswith(PORTS):
                ours, its = getattr(self, name), getattr(core, name)
                m.d.comb += its.eq(ours) if member.flow is In else ours.eq(its)
        m.domains.fast = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal("fast").eq(self.fast)
        for n in range(self._count):
            m.domains += ClockDomain(f"rx{n}", reset_less=True)
            m.submodules[f"pins{n}"] = pins = ModelPins(self._link, n)
            connect(m, core, pins, n)
            for name, member in line_ports(self._link).items():
                ours, its = getattr(self, f"{name}_{n}"), getattr(pins, name)
                m.d.comb += its.eq(ours) if member.flow is In else ours.eq(its)
        return m
