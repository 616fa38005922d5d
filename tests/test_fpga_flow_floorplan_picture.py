"""The floorplan: cells of what nextpnr writes go to their tile and unit, and the picture is an SVG of these."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest

from fpga.flow import floorplan_picture

UNITS = [name for name, _, _ in floorplan_picture.UNITS]
CELLS = {
    "core.chip.unit_VXM.lane0_LUT4_Z_3$lut": "X4/Y2/SLICEA.LUT0",
    "core.chip.unit_VXM.product": "X4/Y2/SLICEB.FF1",
    "core.chip.icu_VXM.words0.0": "X4/Y2/SLICEC.LUT0",
    "core.chip.unit_MXM_W.acc.0.3": "X5/Y2/MULT18_0",
    "$nextpnr_obuf": "X0/Y0/PIOA",
    "unplaced": "",
}
"""Names and places as nextpnr writes them."""


def netlist() -> dict:
    cells = {name: {"attributes": {"NEXTPNR_BEL": bel} if bel else {}} for name, bel in CELLS.items()}
    return {"modules": {"top": {"cells": cells}}}


@pytest.mark.parametrize(("cell", "unit"), [
    ("core.chip.unit_MXM_E.sum4_TRELLIS_FF_Q", "MXM E"), ("core.chip.unit_MEM_W1.index.0", "MEM W"),
    ("core.chip.unit_SXM_E.x", "SXM"), ("core.chip.icu_MEM_E0.table.0", "queues"),
    ("core.chip.streams.e1_TRELLIS_FF_Q_7", "streams"), ("core.bridge.rx", "host port, bridge"),
    ("$auto$simplemap.cc:1$2", "host port, bridge"),
])
def test_cells_belong_to_units(cell: str, unit: str):
    assert UNITS[floorplan_picture.unit_of(cell)] == unit


def test_tiles_count_the_cells_of_their_units():
    vxm, mxm, queues, other = (UNITS.index(name) for name in ("VXM", "MXM W", "queues", "host port, bridge"))
    assert floorplan_picture.tiles(floorplan_picture.places(netlist())) == {
        (4, 2): Counter({vxm: 2, queues: 1}), (5, 2): Counter({mxm: 1}), (0, 0): Counter({other: 1})}


def test_the_picture_has_a_rectangle_for_each_run_of_tiles(tmp_path):
    file = tmp_path / "places.json"
    file.write_text(json.dumps(floorplan_picture.places(netlist())))
    picture = ElementTree.fromstring(floorplan_picture.draw(file))
    colours = [(rect.get("fill"), rect.get("width")) for rect in picture if rect.tag.endswith("rect")]
    for unit in ("VXM", "MXM W", "host port, bridge"):
        assert (floorplan_picture.UNITS[UNITS.index(unit)][2], str(floorplan_picture.SCALE)) in colours
    assert [text.text for text in picture if text.tag.endswith("text")] == UNITS
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for _, _, colour in floorplan_picture.UNITS)
