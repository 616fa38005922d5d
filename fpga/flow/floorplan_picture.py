"""The floorplan of a placed board as a picture: the places of each unit's logic."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

UNITS = (
    ("VXM", r"unit_VXM", "#4c78a8"), ("MXM W", r"unit_MXM_W", "#f58518"), ("MXM E", r"unit_MXM_E", "#ffbf79"),
    ("SXM", r"unit_SXM", "#54a24b"), ("MEM W", r"unit_MEM_W", "#b279a2"), ("MEM E", r"unit_MEM_E", "#e0a9d5"),
    ("streams", r"streams", "#9d755d"), ("queues", r"icu_", "#e45756"),
    ("host port, bridge", r"", "#bab0ac"),
)
"""Units: name in the picture, pattern after a dot in a cell's name, colour. The first pattern that matches counts; the
last matches all."""
SCALE = 8
"""Pixels of a tile's side."""
LEGEND = 28
BEL = re.compile(r"X(\d+)/?Y(\d+)/")


def unit_of(cell: str) -> int:
    """Index in `UNITS` of a cell's unit, by the net that yosys named the cell after."""
    return next(n for n, (_, pattern, _) in enumerate(UNITS) if re.search(rf"(^|\.)({pattern})", cell))


def places(netlist: dict) -> list[tuple[str, int, int]]:
    """(cell, x, y) of all cells of a netlist that nextpnr has placed (--write)."""
    cells = [item for module in netlist["modules"].values() for item in module["cells"].items()]
    found = [(name, BEL.match(cell["attributes"].get("NEXTPNR_BEL", ""))) for name, cell in cells]
    return [(name, int(bel[1]), int(bel[2])) for name, bel in found if bel]


def tiles(placed: Iterable[tuple[str, int, int]]) -> dict[tuple[int, int], Counter[int]]:
    """Counts of each unit's cells in a tile, by (x, y)."""
    found: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for name, x, y in placed:
        found[x, y][unit_of(name)] += 1
    return found


def svg(found: dict[tuple[int, int], Counter[int]]) -> str:
    """A tile has the colour of the unit with most cells in it. Neighbours of one colour form a rectangle."""
    width, height = (1 + max(place[axis] for place in found) for axis in (0, 1))
    size = width * SCALE, height * SCALE + LEGEND
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" font-family="sans-serif" '
             f'font-size="12">', f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>']
    for y in range(height):
        row = [found[x, y].most_common(1)[0][0] if (x, y) in found else None for x in range(width)]
        x = 0
        for unit, run in groupby(row):
            length = len(list(run))
            if unit is not None:
                lines.append(f'<rect x="{x * SCALE}" y="{y * SCALE}" width="{length * SCALE}" height="{SCALE}" '
                             f'fill="{UNITS[unit][2]}"/>')
            x += length
    for n, (name, _, colour) in enumerate(UNITS):
        x, y = n * size[0] // len(UNITS) + 6, height * SCALE + LEGEND - 9
        lines += [f'<rect x="{x}" y="{y - 10}" width="11" height="11" fill="{colour}"/>',
                  f'<text x="{x + 15}" y="{y}">{escape(name)}</text>']
    return "\n".join([*lines, "</svg>", ""])


def draw(placed: Path) -> str:
    """The picture of the places in a file, which holds the result of `places`."""
    return svg(tiles(json.loads(placed.read_text())))
