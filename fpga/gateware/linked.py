"""The top of a board with links: its clocks, the serial line, the chip with its endpoints, and their pins."""

from fractions import Fraction
from types import MappingProxyType
from typing import Any

from amaranth.build import Attrs, Pins, Resource, Subsignal
from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import io
from amaranth.lib.wiring import Elaboratable, Out

from arch.config import ChipConfig
from arch.host_map import Trap
from arch.link_map import LinkTrap
from fpga.boards import Board, Wires
from fpga.protocol import Identity
from hw.link.endpoint import pin_ports
from hw.link.parameters import LinkParameters
from hw.linked_chip import LinkedChip

from . import serdes
from .clock import PLLS, Clock
from .serdes_ecp5 import Ecp5Pins
from .serdes_gowin import GowinPins
from .top import Core
from .uart import divisor_of

PORTS = tuple(pin_ports(LinkParameters()))


class LinkedCore(Core):
    """`Core` of a chip with links, without their pins.

    link: of each link. clock_link: see `fpga.protocol.Identity`. Of each link n: the ports of its endpoint to the pins,
    as of `hw.linked_chip.LinkedChip`.
    """

    def __init__(self, *, config: ChipConfig, link: LinkParameters, divisor: int | Fraction, mhz: float,
                 clock_link: int = 0):
        self._link, self._clock_link = link, clock_link
        super().__init__(config=config, divisor=divisor, mhz=mhz)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        chip = m.submodules.chip
        for n in range(sum(self._config.ports)):
            for name, member in pin_ports(self._link).items():
                ours, its = getattr(self, f"{name}_{n}"), getattr(chip, f"{name}_{n}")
                m.d.comb += ours.eq(its) if member.flow is Out else its.eq(ours)
        return m

    def _ports(self) -> dict:
        ports = super()._ports() | {"errors": Out(len(Trap) + len(LinkTrap))}
        for n in range(sum(self._config.ports)):
            ports |= {f"{name}_{n}": member for name, member in pin_ports(self._link).items()}
        return ports

    def _identity(self) -> Identity:
        return Identity.of(self._config, self._mhz, self._clock_link)

    def _chip(self) -> LinkedChip:
        return LinkedChip(config=self._config, link=self._link)


def connect(m: Module, core: Any, pins: serdes.Pins, n: int) -> None:
    """Connect link n of a core to its pins."""
    for name in PORTS:
        ours, its = getattr(core, f"{name}_{n}"), getattr(pins, name)
        m.d.comb += ours.eq(its) if name == "sampled" else its.eq(ours)


class LinkedTop(Elaboratable):
    """A board with links (`Board.wires`). Its LEDs are those of `fpga.gateware.top.Top`.

    A follower's PLL takes the clock that comes over a link. Its chip is in reset, and its serial line silent, until
    that clock is there. Where no link follows, the board's oscillator gives the clock.
    """

    def __init__(self, board: Board):
        if not board.wires:
            raise ValueError(f"board must have a link, not {board.name}")
        self._board = board

    def elaborate(self, platform):
        m, board, link = Module(), self._board, self._board.wires[0].link
        all_lines, clocks = [], []
        for n, wires in enumerate(board.wires):
            platform.add_resources([resource(wires, n)])
            lines = platform.request("link", n, dir="-")
            m.domains += ClockDomain(f"rx{n}", reset_less=True)
            arriving = Signal(name=_of_link("link_clk", n))
            m.d.comb += arriving.eq(_input(m, _of_link("in_clock", n), lines.in_clock))
            platform.add_clock_constraint(lines.in_clock.io, link.ratio * board.mhz * 1e6)
            all_lines.append(lines)
            clocks.append(arriving)
        followed = next((n for n, wires in enumerate(board.wires) if wires.follows), None)
        if followed is not None:
            source, mhz_in = clocks[followed], link.ratio * board.mhz
        else:
            own = platform.request(platform.default_clk, dir="-")
            source, mhz_in = _input(m, "own_clock", own), platform.default_clk_frequency / 1e6
        m.submodules.clock = Clock(source, pll=PLLS[board.pll], mhz_in=mhz_in, mhz_out=board.mhz,
                                   doubled=link.ratio == 2)
        m.submodules.core = core = LinkedCore(
            config=board.chip, link=link, divisor=divisor_of(board.mhz, board.baud), mhz=board.mhz,
            clock_link=0 if followed is None else followed + 1)
        outputs = []
        for n, (lines, arriving) in enumerate(zip(all_lines, clocks, strict=True)):
            m.submodules[_of_link("pins", n)] = pins = PINS[board.family](link, n)
            connect(m, core, pins, n)
            m.d.comb += [pins.in_data.eq(_input(m, _of_link("in_data", n), lines.in_data)), pins.in_clock.eq(arriving)]
            outputs += [(_of_link("out_data", n), lines.out_data, pins.out_data),
                        (_of_link("out_clock", n), lines.out_clock, pins.out_clock)]
        uart = platform.request("uart", 0, dir="-")
        m.d.comb += core.rx.eq(_input(m, "rx", uart.rx))
        leds = (platform.request("led", n, dir="-") for n in range(2))
        levels = core.tx, core.running, core.errors.any()
        outputs += zip(("tx", "run", "error"), (uart.tx, *leds), levels, strict=True)
        for name, port, level in outputs:
            _output(m, name, port, level)
        return m


def _of_link(name: str, n: int) -> str:
    """The name of something of link n; that of the first one has no number."""
    return f"{name}{n or ''}"


def _input(m: Module, name: str, port: Any) -> Signal:
    """The level of a port's pins."""
    m.submodules[f"{name}_buffer"] = buffer = io.Buffer("i", port)
    return buffer.i


def _output(m: Module, name: str, port: Any, level: Any) -> None:
    """Drive a port's pins."""
    m.submodules[f"{name}_buffer"] = buffer = io.Buffer("o", port)
    m.d.comb += buffer.o.eq(level)


PINS = MappingProxyType({"ecp5": Ecp5Pins, "gw2a": GowinPins})
"""The pins of a link by `Board.family`."""


def resource(wires: Wires, n: int = 0) -> Resource:
    """The pins of link n: out_data, out_clock, in_data, in_clock."""
    names = {"out_data": wires.sends[:-1], "out_clock": wires.sends[-1:], "in_data": wires.takes[:-1],
             "in_clock": wires.takes[-1:]}
    signals = [Subsignal(name, Pins(" ".join(pins), dir=name[0] if name[0] == "i" else "o", conn=wires.connector))
               for name, pins in names.items()]
    return Resource("link", n, *signals, Attrs(**wires.attributes))
