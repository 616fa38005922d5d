"""The pins of a link on FPGAs: the cells of each family, and that Gowin's synthesis takes them."""

import json
import shutil
from pathlib import Path

import pytest
from amaranth.back import rtlil

from fpga.flow import gowin, tools
from fpga.flow.endpoint import Alone, synthesised
from fpga.flow.passes.netlist import count
from fpga.gateware.serdes_ddr import DdrPins
from fpga.gateware.serdes_ecp5 import Ecp5Pins
from fpga.gateware.serdes_gowin import GowinPins
from hw.link.parameters import LinkParameters

LINK = LinkParameters(lanes=4, pins=5, taps=16)


def text_of(pins: type[DdrPins]) -> str:
    alone = Alone(LINK, pins)
    return rtlil.convert(alone, name="alone", emit_src=False, ports=alone.ports)


@pytest.mark.parametrize(("pins", "cells"), [
    (Ecp5Pins, {"ODDRX1F": 6, "DELAYF": 5, "IDDRX1F": 5}),
    (GowinPins, {"ODDR": 6, "IODELAY": 5, "IDDR": 5}),
])
def test_the_cells_of_a_family(pins: type[DdrPins], cells: dict[str, int]):
    text = text_of(pins)
    assert {cell: text.count(f"cell \\{cell} ") for cell in cells} == cells


@pytest.mark.nightly
def test_gowin_synthesis_takes_an_endpoint(tmp_path: Path):
    """Its elastic buffer has two clocks, which the script for one clock cannot do."""
    (tmp_path / "alone.il").write_text(text_of(GowinPins))
    (tmp_path / "alone.ys").write_text(gowin.yosys_script("gw2a", "brams_map.v", "alone", two_clocks=True))
    shutil.copy(gowin.BRAMS, tmp_path)
    tools.run(tools.find("yosys"), ["-q", "-l", "yosys.log", "alone.ys"], tmp_path, "yosys.out")
    found = count(json.loads((tmp_path / "alone.json").read_text()))
    assert {cell: found[cell] for cell in ("ODDR", "IODELAY", "IDDR")} == {"ODDR": 6, "IODELAY": 5, "IDDR": 5}
    assert found["RAM16SDP4"] == 3 and not found.get("SDPX9B")


@pytest.mark.nightly
@pytest.mark.parametrize("slack", [0, 3])
@pytest.mark.parametrize("ratio", [1, 2])
def test_an_endpoint_takes_at_most_700_luts_and_no_block_ram(ratio: int, slack: int):
    """With the script of the boards (abc9)."""
    cells = synthesised(LinkParameters(lanes=8, pins=9, ratio=ratio, taps=16, slack=slack))
    assert cells["LUT4"] <= 700 and "DP16KD" not in cells, cells
