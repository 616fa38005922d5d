"""Flip-flops on a Gowin FPGA: those that multipliers and block RAMs take in, those that must stay, and their LUTs."""

import pytest

from fpga.flow.passes import gowin_registers
from fpga.flow.passes.netlist import count

CLOCK, OTHER_CLOCK, ENABLE, OTHER_ENABLE, GND, VCC = range(2, 8)
FACTORS, HELD, PRODUCT, RESULT = (range(10 * n, 10 * n + 4) for n in range(1, 5))
"""Nets of four bits each: what the factors' flip-flops hold next, what they hold, the product, what is behind it."""


def flip_flop(d: int, q: int, enable: int | None = None) -> dict:
    pins = {"CLK": [CLOCK], "D": [d], "Q": [q], **({} if enable is None else {"CE": [enable]})}
    return {"type": "DFF" if enable is None else "DFFE", "parameters": {}, "connections": pins,
            "port_directions": {pin: "output" if pin == "Q" else "input" for pin in pins}}


def cell(kind: str, outputs: str, **pins: list[int]) -> dict:
    return {"type": kind, "parameters": {}, "connections": pins,
            "port_directions": {pin: "output" if pin == outputs else "input" for pin in pins}}


def netlist(cells: dict, inputs: list[int], outputs: list[int]) -> dict:
    ports = {"i": {"direction": "input", "bits": [CLOCK, *inputs]}, "o": {"direction": "output", "bits": outputs}}
    constants = {"gnd": cell("GND", "G", G=[GND]), "vcc": cell("VCC", "V", V=[VCC])}
    return {"modules": {"top": {"attributes": {"top": "1"}, "ports": ports, "cells": {**constants, **cells}}}}


def cells(netlist: dict) -> dict:
    return netlist["modules"]["top"]["cells"]


# ---- multipliers ----


def product() -> dict:
    """Two bits by two: a constant in the first factor, and the second one's upper bit is its sign, too."""
    multiplier = cell("MULT9X9", "DOUT", A=[HELD[0], HELD[1], GND], B=[HELD[2], HELD[3], HELD[3]], DOUT=[*PRODUCT, 99],
                      CLK=[GND], CE=[GND], RESET=[GND])
    flops = {**{f"factor{n}": flip_flop(FACTORS[n], HELD[n]) for n in range(4)},
             **{f"result{n}": flip_flop(PRODUCT[n], RESULT[n]) for n in range(4)}}
    return netlist({"product": multiplier, **flops}, [*FACTORS], [*RESULT])


def test_a_multiplier_takes_all_registers():
    taken = product()
    assert gowin_registers.take_multipliers(taken) == 8
    assert count(taken) == {"GND": 1, "VCC": 1, "MULT9X9": 1}
    multiplier = cells(taken)["product"]
    assert multiplier["connections"] == {
        "A": [FACTORS[0], FACTORS[1], GND], "B": [FACTORS[2], FACTORS[3], FACTORS[3]], "DOUT": [*RESULT, 99],
        "CLK": [CLOCK], "CE": [VCC], "RESET": [GND]}
    assert multiplier["parameters"] == {"AREG": "1", "BREG": "1", "OUT_REG": "1"}


def test_registers_of_a_gw5a_name_their_clock():
    taken = product()
    cells(taken)["product"]["type"] = "MULT12X12"
    assert gowin_registers.take_multipliers(taken) == 8
    multiplier = cells(taken)["product"]
    assert multiplier["parameters"] == {"AREG_CLK": "CLK0", "BREG_CLK": "CLK0", "OREG_CLK": "CLK0"}
    pins = {pin: multiplier["connections"][pin] for pin in ("CLK", "CE", "RESET")}
    assert pins == {"CLK": [CLOCK, GND], "CE": [VCC, GND], "RESET": [GND, GND]}


def test_a_factor_that_something_else_needs_stays_too():
    shared = product()
    shared["modules"]["top"]["ports"]["o"]["bits"].append(HELD[0])
    assert gowin_registers.take_multipliers(shared) == 7
    assert "factor0" in cells(shared) and cells(shared)["product"]["connections"]["A"][0] == FACTORS[0]


@pytest.mark.parametrize("name", ["factor0", "result3"])
@pytest.mark.parametrize("change", [{"type": "DFFE"}, {"type": "DFFR"}, {"type": "DFFS"}, {"clock": OTHER_CLOCK}])
def test_other_flip_flops_stay(name: str, change: dict):
    """One of a side that does not fit keeps its whole side."""
    kept = product()
    flop = cells(kept)[name]
    flop["type"] = change.get("type", "DFF")
    flop["connections"]["CLK"] = [change.get("clock", CLOCK)]
    assert gowin_registers.take_multipliers(kept) == 4
    side = name[:-1]
    assert [other for other in cells(kept) if other[-1].isdigit()] == [f"{side}{n}" for n in range(4)]
    registered = set(cells(kept)["product"]["parameters"])
    assert registered == ({"OUT_REG"} if side == "factor" else {"AREG", "BREG"})


def test_a_multiplier_has_one_clock():
    two = product()
    for n in range(4):
        cells(two)[f"result{n}"]["connections"]["CLK"] = [OTHER_CLOCK]
    assert gowin_registers.take_multipliers(two) == 4
    assert cells(two)["product"]["connections"]["CLK"] == [CLOCK]


def test_a_product_that_leads_elsewhere_stays():
    shared = product()
    shared["modules"]["top"]["ports"]["o"]["bits"].append(PRODUCT[1])
    assert gowin_registers.take_multipliers(shared) == 4
    assert all(f"result{n}" in cells(shared) for n in range(4))


# ---- block RAMs ----


def word(enable: int | None) -> dict:
    """A block RAM whose fifth bit leads nowhere."""
    ram = cell("SDPX9B", "DO", DO=[*PRODUCT, 99], CLKB=[CLOCK], CEB=[ENABLE], OCE=[VCC])
    flops = {f"word{n}": flip_flop(PRODUCT[n], RESULT[n], enable) for n in range(4)}
    return netlist({"ram": ram, **flops}, [ENABLE, OTHER_ENABLE], [*RESULT])


@pytest.mark.parametrize("enable", [None, ENABLE, OTHER_ENABLE])
def test_a_block_ram_takes_its_words_register(enable: int | None):
    taken = word(enable)
    assert gowin_registers.take_brams(taken) == 4
    assert cells(taken)["ram"]["connections"] == {
        "DO": [*RESULT, 99], "CLKB": [CLOCK], "CEB": [ENABLE], "OCE": [VCC if enable is None else enable]}
    assert cells(taken)["ram"]["parameters"] == {"READ_MODE": "1"}


@pytest.mark.parametrize("change", [
    {"type": "DFFR"}, {"type": "DFFRE"}, {"clock": OTHER_CLOCK}, {"enable": OTHER_ENABLE}, {"used": PRODUCT[0]}])
def test_words_of_other_flip_flops_stay(change: dict):
    kept = word(ENABLE)
    flop = cells(kept)["word0"]
    flop["type"] = change.get("type", "DFFE")
    flop["connections"] |= {"CLK": [change.get("clock", CLOCK)], "CE": [change.get("enable", ENABLE)]}
    if "used" in change:
        kept["modules"]["top"]["ports"]["o"]["bits"].append(change["used"])
    assert gowin_registers.take_brams(kept) == 0
    assert not cells(kept)["ram"]["parameters"] and cells(kept)["ram"]["connections"]["OCE"] == [VCC]


# ---- LUTs of flip-flops that stay ----


def test_a_flip_flop_without_a_lut_gets_one():
    """Of two behind one LUT the first shares its place; one behind an ALU shares the ALU's."""
    flops = {name: flip_flop(d, q) for name, d, q in (
        ("first", 30, 40), ("second", 30, 41), ("sum", 31, 42), ("next", 42, 43), ("pin", 10, 44))}
    given = netlist({**flops, "lut": cell("LUT2", "F", I0=[10], I1=[11], F=[30]),
                     "alu": cell("ALU", "SUM", I0=[10], I1=[11], SUM=[31])}, [10, 11], [40, 41, 43, 44])
    assert gowin_registers.pass_through(given) == 3
    through = {name: lut for name, lut in cells(given).items() if name.endswith("_through")}
    assert {name: lut["connections"]["I0"] for name, lut in through.items()} == {
        "second_through": [30], "next_through": [42], "pin_through": [10]}
    for name, lut in through.items():
        assert lut["type"] == "LUT1" and lut["parameters"] == {"INIT": "10"}
        assert cells(given)[name.removesuffix("_through")]["connections"]["D"] == lut["connections"]["F"]
    made = [lut["connections"]["F"][0] for lut in through.values()]
    assert len(set(made)) == 3 and min(made) > 44
    assert cells(given)["first"]["connections"]["D"] == [30] and cells(given)["sum"]["connections"]["D"] == [31]
