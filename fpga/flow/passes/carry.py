"""Makes adders smaller than yosys does: moves LUTs into their cells (`fold`), and closes both ends of chains (`end`).

Each half of a CCU2C has a LUT4, and an adder uses two of its inputs. The half's sum is P ^ carry. Its carry out is the
carry in if P is 1, and G if P is 0. P is INIT at {D, C, B, A}, and G is INIT at {B, A} (yosys' own model,
ccu2c_sim.vh).

A sum s + f(x, y) has P = s ^ f. If P is 0, s equals f and may serve as G. So with s on A, x on B, y on C and D at 1,
the function f needs no LUT of its own. A function f(x, y, z), with z on D, needs none either if f(x, 0, 0) = 0: P and G
are then both s where C and D are 0.
"""

from collections.abc import Callable
from itertools import product

from .netlist import Bit, top, uses

ADDER_INIT = "1001011010101010"
"""INIT of a half that yosys makes: P = A ^ B ^ C and G = A, with D at 1 and C constant."""
PINS = "ABCD"


def fold(netlist: dict) -> int:
    """Change the top module of a netlist of ECP5 cells (yosys' write_json). Returns the number of LUTs removed."""
    module = top(netlist)
    cells = module["cells"]
    luts = {cell["connections"]["Z"][0]: name for name, cell in cells.items() if cell["type"] == "LUT4"}
    used, gone = uses(module), 0
    for cell in [cell for cell in cells.values() if cell["type"] == "CCU2C"]:
        for half in "01":
            for operand in "BA":
                net = cell["connections"][operand + half][0]
                name = luts.get(net) if used[net] == 1 else None
                if name and _take(cell, half, operand, cells[name]):
                    del cells[name]
                    gone += 1
                    break
    return gone


def end(netlist: dict) -> None:
    """Change both ends of the top module's carry chains.

    For a net at the last carry, nextpnr makes a cell that leads it out of the chain, even if the net has no sink. So
    this pass removes an unused last carry. For a constant at the first carry, nextpnr makes a cell that takes the
    constant from a net across the whole FPGA. So this pass makes the constant from a cell's own table.
    """
    module = top(netlist)
    adders = {name: cell for name, cell in module["cells"].items() if cell["type"] == "CCU2C"}
    used = uses(module)
    free = 1 + max(bit for cell in module["cells"].values() for bits in cell["connections"].values() for bit in bits
                   if isinstance(bit, int))
    for number, (name, adder) in enumerate(adders.items(), free):
        pins = adder["connections"]
        if not used[pins["COUT"][0]]:
            pins["COUT"] = ["x"]
        if pins["CIN"][0] in ("0", "1"):
            module["cells"][f"{name}$first"] = _first(adder, int(pins["CIN"][0]), number)
            pins["CIN"] = [number]


def _first(adder: dict, carry: int, out: int) -> dict:
    """A cell with a constant carry out. It is G of the lower half, whose P is 0. The upper half passes it on."""
    pins = {pin: ["1" if pin[0] in PINS else "x"] for pin in adder["connections"]}
    tables = {"INIT0": "0" * 12 + str(carry) * 4, "INIT1": "1" * 16, "INJECT1_0": "NO", "INJECT1_1": "YES"}
    return adder | {"parameters": adder["parameters"] | tables, "connections": pins | {"COUT": [out]}}


def _take(adder: dict, half: str, operand: str, lut: dict) -> bool:
    """Move the LUT of one operand into the half of an adder, if possible."""
    pins = adder["connections"]
    inverted, on = pins["C" + half][0], pins["D" + half][0]
    if adder["parameters"]["INIT" + half] != ADDER_INIT or inverted not in ("0", "1") or on != "1":
        return False
    function, inputs = _function(lut)
    other = pins[("A" if operand == "B" else "B") + half][0]
    flip = int(inverted)  # operand B is inverted, be it the function or the other operand
    with_f, with_s = (flip, 0) if operand == "B" else (0, flip)
    order = _order(lambda *values: function(*values) ^ with_f, inputs)
    if order is None:
        return False

    def bit(a: int, b: int, c: int, d: int) -> int:
        s = a ^ with_s
        if len(inputs) < len(PINS) - 1 and not d:
            return s
        values = dict(zip(order, (b, c, d), strict=False))
        return s ^ with_f ^ function(*(values[n] for n in range(len(inputs))))

    table = [bit(a, b, c, d) for d, c, b, a in product((0, 1), repeat=len(PINS))]
    for pin, net in zip(PINS, [other, *(inputs[n] for n in order), *"001"[len(order) :]], strict=True):
        pins[pin + half] = [net]
    adder["parameters"]["INIT" + half] = "".join(map(str, reversed(table)))
    return True


def _function(lut: dict) -> tuple[Callable[..., int], list[Bit]]:
    """A LUT's function of the inputs that matter, and these inputs."""
    init = int(lut["parameters"]["INIT"], 2)
    nets = [lut["connections"][pin][0] for pin in PINS]
    fixed = sum((net == "1") << n for n, net in enumerate(nets))
    free = [n for n, net in enumerate(nets) if isinstance(net, int)]

    def value(places: list[int], values: tuple[int, ...]) -> int:
        return init >> (fixed | sum(one << n for n, one in zip(places, values, strict=True))) & 1

    def matters(n: int) -> bool:
        k = free.index(n)
        return any(value(free, (*v[:k], 0, *v[k:])) != value(free, (*v[:k], 1, *v[k:]))
                   for v in product((0, 1), repeat=len(free) - 1))

    used = [n for n in free if matters(n)]
    return lambda *values: value(used, values), [nets[n] for n in used]


def _order(function: Callable[..., int], inputs: list[Bit]) -> list[int] | None:
    """The inputs for B, C and D; None if they do not fit."""
    if len(inputs) < len(PINS) - 1:
        return list(range(len(inputs)))
    if len(inputs) == len(PINS) - 1:
        for first in range(len(inputs)):
            alone = [tuple(value if n == first else 0 for n in range(len(inputs))) for value in (0, 1)]
            if not any(function(*values) for values in alone):
                return [first, *(n for n in range(len(inputs)) if n != first)]
    return None
