"""Floorplan of a board's block RAMs and multipliers (macros). `fpga.flow.place_macros` makes it once.

A full FPGA has a few hundred macros with thousands of wires. Their places are in rows across the whole FPGA, and nearly
all are used. nextpnr's placers move macros badly. Fixed places make the wires of the `ulx3s` board a quarter shorter
(docs/decisions/0015-floorplan.md).

Simulated annealing finds the places, by exchanges of two macros (Kirkpatrick, Gelatt, Vecchi, Science 220, 1983). At
first, it brings the macros of a lane together (`by_lanes`), because nearly all wires of a TSP are within a lane. Then
it makes the macros' nets short (`by_nets`), while all other cells stay where nextpnr has placed them.
"""

import json
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from arch.config import PLANES
from base.errors import TspError
from fpga.boards import Board

from .netlist import top

FOLDER = Path(__file__).parents[2] / "floorplans"
"""Folder of the files `BOARD.json`: the bel of each macro, by `name_of`."""
KINDS = ("DP16KD", "MULT18X18D", "SDPX9B", "MULT12X12")
"""Cell types of macros: of ECP5, then of a GW5A."""
CLOCKS = ("CLK", "CLKA", "CLKB", "WCK", "CLK0")
EXCHANGES = 400_000
"""Tries of one annealing. They take a minute and a half."""
HOT = 200.0
"""Temperature at the beginning, in tiles of wire."""
FANOUT = 60
"""Most macros of a net that counts. An exchange does not shorten a net with more."""
BEL = re.compile(r"X(\d+)/?Y(\d+)/")


class Place(NamedTuple):
    """The place of a cell: its tile, and the bel's name."""

    column: int
    row: int
    bel: str


class Sites(NamedTuple):
    """Where macros can be.

    at: a place of each macro, by `name_of`.
    spare: for each cell type, the places that no macro has.
    columns, rows: tiles of the FPGA.
    """

    at: dict[str, Place]
    spare: dict[str, list[Place]]
    columns: int
    rows: int


def name_of(cell: str) -> str:
    """The part of a macro's name that every synthesis keeps. yosys names a multiplier after nets around it."""
    return re.split(r"_TRELLIS_FF|_DFF|_LUT4|_MULT18X18D|_DI\b", cell, maxsplit=1)[0]


def file_of(board: Board) -> Path:
    """The file of a board's floorplan, if it has one."""
    return FOLDER / f"{board.floorplan or board.name}.json"


def constrain(netlist: dict, board: Board) -> bool:
    """Give the macros of a netlist the places of the board's floorplan. Returns whether there is one.

    Raises TspError if the floorplan does not belong to this netlist.
    """
    file = file_of(board)
    if not file.exists():
        return False
    places: dict[str, str] = json.loads(file.read_text())
    macros = macros_of(netlist)
    if places.keys() != macros.keys():
        wrong = min(places.keys() ^ macros.keys())
        raise TspError(f"{file} must name the block RAMs and multipliers of {board.name}, but {wrong} is only in one "
                       f"of the two; make a new floorplan: `python -m fpga.flow.place_macros {board.name}`")
    for name, cell in macros.items():
        cell["attributes"]["BEL"] = places[name]
    return True


def macros_of(netlist: dict) -> dict[str, dict]:
    """Block RAMs and multipliers by `name_of`."""
    cells = [(name_of(name), cell) for name, cell in top(netlist)["cells"].items() if cell["type"] in KINDS]
    macros = dict(cells)
    if len(macros) < len(cells):
        raise TspError(f"macros must have names of their own, but {len(cells)} macros have {len(macros)} names")
    return macros


class Annealing:
    """Macros and their places. All other cells are fixed.

    kinds: cell type of each macro.
    sites: their places, and spare ones.
    nets: for each net, the box around its fixed cells (see `_box`), and its macros.
    """

    def __init__(self, kinds: dict[str, str], sites: Sites, nets: list[tuple[tuple[int, ...], list[str]]]):
        self.macros = sorted(kinds)
        self.places = dict(sites.at)
        self._kinds: dict[str, list[str]] = defaultdict(list)
        for name, kind in kinds.items():
            self._kinds[kind].append(name)
        for kind, spare in sites.spare.items():
            for number, place in enumerate(spare):
                self._kinds[kind].append(name := f"spare {kind} {number}")
                self.places[name] = place
        self._nets = nets
        self._of: dict[str, set[int]] = defaultdict(set)
        for number, (_, macros) in enumerate(nets):
            for name in macros:
                self._of[name].add(number)

    def length(self, net: int) -> int:
        """Half the perimeter of a net's bounding box, in tiles."""
        box, macros = self._nets[net]
        columns = [*box[:2], *(self.places[name].column for name in macros)]
        rows = [*box[2:], *(self.places[name].row for name in macros)]
        return max(columns) - min(columns) + max(rows) - min(rows)

    def total(self) -> int:
        """Length of all nets of macros."""
        return sum(map(self.length, range(len(self._nets))))

    def exchange(self, random: random.Random, temperature: float) -> None:
        """Try to exchange two macros of a kind, or a macro and a spare place."""
        kind = random.choice([names for names in self._kinds.values() if len(names) > 1])
        a, b = random.sample(kind, 2)
        nets, places = self._of[a] | self._of[b], self.places
        before = sum(map(self.length, nets))
        places[a], places[b] = places[b], places[a]
        longer = sum(map(self.length, nets)) - before
        if longer > 0 and random.random() >= math.exp(-longer / temperature):
            places[a], places[b] = places[b], places[a]


def _box(places: list[Place]) -> tuple[int, ...]:
    """First and last column, first and last row; () without places."""
    if not places:
        return ()
    columns, rows, _ = zip(*places, strict=True)
    return min(columns), max(columns), min(rows), max(rows)


def _found(placed: dict) -> dict[str, tuple[dict, Place]]:
    """The cells of a placed netlist (nextpnr's --write) and their places."""
    cells = {}
    for name, cell in top(placed)["cells"].items():
        bel = cell["attributes"].get("NEXTPNR_BEL", "")
        at = BEL.match(bel)
        if at:
            cells[name] = cell, Place(int(at[1]), int(at[2]), bel)
    return cells


def sites_of(placed: dict) -> Sites:
    """The sites that the macros of a placed netlist have, and no spare ones."""
    found = _found(placed)
    columns, rows = zip(*((place.column, place.row) for _, place in found.values()), strict=True)
    return Sites({name_of(name): place for name, (cell, place) in found.items() if cell["type"] in KINDS}, {},
                 1 + max(columns), 1 + max(rows))


def by_nets(placed: dict) -> Annealing:
    """Macros of a placed netlist, with the nets that pull them."""
    fixed: dict[int, list[Place]] = defaultdict(list)
    movable: dict[int, set[str]] = defaultdict(set)
    kinds = {}
    for name, (cell, place) in _found(placed).items():
        macro = name_of(name) if cell["type"] in KINDS else None
        if macro:
            kinds[macro] = cell["type"]
        for net in (net for pin, nets in cell["connections"].items() if pin not in CLOCKS for net in nets):
            if macro:
                movable[net].add(macro)
            else:
                fixed[net].append(place)
    return Annealing(kinds, sites_of(placed), [(_box(fixed[net]), sorted(macros)) for net, macros in movable.items()
                                               if len(macros) <= FANOUT])


def lane_of(name: str, cell: dict) -> int | None:
    """The lane that a macro of yosys' netlist serves; None if it does not serve a single one.

    name: the macro's name, by `name_of`.
    """
    block = re.search(r"unit_MEM_\w+\.banks\.bank\d+\.0\.(\d+)$", name)
    if block:
        nets = Counter(net for pin, nets in cell["connections"].items() if pin.startswith("DI") for net in nets
                       if isinstance(net, int))
        bits = sum(times == 1 for times in nets.values())  # yosys repeats a net at pins that are not used
        return int(block[1]) * bits // (8 * PLANES)
    found = re.search(r"\.product\d_\d+_(\d+)$|\.lane(\d+)\.", name)
    return int(found[1] or found[2]) if found else None


def by_lanes(netlist: dict, sites: Sites, lanes: int, made: int) -> Annealing:
    """The macros of yosys' netlist, each pulled to the middle of its lane, or of the half towards its hemisphere.

    Each lane has a rectangle in a grid. Lanes with close numbers are neighbours. Lanes that the same one of the `made`
    lanes of a folded VXM computes are even closer. Where there are spare places, a macro that serves no lane is pulled
    to the middle of the FPGA.
    """
    bits = lanes.bit_length() - 1
    columns, rows = 1 << (bits + 1) // 2, 1 << bits // 2
    cells, nets = macros_of(netlist), []
    for macro, cell in cells.items():
        lane = lane_of(macro, cell)
        if lane is not None:
            lane = lane % made * (lanes // made) + lane // made
            column, row = (sum((lane >> 2 * n + axis & 1) << n for n in range(2)) for axis in (0, 1))
            side = 1 if re.search(r"_E\d*\.", macro) else -1 if re.search(r"_W\d*\.", macro) else 0
            x, y = (4 * column + 2 + side) * sites.columns // (4 * columns), (2 * row + 1) * sites.rows // (2 * rows)
        elif sites.spare:
            x, y = sites.columns // 2, sites.rows // 2
        else:
            continue
        nets.append(((x, x, y, y), [macro]))
    return Annealing({name: cell["type"] for name, cell in cells.items()}, sites, nets)


def anneal(macros: Annealing, console: Console, tries: int = EXCHANGES, seed: int = 1) -> dict[str, str]:
    """Bels by `name_of`, after `tries` tries."""
    chance = random.Random(seed)
    before = macros.total()
    with Progress(console=console, transient=True) as progress:
        for n in progress.track(range(tries), description="exchanging macros"):
            macros.exchange(chance, HOT * (1 - n / tries) ** 2)
    console.print(f"wires of {len(macros.macros)} macros: {before:,} tiles before, {macros.total():,} after")
    return {name: macros.places[name].bel for name in macros.macros}
