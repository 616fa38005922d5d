"""A chip's RTL as a WebAssembly module: Verilator's C++, compiled by the clang and the libraries of PyPI's `ziglang`.

The module exports the functions of the simulation's own harness, and those of wasm/shim.cpp; see `FUNCTIONS`. It is the
debug build of the chip, whose stream registers can be read; that changes no cycle and no bit. Wide memories and
registers lie in its linear memory, so that a copy of that is a snapshot of the chip.

The same sources and tools give the same bytes, on any machine: paths do not enter.
"""

import importlib.util
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from arch.config import ChipConfig
from base import cache
from base.errors import TspError
from sim.rtl import toolchain
from sim.rtl.build import FAST_FLAGS, JOBS, QUIET_FLAGS, SPLIT_FLAGS
from sim.rtl.chip import HARNESS, chip_verilog, probe_table
from sim.rtl.toolchain import Toolchain

SOURCES = Path(__file__).with_name("wasm")
TARGET = ("-target", "wasm32-wasi", "-msimd128", "-std=c++20", "-fno-exceptions", "-DVL_IGNORE_UNKNOWN_ARCH", "-g0")
"""wasm32-wasi is the target whose libc++ and libc zig brings; VL_IGNORE_UNKNOWN_ARCH: there is no pause instruction."""
FAST, SLOW = "-O2", "-Oz"
"""Of what runs in every cycle, and of what Verilator calls slow: it runs once."""
STACK = 1 << 20
LINK = ("-mexec-model=reactor", "-s", f"-Wl,-z,stack-size={STACK}")
WASM = "chip.wasm"
LIMIT = 4 << 20
"""Bytes of SRAM up to which a chip fits a page: a browser holds it several times over."""


def check_config(config: ChipConfig) -> None:
    """Raises TspError if a chip is too large for a page."""
    if config.sram_bytes > LIMIT:
        raise TspError(f"config {config.name} has {config.sram_bytes >> 10:,} KiB of SRAM, a page at most "
                       f"{LIMIT >> 10:,} KiB: compile for a smaller chip")


def chip_wasm(config: ChipConfig) -> Path:
    """The module of a chip, from the cache if it was built before. Raises TspError."""
    check_config(config)
    config = replace(config, debug=True)
    tools, zig = toolchain.find(), _zig()
    verilog = chip_verilog(config)
    harness = _harness(config)
    own = sorted(path for path in SOURCES.rglob("*") if path.is_file())
    key = cache.content_key(verilog, harness, *(path.read_bytes() for path in own), *TARGET, FAST, SLOW, *LINK,
                                *FAST_FLAGS, *SPLIT_FLAGS, tools.verilator_version, zig.version)
    console = Console(stderr=True)
    fresh = False

    def make(folder: Path) -> None:
        nonlocal fresh
        fresh = True
        console.print(f"compiling {config.name} to WebAssembly (once; then it comes from the cache)")
        start = time.monotonic()
        (folder / "chip.v").write_text(verilog)
        (folder / "harness.cpp").write_text(harness)
        _Build(folder, tools, zig, console).run()
        console.print(f"{config.name} compiled to WebAssembly in {time.monotonic() - start:.0f} s")

    waiting = f"waiting: {config.name} is being compiled elsewhere"
    entry = cache.cached("wasm", key, make, lambda: console.print(waiting))
    if not fresh:
        console.print(f"[dim]WebAssembly of {config.name} from the cache ({key[:8]})[/dim]")
    return entry / WASM


def _harness(config: ChipConfig) -> str:
    """One file: the order of the probes, the simulation's harness, and the page's functions."""
    probes = " ".join(f"X({name})" for name in probe_table(config))
    return f"#define PROBES(X) {probes}\n" + HARNESS.read_text() + (SOURCES / "shim.cpp").read_text()


@dataclass(frozen=True, kw_only=True)
class Zig:
    """The compiler of the package `ziglang`."""

    path: Path
    version: str


def _zig() -> Zig:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise TspError("the page needs the package ziglang, which compiles the chip to WebAssembly; run `make page`, "
                       "or `pip install 'metronome-tsp[page]'`")
    path = Path(spec.origin).with_name("zig")
    version = subprocess.run([path, "version"], capture_output=True, text=True, check=True).stdout.strip()
    return Zig(path=path, version=version)


class _Build:
    """One compilation in a folder."""

    def __init__(self, folder: Path, tools: Toolchain, zig: Zig, console: Console) -> None:
        self._folder, self._tools, self._zig, self._console = folder, tools, zig, console
        self._env = tools.environment() | {
            "ZIG_GLOBAL_CACHE_DIR": str(cache.cache_root() / "zig"),  # libc++ and libc, built at the first use
            "ZIG_LOCAL_CACHE_DIR": str(folder / "zig"),
        }

    def run(self) -> None:
        """Verilog to chip.wasm; what lies between is removed."""
        flags = ("--cc", *QUIET_FLAGS, *FAST_FLAGS, *SPLIT_FLAGS, "--top-module", "chip", "--prefix", "Vchip")
        self._call([str(self._tools.verilator), *flags, "--Mdir", "obj", "chip.v"], "Verilator refuses the chip")
        shutil.copy(SOURCES / "runtime.cpp", self._folder / "runtime.cpp")
        shutil.copytree(SOURCES / "include", self._folder / "include")
        sources = sorted((self._folder / "obj").glob("*.cpp"))
        sources = [f"obj/{path.name}" for path in sources] + ["harness.cpp", "runtime.cpp"]
        columns = TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console, transient=True,
                      disable=not self._console.is_terminal) as progress:
            task = progress.add_task("compiling", total=len(sources))
            with ThreadPoolExecutor(JOBS) as pool:
                for _ in pool.map(self._compile, sources):
                    progress.advance(task)
        self._link(sources)
        for name in ("obj", "zig", "include"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for path in self._folder.glob("*.o"):
            path.unlink()

    def _compile(self, source: str) -> None:
        root = self._tools.verilator_root / "include"
        level = SLOW if source.endswith("__Slow.cpp") else FAST
        where = [f"-ffile-prefix-map={root}=verilator", "-Iinclude", "-Iobj", f"-I{root}", f"-I{root}/vltstd"]
        self._call([str(self._zig.path), "c++", *TARGET, level, *where, "-c", source, "-o", _object(source)],
                   f"the compiler refuses {source}")

    def _link(self, sources: list[str]) -> None:
        text = (self._folder / "harness.cpp").read_text()
        exports = [f"-Wl,--export={name}" for name in sorted(set(re.findall(r"\bsim_\w+(?=\()", text)))]
        objects = [_object(source) for source in sources]
        self._call([str(self._zig.path), "c++", *TARGET, FAST, *LINK, *exports, *objects, "-o", WASM],
                   "the chip does not link")

    def _call(self, command: list[str], failure: str) -> None:
        """Runs a tool in the folder; a `TspError` with its first error line if it fails."""
        done = subprocess.run(command, cwd=self._folder, env=self._env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace")
        if done.returncode:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line.lower()]
            with open(self._folder / "build.log", "a") as log:
                log.write(done.stderr + done.stdout)
            raise TspError(f"{failure}: {(lines or [f'exit status {done.returncode}'])[0]} (all of it in "
                           f"{self._folder / 'build.log'})")


def _object(source: str) -> str:
    return Path(source).stem + ".o"
