"""`tsp page`: a program and its chip as a web page."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from base.errors import TspError
from base.files import check_outputs, write_whole
from compiler.frontend.files import sources
from page.assemble import folder, single
from page.payload import payload
from page.wasm import check_config, chip_wasm
from run.programs import open_program

from . import show


def page(
    program: Annotated[Path, typer.Argument(help="Program file (or checkpoint: its program for the default chip).")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write one self-contained HTML file.")] = None,
    host: Annotated[Path | None, typer.Option("--folder", help="Write a folder of files for a web host.")] = None,
) -> None:
    """Make a web page in which the chip itself, compiled to WebAssembly, runs the program and can be watched."""
    if output is None and host is None:
        raise TspError("no output is named: give --output page.html, or --folder site, or both")
    check_outputs((output,), sources(program))
    _check_folder(host)
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    compiled = open_program(program, say=lambda line: notes.print(line, style="dim", markup=False))
    check_config(compiled.config)
    data = payload(compiled, program.stem)
    wasm = chip_wasm(compiled.config).read_bytes()
    if output:
        write_whole({output: (text := single(wasm, data))})
        show.out.print(f"{output}: {len(text):,} bytes, the chip {compiled.config.name} and {program.stem} inside")
    if host:
        files = folder(wasm, data)
        for name in files:
            (host / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole({host / name: text for name, text in files.items()})
        show.out.print(f"{host}: {len(files)} files, {sum(map(len, files.values())):,} bytes")


def _check_folder(path: Path | None) -> None:
    """Raises TspError unless a page's folder can be made, or one is there."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise TspError(f"{path}: cannot write: this is a file: name a folder")
    if not path.exists() and not path.absolute().parent.is_dir():
        raise TspError(f"{path}: cannot write: there is no folder {path.absolute().parent}: make it, or name another")
    if path.is_dir() and any(path.iterdir()) and not (path / "program.bin").exists():
        raise TspError(f"{path}: cannot write: the folder holds files that are not of a page: name an empty or a new "
                       "folder")
