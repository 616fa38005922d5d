"""Verilog plus a C++ harness to a shared library, by Verilator and the C++ compiler, kept in the cache.

The harness is one C++ file. It includes "V{top}.h", owns its `VerilatedContext` and model, and offers `extern "C"`
functions for ctypes; nothing else is visible from outside, so several libraries live in one process. It must call
`eval()` once with the clock low before the first rising edge, or that edge is not seen.

The flags are measured on a throwaway chip of 65,000 flip-flops, two busy cores: 23 s and 530,000 cycles/s. `-O3` and
`-march=native` are no faster, `-O1` costs a fifth of the speed and saves little; functions that run once stay at `-O0`.
(Without `verilog.fold_memories` the same chip took 72 s.)
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from base import cache
from base.errors import TspError
from base.progress import Tell
from base.progress import progress as lines

from . import toolchain
from .toolchain import Toolchain

OPT_LEVELS = ("-O0", "-O1", "-O2", "-O3")
JOBS = max(2, min(os.cpu_count() or 2, 8))
TRACES = {"vcd": ("VerilatedVcdC", "verilated_vcd_c.h"), "fst": ("VerilatedFstC", "verilated_fst_c.h")}
"""Formats of waveforms: Verilator's class that writes them, and its header."""
FST_HEADERS = Path(__file__).with_name("fst")
"""Stand for lz4.h and zlib.h: the FST writer includes them, and a machine without -dev packages has neither."""
QUIET_FLAGS = ("-Wno-fatal", "-Wno-lint", "-Wno-style")
FAST_FLAGS = ("--no-timing", "--x-assign", "fast", "--x-initial", "fast")
SPLIT_FLAGS = ("--output-split", "10000", "--output-split-cfuncs", "2500")  # into files for all cores


def build(
    verilog_text: str, top: str, harness_cpp: str, *, opt: str = "-O2", coverage: bool = False, trace: str | None = None
) -> Path:
    """The shared library of module `top`, from the cache if the same was built before.

    `opt` is the C++ optimisation of the simulated design; `coverage` adds line and toggle coverage, `trace` waveforms
    in one of the formats of TRACES: the harness must then use `coveragep()`, or the format's class. Safe to call from
    several processes at once: one builds, the others wait. Raises `TspError` with the first error of the tool that
    refused.
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
                shutil.copy(header, folder / "obj")  # which the makefile searches first
            _compile(tools, folder, top, opt, progress)
            _try(folder / f"lib{top}.so", tools)
        shutil.rmtree(folder / "obj")
        console.print(f"simulator of {top} built in {time.monotonic() - start:.0f} s")

    entry = cache.cached("verilated", key, make, lambda: console.print(f"waiting: {top} is being built elsewhere"))
    if not fresh:
        console.print(f"[dim]simulator of {top} from the cache ({key[:8]})[/dim]")
    return entry / f"lib{top}.so"


def _verilator_flags(top: str, *, coverage: bool, trace: str | None) -> tuple[str, ...]:
    # Plain `--coverage` crashes Verilator 5.48 on Amaranth's output; its kinds work one by one.
    extra = (("--coverage-line", "--coverage-toggle") if coverage else ()) + ((f"--trace-{trace}",) if trace else ())
    names = ("--top-module", top, "--prefix", f"V{top}")
    return ("--cc", *QUIET_FLAGS, *FAST_FLAGS, *SPLIT_FLAGS, *extra, *names, "-CFLAGS", "-fPIC")


class _Steps:
    """The progress of one build: a line that changes on a terminal, else a line every few seconds."""

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
    """Two libraries by Verilator's makefile, on all cores, and the harness around them."""
    objects = folder / "obj"
    total = len(list(objects.glob("*.cpp"))) + 4  # and the run-time library's few

    def watch() -> None:
        steps.show("compiling", len(list(objects.glob("*.o"))), total)

    variables = [*tools.make_variables(), f"OPT_FAST={opt}", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2"]
    command = [tools.make, "-s", "-C", "obj", "-f", f"V{top}.mk", f"-j{JOBS}", *variables, f"libV{top}"]
    _run(command, tools, folder, f"the C++ compiler refuses the simulator of {top}", watch)
    steps.show("linking", total, total)
    include = tools.verilator_root / "include"
    # Only the harness's functions are exported: a second library in the process must not take this one's Verilator.
    link = [*tools.cxx, opt, "-fPIC", "-shared", "-fvisibility-inlines-hidden", "-Wl,--exclude-libs,ALL"]
    sources = ["-Iobj", f"-I{include}", f"-I{include}/vltstd", "harness.cpp", f"obj/libV{top}.a", "obj/libverilated.a"]
    _run([*link, *sources, "-pthread", "-o", f"lib{top}.so"], tools, folder, f"the harness of {top} does not compile")


def _try(library: Path, tools: Toolchain) -> None:
    """Raises TspError unless the library can be loaded, which a compiler that links no C++ library leaves undone."""
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    answer = subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = (answer.stderr.splitlines() or ["no reason is given"])[-1].removeprefix("OSError: ")
        raise TspError(f"the simulator that {' '.join(tools.cxx)} built cannot be loaded ({reason}): set CXX to a C++ "
                       "compiler such as g++")


def load(library: Path) -> ctypes.CDLL:
    """The library of `build`, loaded. Raises TspError where the system refuses."""
    cache.check_executable(library.parent)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise TspError(f"the simulator {library} cannot be loaded ({error}): remove its folder, or "
                       f"{cache.ELSEWHERE}") from error


def _run(command: list[str], tools: Toolchain, folder: Path, failure: str, watch=lambda: None) -> None:
    """Runs a tool in the folder, its output into build.log; a `TspError` with the first error line if it fails."""
    log = folder / "build.log"
    with open(log, "ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            command, cwd=folder, env=tools.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,  # a group of its own, to be ended with all that make started
        )
        try:
            while True:
                try:
                    process.wait(timeout=0.3)
                    break
                except subprocess.TimeoutExpired:
                    watch()
        finally:
            with suppress(ProcessLookupError):  # only after an interrupt is there anything left to end
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        text = log.read_bytes()[begin:].decode(errors="replace")
        raise TspError(f"{failure}: {_first_error(text, process.returncode)} (all of it in {log})")


def _first_error(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit status {code}, without a word"])[0]
