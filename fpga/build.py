"""`python -m fpga.build BOARD`: a bitstream, and a report of what it takes and how fast it is.

The steps are Amaranth -> RTLIL -> yosys -> nextpnr -> packer. Yosys' netlist is kept in the cache by the RTLIL, the
script and the versions of the tools, a placed chip by the netlist and the seed, a routed one by the placed one.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from compiler.errors import TspError
from hw.config import CONFIGS
from hw.identity import chip_digest
from sim.toolchain import cached, content_key

from . import carry, fanout, floorplan, macros, multiplier, report, tools
from .boards import BOARDS, Board, board_of
from .netlist import count, top
from .report import FOLDER, Report
from .top import Top

LOGIC_PS = 5_000
"""Delay, without that of wires, that the mapper may leave in a path: it trades what is faster for area. At 10,000 the
VXM is 1 % smaller, but of chains of 17 LUTs instead of 11."""

MAPPER = "abc9.script.flow2"
"""What abc9 does: a VXM lane takes 6 % fewer LUTs than by its default script, the other units as many."""

COPY_PLACER = {"placer": "heap"}
"""For the few cells that `fpga.fanout` makes, all others being locked."""
ROUTER = {"router": "router2", "router2/bbMargin/x": "9", "router2/bbMargin/y": "9", "router2/estimateWeight": "1.0",
          "router2/currCongWeightMult": "5.0"}
"""nextpnr's settings for routing: router2, which may leave a net's rectangle by 9 tiles instead of 3, takes no way for
longer than it is, and raises the price of a wire that several nets want by 5 instead of 2 a pass. With its own price a
full FPGA is left with a few thousand wires that critical nets do not give up. router1 finds faster paths where there is
room, but is two to ten times as long about it and may not come to an end."""

PASSES = carry.fold, carry.end, multiplier.take_registers
"""What yosys' netlists go through."""
PASS_SOURCES = [Path(__file__).with_name(f"{name}.py").read_text() for name in ("carry", "multiplier", "netlist")]
LUT_PRODUCT = Path(__file__).with_name("lut_product.v")


class Netlist(NamedTuple):
    """A synthesised board: the folder in the cache, pins and clocks, and how long yosys ran."""

    folder: Path
    constraints: str
    user_s: float


def yosys_script(name: str, lut_products: str = "") -> str:
    """RTLIL to an ECP5 netlist.

    Wide multiplexers out of LUT4s are smaller than out of PFUMX cells, which hide logic from the mapper. Block RAMs of
    one read and one write port are made without the logic that would give a colliding read the old data: the ISA
    forbids such reads. lut_products: registers whose products fpga/lut_product.v makes before yosys looks for
    multipliers (see `Board`); a product is behind a name, the register's cell and its input.
    """
    synth = f"synth_ecp5 -nowidelut -top {name}"
    adders = (f"hierarchy -top {name}", "proc", "flatten",
              f"techmap -map {LUT_PRODUCT.name} w:{lut_products} %ci4 t:$mul %i")
    return "\n".join((
        f"read_rtlil {name}.il", *(adders if lut_products else ()),
        f"scratchpad -set abc9.D {LOGIC_PS}", f"scratchpad -copy {MAPPER} abc9.script",
        f"{synth} -run begin:map_ram",
        "setparam -set RD_COLLISION_X_MASK 1'1 t:$mem_v2 r:RD_CLK_ENABLE=1'1 %i",
        f"{synth} -run map_ram:", f"write_json {name}.json", "",
    ))


def improve(folder: Path, name: str) -> None:
    """Let yosys' netlist NAME.json go through the `PASSES`, and count its cells in cells.json."""
    cells = json.loads((folder / f"{name}.json").read_text())
    for change in PASSES:
        change(cells)
    (folder / f"{name}.json").write_text(json.dumps(cells))
    (folder / "cells.json").write_text(json.dumps(count(cells)))


def synthesise(board: Board) -> Netlist:
    """Elaborate the board's top and synthesise it."""
    yosys = tools.find("yosys")
    plan = board.make_platform().prepare(Top(board=board, config=CONFIGS[board.config]), "top", emit_src=False)
    rtlil, script = plan.files["top.il"], yosys_script("top", board.lut_products)
    rtlil = rtlil if isinstance(rtlil, str) else rtlil.decode()

    def make(folder: Path) -> None:
        (folder / "top.il").write_text(rtlil)
        (folder / "top.ys").write_text(script)
        shutil.copy(LUT_PRODUCT, folder)
        spent = tools.run(yosys, ["-q", "-l", "yosys.log", "top.ys"], folder, "yosys.out")
        improve(folder, "top")
        (folder / "seconds").write_text(str(spent.user_s))

    key = content_key(rtlil, script, *PASS_SOURCES, LUT_PRODUCT.read_text(), yosys.version)
    folder = cached("netlist", key, make)
    lpf = plan.files["top.lpf"]
    return Netlist(folder, lpf if isinstance(lpf, str) else lpf.decode(), _seconds(folder))


def place(board: Board, netlist: Netlist, seed: int) -> Path:
    """Pack and place: the folder with `placed.json` and `top.lpf`."""
    nextpnr = tools.find(f"nextpnr-{board.family}")
    cells = json.loads((netlist.folder / "top.json").read_text())
    macros.constrain(cells, board)
    text = json.dumps(cells)
    arguments = [*board.nextpnr, "--json", "top.json", "--lpf", "top.lpf", "--seed", str(seed),
                 "--freq", str(board.mhz), *board.placer, "--no-route", "--timing-allow-fail", "--write", "placed.json"]

    def make(folder: Path) -> None:
        (folder / "top.json").write_text(text)
        (folder / "top.lpf").write_text(netlist.constraints)
        spent = tools.run(nextpnr, arguments, folder, "nextpnr.log")
        (folder / "seconds").write_text(str(spent.user_s))
        (folder / "top.json").unlink()

    return cached("placed", content_key(text, netlist.constraints, *arguments, nextpnr.version), make)


def copy_cells(board: Board, placed: Path) -> Path:
    """Place copies of the cells that many others hear (`fpga.fanout`): the folder with `placed.json` and `top.lpf`,
    and `places.json` for `fpga.floorplan`."""
    nextpnr = tools.find(f"nextpnr-{board.family}")
    original, constraints = (placed / "placed.json").read_text(), (placed / "top.lpf").read_text()
    cells = json.loads(original)
    fanout.split(cells)
    top(cells)["settings"] |= COPY_PLACER
    text = json.dumps(cells)
    arguments = [*board.nextpnr, "--json", "parted.json", "--lpf", "top.lpf", "--no-pack", "--no-route",
                 "--timing-allow-fail", "--write", "placed.json"]

    def make(folder: Path) -> None:
        (folder / "parted.json").write_text(text)
        (folder / "top.lpf").write_text(constraints)
        spent = tools.run(nextpnr, arguments, folder, "nextpnr.log")
        copied = json.loads((folder / "placed.json").read_text())
        fanout.check(json.loads(original), copied)
        found = floorplan.places(copied)
        (folder / "places.json").write_text(json.dumps(found))
        (folder / "parted.json").unlink()
        (folder / "seconds").write_text(str(spent.user_s))

    return cached("placed", content_key(text, constraints, *arguments, nextpnr.version), make)


def route(board: Board, placed: Path) -> Path:
    """Route and pack: the folder with `top.bit` and `report.json`. What a placed netlist says of settings counts more
    than nextpnr's arguments."""
    nextpnr, pack = tools.find(f"nextpnr-{board.family}"), tools.find(board.pack)
    cells = json.loads((placed / "placed.json").read_text())
    top(cells)["settings"] |= ROUTER
    text, constraints = json.dumps(cells), (placed / "top.lpf").read_text()
    arguments = [*board.nextpnr, "--json", "placed.json", "--lpf", "top.lpf", "--no-pack", "--no-place",
                 "--timing-allow-fail", "--textcfg", "top.config", "--report", "report.json",
                 "--detailed-timing-report"]

    def make(folder: Path) -> None:
        (folder / "placed.json").write_text(text)
        (folder / "top.lpf").write_text(constraints)
        spent = tools.run(nextpnr, arguments, folder, "nextpnr.log")
        (folder / "placed.json").unlink()
        tools.run(pack, ["--compress", "--input", "top.config", "--bit", "top.bit"], folder, "pack.log")
        (folder / "seconds").write_text(str(spent.user_s))

    return cached("bitstream", content_key(text, constraints, *arguments, nextpnr.version, pack.version), make)


def measure(board: Board, netlist: Netlist, placed: Sequence[Path], routed: Path, seed: int) -> Report:
    """The report of a routed board. placed: the folders of its placement."""
    config = CONFIGS[board.config]
    found, timing = json.loads((netlist.folder / "cells.json").read_text()), (routed / "report.json").read_text()
    lut4, used = found.get("LUT4", 0), json.loads(timing)["utilization"]
    return Report(
        board=board.name, part=board.part, config=config.name, digest=chip_digest(config), seed=seed, seeds_tried=1,
        lut4=lut4, comb=used["TRELLIS_COMB"]["used"], ff=used["TRELLIS_FF"]["used"],
        bram=found.get("DP16KD", 0), dsp=found.get("MULT18X18D", 0), fmax_mhz=round(report.fmax(timing), 2),
        constraint_mhz=board.mhz, critical_path=report.critical_path(timing),
        versions={name: tools.find(name).version for name in ("yosys", f"nextpnr-{board.family}", board.pack)},
        seconds={"yosys": netlist.user_s, "nextpnr, placing": sum(map(_seconds, placed)),
                 "nextpnr, routing": _seconds(routed)},
    )


def _seconds(folder: Path) -> float:
    return float((folder / "seconds").read_text())


class Built(NamedTuple):
    """One seed of a board: its report, and the folders of its last placement and its bitstream."""

    report: Report
    placed: Path
    routed: Path


def build(board: Board, seeds: list[int], console: Console) -> Built:
    """The fastest of the seeds."""
    console.print(f"[bold]{board.name}[/]: synthesis (minutes where the cache has none)")
    if not (FOLDER / f"{board.name}.json").exists():
        console.print(f"no bitstream of {board.name} has been routed yet: this may not come to an end (docs/fpga.md)")
    netlist = synthesise(board)
    best: Built | None = None
    for seed in seeds:
        console.print(f"place, seed {seed} (up to half an hour where the cache has none)")
        first = place(board, netlist, seed)
        placed = copy_cells(board, first)
        console.print(f"route, seed {seed} (the same)")
        routed = route(board, placed)
        built = Built(measure(board, netlist, (first, placed), routed, seed), placed, routed)
        console.print(f"seed {seed}: {built.report.fmax_mhz:.1f} MHz")
        if best is None or built.report.fmax_mhz > best.report.fmax_mhz:
            best = built
    if best is None:
        raise TspError("a build needs at least one seed")
    return best._replace(report=replace(best.report, seeds_tried=len(seeds)))


def main(
    board: Annotated[str, typer.Argument(help=f"one of {', '.join(BOARDS)}")],
    seed: Annotated[int, typer.Option(help="seed of the placer")] = 1,
    sweep: Annotated[int, typer.Option(help="try so many seeds, from --seed on, and take the fastest")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the bitstream")] = Path("build"),
) -> None:
    """Build a board's bitstream. Exits with 1 if the clock constraint is missed, with 2 if it cannot be built."""
    console = Console()
    try:
        if sweep < 1:
            raise TspError(f"--sweep must be at least 1, not {sweep}")
        chosen = board_of(board)
        result, placed, routed = build(chosen, list(range(seed, seed + sweep)), console)
        output.mkdir(parents=True, exist_ok=True)
        target = output / f"{board}.bit"
        shutil.copy(routed / "top.bit", target)
    except TspError as error:
        print(f"fpga.build: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    console.print(result.table(chosen))
    saved, picture = result.save(), FOLDER / f"{board}.svg"
    picture.write_text(floorplan.draw(placed / "places.json"))
    console.print(f"report: {saved}")
    console.print(f"floorplan: {picture}")
    console.print(f"bitstream: {target}")
    if not result.met:
        print(f"fpga.build: {board} reached {result.fmax_mhz:.1f} MHz, its constraint is {result.constraint_mhz:.1f} "
              "MHz: try --sweep, or see critical_path in the report", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
