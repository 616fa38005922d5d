"""`tsp chat`: a conversation with a model on a chip."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from arch.config import CONFIGS
from base.errors import TspError
from program.program import DEFAULT_CLOCK_MHZ
from program.tokenizer import Tokenizer
from run.chat import TemplateError, choose_template
from run.conversation import Conversation, Turn
from run.devices import check_name, open_device
from run.models import find_model
from run.programs import open_any
from run.sampling import Sampling, check_sampling
from run.session import Session
from sim.lines import LineFaults

from .models import MODELS
from .options import LinkFaults, Pipeline, Rack, Tensor, check_clock
from .show import links, plain

HELP = "/reset forgets the conversation, /quit ends (as ctrl-D does), ctrl-C stops an answer"


def chat(
    model: Annotated[Path, typer.Argument(parser=find_model, metavar="MODEL",
                                          help=f"Program file, or a model: {MODELS}.")],
    device: Annotated[str, typer.Option(help="reference, model, rtl, or a board's port.")] = "reference",
    system: Annotated[str, typer.Option(help="System message: what the model is told first.")] = "",
    tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.  [default: what the context "
                                                    "holds]")] = None,
    temperature: Annotated[float, typer.Option(help="0..10; 0 is greedy. The chip applies it.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling noise; a seed gives the same answers on every "
                                           "device.")] = 0,
    top_k: Annotated[int, typer.Option(help="Sample from this many likeliest tokens; 0 is all. The host applies "
                                            "it.")] = 0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that together have this probability. "
                                              "The host applies it.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Sample from tokens with at least this share of the likeliest one's "
                                              "probability. The host applies it.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Penalty of tokens that occurred before; 1 is none. The "
                                                           "host applies it.")]
    = 1.0,
    chat_template: Annotated[str | None, typer.Option(help="Jinja file, or plain.  [default: the model's own]")] = None,
    clock: Annotated[float | None, typer.Option(help="MHz, for tokens/s.  [default: the board's, elsewhere "
                                                     f"{DEFAULT_CLOCK_MHZ:g}]")] = None,
    config: Annotated[str | None, typer.Option(help=f"Chip: {', '.join(CONFIGS)}.  [default: the smallest that the "
                                                    "model fits]")] = None,
    rack: Rack = None,
    tensor: Tensor = None,
    pipeline: Pipeline = None,
    link_faults: LinkFaults = None,
    context: Annotated[int | None, typer.Option(help="Positions served.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Tokenizer of a checkpoint.")] = None,
) -> None:
    """Hold a conversation with a model; each answer takes exactly the predicted cycles."""
    check_name(device)
    if clock is not None:
        check_clock(clock)
    if tokens is not None and tokens < 1:
        raise TspError(f"tokens must be at least 1, not {tokens}")
    faults = LineFaults.parse(link_faults) if link_faults is not None else None
    notes = plain(stderr=True)
    program = open_any(model, config=config, rack=rack, tensor=tensor, pipeline=pipeline,
                       any_chip=config is None, context=context, tokenizer=tokenizer,
                       say=lambda line: notes.print(line, style="dim"))
    words = Tokenizer.from_bytes(program.tokenizer)
    template = choose_template(chat_template, model, words)
    if template is None:
        raise TspError(f"{model} has no chat template: it is a completion model; use tsp run, or give --chat-template")
    sampling = Sampling(temperature=temperature, seed=seed, top_k=top_k, top_p=top_p, min_p=min_p,
                        repetition_penalty=repetition_penalty)
    check_sampling(program, sampling)
    if faults:
        faults.check(program.context)
    machine = open_device(device, program.config, faults=faults)
    try:
        mhz = clock or getattr(machine, "clock_mhz", DEFAULT_CLOCK_MHZ)
        talk = Conversation(Session(machine, program), words, template, sampling, system, tokens)
        notes.print(f"{program.config.name}, {program.context} positions, device {device}; {HELP}", style="dim")
        for line in lines():
            if line == "/reset":
                talk.reset()
            elif line.startswith("/"):
                notes.print(HELP if line == "/help" else f"no such command: {line}; {HELP}")
            elif line:
                answer(talk, line, mhz)
        if corrected := links(machine).strip():
            notes.print(corrected, style="dim")
    finally:
        machine.close()


def lines() -> Iterator[str]:
    """What the user types, or what comes through a pipe, up to /quit or the end."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            continue
        if line in ("/quit", "/exit"):
            return
        yield line


def answer(talk: Conversation, text: str, mhz: float) -> None:
    """Print an answer as it comes, and what it took. A message that does not fit is one line, and forgotten."""
    before = talk.forgotten
    try:
        turn = talk.ask(text)
    except (TspError, TemplateError) as error:
        plain(stderr=True).print(f"tsp: {error}")
        return
    if talk.forgotten > before:
        plain(stderr=True).print(f"note: the context is full: {talk.forgotten - before} of the oldest messages are "
                                 "dropped")
    began, pieces = time.perf_counter(), turn.pieces()
    try:
        with stoppable() as stopped:
            for _ in turn.prefill():
                if stopped():
                    break
            else:
                for piece in pieces:
                    sys.stdout.write(piece.text)
                    sys.stdout.flush()
                    if stopped():
                        break
        pieces.close()
    finally:
        print(flush=True)
    plain(stderr=True).print(status(turn, mhz, time.perf_counter() - began), style="dim")


def status(turn: Turn, mhz: float, elapsed: float) -> str:
    """Cycles as predicted and as measured; tokens/s on the chip and here."""
    steps = turn.steps
    predicted, measured = sum(step.predicted for step in steps), [step.measured for step in steps]
    cycles = f"predicted {predicted:,} cycles"
    if steps and None not in measured:
        cycles = f"measured {sum(m for m in measured if m is not None):,} cycles == {cycles}"
    speed = f"{len(steps) * mhz * 1e6 / predicted:,.0f} tokens/s at {mhz:g} MHz, " if predicted else ""
    return (f"{len(steps)} tokens run, {turn.cached} of the prompt's {turn.length} in the cache: {cycles}; {speed}"
            f"{len(steps) / max(elapsed, 1e-9):,.1f} tokens/s here")


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within the block ctrl-C only sets what the given function returns: a token that runs is never torn apart."""
    seen = False

    def handler(number: int, frame: object) -> None:
        nonlocal seen
        seen = True

    old = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, old)
