"""The parts of the FPGA flow that need no synthesis: boards, clocks, tools, reports, and the serial bridge."""

import json
import sys
from typing import Any

import pytest
from amaranth.sim import Simulator

from compiler.errors import TspError
from fpga import boards, report, tools
from fpga.bridge import READ, Bridge
from fpga.clock import dividers
from hw.config import CONFIGS
from hw.isa import HOST_READ, Space


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


def frame(space, addr, data=0, read=False):
    return bytes([space.value | READ * read]) + addr.to_bytes(4, "little") + data.to_bytes(16, "little")


def test_bridge_writes_and_reads():
    divisor = 5
    bridge: Any = Bridge(divisor=divisor)
    data, answer = 0x0123456789ABCDEF_FEDCBA9876543210, 0xA5 << 120 | 0x42
    seen, sent = [], []

    async def line(ctx):
        for byte in frame(Space.MEM, 0x12345678, data) + frame(Space.CONTROL, 2, read=True):
            for bit in (0, *(byte >> n & 1 for n in range(8)), 1):
                ctx.set(bridge.rx, bit)
                await ctx.tick().repeat(divisor)
        await ctx.tick().repeat(17 * 10 * divisor)

    async def chip(ctx):
        reads = []
        for cycle in range(60 * 10 * divisor):
            ctx.set(bridge.host_rdata, answer if cycle - HOST_READ in reads else 0)
            if ctx.get(bridge.host_write) or ctx.get(bridge.host_read):
                names = ("write", "space", "addr", "wdata")
                seen.append(tuple(ctx.get(getattr(bridge, f"host_{name}")) for name in names))
                reads += [cycle] * ctx.get(bridge.host_read)
            await ctx.tick()

    async def host(ctx):
        while len(sent) < 16:
            while ctx.get(bridge.tx):
                await ctx.tick()
            await ctx.tick().repeat(divisor + divisor // 2)
            byte = 0
            for n in range(8):
                byte |= ctx.get(bridge.tx) << n
                await ctx.tick().repeat(divisor)
            sent.append(byte)

    simulator = Simulator(bridge)
    simulator.add_clock(1e-6)
    simulator.add_testbench(line)
    simulator.add_testbench(chip)
    simulator.add_testbench(host, background=True)
    simulator.run()
    assert seen == [(1, Space.MEM, 0x12345678, data), (0, Space.CONTROL, 2, 0)]
    assert int.from_bytes(bytes(sent), "little") == answer
