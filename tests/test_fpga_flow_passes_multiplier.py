"""Registers of multipliers: the flip-flops that are taken in, and all those that must stay."""

import copy

import pytest

from fpga.flow.passes import multiplier
from fpga.flow.passes.netlist import count

CLOCK, OTHER_CLOCK = 2, 3
FACTORS, HELD, PRODUCT, RESULT = (range(10 * n, 10 * n + 4) for n in range(1, 5))
"""Nets of four bits each: what the factors' flip-flops hold next, what they hold, the product, what is behind it."""


def flip_flop(d: int, q: int) -> dict:
    parameters = {"CEMUX": "1 ", "CLKMUX": "CLK", "GSR": "DISABLED", "LSRMUX": "LSR", "REGSET": "RESET"}
    return {"type": "TRELLIS_FF", "parameters": parameters,
            "port_directions": {"CLK": "input", "DI": "input", "LSR": "input", "Q": "output"},
            "connections": {"CLK": [CLOCK], "DI": [d], "LSR": ["0"], "Q": [q]}}


def netlist() -> dict:
    """Two bits by two, the second factor's upper bit being its sign, too; a constant in the first one."""
    pins = {"A0": HELD[0], "A1": HELD[1], "A2": "0", "B0": HELD[2], "B1": HELD[3], "B2": HELD[3],
            **{f"P{n}": net for n, net in enumerate(PRODUCT)}, "P4": 99}
    product = {"type": "MULT18X18D", "parameters": {}, "connections": {pin: [net] for pin, net in pins.items()},
               "port_directions": {pin: "output" if pin[0] == "P" else "input" for pin in pins}}
    cells = {"product": product, **{f"factor{n}": flip_flop(FACTORS[n], HELD[n]) for n in range(4)},
             **{f"result{n}": flip_flop(PRODUCT[n], RESULT[n]) for n in range(4)}}
    ports = {"i": {"direction": "input", "bits": [CLOCK, *FACTORS]}, "o": {"direction": "output", "bits": [*RESULT]}}
    return {"modules": {"top": {"attributes": {"top": "1"}, "ports": ports, "cells": cells}}}


def cells(netlist: dict) -> dict:
    return netlist["modules"]["top"]["cells"]


def test_all_registers_are_taken_in():
    taken = netlist()
    assert multiplier.take_registers(taken) == 8
    assert count(taken) == {"MULT18X18D": 1}
    product = cells(taken)["product"]
    pins = {pin: net for pin, (net,) in product["connections"].items()}
    assert pins == {"A0": FACTORS[0], "A1": FACTORS[1], "A2": "0", "B0": FACTORS[2], "B1": FACTORS[3],
                    "B2": FACTORS[3], **{f"P{n}": net for n, net in enumerate(RESULT)}, "P4": 99,
                    "CLK0": CLOCK, "CE0": "1", "RST0": "0"}
    assert product["parameters"] == dict.fromkeys(
        ("REG_INPUTA_CLK", "REG_INPUTB_CLK", "REG_OUTPUT_CLK"), "CLK0")
    assert set(product["port_directions"]) == set(product["connections"])


def test_a_factor_that_something_else_needs_stays_too():
    shared = netlist()
    shared["modules"]["top"]["ports"]["o"]["bits"].append(HELD[0])
    assert multiplier.take_registers(shared) == 7
    assert "factor0" in cells(shared) and cells(shared)["product"]["connections"]["A0"] == [FACTORS[0]]


@pytest.mark.parametrize(("name", "change"), [
    (name, change) for name in ("factor0", "result3") for change in (
        {"parameters": {"CEMUX": "CE"}}, {"parameters": {"REGSET": "SET"}}, {"parameters": {"CLKMUX": "INV"}},
        {"connections": {"LSR": [98]}}, {"connections": {"CLK": [OTHER_CLOCK]}})
])
def test_other_flip_flops_stay(name, change):
    """One of a side that does not fit keeps its whole side."""
    kept = netlist()
    for part, values in change.items():
        cells(kept)[name][part] |= values
    assert multiplier.take_registers(kept) == 4
    side = name[:-1]
    assert [other for other in cells(kept) if other != "product"] == [f"{side}{n}" for n in range(4)]
    registered = set(cells(kept)["product"]["parameters"])
    assert registered == ({"REG_OUTPUT_CLK"} if side == "factor" else {"REG_INPUTA_CLK", "REG_INPUTB_CLK"})


def test_a_product_that_leads_elsewhere_stays():
    shared = netlist()
    shared["modules"]["top"]["ports"]["o"]["bits"].append(PRODUCT[1])
    before = copy.deepcopy(shared)
    assert multiplier.take_registers(shared) == 4
    assert {n: c for n, c in cells(shared).items() if n.startswith("result")} \
        == {n: c for n, c in cells(before).items() if n.startswith("result")}
