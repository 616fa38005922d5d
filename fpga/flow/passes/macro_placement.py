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
from collections import defaultdict
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
KINDS = ("DP16KD", "MULT18X18D")
CLOCKS = ("CLK", "CLKA", "CLKB", "WCK", "CLK0")
EXCHANGES = 400_000
"""Tries of one annealing. They take a minute and a half."""
HOT = 200.0
"""Temperature at the beginning, in tiles of wire."""
FANOUT = 60
"""Most macros of a net that counts. An exchange does not shorten a net with more."""
BEL = re.compile(r"X(\d+)/Y(\d+)/")


class Place(NamedTuple):
    """The place of a cell: its tile, and the bel's name."""

    column: int
    row: int
    bel: str


def name_of(cell: str) -> str:
    """The part of a macro's name that every synthesis keeps. yosys names a multiplier after nets around it."""
    return re.split(r"_TRELLIS_FF|_LUT4|_MULT18X18D|_DI\b", cell, maxsplit=1)[0]


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
    macros = _macros(netlist)
    if places.keys() != macros.keys():
        wrong = min(places.keys() ^ macros.keys())
        raise TspError(f"{file} must name the block RAMs and multipliers of {board.name}, but {wrong} is only in one "
                       f"of the two; make a new floorplan: `python -m fpga.flow.place_macros {board.name}`")
    for name, cell in macros.items():
        cell["attributes"]["BEL"] = places[name]
    return True


def _macros(netlist: dict) -> dict[str, dict]:
    """Block RAMs and multipliers by `name_of`."""
    cells = [(name_of(name), cell) for name, cell in top(netlist)["cells"].items() if cell["type"] in KINDS]
    macros = dict(cells)
    if len(macros) < len(cells):
        raise TspError(f"macros must have names of their own, but {len(cells)} macros have {len(macros)} names")
    return macros


class Annealing:
    """Macros and their places. All other cells are fixed.

    kinds: cell type of each macro.
    places: place of each macro.
    nets: for each net, the box around its fixed cells (see `_box`), and its macros.
    """

    def __init__(self, kinds: dict[str, str], places: dict[str, Place], nets: list[tuple[tuple[int, ...], list[str]]]):
        self.places = places
        self._kinds: dict[str, list[str]] = defaultdict(list)
        for name, kind in kinds.items():
            self._kinds[kind].append(name)
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
        """Try to exchange two macros of a kind."""
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


def by_nets(placed: dict) -> Annealing:
    """Macros of a placed netlist, with the nets that pull them."""
    fixed: dict[int, list[Place]] = defaultdict(list)
    movable: dict[int, set[str]] = defaultdict(set)
    kinds, places = {}, {}
    for name, (cell, place) in _found(placed).items():
        macro = name_of(name) if cell["type"] in KINDS else None
        if macro:
            kinds[macro], places[macro] = cell["type"], place
        for net in (net for pin, nets in cell["connections"].items() if pin not in CLOCKS for net in nets):
            if macro:
                movable[net].add(macro)
            else:
                fixed[net].append(place)
    return Annealing(kinds, places, [(_box(fixed[net]), sorted(macros)) for net, macros in movable.items()
                                     if len(macros) <= FANOUT])


def lane_of(name: str, cell: dict) -> int | None:
    """The lane that a macro of yosys' netlist serves; None if it does not serve a single one.

    name: the macro's name, by `name_of`.
    """
    block = re.search(r"unit_MEM_\w+\.banks\.bank\d+\.0\.(\d+)$", name)
    if block:
        bits = sum(isinstance(net, int) for pin, nets in cell["connections"].items() if pin.startswith("DI")
                   for net in nets)
        return int(block[1]) * bits // (8 * PLANES)
    found = re.search(r"\.product\d_\d+_(\d+)$|\.lane(\d+)\.", name)
    return int(found[1] or found[2]) if found else None


def by_lanes(netlist: dict, placed: dict, lanes: int, made: int) -> Annealing:
    """The same macros, each pulled to the middle of its lane, or of the lane's half towards its hemisphere.

    Each lane has a rectangle in a grid. Lanes with close numbers are neighbours. Lanes that the same one of the `made`
    lanes of a folded VXM computes are even closer.
    """
    found = _found(placed)
    across, down = 1 + max(p.column for _, p in found.values()), 1 + max(p.row for _, p in found.values())
    bits = lanes.bit_length() - 1
    columns, rows = 1 << (bits + 1) // 2, 1 << bits // 2
    kinds, places, nets = {}, {}, []
    cells = {name_of(name): cell for name, cell in top(netlist)["cells"].items() if cell["type"] in KINDS}
    for name, (cell, place) in found.items():
        if cell["type"] not in KINDS:
            continue
        macro = name_of(name)
        kinds[macro], places[macro] = cell["type"], place
        lane = lane_of(macro, cells[macro])
        if lane is not None:
            lane = lane % made * (lanes // made) + lane // made
            column, row = (sum((lane >> 2 * n + axis & 1) << n for n in range(2)) for axis in (0, 1))
            side = 1 if re.search(r"_E\d*\.", macro) else -1 if re.search(r"_W\d*\.", macro) else 0
            x, y = (4 * column + 2 + side) * across // (4 * columns), (2 * row + 1) * down // (2 * rows)
            nets.append(((x, x, y, y), [macro]))
    return Annealing(kinds, places, nets)


def anneal(macros: Annealing, console: Console, tries: int = EXCHANGES, seed: int = 1) -> dict[str, str]:
    """Bels by `name_of`, after `tries` tries."""
    chance = random.Random(seed)
    before = macros.total()
    with Progress(console=console, transient=True) as progress:
        for n in progress.track(range(tries), description="exchanging macros"):
            macros.exchange(chance, HOT * (1 - n / tries) ** 2)
    console.print(f"wires of {len(macros.places)} macros: {before:,} tiles before, {macros.total():,} after")
    return {name: place.bel for name, place in sorted(macros.places.items())}
