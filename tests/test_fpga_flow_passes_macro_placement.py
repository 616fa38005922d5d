"""Floorplans: exchanging macros shortens wires and gives each a bel of its kind; a floorplan fits its netlist only."""

import json
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
from rich.console import Console

from base.errors import TspError
from fpga.boards import BOARDS
from fpga.flow import gowin, place_macros
from fpga.flow.family import Netlist
from fpga.flow.passes import macro_placement
from fpga.flow.passes.netlist import top

COUNT = 12
BOARD = replace(BOARDS["ulx3s"], name="test")


def cell(kind: str, bel: str, **pins: int) -> dict:
    return {"type": kind, "attributes": {"NEXTPNR_BEL": bel}, "connections": {pin: [net] for pin, net in pins.items()},
            "port_directions": dict.fromkeys(pins, "input")}


def placed() -> dict:
    """Macros of both kinds in a row, each with a net to a flip-flop that is where another macro of its kind is."""
    cells = {}
    for kind, bel, row in (("DP16KD", "EBR0", 10), ("MULT18X18D", "MULT18_0", 20)):
        order = Random(row).sample(range(COUNT), COUNT)
        for n in range(COUNT):
            net = 100 * row + n
            cells[f"{kind.lower()}{n}_TRELLIS_FF_Q"] = cell(kind, f"X{5 * n}/Y{row}/{bel}", A0=net, CLK0=1)
            cells[f"ff{row}.{n}"] = cell("TRELLIS_FF", f"X{5 * order[n]}/Y{row}/SLICEA.FF0", Q=net, CLK=1)
    return {"modules": {"top": {"attributes": {"top": "1"}, "ports": {}, "cells": cells}}}


def test_annealing_finds_the_shortest_wires():
    """They are 0 here, and clocks do not count."""
    annealing, chance = macro_placement.by_nets(placed()), Random(1)
    assert annealing.total() > 0
    for n in range(4000):
        annealing.exchange(chance, 20 * (1 - n / 4000) ** 2 + 1e-3)
    assert annealing.total() == 0


def test_a_floorplan_gives_each_macro_a_bel_of_its_kind():
    netlist = placed()
    places = macro_placement.anneal(macro_placement.by_nets(netlist), Console(quiet=True), tries=500)
    before = {macro_placement.name_of(name): c["attributes"]["NEXTPNR_BEL"] for name, c in top(netlist)["cells"].items()
              if c["type"] in macro_placement.KINDS}
    assert places.keys() == before.keys()
    for kind in macro_placement.KINDS:
        assert sorted(places[name] for name in places if name.startswith(kind.lower())) == sorted(
            before[name] for name in before if name.startswith(kind.lower()))
    assert places == macro_placement.anneal(macro_placement.by_nets(netlist), Console(quiet=True), tries=500)


MACROS = {
    "core.chip.unit_MXM_E.product2_0_3": 3,
    "core.chip.unit_VXM.lane2.p6": 2,
    "core.chip.unit_MEM_W0.banks.bank0.0.5": 1,
    "core.chip.unit_MEM_W1.banks.bank1.0.2": 2,
    "core.chip.icu_MEM_W0.words0.0.0": None,
}
"""Macros of a chip with 4 lanes, and what lane they serve."""
DATA = {"core.chip.unit_MEM_W0.banks.bank0.0.5": 8, "core.chip.unit_MEM_W1.banks.bank1.0.2": 32}
"""How many bits a block stores of a word."""


def synthesised(name: str) -> dict:
    kind = "MULT18X18D" if MACROS[name] and "MEM" not in name else "DP16KD"
    pins = {f"DIA{n}": [10 + n if n < DATA.get(name, 0) else "x"] for n in range(36)}
    return {"type": kind, "attributes": {}, "connections": {**pins, "DOA0": [7]}}


@pytest.mark.parametrize("name", MACROS, ids=lambda name: name.split(".", 2)[2])
def test_the_lane_of_a_macro(name):
    assert macro_placement.lane_of(name, synthesised(name)) == MACROS[name]


@pytest.mark.parametrize(("made", "order"), [(4, [0, 1, 2, 3]), (2, [0, 2, 1, 3])])
def test_macros_of_a_lane_become_neighbours(made: int, order: list[int]):
    """In a square of four lanes, what serves lane 0 is at the upper left, and what serves none may be anywhere. If two
    VXM lanes are made, the first computes lanes 0 and 2."""
    lanes = [0, 1, 2, 3] * 4
    chance = Random(3)
    names = [f"core.chip.unit_VXM.lane{lane}.p{n}" for n, lane in enumerate(lanes)]
    places = chance.sample([(8 * column, 8 * row) for column in range(4) for row in range(4)], 16)
    corner = {"corner": cell("TRELLIS_FF", "X31/Y31/SLICEA.FF0", Q=1)}
    found = {name: cell("MULT18X18D", f"X{x}/Y{y}/MULT18_0", A0=2) for name, (x, y) in zip(names, places, strict=True)}
    netlist = {"modules": {"top": {"attributes": {"top": "1"}, "ports": {}, "cells": found | corner}}}
    macro = macro_placement.by_lanes(netlist, macro_placement.sites_of(netlist), 4, made)
    plan = macro_placement.anneal(macro, Console(quiet=True), tries=20_000)
    for lane, name in zip(lanes, names, strict=True):
        at = macro_placement.BEL.match(plan[name])
        assert at and (int(at[1]) // 16, int(at[2]) // 16) == (order.index(lane) & 1, order.index(lane) >> 1)


class Gowin:
    """A chip as apycula has it: block RAMs in row 2, multipliers in row 5, 12 columns."""

    rows, cols = 8, 12

    def __getitem__(self, tile: tuple[int, int]) -> SimpleNamespace:
        kinds = {2: {"BSRAM"}, 5: {"MULT12X1200", "MULT12X1201", "DSP0"}}.get(tile[0], set())
        return SimpleNamespace(bels=dict.fromkeys(kinds | {"LUT0"}))


def test_macros_of_a_gw5a_take_spare_places():
    """Two macros a lane are drawn to their lane's half of the FPGA, the third to the middle. Places differ."""
    data = {f"DI{n}": [10 + n if n < 16 else 9] for n in range(32)}
    kinds = {"unit_MEM_W0.banks.bank0.0.1": "SDPX9B", "unit_MEM_W0.banks.bank0.0.2": "SDPX9B", "queue.0.0": "SDPX9B",
             "unit_MXM_E.product2_1_0_DFF_Q_5_D_MULT12X12_DOUT": "MULT12X12", "unit_MXM_E.product2_1_1": "MULT12X12"}
    cells = {f"core.{name}": {"type": kind, "attributes": {}, "connections": data} for name, kind in kinds.items()}
    netlist = {"modules": {"top": {"attributes": {"top": "1"}, "ports": {}, "cells": cells}}}
    sites = gowin.sites_on(Gowin(), netlist)
    places = [place.bel for place in sites.at.values()] + [p.bel for spare in sites.spare.values() for p in spare]
    assert len(set(places)) == len(places) == 12 + 24
    plan = macro_placement.anneal(macro_placement.by_lanes(netlist, sites, 2, 2), Console(quiet=True), tries=20_000)
    at = {name: macro_placement.BEL.match(bel) for name, bel in plan.items()}
    assert {name: (int(place[1]), int(place[2])) for name, place in at.items() if place} == {
        "core.unit_MEM_W0.banks.bank0.0.1": (1, 2), "core.unit_MEM_W0.banks.bank0.0.2": (7, 2),
        "core.queue.0.0": (6, 2),
        "core.unit_MXM_E.product2_1_0": (4, 5), "core.unit_MXM_E.product2_1_1": (10, 5)}


@pytest.mark.parametrize(("cell", "name"), [
    ("core.chip.unit_MXM_E.product2_0_1_DFF_Q_15_D_MULT12X12_DOUT", "core.chip.unit_MXM_E.product2_0_1"),
    ("core.chip.unit_MXM_E.product2_0_10_TRELLIS_FF_Q_7_DI_MULT18X18D_P25", "core.chip.unit_MXM_E.product2_0_10"),
    ("core.chip.unit_VXM.lane3.p6_TRELLIS_FF_Q_2_DI_LUT4_Z_C_MULT18X18D_P1", "core.chip.unit_VXM.lane3.p6"),
    ("core.chip.unit_MEM_E1.banks.bank1.0.12", "core.chip.unit_MEM_E1.banks.bank1.0.12"),
])
def test_names_do_not_depend_on_the_mapper(cell, name):
    assert macro_placement.name_of(cell) == name


def test_a_floorplan_is_given_to_its_netlist_only(tmp_path, monkeypatch):
    monkeypatch.setattr(macro_placement, "FOLDER", tmp_path)
    netlist, file = placed(), tmp_path / "test.json"
    assert not macro_placement.constrain(netlist, BOARD)
    places = macro_placement.anneal(macro_placement.by_nets(netlist), Console(quiet=True), tries=10)
    file.write_text(json.dumps(places))
    assert macro_placement.constrain(netlist, BOARD)
    given = {macro_placement.name_of(name): c["attributes"].get("BEL") for name, c in top(netlist)["cells"].items()}
    assert {name: bel for name, bel in given.items() if bel} == places

    del places["dp16kd3"]
    file.write_text(json.dumps(places))
    refusal = r"test\.json must name .* dp16kd3 is only in one .*`python -m fpga\.flow\.place_macros test`"
    with pytest.raises(TspError, match=refusal):
        macro_placement.constrain(netlist, BOARD)


def test_a_floorplan_of_another_netlist_begins_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(macro_placement, "FOLDER", tmp_path)
    (tmp_path / "top.json").write_text(json.dumps(placed()))
    monkeypatch.setattr(place_macros, "synthesise", lambda board: Netlist(tmp_path, "", 0.0))
    found = []
    monkeypatch.setattr(place_macros, "_round",
                        lambda board, made, seed, console: found.append(file.exists()) or {"a": "X1"})
    file = tmp_path / "ulx3s.json"
    file.write_text('{"gone": "X1/Y1/EBR0"}')
    place_macros.main("ulx3s", rounds=2, seed=1)
    assert found == [False, True] and json.loads(file.read_text()) == {"a": "X1"}
    assert "belongs to another netlist: a new floorplan is made" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit, match="2"):
        place_macros.main("nothing", rounds=1, seed=1)
    assert "fpga.flow.place_macros: board must be one of" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(macro_placement.FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_committed_floorplans_use_each_bel_once(file):
    places = json.loads(file.read_text())
    assert file.stem in BOARDS and len(set(places.values())) == len(places)
    for name, bel in places.items():
        assert macro_placement.BEL.match(bel) and ("EBR" in bel or "BSRAM" in bel) != ("MULT1" in bel), name
