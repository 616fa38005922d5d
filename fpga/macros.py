"""Places of a board's block RAMs and multipliers: a floorplan that is made once (`fpga.plan`) and kept.

On a full FPGA they are a few hundred cells with thousands of wires, their places are in rows through the whole of it,
and nearly all are taken. nextpnr's placers move them badly: given beforehand they make the wires of the `ulx3s` board a
quarter shorter (docs/decisions/0015-floorplan.md). Places are found by exchanging two macros at a time, everything else
staying where nextpnr has put it (simulated annealing: Kirkpatrick, Gelatt, Vecchi, Science 220, 1983).
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

from compiler.errors import TspError

from .boards import Board
from .netlist import top

FOLDER = Path(__file__).with_name("floorplans")
"""`BOARD.json`: the bel of each macro, by `name_of`."""
KINDS = ("DP16KD", "MULT18X18D")
CLOCKS = ("CLK", "CLKA", "CLKB", "WCK", "CLK0")
EXCHANGES = 400_000
"""Tries of one annealing: a minute and a half."""
HOT = 200.0
"""Temperature at the beginning, in tiles of wire."""
FANOUT = 60
"""A net of more macros than this does not get shorter by an exchange."""
BEL = re.compile(r"X(\d+)/Y(\d+)/")


class Place(NamedTuple):
    """Where a cell is: the tile, and the bel's name."""

    column: int
    row: int
    bel: str


def name_of(cell: str) -> str:
    """What stays of a macro's name from one synthesis to the next: yosys names a multiplier after nets around it."""
    return re.split(r"_TRELLIS_FF|_LUT4|_MULT18X18D|_DI\b", cell, maxsplit=1)[0]


def constrain(netlist: dict, board: Board) -> bool:
    """Give the macros of a netlist the places of the board's floorplan; returns whether there is one.

    Raises TspError if it is not one of this netlist.
    """
    file = FOLDER / f"{board.name}.json"
    if not file.exists():
        return False
    places: dict[str, str] = json.loads(file.read_text())
    macros = _macros(netlist)
    if places.keys() != macros.keys():
        wrong = min(places.keys() ^ macros.keys())
        raise TspError(f"{file} must name the block RAMs and multipliers of {board.name}, but {wrong} is only in one "
                       f"of the two; make it anew: `python -m fpga.plan {board.name}`")
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
    """Macros on the places that they have, all other cells fixed.

    placed: a netlist that nextpnr has placed (--write).
    """

    def __init__(self, placed: dict):
        cells = {name: cell for name, cell in top(placed)["cells"].items() if "NEXTPNR_BEL" in cell["attributes"]}
        self.places: dict[str, Place] = {}
        self._kinds: dict[str, list[str]] = defaultdict(list)
        fixed: dict[int, list[Place]] = defaultdict(list)
        movable: dict[int, set[str]] = defaultdict(set)
        for name, cell in cells.items():
            bel = cell["attributes"]["NEXTPNR_BEL"]
            found = BEL.match(bel)
            if found is None:
                continue
            place = Place(int(found[1]), int(found[2]), bel)
            if cell["type"] in KINDS:
                self.places[name] = place
                self._kinds[cell["type"]].append(name)
            for pin, nets in cell["connections"].items():
                for net in nets:
                    if not isinstance(net, int) or pin in CLOCKS:
                        continue
                    if cell["type"] in KINDS:
                        movable[net].add(name)
                    else:
                        fixed[net].append(place)
        self._nets = [(_box(fixed[net]), sorted(macros)) for net, macros in movable.items() if len(macros) <= FANOUT]
        self._of: dict[str, set[int]] = defaultdict(set)
        for number, (_, macros) in enumerate(self._nets):
            for name in macros:
                self._of[name].add(number)

    def length(self, net: int) -> int:
        """Half the perimeter of the rectangle around a net, in tiles."""
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
    """First and last column, first and last row; empty without places."""
    if not places:
        return ()
    columns, rows, _ = zip(*places, strict=True)
    return min(columns), max(columns), min(rows), max(rows)


def anneal(placed: dict, console: Console, tries: int = EXCHANGES, seed: int = 1) -> dict[str, str]:
    """Bels by `name_of`, after so many tries."""
    macros, chance = Annealing(placed), random.Random(seed)
    before = macros.total()
    with Progress(console=console, transient=True) as progress:
        for n in progress.track(range(tries), description="exchanging macros"):
            macros.exchange(chance, HOT * (1 - n / tries) ** 2)
    console.print(f"wires of {len(macros.places)} macros: {before:,} tiles before, {macros.total():,} after")
    return {name_of(name): place.bel for name, place in sorted(macros.places.items())}
