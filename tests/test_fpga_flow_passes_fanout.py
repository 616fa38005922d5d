"""Copied registers: what a placed netlist computes stays, copies are where their sinks are, and nothing else moves."""

import copy
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import TspError
from fpga.flow.passes import fanout

PLACES = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 90)), min_size=1, max_size=400)
SINKS = 24
CLK, ENABLE, DATA, LUT, FIRST, SECOND, FREE = range(1, 8)
"""Nets."""
FAR = [(x, y) for x in range(0, 120, 10) for y in range(0, 90, 15)]
AND = 0x8000
A_AND_NOT_B = 0x2222


def cell(kind: str, place: tuple[int, int], parameters: dict[str, str], **pins: int | None) -> dict:
    return {"type": kind, "parameters": {"SD": "1 " if "DI" in pins else "0 "} | parameters,
            "attributes": {"NEXTPNR_BEL": f"X{place[0]}/Y{place[1]}/SLICEA.FF0", "BEL_STRENGTH": "1"},
            "connections": {pin: [] if net is None else [net] for pin, net in pins.items()},
            "port_directions": {pin: "output" if pin in "FQ" else "input" for pin in pins}}


def placed(places: list[tuple[int, int]], pin: str = "DI", **first: str) -> dict:
    """A LUT, a register behind it and one behind that; LUTs at all of the places hear the three.

    pin: what the LUT leads to at the first register, whose parameters `first` are.
    """
    lut = cell("TRELLIS_COMB", (9, 9), {"INITVAL": f"{0b0110_0000:016b}"}, A=DATA, B=None, F=LUT)
    cells = {"lut": lut, "first": cell("TRELLIS_FF", (9, 9), first, CLK=CLK, LSR=None, Q=FIRST, **{pin: LUT}),
             "second": cell("TRELLIS_FF", (8, 9), {}, CLK=CLK, CE=ENABLE, M=FIRST, Q=SECOND)}
    cells |= {f"sink{n}": cell("TRELLIS_COMB", place, {"INITVAL": f"{AND:016b}"},
                               A=FIRST, B=SECOND, C=LUT, D=None, F=FREE + n) for n, place in enumerate(places)}
    names = {str(n): {"bits": [n], "hide_name": 0, "attributes": {}} for n in range(1, FREE + len(places))}
    return {"modules": {"top": {"attributes": {"top": "1"}, "ports": {}, "cells": cells, "netnames": names}}}


def cells_of(netlist: dict) -> dict[str, dict]:
    return netlist["modules"]["top"]["cells"]


def meaning(netlist: dict) -> dict[str, tuple]:
    """The logic of each sink's inputs, back to undriven nets."""
    cells = cells_of(netlist)
    drivers = {c["connections"][pin][0]: c for c in cells.values() for pin in "FQ" if pin in c["connections"]}

    def of(bit: int | str) -> tuple | int | str:
        return inputs(drivers[bit]) if bit in drivers else bit

    def inputs(c: dict) -> tuple:
        pins = {("M" if pin == "DI" else pin): bits[0] for pin, bits in c["connections"].items()
                if pin not in "FQ" and bits not in ([], [fanout.OPEN])}
        parameters = {name: value for name, value in c["parameters"].items() if name != "SD"}
        return c["type"], *parameters.items(), *sorted((pin, of(bit)) for pin, bit in pins.items())

    return {name: inputs(c) for name, c in cells.items() if name.startswith("sink")}


@given(PLACES, st.sampled_from(["DI", "M"]))
def test_every_sink_hears_what_it_heard(places: list[tuple[int, int]], pin: str):
    before = placed(places, pin)
    after = copy.deepcopy(before)
    more = fanout.split(after, SINKS)
    assert meaning(after) == meaning(before)
    assert len(cells_of(after)) == len(cells_of(before)) + more
    driven = [c["connections"][pin][0] for c in cells_of(after).values() for pin in "FQ" if pin in c["connections"]]
    assert len(set(driven)) == len(driven)
    assert {bit for net in after["modules"]["top"]["netnames"].values() for bit in net["bits"]} >= set(driven)


def test_what_all_hear_is_copied_and_so_is_what_the_copies_hear():
    netlist = placed(FAR)
    fanout.split(netlist, SINKS)
    copies = Counter(name.split("$copy")[0] for name in cells_of(netlist) if "$copy" in name)
    assert copies.keys() == {"lut", "first", "second"}
    assert all(number > 8 for number in copies.values())
    heard = Counter(c["connections"]["A"][0] for name, c in cells_of(netlist).items() if name.startswith("sink"))
    assert max(heard.values()) < len(FAR) / 8


@given(PLACES)
def test_copies_take_a_place_anew_and_a_wire_and_nothing_else_moves(places: list[tuple[int, int]]):
    before = placed(places)
    after = copy.deepcopy(before)
    fanout.split(after, SINKS)
    for name, c in cells_of(after).items():
        bel = c["attributes"].get("NEXTPNR_BEL")
        if "$copy" in name:
            assert bel is None and "DI" not in c["connections"] and c["parameters"]["SD"].strip() == "0"
        else:
            assert bel == cells_of(before)[name]["attributes"]["NEXTPNR_BEL"]
            assert c["attributes"]["BEL_STRENGTH"] == fanout.LOCKED
        assert all(c["connections"].values())


def test_a_lut_stays_for_the_register_that_has_no_wire_to_it():
    netlist = placed([(x, 9) for x in range(9, 120)], "M")
    cells_of(netlist)["own"] = cell("TRELLIS_FF", (9, 9), {}, CLK=CLK, DI=LUT, Q=1000)
    netlist["modules"]["top"]["netnames"]["own"] = {"bits": [1000]}
    fanout.split(netlist, SINKS)
    assert cells_of(netlist)["lut"]["connections"]["F"] == cells_of(netlist)["own"]["connections"]["DI"] == [LUT]
    assert [name for name, c in cells_of(netlist).items() if [LUT] in c["connections"].values()] == ["lut", "own"]


def test_a_copy_of_a_register_that_hears_itself_hears_itself():
    netlist = placed(FAR)
    cells_of(netlist)["first"]["connections"]["LSR"] = [FIRST]
    before = copy.deepcopy(netlist)
    fanout.split(netlist, SINKS)
    copies = [c["connections"] for name, c in cells_of(netlist).items() if name.startswith("first$copy")]
    assert len(copies) > 8 and all(pins["LSR"] == pins["Q"] for pins in copies)
    fanout.check(before, netlist)


def test_registers_that_are_not_in_step_are_not_copied():
    netlist = placed([(x, 9) for x in range(9, 120)], SRMODE="ASYNC")
    fanout.split(netlist, SINKS)
    assert "first" in cells_of(netlist) and "second" not in cells_of(netlist)


def test_few_sinks_and_near_ones_keep_their_cells():
    for places in ([(n, 90 - n) for n in range(SINKS - 1)], [(9 + n % 10, 9 + n // 10) for n in range(100)]):
        netlist = placed(places)
        assert fanout.split(netlist, SINKS) == 0
        assert cells_of(netlist).keys() == cells_of(placed(places)).keys()


@given(PLACES)
def test_regions_are_small_and_do_not_divide_tiles(places: list[tuple[int, int]]):
    sinks = [fanout.Sink(x, y, f"cell{n}", "A") for n, (x, y) in enumerate(places)]
    found = fanout.regions(sinks)
    assert Counter(sink for region in found for sink in region) == Counter(sinks)
    for region in found:
        columns, rows = [sink.x for sink in region], [sink.y for sink in region]
        assert (len(region) <= fanout.FEW
                or max(columns) - min(columns) + max(rows) - min(rows) <= fanout.EXTENT)
    tiles = [{(sink.x, sink.y) for sink in region} for region in found]
    assert sum(map(len, tiles)) == len(set().union(*tiles))


def test_copies_pass_the_comparison_and_so_do_exchanged_inputs():
    before, after = placed(FAR), placed(FAR)
    for netlist, pins, table in ((before, "AB", A_AND_NOT_B), (after, "BA", 0x4444)):
        sink = cells_of(netlist)["sink0"]
        sink["parameters"]["INITVAL"] = f"{table:016b}"
        sink["connections"] |= {pins[0]: [FIRST], pins[1]: [SECOND]}
    fanout.split(after, SINKS)
    fanout.check(before, after)


@pytest.mark.parametrize("fault", [
    lambda cells: cells["sink3"]["parameters"].update(INITVAL=f"{A_AND_NOT_B:016b}"),
    lambda cells: cells["sink3"]["connections"].update(A=cells["sink3"]["connections"]["B"]),
    lambda cells: cells["sink3"]["connections"].update(B=[fanout.OPEN]),
    lambda cells: cells["first$copy1"]["parameters"].update(REGSET="SET"),
    lambda cells: cells["second$copy0"]["connections"].update(CE=[fanout.OPEN]),
    lambda cells: cells.pop("sink3"),
    lambda cells: cells.update(more=cells["sink3"]),
], ids=["table", "input", "open input", "set", "enable", "missing", "more"])
def test_a_cell_that_is_another_is_named(fault):
    before, after = placed(FAR), placed(FAR)
    fanout.split(after, SINKS)
    fault(cells_of(after))
    with pytest.raises(TspError, match=r"sink3|first\$copy1|second\$copy0|more"):
        fanout.check(before, after)
