"""The figures of built boards for `tsp bench`, out of the reports that are committed."""

import json
from collections.abc import Iterable
from pathlib import Path

from hw.config import CONFIGS
from hw.identity import chip_digest
from sim.bench import CYCLES, Figure

from .boards import BOARDS
from .report import FOLDER

GOALS = {"ulx3s": {"Fmax": (">= 50", "80"), "LUT4": ("<= 0.75", "0.60"), "flip-flops": ("<= 0.75", "0.60"),
                   "stories260K": (">= 10,000", "20,000"), "multipliers": (">= 128", "256")}}
"""What a board is to reach."""


def board_figures(found: Iterable[Figure], folder: Path = FOLDER) -> list[Figure]:
    """Of every board with a report of its present chip: what it takes, its clock, and tokens a second at that clock.

    found: figures of models, of which the cycles a token are used.
    """
    figures: list[Figure] = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        board, config = BOARDS.get(report["board"]), CONFIGS.get(report["config"])
        if board is None or config is None or report["digest"] != chip_digest(config):
            continue
        name, goals = f"board {board.name}", GOALS.get(board.name, {})
        none = ("", "")
        figures += [
            Figure(name, f"Fmax by nextpnr, best of {report['seeds_tried']} seeds", report["fmax_mhz"], "MHz",
                   *goals.get("Fmax", none)),
            Figure(name, "LUT4, share of the part's", report["lut4"] / board.lut, "", *goals.get("LUT4", none)),
            Figure(name, "LUT4 with carry and LUT memory, share", report["comb"] / board.lut, ""),
            Figure(name, "flip-flops, share", report["ff"] / board.ff, "", *goals.get("flip-flops", none)),
            Figure(name, "int8 multiply-accumulates a cycle", config.macs, "", *goals.get("multipliers", none)),
        ]
        figures += [Figure(name, f"{figure.model} at Fmax", report["fmax_mhz"] * 1e6 / figure.value, "tokens/s",
                           *goals.get(figure.model, none))
                    for figure in found if figure.what.startswith(CYCLES.format(config.name))]
    return figures
