"""The `tsp` command: arguments in, text out; everything else is elsewhere."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import cli.one_thread  # noqa: F401  before anything that imports numpy
from arch.config import CONFIGS, DEFAULT_CONFIG, config_of
from base.cache import FULL
from base.command import INTERRUPTED, REFUSED, prepare, refusal
from base.errors import TspError
from base.files import check_output, whole
from compiler.compile import compile_checkpoint
from compiler.fit import fit as fit_model
from compiler.frontend.files import read_model, read_text, sources
from compiler.frontend.load import load_checkpoint
from program.file import check_checkpoint, save
from program.program import DEFAULT_CLOCK_MHZ
from run.devices import check_name, check_waveforms, open_device
from run.models import find_model
from run.programs import open_program
from run.session import BrokenPromise, Session
from run.story import begin, plan
from sim.cycle.core import ProgramError

from . import show
from .bench import bench
from .chat import chat
from .latency import bench_api, watch_api
from .models import MODELS, Model, get
from .options import Config, Context, Scales, Text, TokenizerFile, Weights
from .page import page
from .plan import plan as plan_model
from .report import report
from .serve import serve

BROKEN = 1
"""The exit code besides those of `base.command`: a promise of ours is broken."""

DISTRIBUTION = "metronome-tsp"
STOPPED = (BrokenPromise, KeyboardInterrupt, BrokenPipeError)
"""After these, the waveforms up to then are wanted all the same."""

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__,
                       rich_markup_mode=None)  # which would take "[default: ..]" for markup

Clock = Annotated[float, typer.Option("--clock", help="MHz, for tokens/s.")]


@commands.command()
def run(
    program: Annotated[Path, typer.Argument(parser=find_model, metavar="PROGRAM",
                                            help=f"Program file, or a model: {MODELS}.")],
    device: Annotated[str, typer.Option(help="reference, model, rtl, or a board's port: /dev/ttyUSB0.")] = "rtl",
    prompt: Annotated[str, typer.Option(help="How the story begins.")] = "",
    tokens: Annotated[int | None, typer.Option(help="Most new tokens.  [default: up to the context]")] = None,
    temperature: Annotated[float, typer.Option(help="0..10; 0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling noise; a seed gives the same story on every "
                                           "device.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    vcd: Annotated[Path | None, typer.Option(help="Write waveforms as VCD (rtl only): a gigabyte for five "
                                                  "tokens.")] = None,
    fst: Annotated[Path | None, typer.Option(help="Write waveforms as FST (rtl only), a tenth of the size.")] = None,
    clock: Annotated[float | None, typer.Option(help="MHz, for tokens/s.  [default: the board's, elsewhere "
                                                     f"{DEFAULT_CLOCK_MHZ:g}]")] = None,
    config: Config = None,
    context: Context = None,
    weights: Weights = None,
    scales: Scales = None,
    text: Text = None,
    tokenizer: TokenizerFile = None,
) -> None:
    """Tell a story, token by token, in exactly the cycles that are printed beforehand."""
    check_name(device)
    if clock is not None:
        check_clock(clock)
    waves = _waves(device, vcd, fst, sources(program, tokenizer))
    notes = Console(stderr=as_json, highlight=False, soft_wrap=True)
    compiled = open_program(program, config=config, context=context, weights=weights, scales=scales,
                            text=text, tokenizer=tokenizer,
                            say=lambda line: notes.print(line, style="dim", markup=False))
    wanted = plan(compiled, prompt, tokens=tokens, temperature=temperature, seed=seed)
    with whole(waves, STOPPED) if waves else nullcontext() as trace:
        machine = open_device(device, compiled.config, trace=trace, trace_format="fst" if fst else "vcd")
        try:
            mhz = clock or getattr(machine, "clock_mhz", DEFAULT_CLOCK_MHZ)
            if not as_json:
                print(show.prediction(compiled, wanted.positions, mhz), flush=True)
            story = begin(Session(machine, compiled), wanted, digests=as_json)
            if as_json:
                print(json.dumps(show.as_json(story, mhz)))
            else:
                show.story(story, mhz)
        finally:
            machine.close()


def _waves(device: str, vcd: Path | None, fst: Path | None, inputs: Iterable[Path]) -> Path | None:
    """The file of waveforms, if one is wanted. Raises TspError if the device has none, or it cannot be written."""
    if vcd and fst:
        raise TspError("waveforms are written in one format: give --vcd or --fst, not both")
    waves = vcd or fst
    if waves:
        check_waveforms(device)
        check_output(waves, *inputs)
    return waves


@commands.command()
def compile(
    checkpoint: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Program file to write.")],
    tokenizer: TokenizerFile = None,
    config: Config = None,
    context: Context = None,
    weights: Weights = None,
    scales: Scales = None,
    text: Text = None,
    clock: Clock = DEFAULT_CLOCK_MHZ,
    accept_quality: Annotated[bool, typer.Option("--accept-quality", help="Write the program even if its quality is "
                                                                          "ruined.")] = False,
) -> None:
    """Compile a checkpoint, and print what is known of every token before anything runs."""
    check_clock(clock)
    check_checkpoint(checkpoint)
    check_output(output, *sources(checkpoint, tokenizer))
    chip = config_of(config or DEFAULT_CONFIG)
    with show.passes() as progress:
        model, tok = read_model(checkpoint, tokenizer)
        show.notes((*model.notes, *tok.notes))
        program = compile_checkpoint(model, tok, config=chip, context=context, weights=weights or "int8",
                                     scales=scales or "measured", text=text and read_text(text, tok),
                                     accept_quality=accept_quality, progress=progress)
        save(program, output)
    show.program(program, output, clock)


@commands.command()
def fit(
    checkpoint: Model,
    config: Annotated[str | None, typer.Option(help=f"One of {', '.join(CONFIGS)}.  [default: all]")] = None,
    context: Context = None,
    weights: Weights = None,
    cycles: Annotated[bool, typer.Option("--cycles", help="Also schedule its tokens, which takes seconds.")] = False,
    clock: Clock = DEFAULT_CLOCK_MHZ,
) -> None:
    """Say at once whether a model fits which chip, and what limits it."""
    check_clock(clock)
    check_checkpoint(checkpoint)
    chips = [config_of(config)] if config else list(CONFIGS.values())
    model = load_checkpoint(checkpoint)
    show.notes(model.notes)
    found = [fit_model(model.config, chip, context=context, weights=weights or "int8", cycles=cycles) for chip in chips]
    show.fits(found, checkpoint, model, clock)


def check_clock(clock: float) -> None:
    """Raises TspError unless the clock is a number of MHz."""
    if not 0 < clock < 1e6:
        raise TspError(f"clock must be more than 0 and less than 1000000 MHz, not {clock}")


def _say_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"tsp {metadata.version(DISTRIBUTION)}")
        except metadata.PackageNotFoundError:
            print(f"tsp of an unknown version: {DISTRIBUTION} is not installed")
        raise typer.Exit


@commands.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True,
                                          help="Print the version.")] = False,
) -> None:
    """Options without a command."""


commands.command()(report)
commands.command()(page)
commands.command()(bench)
commands.command("plan")(plan_model)
commands.command("bench-api")(bench_api)
commands.command("watch")(watch_api)
commands.command()(serve)
commands.command()(chat)
commands.command()(get)


def app(args: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. What is refused, or broken, is one line on stderr."""
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    prepare()
    command: Callable = typer.main.get_command(commands)
    try:
        code = command(arguments, prog_name="tsp", standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except ProgramError as error:
        return _fail(str(error), REFUSED)
    except BrokenPromise as error:
        return _fail(str(error), BROKEN)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            _drop_output()
            return _fail(f"cannot write the output: {os.strerror(error.errno).lower()}: make room on its disk, and on "
                         "that of the cache ($METRONOME_CACHE)", BROKEN)
        message = refusal(error)
        if message is None:
            raise
        return _fail(message, REFUSED)


def _drop_output() -> None:
    """What is not yet printed goes nowhere: no complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    print("tsp:", " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(app())
