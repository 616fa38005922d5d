"""A program from a program file, or from a checkpoint by way of the cache."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import arch
import compiler
import program as program_room
from arch.config import CONFIGS, DEFAULT_CONFIG, ChipConfig, config_of
from base import cache
from base.errors import TspError
from base.progress import progress
from compiler.capacity import WEIGHTS
from compiler.compile import MANY_PARAMETERS, compile_checkpoint
from compiler.fit import fit
from compiler.frontend.files import read_model, read_text
from program import file as program_file
from program.program import Program
from program.shape import ModelConfig

FILE = "program" + program_file.SUFFIX


def open_program(
    path: Path,
    *,
    config: str | None = None,
    context: int | None = None,
    weights: str | None = None,
    scales: str | None = None,
    text: Path | None = None,
    tokenizer: Path | None = None,
    any_chip: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Program:
    """The program of a file, or of a checkpoint: compiled at the first call and found in the cache afterwards.

    The options are those of compilation; a program file must agree with them. any_chip: without a config, take the
    smallest chip that the model fits and say which, in place of the default one. Raises TspError.
    """
    if path.exists() and path.is_file() and program_file.is_program(path):
        return _loaded(path, config, {"--context": context, "--weights": weights, "--scales": scales, "--text": text,
                                      "--tokenizer": tokenizer})
    if not path.exists():
        raise TspError(f"{path}: no such program or checkpoint")
    weights, scales = weights or "int8", scales or "measured"
    if weights not in WEIGHTS:
        raise TspError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    model, tok = read_model(path, tokenizer)
    for note in (*model.notes, *tok.notes):
        say(f"note: {note}")
    chip = config_of(config or DEFAULT_CONFIG)
    if any_chip and config is None:
        chip = _smallest(model.config, context, weights, say)
    tokens = text and read_text(text, tok)
    sources = [Path(package.__file__ or "").parent for package in (arch, program_room, compiler)]
    key = cache.content_key(*map(cache.source_digest, sources), np.__version__, model.digest(), tok.to_bytes(),
                            chip.digest(), str(context), weights, scales, str(tokens))
    fresh = False

    def make(folder: Path) -> None:
        nonlocal fresh
        fresh = True
        say(f"compiling {path} for {chip.name} (once; then it comes from the cache)")
        with progress(f"compiling {path}"):
            compiled = compile_checkpoint(model, tok, config=chip, context=context, weights=weights, scales=scales,
                                          text=tokens, measure=model.n_parameters >= MANY_PARAMETERS)
        program_file.save(compiled, folder / FILE)

    file = cache.cached("programs", key, make) / FILE
    if not fresh:
        say(f"program of {path} from the cache ({key[:8]})")
    return program_file.load(file, chip)


def _smallest(model: ModelConfig, context: int | None, weights: str, say: Callable[[str], None]) -> ChipConfig:
    """The default chip if the model fits, else the one of least SRAM that it fits; else the default again."""
    default = config_of(DEFAULT_CONFIG)
    larger = sorted((chip for chip in CONFIGS.values() if sum(chip.mem_depths) > sum(default.mem_depths)),
                    key=lambda chip: sum(chip.mem_depths) * chip.quad_bytes)
    for chip in (default, *larger):
        if fit(model, chip, context=context, weights=weights).context:
            if chip is not default:
                say(f"the model does not fit {default.name}: config {chip.name} is used, which exists in simulation "
                    "only "
                    "(--config names another)")
            return chip
    return default


def _loaded(path: Path, config: str | None, fixed: dict[str, object]) -> Program:
    """A program file, which the options must not contradict; those that only a checkpoint has are `fixed`."""
    program = program_file.load(path, config_of(config) if config else None)
    if named := [option for option, value in fixed.items() if value is not None]:
        raise TspError(f"{path} is a compiled program: {' and '.join(named)} is for checkpoints only")
    return program

