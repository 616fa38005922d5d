"""Moves registers around multipliers into the multipliers, which yosys does not do.

A MULT18X18D has registers at its factors and after its product. A flip-flop without enable and reset can move into it
if it holds a bit of a factor, or if it holds a bit of the product and is the only sink of that bit.
"""

from .netlist import Bit, top, uses

PLAIN = {"CEMUX": "1", "CLKMUX": "CLK", "REGSET": "RESET"}
"""Parameters of a flip-flop that a multiplier's register can replace. Its reset must also be constant."""


def take_registers(netlist: dict) -> int:
    """Change the top module of a netlist of ECP5 cells (yosys' write_json). Returns the number of flip-flops removed.

    Either both factors are registered, or neither. nextpnr knows no delays for other combinations.
    """
    module = top(netlist)
    cells, count = module["cells"], len(module["cells"])
    plain = {name: cell["connections"] for name, cell in cells.items()
             if cell["type"] == "TRELLIS_FF" and cell["connections"]["LSR"] == ["0"]
             and all(cell["parameters"][key].strip() == value for key, value in PLAIN.items())}
    behind, ahead = ({pins[end][0]: name for name, pins in plain.items()} for end in ("Q", "DI"))
    used = uses(module)
    for cell in [cell for cell in cells.values() if cell["type"] == "MULT18X18D"]:
        pins = cell["connections"]
        nets = {pin: net for pin, (net,) in pins.items() if pin[0] in "ABP" and pin[1:].isdigit() and net in used}
        factors: dict[str, Bit] = {pin: net for pin, net in nets.items() if pin[0] != "P" and isinstance(net, int)}
        if held := _at(plain, behind, factors):
            _register(cell, plain, held, "INPUTA", "INPUTB")
            for pin, name in held.items():
                pins[pin] = plain[name]["DI"]
                used.update(pins[pin])
                used.subtract([factors[pin]])
        products = {pin: net for pin, net in nets.items() if pin[0] == "P" and used[net]}
        taken = _at(plain, ahead, products)
        if taken and all(used[net] == 1 for net in products.values()):
            _register(cell, plain, taken, "OUTPUT")
            for pin, name in taken.items():
                pins[pin] = plain[name]["Q"]
                del cells[name], plain[name]
    for name in [name for name, pins in plain.items() if not used[pins["Q"][0]]]:
        del cells[name]
    return count - len(cells)


def _at(plain: dict[str, dict[str, list[Bit]]], by_net: dict[Bit, str], nets: dict[str, Bit]) -> dict[str, str]:
    """The flip-flop at each net. Empty if a net has none, or if they have more than one clock."""
    found = {pin: by_net[net] for pin, net in nets.items() if by_net.get(net) in plain}
    return found if len(found) == len(nets) and len({plain[name]["CLK"][0] for name in found.values()}) == 1 else {}


def _register(cell: dict, plain: dict[str, dict[str, list[Bit]]], found: dict[str, str], *places: str) -> None:
    """Enable registers of a multiplier, with the clock of the flip-flops that they replace."""
    clock = plain[next(iter(found.values()))]["CLK"]
    cell["parameters"] |= {f"REG_{place}_CLK": "CLK0" for place in places}
    cell["connections"] |= {"CLK0": clock, "CE0": ["1"], "RST0": ["0"]}
    cell["port_directions"] |= dict.fromkeys(("CLK0", "CE0", "RST0"), "input")
