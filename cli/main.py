"""The `tsp` command: arguments in, text out; everything else is elsewhere."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import base.one_thread  # noqa: F401  before anything that imports numpy
from arch.config import CONFIGS, DEFAULT_CONFIG, config_of
from arch.rack import RackConfig
from base.cache import FULL
from base.command import INTERRUPTED, REFUSED, prepare, refusal
from base.errors import TspError
from base.files import check_output, whole
from base.progress import progress
from compiler.fit import fit as fit_model
from compiler.frontend.files import read_model, read_text, sources
from compiler.frontend.load import load_checkpoint
from compiler.rack.fit import chips_needed, fit_rack
from program.file import check_checkpoint, save
from program.program import DEFAULT_CLOCK_MHZ
from run.devices import check_name, check_waveforms, open_device
from run.models import find_model
from run.programs import check_divided, compile_for, machine_of, open_any
from run.session import BrokenPromise, Session
from run.story import begin, plan
from sim.cycle.core import ProgramError
from sim.lines import LineFaults
from sim.rtl.ranks import in_ranks

from . import show
from .bench import bench
from .chat import chat
from .in_flight import run_in_flight
from .latency import bench_api, watch_api
from .link_test import link_test
from .models import MODELS, Model, get
from .options import (
    Config,
    Context,
    LinkFaults,
    Pipeline,
    Rack,
    Scales,
    Sequences,
    Tensor,
    Text,
    TokenizerFile,
    Weights,
    check_clock,
    named_files,
)
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
    device: Annotated[str, typer.Option(help="reference, model, rtl, or a board's port: /dev/ttyUSB0; of "
                                             "linked boards all, with commas.")] = "rtl",
    prompt: Annotated[list[str] | None, typer.Option(help="How the story begins. Several sequences take several, and "
                                                          "each story the next seed.")] = None,
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
    rack: Rack = None,
    tensor: Tensor = None,
    pipeline: Pipeline = None,
    sequences: Sequences = None,
    link_faults: LinkFaults = None,
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
    faults = LineFaults.parse(link_faults) if link_faults is not None else None
    waves = _waves(device, vcd, fst, [*sources(program, tokenizer), *named_files(rack, text)])
    notes = Console(stderr=as_json, highlight=False, soft_wrap=True)
    compiled = open_any(program, config=config, rack=rack, tensor=tensor, pipeline=pipeline, sequences=sequences,
                        context=context, weights=weights, scales=scales, text=text, tokenizer=tokenizer,
                        say=lambda line: notes.print(line, style="dim", markup=False))
    prompts = prompt or [""]
    if compiled.sequences > 1:
        if waves or faults:
            raise TspError("several sequences have no waveforms and no link faults yet: leave out --vcd, --fst and "
                           "--link-faults")
        run_in_flight(compiled, device, prompts, tokens=tokens, temperature=temperature, seed=seed,
                      clock=clock, as_json=as_json)
        return
    if len(prompts) > 1:
        raise TspError(f"{len(prompts)} prompts are for several sequences: give --sequences, or one prompt")
    if faults:
        faults.check(compiled.context)
    wanted = plan(compiled, prompts[0], tokens=tokens, temperature=temperature, seed=seed)
    with whole(waves, STOPPED) if waves else nullcontext() as trace:
        machine = open_device(device, compiled.config, trace=trace, trace_format="fst" if fst else "vcd",
                              faults=faults)
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
    rack: Rack = None,
    tensor: Tensor = None,
    pipeline: Pipeline = None,
    sequences: Sequences = None,
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
    check_output(output, *sources(checkpoint, tokenizer), *named_files(rack, text))
    machine = machine_of(config, rack) or config_of(DEFAULT_CONFIG)
    with show.passes() as name_pass:
        model, tok = read_model(checkpoint, tokenizer)
        show.notes((*model.notes, *tok.notes))
        program = compile_for(machine, model, tok, tensor, pipeline, sequences, context=context,
                              weights="int8" if weights is None else weights,
                              scales="measured" if scales is None else scales,
                              text=text and read_text(text, tok), accept_quality=accept_quality, progress=name_pass)
        save(program, output)
    show.program(program, output, clock)


@commands.command()
def fit(
    checkpoint: Model,
    config: Annotated[str | None, typer.Option(help=f"One of {', '.join(CONFIGS)}.  [default: all]")] = None,
    rack: Rack = None,
    tensor: Tensor = None,
    pipeline: Pipeline = None,
    sequences: Sequences = None,
    context: Context = None,
    weights: Weights = None,
    scales: Annotated[str, typer.Option(help="Scales of activations to lay out and schedule: static, dynamic or "
                                             "robust.")] = "static",
    cycles: Annotated[bool, typer.Option("--cycles", help="Also schedule its tokens, which takes seconds.")] = False,
    clock: Clock = DEFAULT_CLOCK_MHZ,
) -> None:
    """Say at once which chip a model fits, what limits it, and how many chips it needs where one is too small."""
    check_clock(clock)
    check_checkpoint(checkpoint)
    machine = machine_of(config, rack)
    check_divided(machine, tensor, pipeline, sequences)
    model = load_checkpoint(checkpoint)
    show.notes(model.notes)
    sizes, wanted = model.config, context or model.config.seq_len
    weights = "int8" if weights is None else weights
    if isinstance(machine, RackConfig):
        with progress(f"fitting {checkpoint}"):
            fitted = fit_rack(sizes, machine, context=context, weights=weights, cycles=cycles, tensor=tensor,
                              pipeline=pipeline, sequences=1 if sequences is None else sequences, scales=scales)
        show.rack_fits([fitted], clock, wanted, scales)
        return
    chips = [machine] if machine else list(CONFIGS.values())
    with progress(f"fitting {checkpoint}"):
        found = [fit_model(sizes, chip, context=context, weights=weights, cycles=cycles, sequences=sequences or 1,
                           scales=scales)
                 for chip in chips]
    show.fits(found, checkpoint, model, clock, scales)
    short = [each.config for each in found if each.context < wanted] if sequences in (None, 1) else []
    with progress("counting the chips that are needed"):
        needed = [(chip, chips_needed(sizes, chip, context=context, weights=weights, scales=scales)) for chip in short]
    show.chips_needed(needed, wanted)


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
commands.command("link-test")(link_test)
commands.command()(serve)
commands.command()(chat)
commands.command()(get)


def app(args: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. What is refused, or broken, is one line on stderr.

    Of several ranks of mpirun, the first runs it, and the others hold chips for it.
    """
    prepare()
    try:
        return in_ranks(lambda: _app(list(sys.argv[1:] if args is None else args) or ["--help"]), _hold_chips)
    except TspError as error:
        return _fail(str(error), REFUSED)


def _hold_chips(ranks: Any) -> None:
    from sim.rtl.spread import serve

    serve(ranks)


def _app(arguments: list[str]) -> int:
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
