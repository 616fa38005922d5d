"""The figures of `tsp bench`: cycles and fractions, which are exact, and speeds, which are the machine's.

Speeds are by the CPU time of one thread, so that what else the machine does counts for little; only the time to the
first token, and that of several threads, are by the clock on the wall.
"""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from arch.config import CONFIGS, DEFAULT_CONFIG, ChipConfig
from arch.rack import RackConfig
from arch.rack_file import rack_of
from compiler.capacity import check_fit
from compiler.fit import fit
from compiler.frontend.files import read_model
from compiler.frontend.load import load_checkpoint
from compiler.schedule.buckets import build_buckets
from program.program import DEFAULT_CLOCK_MHZ, TOGETHER, Program, bytes_read
from program.rack import AnyProgram
from program.shape import ModelConfig

from .devices import open_device
from .programs import compile_for, open_any, open_program
from .rack_speed import rack_speed

ROOT = Path(__file__).parents[1]
TRIES = 3
"""Compiling is timed so often: what else the host does slows it by a third."""
PAIR = "pair"
"""The rack of two default chips."""
POSITIONS = 256
"""Positions that means are taken over, as far as a model has them."""
TOKENS = {"reference": POSITIONS, "model": 8, "rtl": 64}
"""Positions that a device's speed is measured on."""
POSITION = 256
"""Position at which the roofline fraction of `SHAPES` is measured."""
CYCLES = "cycles a token on {}, mean of positions"
"""Begins the name of that figure, with the config."""
PUBLISHED = (
    ("ESP32-S3", "stories260K", "19..33 tokens/s"),
    ("Zynq-7010 with a ternary model", "115K parameters", "3,072 tokens/s"),
    ("Raspberry Pi 4", "stories260K", "917 tokens/s"),
    ("one core of a 2.6 GHz server", "stories260K", "about 14,000 tokens/s"),
    ("the best open accelerators", "decoding", "25 % of their multipliers' time"),
)


@dataclass(frozen=True)
class Figure:
    """One measured figure of a model or a board."""

    model: str
    what: str
    value: float
    unit: str


@dataclass(frozen=True)
class Shape:
    """Sizes of a model without weights, on which cycles do not depend."""

    name: str
    config: str
    model: ModelConfig
    scales: str = "static"


OTHERS = ("wide", "mega")
"""Chips besides the default one on which a token's cycles are of interest."""
TWO = (DEFAULT_CONFIG, "mega")
"""Chips with two sequences."""
SHAPES = (
    Shape("15M", "large", ModelConfig(
        dim=288, hidden_dim=768, n_layers=6, n_heads=6, n_kv_heads=6, head_dim=48, vocab_size=32000, seq_len=448,
        shared_classifier=True)),
    Shape("SmolLM2-135M", "sram220", ModelConfig(
        dim=576, hidden_dim=1536, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, vocab_size=49152, seq_len=2048,
        shared_classifier=True), scales="robust"),
)
"""The 15M model of llama2.c with the longest context that fits, and SmolLM2 with the scales that it needs."""


def machine() -> dict[str, str]:
    """Where and when the figures were taken, and of which commit."""
    return {
        "processor": _processor(), "cores": str(os.cpu_count()), "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(), "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                platform.processor() or platform.machine())


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def figures(checkpoints: list[Path], say: Callable[[str], None] = lambda line: None) -> list[Figure]:
    """Of every checkpoint on the default chip, and of large shapes on large chips. Raises TspError."""
    found = [figure for path in checkpoints for figure in _of_checkpoint(path, say)]
    for shape in SHAPES:
        say(f"{shape.name} shape")
        found.append(of_shape(shape))
    return found


def rack_figures(checkpoints: list[Path], rack: str, say: Callable[[str], None] = lambda line: None) -> list[Figure]:
    """Of every checkpoint on a rack, by its name or its file. Raises TspError."""
    machine = rack_of(rack)
    given = str(Path(rack).resolve()) if Path(rack).suffix else rack  # tokens are timed in another folder
    return [figure for path in checkpoints for figure in _of_machine(path, machine, ("--rack", given), say)]


def _of_checkpoint(path: Path, say: Callable[[str], None]) -> list[Figure]:
    found, sizes = _of_machine(path, CONFIGS[DEFAULT_CONFIG], (), say), load_checkpoint(path).config
    say(f"{path.stem}: threads of a rack")
    found.append(_threads(path))
    others = [figure for config in OTHERS for figure in _on(config, path.stem, path, sizes)]
    return found + others + [figure for config in TWO for figure in _of_two(config, path, sizes)]


def _of_machine(path: Path, machine: ChipConfig | RackConfig, options: tuple[str, ...],
                say: Callable[[str], None]) -> list[Figure]:
    """Of a checkpoint on a chip or a rack. options: those with which `tsp run` takes it."""
    name, on = path.stem, machine.name
    say(f"{name}: compile")
    read, seconds = _timed(lambda: read_model(path, None))
    compiling = min(_timed(lambda: compile_for(machine, *read))[1] for _ in range(TRIES))
    program = open_any(path, rack=options[1] if options else None)
    count = min(POSITIONS, program.context)
    total = sum(program.cycles(p) for p in range(count))
    fraction = sum(program.bytes_read(p) for p in range(count)) / (program.macs * total)
    found = [
        Figure(name, f"{CYCLES.format(on)} 0..{count - 1}", total / count, "cycles"),
        Figure(name, f"tokens a second on {on} at {DEFAULT_CLOCK_MHZ:g} MHz",
               program.tokens_per_second(DEFAULT_CLOCK_MHZ, total / count), "tokens/s"),
        Figure(name, f"roofline fraction on {on}, mean of positions 0..{count - 1}", fraction, ""),
        Figure(name, f"compile for {on}, best of {TRIES}", seconds + compiling, "s"),
    ]
    for device in TOKENS:
        say(f"{name}: {device}")
        found += _speed(name, device, program)
    say(f"{name}: first token")
    found.append(Figure(name, f"first token of {' '.join(('`tsp run', *options))}` on the RTL, second time",
                        _first_token(path, options), "s"))
    return found


def _threads(path: Path) -> Figure:
    """What threads gain on the rack of two default chips."""
    found = rack_speed(path, PAIR)
    return Figure(path.stem, f"RTL of {PAIR} on {found.threads} threads, chip-cycles/s of one chip on one thread",
                  found.gain, "x")


def _on(config: str, name: str, path: Path, model: ModelConfig) -> list[Figure]:
    """Cycles a token on another chip, over all positions that fit it; nothing if none do."""
    if not fit(model, CONFIGS[config]).context:
        return []
    program = open_program(path, config=config)
    return [Figure(name, f"{CYCLES.format(config)} 0..{program.context - 1}", program.mean_cycles, "cycles")]


def _of_two(config: str, path: Path, model: ModelConfig) -> list[Figure]:
    """Cycles of a period of two sequences on a chip; nothing if they do not fit."""
    if not fit(model, CONFIGS[config], sequences=TOGETHER).context:
        return []
    program = open_program(path, config=config, sequences=TOGETHER)
    what = f"cycles of {TOGETHER} sequences' tokens on {config}, mean of positions 0..{program.context - 1}"
    return [Figure(path.stem, what, program.mean_cycles, "cycles"),
            Figure(path.stem, f"tokens a second of {TOGETHER} sequences on {config} at {DEFAULT_CLOCK_MHZ:g} MHz",
                   program.tokens_per_second(DEFAULT_CLOCK_MHZ), "tokens/s")]


def _speed(name: str, kind: str, program: AnyProgram) -> list[Figure]:
    """Tokens a second of a device, and cycles a second of one with time."""
    device = open_device(kind, program.config)
    try:
        device.load(program)
        device.start([1])
        device.run(1)
        count = min(TOKENS[kind], program.context - 1)
        _, seconds = _timed(lambda: device.run(count))
    finally:
        device.close()
    found = [Figure(name, f"{kind} device", count / seconds, "tokens/s")]
    if kind != "reference":
        cycles = sum(program.cycles(1 + p) for p in range(count))
        of = f"{program.config.name}, one thread" if isinstance(program, Program) else (
            f"rack {program.config.name}, by the CPU time of all threads")
        found.append(Figure(name, f"{kind} device, {of}", cycles / seconds, "cycles/s"))
    return found


def _first_token(path: Path, options: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cli.main", "run", str(path.resolve()), *options, "--tokens", "1"],
                   cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def of_shape(shape: Shape) -> Figure:
    """The roofline fraction of a shape."""
    chip = CONFIGS[shape.config]
    codes = build_buckets(check_fit(shape.model, chip, shape.model.seq_len, frozenset(), scales=shape.scales))
    cycles = next(code.bucket.period for code in codes if code.bucket.limit > POSITION)
    return Figure(f"{shape.name} shape", f"roofline fraction on {chip.name}, position {POSITION}",
                  bytes_read(shape.model, POSITION) / (chip.macs * cycles), "")


def _timed(work: Callable) -> tuple:
    """What the work returns, and the CPU seconds that it and its children took."""
    began = _cpu_seconds()
    result = work()
    return result, max(_cpu_seconds() - began, 1e-9)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def as_json(where: dict[str, str], found: list[Figure]) -> dict[str, object]:
    """All of it as plain data."""
    return {"machine": where, "figures": [asdict(figure) for figure in found],
            "published": [list(row) for row in PUBLISHED]}
