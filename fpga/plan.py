"""`python -m fpga.plan BOARD`: make a board's floorplan, or improve it."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from compiler.errors import TspError

from . import macros, tools
from .boards import BOARDS, Board, board_of
from .build import WITH_FLOORPLAN, WITHOUT_FLOORPLAN, synthesise


def _place(board: Board, netlist: dict, constraints: str, seed: int) -> dict:
    """The netlist with places. Without a floorplan only lengths count: what is far apart then has no meaning yet."""
    nextpnr = tools.find(f"nextpnr-{board.family}")
    how = WITH_FLOORPLAN if macros.constrain(netlist, board) else (*WITHOUT_FLOORPLAN, "--no-tmdriv")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "top.json").write_text(json.dumps(netlist))
        (folder / "top.lpf").write_text(constraints)
        tools.run(nextpnr, [*board.nextpnr, "--json", "top.json", "--lpf", "top.lpf", "--seed", str(seed), "--freq",
                            str(board.mhz), *how, "--no-route", "--write", "placed.json"], folder, "nextpnr.log")
        return json.loads((folder / "placed.json").read_text())


def main(
    board: Annotated[str, typer.Argument(help=f"one of {', '.join(BOARDS)}")],
    rounds: Annotated[int, typer.Option(help="how often to place and exchange")] = 2,
    seed: Annotated[int, typer.Option(help="seed of the placer and of the exchanges")] = 1,
) -> None:
    """Make or improve a board's floorplan, fpga/floorplans/BOARD.json. Exits with 2 if it cannot be made."""
    console = Console()
    try:
        chosen = board_of(board)
        console.print(f"[bold]{board}[/]: synthesis (minutes where the cache has none)")
        made = synthesise(chosen)
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}: nextpnr places everything (ten minutes)")
            placed = _place(chosen, json.loads((made.folder / "top.json").read_text()), made.constraints, seed)
            places = macros.anneal(placed, console, seed=seed)
            macros.FOLDER.mkdir(exist_ok=True)
            (macros.FOLDER / f"{board}.json").write_text(json.dumps(places, indent=0) + "\n")
    except TspError as error:
        print(f"fpga.plan: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    console.print(f"floorplan: {macros.FOLDER / f'{board}.json'}")


if __name__ == "__main__":
    typer.run(main)
