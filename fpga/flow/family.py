"""A family of FPGAs, as the flow sees it. `fpga.flow.ecp5` has ECP5, and `fpga.flow.gowin` has GW2A and GW5A."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fpga.boards import Board

from .passes.macro_placement import Sites


class Netlist(NamedTuple):
    """A synthesised board: its folder in the cache, pins and clocks, and the run time of yosys."""

    folder: Path
    constraints: str
    user_s: float


class Routed(NamedTuple):
    """A placed and routed board: the folder with the bitstream and nextpnr's `report.json`, the folder with
    `places.json` for `fpga.flow.floorplan_picture`, and the run times of the steps."""

    folder: Path
    placed: Path
    seconds: dict[str, float]


class Used(NamedTuple):
    """The resources that a board uses, as in `fpga.flow.build_report.Report`."""

    lut4: int
    comb: int
    ff: int
    bram: int
    dsp: int


Cells = Mapping[str, int]
"""Yosys' counts of cells by type."""
Utilization = Mapping[str, Mapping[str, int]]
"""The section `utilization` of nextpnr's report."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of FPGAs.

    nextpnr: the program that places and routes.
    pins: suffix of the file of pins and clocks.
    bitstream: suffix of the bitstream `top`.
    script: of (board, NAME), yosys' script from NAME.il to the netlist NAME.json.
    files: further files that the script reads.
    passes: passes over the netlist.
    sources: source texts of the passes.
    route: places, routes and packs, with a seed.
    used: the resources that a netlist uses.
    sites: of (board, netlist), all places of macros, for a floorplan that nextpnr has no part in; None if there is no
    such list.
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
    sites: Callable[[Board, dict], Sites] | None = None


def seconds(folder: Path) -> float:
    """Run time of the step that filled a folder of the cache."""
    return float((folder / "seconds").read_text())
