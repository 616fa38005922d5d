"""`python -m hw`: the chip's Verilog."""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from arch.config import CONFIGS
from base.command import run
from base.progress import progress

from .chip import Chip
from .verilog import SECONDS, complete, convert


def main(
    config: Annotated[str, typer.Option(help=f"one of {', '.join(CONFIGS)}")] = "ulx3s",
    debug: Annotated[bool, typer.Option("--debug", help="with driven bits, traps and probes")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")] = Path("chip.v"),
) -> None:
    """Write the Verilog of a chip. Exits with 2 if there is no such config, or the file cannot be written."""
    if config not in CONFIGS:
        _fail(f"--config must be one of {', '.join(CONFIGS)}, not {config!r}")
    target = Path(os.path.realpath(output))
    if output.exists() and not output.is_file():
        _fail(f"--output {output}: cannot write: it is not a regular file: name another one")
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        _fail(f"--output {output}: cannot write: there is no writable folder {target.parent}: make it, or name "
              "another file")
    chip = Chip(config=replace(CONFIGS[config], debug=debug))
    try:
        with progress(f"hw: writing the Verilog of {config}", SECONDS):
            _write(target, complete(convert(chip, "chip")))
    except OSError as error:
        _fail(f"--output {output}: cannot write: {error.strerror}: name a file elsewhere")


def _write(target: Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        part = Path(folder, target.name)
        part.write_text(text)
        os.replace(part, target)


def _fail(message: str) -> NoReturn:
    print("hw:", message, file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    run(main, "hw")
