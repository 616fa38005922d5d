"""Builds Verilog and a C++ harness into a shared library, with Verilator and the C++ compiler. The cache keeps it.

The harness is one C++ file. It includes "V{top}.h", owns its `VerilatedContext` and model, and has `extern "C"`
functions for ctypes. Nothing else is exported, so several libraries can live in one process. The harness must call
`eval()` once with the clock low before the first rising edge, or the model misses that edge.

The flags were measured on a throwaway chip of 65,000 flip-flops on two busy cores: 23 s of build, 530,000 cycles/s.
`-O3` and `-march=native` are no faster. `-O1` costs a fifth of the speed and saves little. Functions that run once are
compiled with `-O0`. (Without `verilog.fold_memories` the same build took 72 s.)

The simulator of `ulx3s` would be 20 % slower without `verilog.fold_writes` and the harness's brief ticks. A profile of
its run (`-fprofile-use`) would gain 7 % and cost a second build, `-march=native` 1 %. Functions shorter or longer
than those of `SPLIT_FLAGS` lose.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from base import cache
from base.child import run_group
from base.errors import TspError
from base.progress import Tell
from base.progress import progress as lines

from . import toolchain
from .toolchain import Toolchain

OPT_LEVELS = ("-O0", "-O1", "-O2", "-O3")
JOBS = max(2, min(os.cpu_count() or 2, 8))
TRACES = {"vcd": ("VerilatedVcdC", "verilated_vcd_c.h"), "fst": ("VerilatedFstC", "verilated_fst_c.h")}
"""Waveform formats: Verilator's class that writes one, and its header."""
FST_HEADERS = Path(__file__).with_name("fst")
"""Replacements for lz4.h and zlib.h. The FST writer includes them, and a machine without -dev packages lacks them."""
QUIET_FLAGS = ("-Wno-fatal", "-Wno-lint", "-Wno-style")
FAST_FLAGS = ("--no-timing", "--x-assign", "fast", "--x-initial", "fast")
SPLIT_FLAGS = ("--output-split", "10000", "--output-split-cfuncs", "2500")  # into files for all cores


def build(
    verilog_text: str, top: str, harness_cpp: str, *, opt: str = "-O2", coverage: bool = False, trace: str | None = None
) -> Path:
    """The shared library of module `top`, built if it is not in the cache.

    Several processes may call it at once: one builds, and the others wait.

    opt: C++ optimisation of the simulated design.
    coverage: add line and toggle coverage. The harness must use `coveragep()`.
    trace: add waveforms in a format of TRACES. The harness must use the format's class.

    Raises TspError with the first error of the tool that fails.
    """
    if opt not in OPT_LEVELS:
        raise ValueError(f"opt must be one of {', '.join(OPT_LEVELS)}, not {opt!r}")
    if trace and trace not in TRACES:
        raise ValueError(f"trace must be one of {', '.join(TRACES)}, not {trace!r}")
    tools = toolchain.find()
    flags = _verilator_flags(top, coverage=coverage, trace=trace)
    headers = sorted(FST_HEADERS.iterdir()) if trace == "fst" else []
    key = cache.content_key(verilog_text, harness_cpp, *flags, opt, *tools.versions,
                                *(path.read_text() for path in headers))
    console = Console(stderr=True)
    fresh = False

    def make(folder: Path) -> None:
        nonlocal fresh
        fresh = True
        (folder / f"{top}.v").write_text(verilog_text)
        (folder / "harness.cpp").write_text(harness_cpp)
        cache.check_executable(folder)
        start = time.monotonic()
        with _progress(console, top) as progress:
            _verilate(tools, folder, top, flags, progress)
            for header in headers:
                shutil.copy(header, folder / "obj")  # the makefile searches this folder first
            _compile(tools, folder, top, opt, progress)
            _try(folder / f"lib{top}.so", tools)
        shutil.rmtree(folder / "obj")
        console.print(f"simulator of {top} built in {time.monotonic() - start:.0f} s")

    entry = cache.cached("verilated", key, make, lambda: console.print(f"waiting: {top} is being built elsewhere"))
    if not fresh:
        console.print(f"[dim]simulator of {top} from the cache ({key[:8]})[/dim]")
    return entry / f"lib{top}.so"


def _verilator_flags(top: str, *, coverage: bool, trace: str | None) -> tuple[str, ...]:
    # Plain `--coverage` crashes Verilator 5.48 on Amaranth's output. Line and toggle coverage by themselves work.
    extra = (("--coverage-line", "--coverage-toggle") if coverage else ()) + ((f"--trace-{trace}",) if trace else ())
    names = ("--top-module", top, "--prefix", f"V{top}")
    return ("--cc", *QUIET_FLAGS, *FAST_FLAGS, *SPLIT_FLAGS, *extra, *names, "-CFLAGS", "-fPIC")


class _Steps:
    """The progress of one build. On a terminal it is a changing line, elsewhere a line every few seconds."""

    def __init__(self, progress: Progress, task: TaskID, top: str, tell: Tell):
        self._progress, self._task, self._top, self._tell = progress, task, top, tell

    def show(self, step: str, done: int, total: int | None) -> None:
        if total:
            self._tell(done / total)
        self._progress.update(self._task, description=f"{step} {self._top}", completed=done, total=total)


@contextmanager
def _progress(console: Console, top: str) -> Iterator[_Steps]:
    console.print(f"building the simulator of {top} (once; then it comes from the cache)")
    columns = TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        if console.is_terminal:
            yield _Steps(progress, task, top, lambda done: None)
            return
        with lines(f"building the simulator of {top}") as tell:
            yield _Steps(progress, task, top, tell)


def _verilate(tools: Toolchain, folder: Path, top: str, flags: tuple[str, ...], steps: _Steps) -> None:
    steps.show("verilating", 0, None)
    _run([str(tools.verilator), *flags, "--Mdir", "obj", f"{top}.v"], tools, folder, f"Verilator refuses {top}")


def _compile(tools: Toolchain, folder: Path, top: str, opt: str, steps: _Steps) -> None:
    """Build two libraries with Verilator's makefile, on all cores, then link the harness with them."""
    objects = folder / "obj"
    total = len(list(objects.glob("*.cpp"))) + 4  # and the run-time library's few

    def watch() -> None:
        steps.show("compiling", len(list(objects.glob("*.o"))), total)

    variables = [*tools.make_variables(), f"OPT_FAST={opt}", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2"]
    command = [tools.make, "-s", "-C", "obj", "-f", f"V{top}.mk", f"-j{JOBS}", *variables, f"libV{top}"]
    _run(command, tools, folder, f"the C++ compiler refuses the simulator of {top}", watch)
    steps.show("linking", total, total)
    include = tools.verilator_root / "include"
    # Only the harness's functions are exported, so that another library in the process keeps its own Verilator.
    link = [*tools.cxx, opt, "-fPIC", "-shared", "-fvisibility-inlines-hidden", "-Wl,--exclude-libs,ALL"]
    sources = ["-Iobj", f"-I{include}", f"-I{include}/vltstd", "harness.cpp", f"obj/libV{top}.a", "obj/libverilated.a"]
    _run([*link, *sources, "-pthread", "-o", f"lib{top}.so"], tools, folder, f"the harness of {top} does not compile")


def _try(library: Path, tools: Toolchain) -> None:
    """Raises TspError unless the library can be loaded. It cannot if the compiler does not link the C++ library."""
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    answer = subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = (answer.stderr.splitlines() or ["no reason is given"])[-1].removeprefix("OSError: ")
        raise TspError(f"the simulator that {' '.join(tools.cxx)} built cannot be loaded ({reason}): set CXX to a C++ "
                       "compiler such as g++")


def load(library: Path) -> ctypes.CDLL:
    """Load a library of `build`. Raises TspError if the system refuses."""
    cache.check_executable(library.parent)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise TspError(f"the simulator {library} cannot be loaded ({error}): remove its folder, or "
                       f"{cache.ELSEWHERE}") from error


def _run(command: list[str], tools: Toolchain, folder: Path, failure: str, watch=lambda: None) -> None:
    """Run a tool in the folder, with its output in build.log. Raises TspError with the first error line if it fails."""
    log = folder / "build.log"
    with open(log, "ab") as output:
        begin = output.tell()
        status = run_group(command, folder, output, env=tools.environment(), watch=watch)
    if status:
        text = log.read_bytes()[begin:].decode(errors="replace")
        raise TspError(f"{failure}: {_first_error(text, status)} (all of it in {log})")


def _first_error(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit status {code}, no message"])[0]
