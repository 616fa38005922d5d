"""`python -m fpga.flow.place_macros BOARD`: make the floorplan of a board.

A floorplan of an ECP5 board is improved round by round. One of a GW5A board goes by lanes, in seconds.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from base.cache import cached, content_key
from base.command import run
from base.errors import TspError
from base.files import write_whole
from fpga.boards import BOARDS, Board, board_of

from . import tools
from .build import FAMILIES, synthesise
from .ecp5 import NEXTPNR
from .family import Netlist
from .passes import macro_placement
from .passes.macro_placement import Sites

TRIES = 3 * macro_placement.EXCHANGES
"""Tries of one annealing by lanes with spare places. They take a quarter of a minute."""


def _round(board: Board, made: Netlist, seed: int, console: Console) -> dict[str, str]:
    """One round on an ECP5 board: a better floorplan. The first one goes by lanes; its placement gives only the
    places."""
    nextpnr, netlist = tools.find(NEXTPNR), json.loads((made.folder / "top.json").read_text())
    first = not macro_placement.constrain(netlist, board)
    text = json.dumps(netlist)
    arguments = [*board.nextpnr, "--json", "top.json", "--lpf", "top.lpf", "--seed", str(seed),
                 "--placer", "heap", "--no-tmdriv", "--no-route", "--write", "placed.json"]

    def make(folder: Path) -> None:
        top, written = folder / "top.json", folder / "placed.json"
        top.write_text(text)
        (folder / "top.lpf").write_text(made.constraints)
        tools.run(nextpnr, arguments, folder, "nextpnr.log")
        placed = json.loads(written.read_text())
        macro = (_by_lanes(board, netlist, macro_placement.sites_of(placed)) if first
                 else macro_placement.by_nets(placed))
        (folder / "plan.json").write_text(json.dumps(macro_placement.anneal(macro, console, seed=seed)))
        top.unlink()
        written.unlink()

    source = Path(macro_placement.__file__).read_text()
    folder = cached("floorplan", content_key(text, made.constraints, *arguments, source, nextpnr.version), make)
    return json.loads((folder / "plan.json").read_text())


def _by_lanes(board: Board, netlist: dict, sites: Sites) -> macro_placement.Annealing:
    return macro_placement.by_lanes(netlist, sites, board.chip.lanes, board.chip.vxm_lanes)


def _outdated(board: Board, made: Netlist) -> bool:
    """Whether the board's floorplan belongs to another netlist."""
    try:
        macro_placement.constrain(json.loads((made.folder / "top.json").read_text()), board)
    except TspError:
        return True
    return False


def _write(file: Path, floorplan: dict[str, str]) -> None:
    write_whole({file: f"{json.dumps(floorplan, indent=0)}\n".encode()})


def main(
    board: Annotated[str, typer.Argument(help=f"one of {', '.join(BOARDS)}")],
    rounds: Annotated[int, typer.Option(help="number of rounds of placing and exchanging (ECP5)")] = 3,
    seed: Annotated[int, typer.Option(help="seed of the placer and of the exchanges")] = 1,
) -> None:
    """Make or improve a board's floorplan, fpga/floorplans/BOARD.json. Exits with 2 if it cannot be made."""
    console = Console()
    try:
        chosen = board_of(board)
        sites = FAMILIES[chosen.family].sites
        if chosen.family != "ecp5" and sites is None:
            raise TspError(f"board must be an ECP5 or GW5A board for a floorplan, not {board!r}")
        console.print(f"[bold]{board}[/]: synthesis (takes minutes unless it is in the cache)")
        made = synthesise(chosen)
        file = macro_placement.file_of(chosen)
        if _outdated(chosen, made):
            console.print(f"{file} belongs to another netlist: a new floorplan is made")
            file.unlink(missing_ok=True)
        if sites:
            netlist = json.loads((made.folder / "top.json").read_text())
            macros = _by_lanes(chosen, netlist, sites(chosen, netlist))
            _write(file, macro_placement.anneal(macros, console, tries=TRIES, seed=seed))
        for number in range(0 if sites else rounds):
            console.print(f"round {number + 1} of {rounds}: place and exchange (takes minutes unless it is in the "
                          "cache)")
            _write(file, _round(chosen, made, seed, console))
    except TspError as error:
        print(f"fpga.flow.place_macros: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    console.print(f"floorplan: {file}")


if __name__ == "__main__":
    run(main, "fpga.flow.place_macros")
