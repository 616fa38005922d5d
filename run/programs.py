"""A program from a program file, or from a checkpoint by way of the cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import arch
import compiler
import program as program_room
from arch.config import CONFIGS, DEFAULT_CONFIG, ChipConfig, config_of
from arch.rack import RackConfig
from arch.rack_file import rack_of
from base import cache
from base.errors import TspError
from base.progress import progress
from compiler.capacity import WEIGHTS, check_sequences
from compiler.compile import MANY_PARAMETERS, compile_checkpoint
from compiler.fit import fit
from compiler.frontend.checkpoint import Checkpoint
from compiler.frontend.files import read_model, read_text
from compiler.quantize.scales import SCALES
from compiler.rack.compile import compile_rack
from compiler.rack.plan import plans
from program import file as program_file
from program.program import Program
from program.rack import AnyProgram
from program.shape import ModelConfig
from program.tokenizer import Tokenizer

FILE = "program" + program_file.SUFFIX


def open_program(path: Path, **options: Any) -> Program:
    """`open_any`, of one chip. Raises TspError if the program is for a rack."""
    return program_file.of_one_chip(open_any(path, **options), path)


def open_any(
    path: Path,
    *,
    config: str | None = None,
    rack: str | None = None,
    tensor: int | None = None,
    pipeline: int | None = None,
    sequences: int | None = None,
    context: int | None = None,
    weights: str | None = None,
    scales: str | None = None,
    text: Path | None = None,
    tokenizer: Path | None = None,
    any_chip: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> AnyProgram:
    """The program of a file, or of a checkpoint: compiled at the first call and found in the cache afterwards.

    The options are those of compilation; a program file must agree with them.

    rack: a named rack, or its file; the program is then one for a rack. tensor, pipeline: how it divides the model, see
    `compiler.rack.compile.compile_rack`; on a rack only. sequences: independent ones: 2 on a chip, or in flight on a
    rack; by default 1.
    any_chip: without a config or a rack, take the smallest chip that the model fits and say which, in place of the
    default one.

    Raises TspError.
    """
    machine = machine_of(config, rack)
    if path.exists() and path.is_file() and program_file.is_program(path):
        return _loaded(path, machine, {"--tensor": tensor, "--pipeline": pipeline, "--sequences": sequences,
                                       "--context": context, "--weights": weights, "--scales": scales, "--text": text,
                                       "--tokenizer": tokenizer})
    if not path.exists():
        raise TspError(f"{path}: no such program or checkpoint")
    check_divided(machine, tensor, pipeline, sequences)
    weights = "int8" if weights is None else weights
    scales = "measured" if scales is None else scales
    if weights not in WEIGHTS:
        raise TspError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    if scales not in SCALES:
        raise TspError(f"scales must be one of {', '.join(SCALES)}, not {scales!r}")
    model, tok = read_model(path, tokenizer)
    for note in (*model.notes, *tok.notes):
        say(f"note: {note}")
    if machine is None:
        machine = (_smallest(model.config, context, weights, sequences or 1, say) if any_chip
                   else config_of(DEFAULT_CONFIG))
    tokens = text and read_text(text, tok)
    sources = [Path(package.__file__ or "").parent for package in (arch, program_room, compiler)]
    divided = [f"{count} {what}" for what, count in
               (("tensor", tensor), ("pipeline", pipeline), ("sequences", sequences)) if count]
    key = cache.content_key(*map(cache.source_digest, sources), np.__version__, model.digest(), tok.to_bytes(),
                            machine.digest(), str(context), weights, scales, str(tokens), *divided)
    fresh = False

    def make(folder: Path) -> None:
        nonlocal fresh
        fresh = True
        say(f"compiling {path} for {machine.name} (once; then it comes from the cache)")
        with progress(f"compiling {path}"):
            compiled = compile_for(machine, model, tok, tensor, pipeline, sequences, context=context,
                                   weights=weights, scales=scales, text=tokens,
                                   measure=model.n_parameters >= MANY_PARAMETERS)
        (folder / FILE).write_bytes(program_file.to_bytes(compiled))  # the cache's own errors, where its disk is full

    file = cache.cached("programs", key, make, lambda: say(f"waiting: {path} is being compiled elsewhere")) / FILE
    if not fresh:
        say(f"program of {path} from the cache ({key[:8]})")
    return program_file.load_any(file, machine)


def machine_of(config: str | None, rack: str | None) -> ChipConfig | RackConfig | None:
    """The chip or rack that is asked for; None if none is. Raises TspError."""
    if config is not None and rack is not None:
        raise TspError("a program is for a chip or for a rack: give --config or --rack, not both")
    return rack_of(rack) if rack is not None else config_of(config) if config is not None else None


def check_divided(machine: ChipConfig | RackConfig | None, tensor: int | None, pipeline: int | None,
                  sequences: int | None) -> None:
    """Raises TspError unless a model can be divided so on a machine."""
    if isinstance(machine, RackConfig):
        plans(machine, tensor, pipeline, 1 if sequences is None else sequences)
        return
    if sequences is not None:
        check_sequences(sequences)
    if tensor is not None or pipeline is not None:
        raise TspError("--tensor and --pipeline divide a model among the chips of a rack: give --rack")


def compile_for(machine: ChipConfig | RackConfig, model: Checkpoint, tok: Tokenizer, tensor: int | None = None,
                pipeline: int | None = None, sequences: int | None = None, **options: Any) -> AnyProgram:
    """Compile for a chip or a rack. The options are those of both compilers. Raises TspError."""
    check_divided(machine, tensor, pipeline, sequences)
    if isinstance(machine, RackConfig):
        return compile_rack(model, tok, rack=machine, tensor=tensor, pipeline=pipeline,
                            sequences=1 if sequences is None else sequences, **options)
    return compile_checkpoint(model, tok, config=machine, sequences=1 if sequences is None else sequences, **options)


def _smallest(model: ModelConfig, context: int | None, weights: str, sequences: int,
              say: Callable[[str], None]) -> ChipConfig:
    """The default chip if the model fits, else the one of least SRAM that it fits; else the default again."""
    default = config_of(DEFAULT_CONFIG)
    larger = sorted((chip for chip in CONFIGS.values() if sum(chip.mem_depths) > sum(default.mem_depths)),
                    key=lambda chip: sum(chip.mem_depths) * chip.quad_bytes)
    for chip in (default, *larger):
        if fit(model, chip, context=context, weights=weights, sequences=sequences).context:
            if chip is not default:
                say(f"the model does not fit {default.name}: config {chip.name} is used, which exists in simulation "
                    "only "
                    "(--config names another)")
            return chip
    return default


def _loaded(path: Path, machine: ChipConfig | RackConfig | None, fixed: dict[str, object]) -> AnyProgram:
    """A program file, which the options must not contradict; those that only a checkpoint has are `fixed`."""
    program = program_file.load_any(path, machine)
    if named := [option for option, value in fixed.items() if value is not None]:
        raise TspError(f"{path} is a compiled program: {' and '.join(named)} is for checkpoints only")
    return program
