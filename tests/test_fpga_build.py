"""The parts of the FPGA flow that need no synthesis: boards, clocks, tools, and reports."""

import json
import sys

import pytest

from compiler.errors import TspError
from fpga import boards, report, tools
from fpga.clock import dividers
from hw.config import CONFIGS


def test_boards_name_a_config():
    for board in boards.BOARDS.values():
        assert board.config in CONFIGS
        assert board.baud < board.mhz * 1e6 / 4


def test_an_unknown_board_is_one_line():
    with pytest.raises(TspError, match=r"board must be one of ulx3s.*, not 'nothing'"):
        boards.board_of("nothing")


def test_a_missing_tool_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TspError, match="nextpnr-none was not found"):
        tools.find("nextpnr-none")


@pytest.mark.parametrize("mhz", [50.0, 60.0, 62.5, 75.0, 80.0, 100.0])
def test_pll_dividers(mhz):
    reference, feedback, output = dividers(25.0, mhz)
    assert 25.0 / reference * feedback == pytest.approx(mhz)
    assert 400 <= mhz * output <= 800


def test_pll_cannot_make_every_clock():
    with pytest.raises(ValueError, match="mhz_out must be"):
        dividers(25.0, 50.123)


def test_figures_out_of_the_tools_reports():
    timing = {"fmax": {"clk": {"achieved": 61.5, "constraint": 50.0}, "other": {"achieved": 99.0, "constraint": 25.0}},
              "critical_paths": [
                  {"from": "posedge clk", "to": "posedge clk", "path": [
                      {"delay": 5.6, "type": "clk-to-q", "to": {"cell": "queue_DP16KD_1"}},
                      {"delay": 2.0, "type": "routing", "to": {"cell": "issue_LUT4_Z_3"}}]},
                  {"from": "<async>", "to": "posedge clk", "path": [{"delay": 99, "type": "x", "to": {"cell": "y"}}]}]}
    assert report.fmax(json.dumps(timing)) == 61.5
    assert report.critical_path(json.dumps(timing)) == ("5.60 clk-to-q queue", "2.00 routing issue")
