"""Exchanged block RAMs: only places change, each is taken by one block RAM, and none is farther from its sinks."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from fpga.flow.floorplan_picture import places
from fpga.flow.passes import exchange

POINTS = st.tuples(st.integers(0, 120), st.integers(0, 90))
RAMS = st.lists(st.tuples(POINTS, st.lists(POINTS, max_size=6)), min_size=1, max_size=20,
                unique_by=lambda ram: ram[0])


def placed(rams: list[tuple[tuple[int, int], list[tuple[int, int]]]]) -> dict:
    """Block RAMs, each with the places of the cells that it drives."""
    cells = {}
    for n, ((x, y), sinks) in enumerate(rams):
        cells[f"ram{n}"] = {"type": "DP16KD", "attributes": {"NEXTPNR_BEL": f"X{x}/Y{y}/EBR0"},
                            "connections": {"DOA0": [n + 1], "ADA0": [1 + n // 2]},
                            "port_directions": {"DOA0": "output", "ADA0": "input"}}
        cells |= {f"sink{n}.{k}": {"type": "TRELLIS_COMB", "connections": {"A": [n + 1]},
                                   "attributes": {"NEXTPNR_BEL": f"X{i}/Y{j}/SLICEA.COMB0"},
                                   "port_directions": {"A": "input"}} for k, (i, j) in enumerate(sinks)}
    return {"modules": {"top": {"attributes": {"top": "1"}, "cells": cells}}}


def reach(netlist: dict) -> list[int]:
    """Tiles from each block RAM to the farthest cell that it drives, greatest first."""
    cells, where = netlist["modules"]["top"]["cells"], {name: (x, y) for name, x, y in places(netlist)}
    found = []
    for name in (name for name in cells if name.startswith("ram")):
        (x, y), sinks = where[name], [where[sink] for sink in cells if sink.startswith(f"sink{name[3:]}.")]
        found.append(max((abs(x - i) + abs(y - j) for i, j in sinks), default=0))
    return sorted(found, reverse=True)


@given(RAMS)
def test_only_places_change_and_none_is_farther(rams: list):
    before = placed(rams)
    after = copy.deepcopy(before)
    count = exchange.exchange(after)
    assert reach(after)[0] <= reach(before)[0]
    assert (count == 0) == (after == before)
    one, two = (netlist["modules"]["top"]["cells"] for netlist in (before, after))
    bels = [sorted(cell["attributes"]["NEXTPNR_BEL"] for cell in cells.values() if cell["type"] == exchange.KIND)
            for cells in (one, two)]
    assert bels[0] == bels[1]
    for name, cell in two.items():
        if cell["type"] == exchange.KIND:
            cell["attributes"]["NEXTPNR_BEL"] = one[name]["attributes"]["NEXTPNR_BEL"]
    assert one == two


def test_a_far_queue_and_a_bank_beside_its_sinks_change_places():
    netlist = placed([((0, 0), [(80, 10), (90, 20)]), ((85, 15), [(30, 10)]), ((118, 90), [(113, 90)])])
    assert exchange.exchange(netlist) == 1
    assert reach(netlist) == [40, 10, 5]


def test_a_bank_that_would_be_as_far_away_stays():
    assert exchange.exchange(placed([((0, 0), [(90, 20)]), ((85, 15), [(100, 10), (110, 0)])])) == 0


def test_what_is_near_enough_stays():
    assert exchange.exchange(placed([((0, 0), [(exchange.FAR, 0)]), ((exchange.FAR, 0), [(0, 0)])])) == 0
