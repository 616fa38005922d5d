"""`python -m hw`: the chip's Verilog."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .chip import Chip
from .config import CONFIGS
from .verilog import complete, convert


def main(
    config: Annotated[str, typer.Option(help=f"one of {', '.join(CONFIGS)}")] = "ulx3s",
    debug: Annotated[bool, typer.Option("--debug", help="with driven bits, traps and probes")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")] = Path("chip.v"),
) -> None:
    """Write the Verilog of a chip."""
    if config not in CONFIGS:
        raise typer.BadParameter(f"config must be one of {', '.join(CONFIGS)}, not {config!r}")
    chip = Chip(config=replace(CONFIGS[config], debug=debug))
    output.write_text(complete(convert(chip, "chip")))


if __name__ == "__main__":
    typer.run(main)
