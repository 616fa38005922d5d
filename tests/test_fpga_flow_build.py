"""The parts of the FPGA flow that need no synthesis: boards, clocks, tools, and reports."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Fragment, Signal
from checkpoints import REPOSITORY
from linked_bench import CHIP, LATENCY, LINK, ring
from rich.console import Console

from arch.config import CONFIGS
from arch.rack import RACKS, Link, Port, RackConfig
from base.campaign import Part
from base.errors import TspError
from fpga import boards
from fpga.flow import (
    build,
    ecp5,
    gowin,
    tools,
)
from fpga.flow import (
    build_report as report,
)
from fpga.flow import (
    floorplan_picture as floorplan,
)
from fpga.flow import (
    place_macros as plan,
)
from fpga.flow.family import Netlist, Routed
from fpga.gateware import linked
from fpga.gateware.clock import PLLS, Clock
from hw.linked_chip import ports as linked_ports

SMALL_CHIP = replace(CHIP, ports=(0, 1))
SMALL_PAIR = RackConfig(name="small pair", chips=(SMALL_CHIP,) * 2,
                        links=(Link(ports=(Port(0, "E", 0), Port(1, "E", 0)), latency=LATENCY),))
SMALL_RING = ring(2)
SMALL_LINK = replace(LINK, taps=16)


def test_boards_name_a_config():
    for board in boards.BOARDS.values():
        assert board.config in CONFIGS
        assert board.baud < board.mhz * 1e6 / 4


@pytest.mark.parametrize("name", ["ulx3s_pair0", "ulx3s_pair1"])
def test_a_board_of_a_pair_has_its_chip_and_its_pins(name: str):
    board, other = boards.BOARDS[name], boards.BOARDS["ulx3s_pair1" if name.endswith("0") else "ulx3s_pair0"]
    (wires,), (others,) = board.wires, other.wires
    assert board.chip == RACKS["pair"].chips[board.number]
    linked_ports(board.chip, wires.link)  # lanes and slot fit
    assert wires.sends == others.takes and wires.follows != others.follows
    platform = board.make_platform()
    platform.add_resources([linked.resource(wires)])
    lines = platform.request("link", 0, dir="-")
    assert len(lines.out_data) == len(lines.in_data) == wires.link.pins
    mhz_in = wires.link.ratio * board.mhz if wires.follows else platform.default_clk_frequency / 1e6
    assert PLLS[board.pll].dividers(mhz_in, board.mhz)[2] % 2 == 0


def test_wires_of_another_number_are_refused(monkeypatch: pytest.MonkeyPatch):
    board = boards.BOARDS["ulx3s_pair1"]
    (wires,) = board.wires
    with pytest.raises(ValueError, match="sends must name 9 pins and that of the clock"):
        replace(wires, sends=wires.sends[:-1])
    with pytest.raises(ValueError, match="ulx3s_pair1: a chip with 1 links must have wires for as many, not for 2"):
        replace(board, wires=(wires, replace(wires, follows=False)))
    with pytest.raises(ValueError, match="ulx3s_pair1: router_clock must be 1 on a board with links"):
        replace(board, router_clock=2.0)
    monkeypatch.setitem(RACKS, "small ring", SMALL_RING)
    with pytest.raises(ValueError, match="ulx3s_pair1: one link at most must give the chip its clock"):
        replace(board, rack="small ring", wires=(wires, wires))
    with pytest.raises(ValueError, match="ulx3s_pair1: all links of a chip must be alike"):
        replace(board, rack="small ring",
                wires=(wires, replace(wires, follows=False, link=replace(wires.link, taps=1))))


@pytest.mark.filterwarnings("ignore:Domain '(sync|fast|rx0)' is used")  # Clock defines them, as for all boards
@pytest.mark.parametrize("follows", [False, True], ids=["root", "follower"])
def test_the_top_of_a_linked_board_has_its_cells_and_clocks(follows: bool, monkeypatch: pytest.MonkeyPatch):
    """A small chip in place of the pair's."""
    monkeypatch.setitem(RACKS, "small pair", SMALL_PAIR)
    pair = boards.BOARDS[f"ulx3s_pair{int(follows)}"]
    board = replace(pair, rack="small pair", wires=(_small(pair.wires[0]),))
    text, pins = _prepared(board)
    for cell, count in (("ODDRX1F", 6), ("IDDRX1F", 5), ("DELAYF", 5), ("EHXPLLL", 1)):
        assert text.count(f"cell \\{cell} ") == count, cell
    assert ('FREQUENCY PORT "clk25' in pins) == (not follows)  # the board's own clock
    assert pins.count('SITE "A4"') == pins.count('SITE "A5"') == 1  # gp8 and gn8
    assert pins.count('FREQUENCY PORT "link_0__in_clock__io" 50000000.0 HZ') == 1


@pytest.mark.filterwarnings("ignore:Domain '(sync|fast|rx0|rx1)' is used")
def test_the_top_of_a_board_with_two_links(monkeypatch: pytest.MonkeyPatch):
    """The middle of a chain: its clock comes over its western link; the eastern one is on the other header."""
    monkeypatch.setitem(RACKS, "small ring", SMALL_RING)
    pair = boards.BOARDS["ulx3s_pair1"]
    near = _small(pair.wires[0])
    far = replace(near, follows=False, **{name: tuple(f"{n}{sign}" for n in (*range(22, 27), 18))
                                          for name, sign in (("sends", "+"), ("takes", "-"))})
    text, pins = _prepared(replace(pair, rack="small ring", wires=(near, far)))
    for cell, count in (("ODDRX1F", 12), ("IDDRX1F", 10), ("DELAYF", 10), ("EHXPLLL", 1)):
        assert text.count(f"cell \\{cell} ") == count, cell
    assert pins.count("FREQUENCY PORT") == 2
    for n in range(2):
        assert f'FREQUENCY PORT "link_{n}__in_clock__io" 50000000.0 HZ' in pins


def _small(wires: boards.Wires) -> boards.Wires:
    """Five data pins in place of nine."""
    return replace(wires, link=SMALL_LINK, sends=wires.sends[:5] + wires.sends[-1:],
                   takes=wires.takes[:5] + wires.takes[-1:])


def _prepared(board: boards.Board) -> tuple[str, str]:
    """The top's RTLIL and constraints."""
    plan = board.make_platform().prepare(linked.LinkedTop(board), "top", emit_src=False)
    text, pins = (found if isinstance(found, str) else found.decode()
                  for found in (plan.files["top.il"], plan.files["top.lpf"]))
    return text, pins


def test_an_unknown_board_is_one_line():
    with pytest.raises(TspError, match=r"board must be one of ulx3s.*, not 'nothing'"):
        boards.board_of("nothing")


def test_a_missing_tool_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TspError, match="nextpnr-none was not found"):
        tools.find("nextpnr-none")


def test_a_missing_python_tool_is_one_line(monkeypatch):
    tools.find.cache_clear()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TspError, match="gowin_pack was not found beside /nowhere/python"):
        tools.find("gowin_pack")


def test_a_tool_that_says_it_is_prepared_still_names_its_version(monkeypatch, tmp_path):
    """A WebAssembly tool does so when it runs for the first time; a build's key in the cache must not depend on it."""
    tool = tmp_path / "yowasp-nextpnr-x9"
    tool.write_text("#!/bin/sh\necho Preparing to run yowasp-nextpnr-x9. This might take a while... >&2\n"
                    "echo '\"yowasp-nextpnr-x9\" -- Next Generation Place and Route (Version nextpnr-0.11.1)' >&2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    tools.find.cache_clear()
    assert tools.find("nextpnr-x9").version == "Next Generation Place and Route (Version nextpnr-0.11.1)"


@pytest.mark.parametrize(("output", "words"), [("file", "file is not a folder"), ("file/a", "file is not a folder"),
                                               ("there", "it is a folder")])
def test_an_output_that_cannot_be_is_one_line_before_the_build(output, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "there" / "ulx3s.bit").mkdir(parents=True)
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("nothing is to be built"))
    with pytest.raises(SystemExit, match="2"):
        build.main("ulx3s", seed=1, sweep=1, output=tmp_path / output)
    error = capsys.readouterr().err
    assert error.startswith("fpga.flow.build: ") and words in error and error.count("\n") == 1


@pytest.mark.parametrize(("module", "arguments", "words"), [
    ("flow.build", ["ulx3s", "--seed", "abc"], "Invalid value for '--seed'"), ("flow.build", [], "Missing"),
    ("simulate", ["--bord", "ulx3s"], "No such option: --bord"),
    ("flow.place_macros", ["ulx3s", "--rounds"], "requires an argument"),
])
def test_a_wrong_option_is_one_line(module, arguments, words):
    done = subprocess.run([sys.executable, "-m", f"fpga.{module}", *arguments], cwd=REPOSITORY, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"fpga.{module}: ") and words in done.stderr and done.stderr.count("\n") == 1


SPEEDS = {1: 50.5, 2: 47.0, 3: 52.25, 4: 51.0}


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The seeds that are routed, by a flow that only knows their speeds; seed 2 cannot be routed at first."""
    routed: list[int] = []

    def route(board: boards.Board, netlist: Netlist, seed: int) -> Routed:
        routed.append(seed)
        if seed == 2 and routed.count(2) == 1:
            raise TspError("nextpnr failed")
        return Routed(tmp_path, tmp_path, {})

    def measure(board: boards.Board, netlist: Netlist, routed: Routed, seed: int) -> report.Report:
        return report.Report(
            board=board.name, part="", config="", digest="", seed=seed, seeds_tried=1, lut4=0, comb=0, ff=0, bram=0,
            dsp=0, fmax_mhz=SPEEDS[seed], constraint_mhz=50.0, critical_path=(), versions={}, seconds={"nextpnr": 3.0})

    monkeypatch.setattr(build, "synthesise", lambda board: Netlist(tmp_path / "netlist", "", 0.0))
    monkeypatch.setattr(build, "measure", measure)
    monkeypatch.setattr(build.tools, "find", lambda name: tools.Tool(name, (), "1"))
    monkeypatch.setitem(build.FAMILIES, "ecp5", replace(ecp5.FAMILY, route=route))
    return routed


def sweep(folder: Path, **options) -> build.Built | None:
    return build.build(boards.BOARDS["ulx3s"], range(1, 5), Console(quiet=True), folder=folder, **options)


def test_a_sweep_keeps_what_its_seeds_reach_and_takes_the_fastest(seeds: list[int], tmp_path: Path):
    first = sweep(tmp_path)
    assert first and (first.report.seed, first.report.fmax_mhz, first.report.seeds_tried) == (3, 52.25, 3)
    assert seeds == [1, 2, 3, 4, 3]  # the fastest comes from the cache
    seeds[:] = [2]
    again = sweep(tmp_path)
    assert again and again.report.seeds_tried == 4 and seeds == [2, 2, 3]  # what failed is tried again


def test_machines_share_a_sweep_by_parts(seeds: list[int], tmp_path: Path):
    for n in (1, 2):
        assert sweep(tmp_path, part=Part(index=n, count=2)) is None
    assert seeds == [1, 3, 2, 4]
    both = sweep(tmp_path)
    assert both and both.report.seed == 3


def test_a_sweep_of_which_nothing_is_routed_is_a_line(seeds: list[int], tmp_path: Path):
    with pytest.raises(TspError, match="seed 2: nextpnr failed"):
        build.build(boards.BOARDS["ulx3s"], [2], Console(quiet=True), folder=tmp_path)


def test_make_refuses_an_unknown_board_before_it_installs_the_tools(tmp_path):
    plan_of = ["make", "-n", "bitstream", "BOARD=nix", f"VENV={tmp_path}"]
    steps = subprocess.run(plan_of, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert 0 < steps.index("-m fpga.boards 'nix'") < steps.index("installing yosys")
    done = subprocess.run([sys.executable, "-m", "fpga.boards", "nix"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("fpga.boards: board must be one of ulx3s, ")


def test_make_help_lists_the_boards():
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert f"BOARD={'|'.join(boards.BOARDS)} " in shown


def test_a_bitstream_is_saved_in_a_new_folder(tmp_path):
    (tmp_path / "top.bit").write_bytes(b"bits")
    build.check_folder(tmp_path / "a" / "b", tmp_path / "a" / "b" / "x.bit")
    assert not (tmp_path / "a").exists()
    build.save(tmp_path / "top.bit", tmp_path / "a" / "b" / "x.bit")
    assert (tmp_path / "a" / "b" / "x.bit").read_bytes() == b"bits"


@pytest.mark.parametrize("board", boards.BOARDS.values(), ids=lambda board: board.name)
def test_boards_are_of_a_family_whose_script_makes_their_netlist(board: boards.Board):
    family = build.FAMILIES[board.family]
    script = family.script(board, "top")
    assert script.startswith("read_rtlil top.il\n") and script.endswith("write_json top.json\n")
    assert all(file.exists() for file in family.files)
    assert all((file.name in script) == {ecp5.LUT_PRODUCT: bool(board.lut_products),
                                         gowin.PRODUCTS: not board.lut_products}.get(file, True)
               for file in family.files)


def test_products_of_luts_are_of_ecp5_cells():
    for name in ("tang_primer_20k", "tang_mega_138k"):
        board = replace(boards.BOARDS[name], lut_products="*product*")
        with pytest.raises(TspError, match=r"lut_products must be empty on a Gowin board, not '\*product\*': such"):
            build.FAMILIES[board.family].script(board, "top")


def test_a_floorplan_is_for_ecp5_and_gw5a(capsys):
    with pytest.raises(SystemExit, match="2"):
        plan.main("tang_primer_20k", rounds=1, seed=1)
    error = capsys.readouterr().err
    assert "fpga.flow.place_macros: board must be an ECP5 or GW5A board for a floorplan, not 'tang_primer_20k'" in error


def test_passes_change_the_netlist_and_its_cells_are_counted(tmp_path):
    cells = {"a": {"type": "LUT2"}, "b": {"type": "LUT4"}, "c": {"type": "DFF"}}
    (tmp_path / "x.json").write_text(json.dumps({"modules": {"x": {"attributes": {"top": "1"}, "cells": cells}}}))
    build.improve(tmp_path, "x", (lambda netlist: netlist["modules"]["x"]["cells"].pop("c"),))
    assert json.loads((tmp_path / "cells.json").read_text()) == {"LUT2": 1, "LUT4": 1}


def test_used_of_a_gowin_board():
    cells = {"LUT1": 1, "LUT2": 20, "LUT3": 300, "LUT4": 4000, "DFF": 50, "ALU": 60, "SDPX9B": 7, "MULT9X9": 33,
             "MULT18X18": 1}
    places = {"LUT4": 5000, "DFF": 70, "ALU": 600, "RAM16SDP4": 80}
    used = gowin.GW2A.used(cells, {kind: {"used": number} for kind, number in places.items()})
    assert used == (4321, 5000 + 600 + 4 * 80, 70, 7, 18)


def test_used_of_an_ecp5_board():
    cells = {"LUT4": 400, "DP16KD": 5, "MULT18X18D": 6}
    used = ecp5.FAMILY.used(cells, {"TRELLIS_COMB": {"used": 500}, "TRELLIS_FF": {"used": 70}})
    assert used == (400, 500, 70, 5, 6)


def test_places_on_a_gowin_fpga():
    cells = {"a": {"attributes": {"NEXTPNR_BEL": "X53Y26/LUT7"}}, "b": {"attributes": {}}}
    assert floorplan.places({"modules": {"top": {"cells": cells}}}) == [("a", 53, 26)]


@pytest.mark.parametrize("mhz", [50.0, 60.0, 62.5, 75.0, 80.0, 100.0])
def test_ecp5_pll_dividers(mhz):
    reference, feedback, output = PLLS["EHXPLLL"].dividers(25.0, mhz)
    assert 25.0 / reference * feedback == pytest.approx(mhz)
    assert 400 <= mhz * output <= 800


@pytest.mark.parametrize("mhz", [40.5, 45.0, 48.0, 54.0, 67.5])
def test_gowin_pll_dividers(mhz):
    reference, feedback, output = PLLS["rPLL"].dividers(27.0, mhz)
    assert 27.0 / reference * feedback == pytest.approx(mhz)
    assert 27.0 / reference >= 3 and 500 <= mhz * output <= 1250
    assert output in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)


@pytest.mark.parametrize("pll", PLLS.values(), ids=PLLS)
def test_pll_cannot_make_every_clock(pll):
    with pytest.raises(ValueError, match="mhz_out must be"):
        pll.dividers(25.0, 50.123)


def test_without_a_pll_the_clock_is_the_boards():
    with pytest.raises(ValueError, match=r"mhz_out must be 50\.0 without a PLL, not 60\.0"):
        Fragment.get(Clock(Signal(), pll=None, mhz_in=50.0, mhz_out=60.0), None)


@pytest.mark.parametrize("board", boards.BOARDS.values(), ids=lambda board: board.name)
def test_boards_have_what_the_top_needs(board: boards.Board):
    platform = board.make_platform()
    mhz_in = platform.default_clk_frequency / 1e6
    assert board.pll or mhz_in == board.mhz
    if board.pll:
        PLLS[board.pll].dividers(mhz_in, board.mhz)
    for resource in (platform.default_clk, "uart", "led"):
        platform.lookup(resource, 0)
    platform.lookup("led", 1)


def test_the_router_is_asked_for_a_faster_clock_of_nets():
    constraints = ('BLOCK RESETPATHS;\nFREQUENCY NET "clock.chip_clk" 50000000.0 HZ;\n'
                   'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;\n')
    assert ecp5.faster(constraints, 2) == constraints.replace("50000000.0", "100000000.0")


def test_figures_out_of_the_tools_reports():
    timing = {"fmax": {"clk": {"achieved": 61.5}, "other": {"achieved": 99.0}},
              "critical_paths": [
                  {"from": "posedge clk", "to": "posedge clk", "path": [
                      {"delay": 5.6, "type": "clk-to-q", "to": {"cell": "queue_DP16KD_1"}},
                      {"delay": 2.0, "type": "routing", "to": {"cell": "issue_LUT4_Z_3"}}]},
                  {"from": "<async>", "to": "posedge clk", "path": [{"delay": 99, "type": "x", "to": {"cell": "y"}}]}]}
    assert report.fmax(json.dumps(timing)) == 61.5
    assert report.critical_path(json.dumps(timing)) == ("5.60 clk-to-q queue", "2.00 routing issue")
    with pytest.raises(ValueError, match="does not name the chip's clock"):
        report.fmax(json.dumps({"fmax": {}}))


def test_the_clock_of_a_board_with_links_covers_the_links_and_what_leads_to_them():
    chip, fast, link = "$glbnet$clock.pll_clk", "$glbnet$clock.fast_clk", "$glbnet$link_clk"
    timing = {"fmax": {chip: {"achieved": 61.5}, fast: {"achieved": 119.0}, link: {"achieved": 112.0}},
              "critical_paths": []}

    def path(start: str, end: str, ns: float) -> dict:
        step = {"delay": ns, "type": "routing", "to": {"cell": "beat"}}
        return {"from": f"posedge {start}", "to": f"posedge {end}", "path": [step]}

    assert report.fmax(json.dumps(timing), ratio=2) == 56.0
    timing["critical_paths"].append(path(chip, link, 19.0))  # through the elastic buffer
    assert report.fmax(json.dumps(timing), ratio=2) == 56.0
    timing["critical_paths"].append(path(chip, fast, 18.5))
    assert report.fmax(json.dumps(timing), ratio=2) == pytest.approx(1000 / 18.5)
    with pytest.raises(ValueError, match="does not name the chip's clock"):
        report.fmax(json.dumps({"fmax": {link: {"achieved": 112.0}}}), ratio=2)
