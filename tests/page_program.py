"""The program that tests of the web page run: the shipped model's, compiled once, and its chip as WebAssembly."""

from functools import cache
from pathlib import Path

from checkpoints import REPOSITORY

from page.payload import payload
from page.wasm import chip_wasm
from program.program import Program
from run.programs import open_program

PROMPT = "Once upon a time"


@cache
def story_program() -> Program:
    """The shipped model on the default chip."""
    return open_program(REPOSITORY / "models" / "stories263k.bin")


@cache
def story_wasm() -> bytes:
    """Its chip; from the cache but for the first time."""
    return chip_wasm(story_program().config).read_bytes()


def write_data(folder: Path) -> None:
    """chip.wasm and program.bin, as in a page's folder."""
    (folder / "chip.wasm").write_bytes(story_wasm())
    (folder / "program.bin").write_bytes(payload(story_program(), "stories263k"))
