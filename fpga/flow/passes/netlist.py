"""The common parts of passes over netlists that yosys writes (write_json)."""

from collections import Counter

Bit = int | str
"""A net of yosys' JSON, or a constant."""


def top(netlist: dict) -> dict:
    """The top module."""
    return next(m for m in netlist["modules"].values() if int(m["attributes"].get("top", "0"), 2))


def count(netlist: dict) -> dict[str, int]:
    """Cells of the top module by type."""
    return dict(Counter(cell["type"] for cell in top(netlist)["cells"].values()))


def uses(module: dict) -> Counter[Bit]:
    """Inputs and ports at each net."""
    found = Counter(bit for cell in module["cells"].values() for port, bits in cell["connections"].items()
                    if cell["port_directions"][port] != "output" for bit in bits)
    found.update(bit for port in module["ports"].values() for bit in port["bits"])
    return found
