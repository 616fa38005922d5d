"""The program that tests of the web page run: the shipped model's, compiled once, and its chip as WebAssembly."""

from functools import cache
from pathlib import Path

from checkpoints import REPOSITORY

from page.payload import payload
from page.wasm import chip_wasm
from program.program import Program
from program.tokenizer import Tokenizer
from run.devices import open_device
from run.programs import open_program
from run.session import Session
from run.story import begin, plan

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


def reference_story(positions: int, temperature: float, seed: int) -> tuple[str, list[int]]:
    """What the reference tells of the prompt: the text of so many positions, and the token that each gives."""
    return told_by_reference(story_program(), PROMPT, positions, temperature, seed)


def told_by_reference(program: Program, text: str, positions: int, temperature: float,
                      seed: int) -> tuple[str, list[int]]:
    """What the reference tells with a program, as `tsp run` does."""
    session = Session(open_device("reference", program.config), program)
    prompt = Tokenizer.from_bytes(program.tokenizer).prompt(text)
    wanted = plan(program, text, tokens=positions + 1 - len(prompt), temperature=temperature, seed=seed)
    story = begin(session, wanted)
    tokens = [step.token for step in story.steps()]
    return story.text, tokens
