"""The boards, with their chips and clocks. `python -m fpga.boards NAME` checks a name."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Annotated, Any

import typer

from arch.config import CONFIGS, ChipConfig
from arch.rack import RACKS
from base.command import REFUSED, run
from base.errors import TspError
from hw.link.parameters import LinkParameters


@dataclass(frozen=True, kw_only=True)
class Wires:
    """A board's end of a link.

    link: its parameters. connector: of amaranth-boards: its name and number.
    sends, takes: pins of the connector: of the data in order, then the clock.
    follows: the chip's clock is made of the one that comes over the link.
    attributes: of the pins, as the vendor's tools name them.
    """

    link: LinkParameters
    connector: tuple[str, int]
    sends: tuple[str, ...]
    takes: tuple[str, ...]
    follows: bool
    attributes: Mapping[str, str]

    def __post_init__(self) -> None:
        for name in ("sends", "takes"):
            if len(pins := getattr(self, name)) != self.link.pins + 1:
                raise ValueError(f"{name} must name {self.link.pins} pins and that of the clock, not {pins!r}")


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board and the chip that its bitstream contains.

    config: a named config. rack: the named rack whose chip `number` the board is, or "".
    platform: module and class of the board's definition in amaranth-boards.
    mhz: the chip's clock, which is the timing constraint.
    lut, ff, bram, dsp: resources of the FPGA (LUT4, flip-flops, 18-Kbit blocks, 18x18 multipliers).
    family: a key of `fpga.flow.build.FAMILIES`.
    nextpnr: arguments that select the part.
    pack: the program that makes the bitstream.
    pack_for: its arguments for this board.
    pll: the PLL's cell, a key of `fpga.gateware.clock.PLLS`, or "" if mhz is the board's own clock.
    seed: default seed of the placer.
    floorplan (ECP5, GW5A): the board whose floorplan this one has, or "" for its own. Both have the same block RAMs
    and multipliers.
    lut_products (ECP5): if the chip has more products than the FPGA has multipliers, the registers of the products
    that are made of LUTs, as a yosys pattern.
    wires: of the chip's links, in the order of their numbers. At most one of them gives the chip its clock.
    prices (ECP5): the router's price of a congested wire, and its growth each iteration.
    exchanges (ECP5): whether block RAMs that lie far from what they drive are exchanged (`fpga.flow.passes.exchange`).
    sinks (ECP5): most sinks of a net that is driven by one cell, wherever they are (`fpga.flow.passes.fanout`).
    resubstitute (ECP5): whether the mapper may make a function out of signals of other places, such as another lane.
    That takes fewer LUTs and longer wires.
    density (Gowin): most of a region's places that the analytic placer fills (HeAP's beta).
    router (Gowin): nextpnr's router.
    router_clock (ECP5): ratio of the clock that the router aims at to the board's clock.

    nextpnr 0.11 measures a connection's criticality by its slack relative to the worst slack. Once the constraint is
    met, all connections are critical and none gives way. With prices that grow slowly, the congestion of a dense chip
    resolves in hundreds of iterations (docs/lab/routing.md).
    """

    name: str
    config: str
    part: str
    platform: tuple[str, str]
    family: str
    mhz: float
    baud: int
    lut: int
    ff: int
    bram: int
    dsp: int
    nextpnr: tuple[str, ...]
    pack: str
    pack_for: tuple[str, ...] = ()
    prices: tuple[float, float] = (4.0, 0.15)
    exchanges: bool = False
    sinks: int = 24
    resubstitute: bool = True
    router_clock: float = 2.0
    density: float = 0.6
    router: str = "router1"
    seed: int = 1
    floorplan: str = ""
    pll: str = "EHXPLLL"
    lut_products: str = ""
    rack: str = ""
    number: int = 0
    wires: tuple[Wires, ...] = ()

    def __post_init__(self) -> None:
        if len(self.wires) != (count := sum(self.chip.ports)):
            raise ValueError(f"{self.name}: a chip with {count} links must have wires for as many, not for "
                             f"{len(self.wires)}")
        if sum(wires.follows for wires in self.wires) > 1:
            raise ValueError(f"{self.name}: one link at most must give the chip its clock")
        if len({wires.link for wires in self.wires}) > 1:
            raise ValueError(f"{self.name}: all links of a chip must be alike")
        if self.wires and self.router_clock != 1.0:
            raise ValueError(f"{self.name}: router_clock must be 1 on a board with links: their clocks come at pins")

    @property
    def chip(self) -> ChipConfig:
        """The chip."""
        return RACKS[self.rack].chips[self.number] if self.rack else CONFIGS[self.config]

    def make_platform(self) -> Any:
        """The board's Amaranth platform."""
        module, name = self.platform
        factory: type[Any] = getattr(import_module(f"amaranth_boards.{module}"), name)
        if self.part.startswith("GW5"):
            # Amaranth 0.5 refuses the names of such parts. Its output does not depend on them.
            factory = type(name, (factory,), {"parse_part": lambda platform: None, "series": "GW5A"})
        return factory()


ULX3S = Board(name="ulx3s", config="ulx3s", part="LFE5U-85F-6BG381C", platform=("ulx3s", "ULX3S_85F_Platform"),
              family="ecp5", mhz=50.0, baud=3_000_000, lut=83_640, ff=83_640, bram=208, dsp=156,
              nextpnr=("--85k", "--package", "CABGA381", "--speed", "6"), pack="ecppack",
              prices=(0.5, 5.0), router_clock=1.0, seed=2)
CLOCK_PIN = 8
"""Number of the pins of header J1 that carry a link's clocks: gp8 can feed a PLL."""


def _of_pair(number: int) -> Board:
    """A ULX3S as a chip of rack `pair`. The root sends on gp0..9 of header J1 and receives on gn0..9."""
    numbers = [*(n for n in range(10) if n != CLOCK_PIN), CLOCK_PIN]
    plus, minus = (tuple(f"{n}{sign}" for n in numbers) for sign in "+-")
    sends, takes = (minus, plus) if number else (plus, minus)
    wires = Wires(link=LinkParameters(lanes=8, pins=9, ratio=2, taps=16), connector=("gpio", 0), sends=sends,
                  takes=takes, follows=bool(number), attributes={"IO_TYPE": "LVCMOS33", "SLEWRATE": "FAST"})
    return replace(ULX3S, name=f"ulx3s_pair{number}", rack="pair", number=number, wires=(wires,),
                   floorplan="ulx3s_pair0", exchanges=True, prices=(0.5, 4.0 if number else 5.0))


BOARDS = {
    board.name: board
    for board in (
        ULX3S,
        Board(name="ulx3s_45f", config="small", part="LFE5U-45F-6BG381C", platform=("ulx3s", "ULX3S_45F_Platform"),
              family="ecp5", mhz=50.0, baud=3_000_000, lut=43_848, ff=43_848, bram=108, dsp=72,
              nextpnr=("--45k", "--package", "CABGA381", "--speed", "6"), pack="ecppack"),
        Board(name="icepi_zero", config="micro", part="LFE5U-25F-6BG256C",
              platform=("icepi_zero", "IcepiZero1_3Platform"), family="ecp5", mhz=50.0, baud=3_000_000,
              lut=24_288, ff=24_288, bram=56, dsp=28, pack="ecppack", seed=2,
              nextpnr=("--25k", "--package", "CABGA256", "--speed", "6"),
              lut_products="*product2_0_*"),  # of row 0 of both MXMs: 8
        Board(name="tang_primer_20k", config="micro", part="GW2A-LV18PG256C8/I7",
              platform=("tang_primer_20k", "TangPrimer20kDockPlatform"), family="gw2a", pll="rPLL",
              mhz=45.0, baud=3_000_000, lut=20_736, ff=15_552, bram=46, dsp=48,
              nextpnr=("--device", "GW2A-LV18PG256C8/I7", "--vopt", "family=GW2A-18C"), pack="gowin_pack",
              pack_for=("-d", "GW2A-18C", "--ready_as_gpio", "--done_as_gpio")),  # pins of LEDs
        Board(name="tang_mega_138k", config="ulx3s", part="GW5AST-LV138FPG676AC1/I0",
              platform=("tang_mega_138k_pro_dock", "TangMega138kProDockPlatform"), family="gw5a", pll="",
              mhz=50.0, baud=3_000_000, lut=138_240, ff=138_240, bram=340, dsp=298,
              nextpnr=("--device", "GW5AST-LV138FPG676AC1/I0", "--vopt", "family=GW5AST-138C"), pack="gowin_pack",
              pack_for=("-d", "GW5AST-138C"), density=0.9, router="router2"),
        *(_of_pair(number) for number in (0, 1)),
    )
}


def board_of(name: str) -> Board:
    """The board with this name. If there is none, raises TspError that lists the boards."""
    if name not in BOARDS:
        raise TspError(f"board must be one of {', '.join(BOARDS)}, not {name!r}")
    return BOARDS[name]


def main(board: Annotated[str, typer.Argument(help=f"one of {', '.join(BOARDS)}")]) -> None:
    """Say nothing if there is a board of that name, or exit with 2. Needs none of the tools of the FPGAs."""
    try:
        board_of(board)
    except TspError as error:
        print(f"fpga.boards: {error}", file=sys.stderr)
        raise SystemExit(REFUSED) from None


if __name__ == "__main__":
    run(main, "fpga.boards")
