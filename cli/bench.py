"""`tsp bench`: the figures that this project is measured by."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from arch.rack_file import rack_of
from program.file import check_checkpoint
from run.bench import PUBLISHED, ROOT, Figure, as_json, figures, machine, rack_figures
from run.board_figures import board_figures, load_figures

from .options import Rack
from .show import plain

WIDTH = 132
SHARED = Path(os.environ.get("METRONOME_SHARED", ROOT.parent / "shared")) / "models" / "stories260K.bin"
"""Measured too where it exists: a model that others publish figures of."""


def bench(
    checkpoints: Annotated[list[Path] | None, typer.Argument(help="Checkpoints.  [default: the shipped model]")] = None,
    rack: Rack = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Measure cycles a token, roofline fractions, and the speed of compiler and simulators."""
    if rack is not None:
        rack_of(rack)
    paths = list(checkpoints or [ROOT / "models" / "stories263k.bin"])
    for path in paths:
        check_checkpoint(path)
    if not rack and SHARED.exists() and SHARED.name not in {path.name for path in paths}:
        paths.append(SHARED)
    where = machine()
    with Console(stderr=True).status("bench") as status:
        if rack:
            found = rack_figures(paths, rack, lambda line: status.update(escape(line)))
        else:
            found = figures(paths, lambda line: status.update(escape(line)))
            found += [*load_figures(paths), *board_figures(found)]
    if as_json_:
        print(json.dumps(as_json(where, found)))
        return
    out = plain(WIDTH)
    out.print("; ".join(f"{name} {value}" for name, value in where.items()), soft_wrap=True)
    out.print(_figures(found))
    out.print(_published())


def _figures(found: list[Figure]) -> Table:
    table = _table("model", "figure", "measured", "")
    previous = ""
    for figure in found:
        table.add_row(figure.model if figure.model != previous else "", figure.what, _number(figure.value),
                      figure.unit)
        previous = figure.model
    return table


def _published() -> Table:
    table = _table("published elsewhere", "model", "speed")
    for row in PUBLISHED:
        table.add_row(*row)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name == "measured" else "left", no_wrap=True)
    return table


def _number(value: float) -> str:
    """Three digits at least."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
