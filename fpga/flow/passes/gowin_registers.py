"""Fits flip-flops to a Gowin FPGA. There a flip-flop occupies a LUT's place, unless that LUT or an ALU feeds it.

Multipliers and block RAMs have registers of their own, which yosys does not use. `take_multipliers` and `take_brams`
move adjacent flip-flops into them. `pass_through` gives each remaining flip-flop a LUT that passes its input. nextpnr
makes the same LUTs after placement, but it places only pairs that exist from the start as one.
"""

from collections import Counter
from typing import Any

from .netlist import Bit, top, uses

MULTIPLIERS = "MULT9X9", "MULT18X18", "MULT12X12"
TWO_CLOCKS = "MULT12X12"
"""The multiplier of a GW5A. Each of its registers chooses one of two clocks."""
BRAM = "SDPX9B"
CONSTANTS = "GND", "VCC"
FEEDERS = "LUT1", "LUT2", "LUT3", "LUT4", "ALU"
"""Cells that a flip-flop may share a place with."""
BUFFER = {"I0": "input", "F": "output"}

Flop = dict[str, list[Bit]]
"""Connections of a flip-flop."""


def take_multipliers(netlist: dict) -> int:
    """Move the registers of factors and products into multipliers. Returns the number of flip-flops removed.

    A flip-flop without enable and reset can move if it holds a bit of a factor, or if it holds a bit of the product and
    is the only sink of that bit. Either both factors are registered, or neither.
    """
    module = top(netlist)
    cells, used, constants = module["cells"], uses(module), _constants(module)
    plain = {name: cell["connections"] for name, cell in cells.items() if cell["type"] == "DFF"}
    behind, ahead = ({pins[end][0]: name for name, pins in plain.items()} for end in ("Q", "D"))
    count = len(cells)
    for cell in [cell for cell in cells.values() if cell["type"] in MULTIPLIERS]:
        pins = cell["connections"]
        factors = [net for net in pins["A"] + pins["B"] if net not in constants.values()]
        if (clock := _clock(plain, behind, factors)) is not None:
            _register(cell, clock, constants, "AREG", "BREG")
            for factor in "AB":
                pins[factor] = [plain[behind[net]]["D"][0] if net in factors else net for net in pins[factor]]
                used.update(pins[factor])
            used.subtract(factors)
        products = [net for net in pins["DOUT"] if used[net]]
        clock = _clock(plain, ahead, products)
        if clock is not None and all(used[net] == 1 for net in products) and _agree(cell, clock):
            _register(cell, clock, constants, "OREG" if cell["type"] == TWO_CLOCKS else "OUT_REG")
            taken = {net: ahead[net] for net in products}
            pins["DOUT"] = [plain[taken[net]]["Q"][0] if net in taken else net for net in pins["DOUT"]]
            for name in taken.values():
                del cells[name], plain[name]
    for name in [name for name, pins in plain.items() if not used[pins["Q"][0]]]:
        del cells[name]
    return count - len(cells)


def _clock(plain: dict[str, Flop], by_net: dict[Bit, str], nets: list[Bit]) -> Bit | None:
    """The clock of the flip-flops at the nets; None if a net has no flip-flop or they have several clocks."""
    clocks = {plain[by_net[net]]["CLK"][0] if by_net.get(net) in plain else None for net in nets}
    return clocks.pop() if len(clocks) == 1 else None


def _agree(cell: dict, clock: Bit) -> bool:
    """Whether a multiplier's registers, if it already uses any, have this clock."""
    return not {"AREG", "AREG_CLK"} & cell["parameters"].keys() or cell["connections"]["CLK"][0] == clock


def _register(cell: dict, clock: Bit, constants: dict[str, Bit], *places: str) -> None:
    """Enable registers of a multiplier."""
    unused = []
    if cell["type"] == TWO_CLOCKS:
        cell["parameters"] |= {f"{place}_CLK": "CLK0" for place in places}
        unused = [constants["GND"]]
    else:
        cell["parameters"] |= dict.fromkeys(places, "1")
    cell["connections"] |= {"CLK": [clock, *unused], "CE": [constants["VCC"], *unused],
                            "RESET": [constants["GND"], *unused]}


def take_brams(netlist: dict) -> int:
    """Move the registers after block RAMs into them. Returns the number of flip-flops removed.

    A block RAM's register has an enable. Its reset would also clear the word just read, so flip-flops with a reset do
    not move. Each bit of the word must have one flip-flop as its only sink, and all must share clock and enable.
    """
    module = top(netlist)
    cells, used, constants = module["cells"], uses(module), _constants(module)
    ahead = {cell["connections"]["D"][0]: name for name, cell in cells.items() if cell["type"] in ("DFF", "DFFE")}
    count = len(cells)
    for cell in [cell for cell in cells.values() if cell["type"] == BRAM]:
        pins = cell["connections"]
        word = [net for net in pins["DO"] if used[net]]
        if not word or any(used[net] != 1 or net not in ahead for net in word):
            continue
        flops: dict[Bit, Flop] = {net: cells[ahead[net]]["connections"] for net in word}
        enables = {_enable(flop, constants) for flop in flops.values()}
        if len(enables) != 1 or any(flop["CLK"] != pins["CLKB"] for flop in flops.values()):
            continue
        cell["parameters"]["READ_MODE"] = "1"
        pins["OCE"] = [*enables]
        pins["DO"] = [flops[net]["Q"][0] if net in flops else net for net in pins["DO"]]
        for net in word:
            del cells[ahead[net]]
    return count - len(cells)


def _enable(flop: Flop, constants: dict[str, Bit]) -> Bit:
    """The enable of a flip-flop of any type without reset."""
    return flop["CE"][0] if "CE" in flop else constants["VCC"]


def pass_through(netlist: dict) -> int:
    """Put a LUT before each flip-flop that has no LUT or ALU of its own. Returns the number of LUTs added.

    The first flip-flop that a LUT or an ALU feeds shares its place. All others get a LUT: their feeder belongs to
    another flip-flop, or their input comes from elsewhere.
    """
    module = top(netlist)
    cells, free = module["cells"], _next_net(module)
    feeders = {net for cell in cells.values() if cell["type"] in FEEDERS
               for pin in ("F", "SUM") for net in cell["connections"].get(pin, ())}
    alone = []
    for name, cell in cells.items():
        if cell["type"].startswith("DFF"):
            (net,) = cell["connections"]["D"]
            if net in feeders:
                feeders.remove(net)
            else:
                alone.append(name)
    for number, name in enumerate(alone, free):
        pins = cells[name]["connections"]
        cells[f"{name}_through"] = {
            "hide_name": 0, "type": "LUT1", "parameters": {"INIT": "10"}, "attributes": {}, "port_directions": BUFFER,
            "connections": {"I0": pins["D"], "F": [number]}}
        pins["D"] = [number]
    return len(alone)


def _constants(module: dict[str, Any]) -> dict[str, Bit]:
    """The nets of the two constants, by the cells that drive them."""
    return {cell["type"]: next(iter(cell["connections"].values()))[0] for cell in module["cells"].values()
            if cell["type"] in CONSTANTS}


def _next_net(module: dict[str, Any]) -> int:
    """The least number above those of all nets."""
    every = Counter(bit for cell in module["cells"].values() for bits in cell["connections"].values() for bit in bits)
    every.update(bit for port in module["ports"].values() for bit in port["bits"])
    every.update(bit for net in module.get("netnames", {}).values() for bit in net["bits"])
    return 1 + max((bit for bit in every if isinstance(bit, int)), default=1)
