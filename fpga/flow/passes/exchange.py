"""Exchanges block RAMs after placement, so that none is far from what it drives.

A block RAM takes 6 ns to drive its output, a wire across the FPGA 10 ns. The floorplan (`macro_placement`) makes the
wires of all block RAMs short in sum, and a queue's word has few of them. So a queue may come to lie 70 tiles away from
what decodes its words, and hold the clock. Then it changes places with a bank of SRAM, whose wires become longer, but
not as long.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from fpga.flow.floorplan_picture import places

from .netlist import top

KIND = "DP16KD"
PLACE = "NEXTPNR_BEL"
FAR = 30
"""Tiles to the farthest cell that a block RAM drives beyond which it is exchanged."""
Point = tuple[int, int]


class Reach(NamedTuple):
    """Of the cells that a block RAM drives, what the distance to the farthest one depends on: the extremes of x + y and
    of x - y."""

    most: int
    least: int
    most_across: int
    least_across: int

    @classmethod
    def of(cls, points: Sequence[Point]) -> "Reach":
        """The reach of cells at these points."""
        down, across = [x + y for x, y in points], [x - y for x, y in points]
        return cls(max(down), min(down), max(across), min(across))

    def tiles(self, point: Point) -> int:
        """Tiles to the farthest cell, along columns and rows, from a block RAM here."""
        down, across = point[0] + point[1], point[0] - point[1]
        return max(down - self.least, self.most - down, across - self.least_across, self.most_across - across)


def exchange(netlist: dict) -> int:
    """Change a placed netlist (nextpnr's --write). Returns the number of exchanges.

    The block RAM that is farthest from what it drives changes places with the one by which the farther one of both
    comes nearest, as long as that is nearer than it was.
    """
    cells, where = top(netlist)["cells"], {name: (x, y) for name, x, y in places(netlist)}
    reaches = _reaches(cells, where)
    far, settled, count = {name: reach.tiles(where[name]) for name, reach in reaches.items()}, set[str](), 0
    while left := [name for name in reaches if name not in settled and far[name] > FAR]:
        worst = max(left, key=lambda name: (far[name], name))
        found, other = min((max(reaches[worst].tiles(where[name]), reach.tiles(where[worst])), name)
                           for name, reach in reaches.items())
        if found >= max(far[worst], far[other]):
            settled.add(worst)
            continue
        where[worst], where[other] = where[other], where[worst]
        one, two = (cells[name]["attributes"] for name in (worst, other))
        one[PLACE], two[PLACE] = two[PLACE], one[PLACE]
        far |= {name: reaches[name].tiles(where[name]) for name in (worst, other)}
        count += 1
    return count


def _reaches(cells: dict, where: dict[str, Point]) -> dict[str, Reach]:
    """Of all block RAMs that drive something, by name. Wires between two of them do not count."""
    sinks = defaultdict[int, list[Point]](list)
    for name, cell in cells.items():
        if cell["type"] != KIND and name in where:
            for pin, bits in cell["connections"].items():
                if cell["port_directions"][pin] == "input":
                    for bit in bits:
                        sinks[bit].append(where[name])
    points = {name: [point for pin, bits in cell["connections"].items() if cell["port_directions"][pin] == "output"
                     for bit in bits for point in sinks[bit]]
              for name, cell in sorted(cells.items()) if cell["type"] == KIND and name in where}
    return {name: Reach.of(found) for name, found in points.items() if found}
