"""What the flow must know of a family of FPGAs: ECP5 is in `fpga.flow.ecp5`, GW2A and GW5A are in `fpga.flow.gowin`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fpga.boards import Board


class Netlist(NamedTuple):
    """A synthesised board: the folder in the cache, pins and clocks, and how long yosys ran."""

    folder: Path
    constraints: str
    user_s: float


class Routed(NamedTuple):
    """A placed and routed board: the folder with the bitstream and nextpnr's `report.json`, that with `places.json` for
    `fpga.flow.floorplan_picture`, and how long which step ran."""

    folder: Path
    placed: Path
    seconds: dict[str, float]


class Used(NamedTuple):
    """What a board takes, as `fpga.flow.build_report.Report` has it."""

    lut4: int
    comb: int
    ff: int
    bram: int
    dsp: int


Cells = Mapping[str, int]
"""How many cells of which type yosys has made."""
Utilization = Mapping[str, Mapping[str, int]]
"""The part of that name of nextpnr's report."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of FPGAs.

    nextpnr: the program that places and routes. pins: suffix of the file of pins and clocks. bitstream: of the
    bitstream, which is called `top`. script: yosys' script from NAME.il to the netlist NAME.json, of (board, NAME).
    files: what the script reads besides. passes: what the netlist goes through then; sources: their texts.
    route: place, route and pack, with a seed. used: what a netlist takes.
    """

    nextpnr: str
    pins: str
    bitstream: str
    script: Callable[[Board, str], str]
    files: tuple[Path, ...]
    passes: tuple[Callable[[dict], object], ...] = ()
    sources: tuple[str, ...] = ()
    route: Callable[[Board, Netlist, int], Routed]
    used: Callable[[Cells, Utilization], Used]


def seconds(folder: Path) -> float:
    """How long that which filled a folder of the cache ran."""
    return float((folder / "seconds").read_text())
