"""`python -m fpga.flow.place_macros BOARD`: make an ECP5 board's floorplan, or improve it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from base.cache import cached, content_key
from base.command import run
from base.errors import TspError
from fpga.boards import BOARDS, Board, board_of

from . import tools
from .build import synthesise
from .ecp5 import NEXTPNR
from .family import Netlist
from .passes import macro_placement


def _round(board: Board, made: Netlist, seed: int, console: Console) -> dict[str, str]:
    """One round: a better floorplan. The first floorplan goes by lanes; its placement only gives the places."""
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
        config = board.chip
        macro = (macro_placement.by_lanes(netlist, placed, config.lanes, config.vxm_lanes) if first
                 else macro_placement.by_nets(placed))
        (folder / "plan.json").write_text(json.dumps(macro_placement.anneal(macro, console, seed=seed)))
        top.unlink()
        written.unlink()

    source = Path(macro_placement.__file__).read_text()
    folder = cached("floorplan", content_key(text, made.constraints, *arguments, source, nextpnr.version), make)
    return json.loads((folder / "plan.json").read_text())


def _outdated(board: Board, made: Netlist) -> bool:
    """Whether the board's floorplan belongs to another netlist."""
    try:
        macro_placement.constrain(json.loads((made.folder / "top.json").read_text()), board)
    except TspError:
        return True
    return False


def main(
    board: Annotated[str, typer.Argument(help=f"one of {', '.join(BOARDS)}")],
    rounds: Annotated[int, typer.Option(help="number of rounds of placing and exchanging")] = 3,
    seed: Annotated[int, typer.Option(help="seed of the placer and of the exchanges")] = 1,
) -> None:
    """Make or improve a board's floorplan, fpga/floorplans/BOARD.json. Exits with 2 if it cannot be made."""
    console = Console()
    try:
        chosen = board_of(board)
        if chosen.family != "ecp5":
            raise TspError(f"board must be an ECP5 board for a floorplan, not {board!r}")
        console.print(f"[bold]{board}[/]: synthesis (takes minutes unless it is in the cache)")
        made = synthesise(chosen)
        file = macro_placement.file_of(chosen)
        if _outdated(chosen, made):
            console.print(f"{file} belongs to another netlist: a new floorplan is made")
            file.unlink(missing_ok=True)
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}: place and exchange (takes minutes unless it is in the "
                          "cache)")
            file.write_text(json.dumps(_round(chosen, made, seed, console), indent=0) + "\n")
    except TspError as error:
        print(f"fpga.flow.place_macros: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    console.print(f"floorplan: {file}")


if __name__ == "__main__":
    run(main, "fpga.flow.place_macros")
