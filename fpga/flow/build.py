"""`python -m fpga.flow.build BOARD`: a bitstream, and a report of what it takes and how fast it is.

The steps are Amaranth -> RTLIL -> yosys -> nextpnr -> packer. `fpga.flow.ecp5` and `fpga.flow.gowin` hold the steps
that depend on the family. The cache keeps yosys' netlist under the RTLIL, the script and the versions of the tools, and
a routed chip under the netlist and the seed.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from arch.identity import chip_digest
from base.cache import cached, content_key, source_digest
from base.campaign import Campaign, Part, Result
from base.command import run
from base.errors import TspError
from base.files import cannot_write, check_output, write_whole
from fpga.boards import BOARDS, Board, board_of
from fpga.flow.passes.netlist import count
from fpga.gateware.linked import LinkedTop
from fpga.gateware.top import Top

from . import build_report, ecp5, floorplan_picture, gowin, tools
from .build_report import FOLDER, Report
from .family import Netlist, Routed, seconds
from .passes import macro_placement

FAMILIES = {"ecp5": ecp5.FAMILY, "gw2a": gowin.GW2A, "gw5a": gowin.GW5A}
"""The families by `Board.family`."""


def improve(folder: Path, name: str, passes: Iterable[Callable[[dict], object]]) -> None:
    """Apply passes to yosys' netlist NAME.json, and write its counts of cells to cells.json."""
    cells = json.loads((folder / f"{name}.json").read_text())
    for change in passes:
        change(cells)
    (folder / f"{name}.json").write_text(json.dumps(cells))
    (folder / "cells.json").write_text(json.dumps(count(cells)))


def synthesise(board: Board) -> Netlist:
    """Elaborate the board's top and synthesise it."""
    yosys, family = tools.find("yosys"), FAMILIES[board.family]
    top = LinkedTop(board) if board.wires else Top(board=board, config=board.chip)
    plan = board.make_platform().prepare(top, "top", emit_src=False)
    rtlil, pins = (text if isinstance(text, str) else text.decode()
                   for text in (plan.files["top.il"], plan.files[f"top.{family.pins}"]))
    script = family.script(board, "top")

    def make(folder: Path) -> None:
        (folder / "top.il").write_text(rtlil)
        (folder / "top.ys").write_text(script)
        for file in family.files:
            shutil.copy(file, folder)
        spent = tools.run(yosys, ["-q", "-l", "yosys.log", "top.ys"], folder, "yosys.out")
        improve(folder, "top", family.passes)
        (folder / "seconds").write_text(str(spent.user_s))

    key = content_key(rtlil, script, *family.sources, *(file.read_text() for file in family.files), yosys.version)
    folder = cached("netlist", key, make)
    return Netlist(folder, pins, seconds(folder))


def measure(board: Board, netlist: Netlist, routed: Routed, seed: int) -> Report:
    """The report of a routed board."""
    config, family = board.chip, FAMILIES[board.family]
    timing = (routed.folder / "report.json").read_text()
    ratio = board.wires[0].link.ratio if board.wires else 1
    used = family.used(json.loads((netlist.folder / "cells.json").read_text()), json.loads(timing)["utilization"])
    return Report(
        board=board.name, part=board.part, config=config.name, digest=chip_digest(config), seed=seed, seeds_tried=1,
        **used._asdict(), fmax_mhz=round(build_report.fmax(timing, ratio), 2), constraint_mhz=board.mhz,
        critical_path=build_report.critical_path(timing),
        versions={name: tools.find(name).version for name in ("yosys", family.nextpnr, board.pack)},
        seconds={"yosys": netlist.user_s, **routed.seconds},
    )


class Built(NamedTuple):
    """One seed of a board: its report, and the paths of its placement and its bitstream."""

    report: Report
    routed: Routed


def build(board: Board, seeds: Sequence[int], console: Console, *, folder: Path = Path("build"), part: Part = Part(),
          jobs: int = 1) -> Built | None:
    """Build a board with each of the seeds. Returns the fastest of all that are known; None if there are more parts.

    folder: keeps what each seed has reached, and a sweep that was stopped goes on. part: of the seeds. jobs: at a time.

    Raises TspError if no seed can be built.
    """
    console.print(f"[bold]{board.name}[/]: synthesis (takes minutes unless it is in the cache)")
    if not (FOLDER / f"{board.name}.json").exists():
        console.print(f"no design for {board.name} has been routed yet: the router may not end "
                      "(docs/lab/routing.md)")
    netlist = synthesise(board)
    sweep = Campaign(folder=folder / f"{board.name}.sweep", key=_key(board, netlist), part=part, jobs=jobs)
    numbers = ", ".join(map(str, part.of(seeds)))
    console.print(f"place and route, seeds {numbers} (each takes up to an hour unless it is in the cache)")
    found = sweep.run(seeds, partial(_reached, board, netlist), partial(_say, console), lambda seed: "mhz" in seed)
    able = {seed: result["mhz"] for seed, result in found.items() if "mhz" in result}
    if not able:
        raise TspError(next((result["failed"] for result in found.values()), "a build needs at least one seed"))
    best = max(able, key=lambda seed: able[seed])
    if part.count > 1:
        console.print(f"the fastest of {len(able)} seeds so far is {best}, with {able[best]:.1f} MHz: once all parts "
                      "are done, the same command without --part takes the fastest")
        return None
    routed = FAMILIES[board.family].route(board, netlist, best)
    return Built(replace(measure(board, netlist, routed, best), seeds_tried=len(able)), routed)


def _key(board: Board, netlist: Netlist) -> str:
    """Of all that the speed of a seed depends on."""
    names = FAMILIES[board.family].nextpnr, board.pack
    floorplan = macro_placement.file_of(board)
    return content_key(netlist.folder.name, netlist.constraints, repr(board), *(tools.find(n).version for n in names),
                       floorplan.read_text() if floorplan.exists() else "", source_digest(Path(__file__).parent))


def _reached(board: Board, netlist: Netlist, seed: int) -> Result:
    """What a seed reaches, or why it fails. Placement and bitstream stay in the cache."""
    try:
        report = measure(board, netlist, FAMILIES[board.family].route(board, netlist, seed), seed)
    except TspError as error:
        return {"failed": f"seed {seed}: {error}"}
    return {"mhz": report.fmax_mhz, "seconds": report.seconds}


def _say(console: Console, seed: int, result: Result) -> None:
    console.print(f"seed {seed}: {result['mhz']:.1f} MHz" if "mhz" in result else result["failed"], markup=False,
                  soft_wrap=True)


def check_folder(folder: Path, target: Path) -> None:
    """Raises TspError unless the folder exists or can be made, and the file in it can be written."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise TspError(f"--output {folder}: {there} is not a folder: name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise TspError(f"--output {folder}: {there} cannot be written in: name another folder")
    if folder.is_dir():
        check_output(target)


def save(bitstream: Path, target: Path) -> None:
    """Copy the bitstream to its target, whole or not at all. Raises TspError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    write_whole({target: bitstream.read_bytes()})


def main(
    board: Annotated[str, typer.Argument(help=f"one of {', '.join(BOARDS)}")],
    seed: Annotated[int | None, typer.Option(help="seed of the placer  [default: the board's]")] = None,
    sweep: Annotated[int, typer.Option(help="number of seeds to try, from --seed on; the fastest is taken")] = 1,
    jobs: Annotated[int, typer.Option(help="seeds at a time, each with a processor and 1.5 GB of memory")] = 1,
    part: Annotated[str, typer.Option(help="the seeds of one of several machines, such as 2/8, which build no "
                                           "bitstream")] = "1/1",
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the bitstream")] = Path("build"),
) -> None:
    """Build a board's bitstream. Exits with 1 if the clock constraint is missed, with 2 if it cannot be built."""
    console = Console()
    try:
        if sweep < 1:
            raise TspError(f"--sweep must be at least 1, not {sweep}")
        chosen = board_of(board)
        first = chosen.seed if seed is None else seed
        suffix = FAMILIES[chosen.family].bitstream
        target = output / f"{board}.{suffix}"
        check_folder(output, target)
        built = build(chosen, range(first, first + sweep), console, folder=output, part=Part.parse(part), jobs=jobs)
        if built is None:
            return
        result, routed = built
        save(routed.folder / f"top.{suffix}", target)
    except TspError as error:
        print(f"fpga.flow.build: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    console.print(result.table(chosen))
    saved, picture = result.save(), FOLDER / f"{board}.svg"
    picture.write_text(floorplan_picture.draw(routed.placed / "places.json"))
    for what, path in (("report", saved), ("floorplan", picture), ("bitstream", target)):
        console.print(f"{what}: {path}", markup=False, emoji=False)
    if not result.met:
        print(f"fpga.flow.build: {board} reached {result.fmax_mhz:.1f} MHz, its constraint is "
              f"{result.constraint_mhz:.1f} MHz: try --sweep, or see critical_path in the report", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    run(main, "fpga.flow.build")
