"""Fanout duplication: copies registers and LUTs of high fanout after placement. A copy serves the sinks of one region.

A router adds each sink of a large net where the net is near, which makes long detours. The delay to the last sinks is
then as long as that of all logic. The copies of a cell have the same inputs, and each copy drives a short net. The
drivers of these inputs get one more sink for each region, and may be duplicated in turn.
"""

from collections import Counter, defaultdict
from itertools import count, product
from statistics import mean
from typing import NamedTuple

from base.errors import TspError
from fpga.flow.floorplan_picture import places

from .netlist import Bit, top

EXTENT = 24
"""Most tiles of width plus height for a copy's sinks."""
FEW = 4
"""Most sinks of a copy that may lie further apart."""
OUTPUTS = {"TRELLIS_FF": "Q", "TRELLIS_COMB": "F"}
"""Cells that may be copied, and their outputs."""
COPY = "$copy"
"""Suffix of a copy's name, after the cell's name."""
DIRECT = "DI"
"""A register's input from the LUT at the same place. It takes no wire."""
OPEN = "x"
"""An unconnected input. nextpnr writes no net for it, but fails when it reads such a cell."""
PLACE = "NEXTPNR_BEL", "BEL_STRENGTH"
LOCKED = f"{5:032b}"
"""nextpnr's strength of a place that no placer changes."""


class Sink(NamedTuple):
    """A cell's input, and the place of the cell."""

    x: float
    y: float
    cell: str
    pin: str


def split(netlist: dict, most: int) -> int:
    """Change a placed netlist (nextpnr's --write). Copies have no place yet. All other cells keep theirs.

    most: sinks of a net that is left unchanged (`Board.sinks`).

    Returns the number of cells added.
    """
    cells = top(netlist)["cells"]
    before = len(cells)
    for cell in cells.values():
        cell["attributes"]["BEL_STRENGTH"] = LOCKED
        cell["connections"] |= {pin: [OPEN] for pin, bits in cell["connections"].items() if not bits}
    splitter = _Splitter(netlist, most)
    while heavy := splitter.heavy():
        first = [name for name, sinks in heavy.items() if not any(sink.cell in heavy for sink in sinks)]
        for name in first or list(heavy)[:1]:  # cells without heavy sinks first; in a cycle, any cell
            splitter.copy(name, heavy[name])
    return len(cells) - before


def check(before: dict, after: dict) -> None:
    """Compare two placed netlists cell by cell: before `split`, and after its copies were placed.

    Raises TspError unless each cell, copies included, has the same inputs and computes the same function of them.
    """
    old, new = (top(netlist)["cells"] for netlist in (before, after))
    hears_old, hears_new = _drivers(old), _drivers(new)
    missing = old.keys() - {_original(name) for name in new}
    wrong = [*missing, *(name for name, cell in new.items() if _original(name) not in old
                         or _meaning(cell, hears_new) != _meaning(old[_original(name)], hears_old))]
    if wrong:
        raise TspError(f"placing copies must keep every cell, but it changed {wrong[0]} ({len(wrong)} cells in all)")


def regions(sinks: list[Sink]) -> list[list[Sink]]:
    """The sinks, divided in the middle of the longer side until each part is small. A tile's sinks stay together."""
    (left, right), (low, high) = ((min(side), max(side)) for side in zip(*((s.x, s.y) for s in sinks), strict=True))
    if right - left + high - low <= EXTENT or len(sinks) <= FEW:
        return [sinks]
    wide = right - left >= high - low
    middle = (left + right) / 2 if wide else (low + high) / 2
    near = [sink for sink in sinks if (sink.x if wide else sink.y) <= middle]
    far = [sink for sink in sinks if (sink.x if wide else sink.y) > middle]
    return regions(near) + regions(far)


class _Splitter:
    """A placed netlist, and the places of its cells. A copy counts as placed in the middle of its sinks."""

    def __init__(self, netlist: dict, most: int) -> None:
        module, self._most = top(netlist), most
        self._cells, self._names = module["cells"], module["netnames"]
        self._where: dict[str, tuple[float, float]] = {name: (x, y) for name, x, y in places(netlist)}
        self._copies: set[str] = set()
        self._direct: set[Bit] = set()
        self._numbers = Counter[str]()
        self._free = count(1 + max(bit for net in self._names.values() for bit in net["bits"] if isinstance(bit, int)))

    def heavy(self) -> dict[str, list[Sink]]:
        """The sinks of each cell that must be copied, without `DIRECT` ones."""
        cells = self._cells.items()
        self._direct = {cell["connections"][DIRECT][0] for _, cell in cells if DIRECT in cell["connections"]}
        drivers: dict[Bit, str] = {cell["connections"][OUTPUTS[cell["type"]]][0]: name for name, cell in cells
                                   if name not in self._copies and _may_be_copied(cell)}
        sinks: dict[Bit, list[Sink]] = defaultdict(list)
        for name, cell in cells:
            for pin, (bit,) in cell["connections"].items():
                if (bit in drivers and pin != DIRECT and cell["port_directions"][pin] != "output"
                        and drivers[bit] != name):  # a register that feeds itself: so does each copy
                    sinks[bit].append(Sink(*self._where[name], name, pin))
        return {drivers[bit]: found for bit, found in sinks.items() if len(found) > self._most
                and len(regions(found)) > 1}

    def copy(self, name: str, sinks: list[Sink]) -> None:
        """Replace a cell by copies, one for each region.

        The cell itself stays only for a `DIRECT` sink. It may be copied again for sinks that it gets later.
        """
        cell = self._cells[name]
        output = OUTPUTS[cell["type"]]
        own = cell["connections"][output]
        if own[0] not in self._direct:
            del self._cells[name]
        for region in regions(sinks):
            number = self._numbers[name]
            self._numbers[name] += 1
            copy, bits = f"{name}{COPY}{number}", [next(self._free)]
            self._cells[copy] = made = _unplaced(cell)
            made["connections"] = {pin: bits if net == own else net for pin, net in made["connections"].items()}
            self._names[f"{copy}${output}"] = {"hide_name": 1, "bits": bits, "attributes": {}}
            self._where[copy] = mean(sink.x for sink in region), mean(sink.y for sink in region)
            self._copies.add(copy)
            for sink in region:
                self._cells[sink.cell]["connections"][sink.pin] = bits


def _original(name: str) -> str:
    return name.split(COPY)[0]


def _drivers(cells: dict[str, dict]) -> dict[Bit, tuple[str, str]]:
    """The driver of each net: the cell's name, or that of its original, and the output."""
    return {bit: (_original(name), pin) for name, cell in cells.items() for pin, bits in cell["connections"].items()
            if cell["port_directions"][pin] == "output" for bit in bits}


def _meaning(cell: dict, drivers: dict[Bit, tuple[str, str]]) -> tuple:
    """A cell's inputs and its function of them. A LUT's inputs may have been permuted. Unconnected ones are 1."""
    heard = {"M" if pin == DIRECT else pin: drivers.get(bit) for pin, bits in cell["connections"].items()
             for bit in bits if bit != OPEN and cell["port_directions"][pin] != "output"}
    if not _is_lut(cell):
        return cell["type"], heard, {name: value for name, value in cell["parameters"].items() if name != "SD"}
    sources = sorted(set(heard.values()), key=str)
    table = int(cell["parameters"]["INITVAL"], 2)
    tables = []
    for values in product((0, 1), repeat=len(sources)):
        known = dict(zip(sources, values, strict=True))
        index = sum((known[heard[pin]] if pin in heard else 1) << n for n, pin in enumerate("ABCD"))
        tables.append(table >> index & 1)
    return cell["type"], sources, tables


def _is_lut(cell: dict) -> bool:
    return cell["type"] == "TRELLIS_COMB" and cell["parameters"].get("MODE", "LOGIC") == "LOGIC"


def _may_be_copied(cell: dict) -> bool:
    """Whether a cell is a register without asynchronous reset, or a LUT with inputs."""
    if cell["type"] == "TRELLIS_FF":
        return cell["parameters"].get("SRMODE") != "ASYNC"
    return _is_lut(cell) and any(cell["connections"].get(pin, [OPEN]) != [OPEN] for pin in "ABCD")


def _unplaced(cell: dict) -> dict:
    """A cell without a place. A register is separated from the LUT before it."""
    attributes = {name: value for name, value in cell["attributes"].items() if name not in PLACE}
    pins, ways = ({("M" if pin == DIRECT else pin): value for pin, value in cell[part].items()}
                  for part in ("connections", "port_directions"))
    parameters = cell["parameters"] | ({"SD": "0 "} if "SD" in cell["parameters"] else {})
    return cell | {"attributes": attributes, "parameters": parameters, "connections": pins, "port_directions": ways}
