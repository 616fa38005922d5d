"""What `tsp bench` says of boards."""

import json

from arch.config import CONFIGS
from arch.identity import chip_digest
from fpga.boards import BOARDS
from run.bench import CYCLES, Figure
from run.board_figures import board_figures

REPORT = {"board": "ulx3s", "config": "ulx3s", "digest": chip_digest(CONFIGS["ulx3s"]), "seeds_tried": 5,
          "fmax_mhz": 52.0, "lut4": 41_820, "comb": 70_000, "ff": 20_910}
FOUND = [Figure("stories260K", CYCLES.format("ulx3s") + " 0..255", 5_000.0, "cycles"),
         Figure("15M shape", "roofline fraction on large", 0.9, "")]


def test_a_report_becomes_figures(tmp_path):
    (tmp_path / "ulx3s.json").write_text(json.dumps(REPORT))
    values = {figure.what: figure.value for figure in board_figures(FOUND, tmp_path)}
    assert values["Fmax by nextpnr, best of 5 seeds"] == 52.0
    assert values["LUT4, share of the part's"] == 0.5
    assert values["stories260K at Fmax"] == 10_400.0
    assert values["int8 multiply-accumulates a cycle"] == 128


def test_a_board_of_a_rack(tmp_path):
    board = BOARDS["ulx3s_pair1"]
    report = {"board": board.name, "config": board.chip.name, "digest": chip_digest(board.chip), "fmax_mhz": 51.0}
    (tmp_path / "pair.json").write_text(json.dumps(REPORT | report))
    values = {figure.what: figure.value for figure in board_figures(FOUND, tmp_path)}
    assert values["Fmax by nextpnr, best of 5 seeds"] == 51.0 and "stories260K at Fmax" not in values


def test_a_board_without_a_pll_has_its_own_clock(tmp_path):
    board = BOARDS["tang_mega_138k"]
    report = {"board": board.name, "config": board.chip.name, "digest": chip_digest(board.chip), "fmax_mhz": 75.0}
    (tmp_path / "mega.json").write_text(json.dumps(REPORT | report))
    found = [Figure("stories260K", CYCLES.format(board.chip.name) + " 0..255", 4_000.0, "cycles")]
    values = {figure.what: figure.value for figure in board_figures(found, tmp_path)}
    assert values["stories260K at 50 MHz, the only clock without a PLL"] == 12_500.0


def test_reports_of_other_chips_are_left_out(tmp_path):
    for name, change in (("a", {"digest": "0" * 16}), ("b", {"board": "gone"}), ("c", {"config": "gone"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(REPORT | change))
    assert board_figures(FOUND, tmp_path) == []
