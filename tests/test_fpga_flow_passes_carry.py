"""Carry cells: what `fpga.flow.passes.carry` changes in a netlist computes what it computed before, and what cannot
go in stays."""

import copy
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from fpga.flow.passes import carry

TYPES = {"LUT4": ("Z",), "CCU2C": ("S0", "S1", "COUT")}
"""Outputs of the cells used here."""
OUTPUTS = 8, 9, 10
"""Nets of S0, S1 and COUT of the one adder."""


def cell(kind: str, parameters: dict[str, str], **pins: int | str) -> dict:
    return {"type": kind, "parameters": parameters, "connections": {pin: [net] for pin, net in pins.items()},
            "port_directions": {pin: "output" if pin in TYPES[kind] else "input" for pin in pins}}


def netlist(init: int, operand: str, inverted: int, carry_in: int | str = 7) -> dict:
    """A LUT of nets 2..5 on one operand of an adder's lower half, net 6 on the other one."""
    lut = cell("LUT4", {"INIT": f"{init:016b}"}, A=2, B=3, C=4, D=5, Z=11)
    lower = {"A0": 6, "B0": 11} if operand == "B" else {"A0": 11, "B0": 6}
    tables = {"INIT0": carry.ADDER_INIT, "INIT1": carry.ADDER_INIT, "INJECT1_0": "NO", "INJECT1_1": "NO"}
    adder = cell("CCU2C", tables, **lower, C0=str(inverted), D0="1", A1=3, B1=4, C1="0", D1="1", CIN=carry_in,
                 S0=8, S1=9, COUT=10)
    ports = {"o": {"direction": "output", "bits": list(OUTPUTS)}, "i": {"direction": "input", "bits": [2, 3, 4, 5, 6]}}
    return {"modules": {"top": {"attributes": {"top": "1"}, "ports": ports, "cells": {"lut": lut, "adder": adder}}}}


def value(cells: dict[str, dict], nets: dict[int, int], net: int | str) -> int:
    """A net's value, by the cells' definitions (yosys' ccu2c_sim.vh); a constant's is its own."""
    if isinstance(net, str):
        return int(net)
    if net in nets:
        return nets[net]
    driver, pin = next((c, p) for c in cells.values() for p in TYPES[c["type"]] if c["connections"].get(p) == [net])

    def at(*pins: str) -> int:
        return sum(value(cells, nets, driver["connections"][p][0]) << n for n, p in enumerate(pins))

    def table(name: str, index: int) -> int:
        return int(driver["parameters"][name], 2) >> index & 1

    if driver["type"] == "LUT4":
        return table("INIT", at(*"ABCD"))
    carried, sums = at("CIN"), []
    for half in "01":
        into = 0 if driver["parameters"][f"INJECT1_{half}"] == "YES" else carried
        p, g = (table(f"INIT{half}", at(*(f"{n}{half}" for n in pins))) for pins in ("ABCD", "AB"))
        sums.append(p ^ into)
        carried = carried if p else g
    return {"S0": sums[0], "S1": sums[1], "COUT": carried}[pin]


def outputs(netlist: dict, free: tuple[int, ...]) -> list[tuple[int, ...]]:
    """What the adder gives for all values of the nets that nothing drives."""
    cells = netlist["modules"]["top"]["cells"]
    return [tuple(value(cells, dict(zip(free, values, strict=True)), net) for net in OUTPUTS)
            for values in product((0, 1), repeat=len(free))]


def of_inputs(count: int) -> st.SearchStrategy[int]:
    """INITs of LUTs whose first inputs alone matter."""
    size = 1 << count
    return st.integers(0, (1 << size) - 1).map(lambda table: sum(table << n for n in range(0, 16, size)))


@given(of_inputs(2) | of_inputs(3) | of_inputs(4), st.sampled_from("AB"), st.integers(0, 1))
def test_folding_changes_no_sum_and_no_carry(init, operand, inverted):
    before = netlist(init, operand, inverted)
    after = copy.deepcopy(before)
    gone = carry.fold(after)
    assert len(after["modules"]["top"]["cells"]) == 2 - gone
    assert outputs(after, (2, 3, 4, 5, 6, 7)) == outputs(before, (2, 3, 4, 5, 6, 7))


@given(of_inputs(2), st.sampled_from("AB"), st.integers(0, 1))
def test_every_function_of_two_inputs_goes_in(init, operand, inverted):
    assert carry.fold(netlist(init, operand, inverted)) == 1


def test_a_lut_that_something_else_uses_stays():
    shared = netlist(0x6666, "B", 0)
    shared["modules"]["top"]["ports"]["o"]["bits"].append(11)
    assert carry.fold(shared) == 0


@given(st.sampled_from("01"), st.integers(0, 1))
def test_a_constant_carry_comes_from_a_cell(carry_in, inverted):
    before = netlist(0x6666, "B", inverted, carry_in)
    after = copy.deepcopy(before)
    carry.end(after)
    cells = after["modules"]["top"]["cells"]
    assert cells["adder"]["connections"]["CIN"] == cells["adder$first"]["connections"]["COUT"]
    assert outputs(after, (2, 3, 4, 5, 6)) == outputs(before, (2, 3, 4, 5, 6))


def test_a_carry_that_nothing_uses_leads_nowhere():
    unused = netlist(0x6666, "B", 0)
    unused["modules"]["top"]["ports"]["o"]["bits"].remove(10)
    carry.end(unused)
    assert unused["modules"]["top"]["cells"]["adder"]["connections"]["COUT"] == ["x"]
