"""A chip's RTL as a WebAssembly module: Verilator's C++, compiled by the clang and the libraries of PyPI's `ziglang`.

The module exports the functions of the simulation's own harness, and those of wasm/shim.cpp. It is the
debug build of the chip, whose stream registers can be read; that changes no cycle and no bit. The whole
state is in the linear memory, so that a copy of it is a snapshot of the chip.

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
from sim.rtl.chip import chip_verilog, harness
from sim.rtl.toolchain import Toolchain

SOURCES = Path(__file__).with_name("wasm")
TARGET = ("-target", "wasm32-wasi", "-msimd128", "-std=c++20", "-fno-exceptions", "-DVL_IGNORE_UNKNOWN_ARCH", "-g0")
"""wasm32-wasi is the target whose libc++ and libc zig brings; VL_IGNORE_UNKNOWN_ARCH: there is no pause instruction."""
FAST, SLOW = "-O2", "-Oz"
"""Of what runs in every cycle, and of what Verilator calls slow: it runs once."""
STACK = 1 << 20
LINK = ("-mexec-model=reactor", "-s", f"-Wl,-z,stack-size={STACK}")
VERILATOR = ("--cc", *QUIET_FLAGS, *FAST_FLAGS, *SPLIT_FLAGS, "--top-module", "chip", "--prefix", "Vchip")
WASM = "chip.wasm"
LIMIT = 32 << 20
"""Bytes of SRAM up to which a chip fits a page: the browser holds it about five times over."""


def check_config(config: ChipConfig) -> None:
    """Raises TspError if a chip is too large for a page."""
    if config.sram_bytes > LIMIT:
        raise TspError(f"config {config.name} has {config.sram_bytes >> 10:,} KiB of SRAM, a page at most "
                       f"{LIMIT >> 10:,} KiB: compile for a smaller chip")


def chip_wasm(config: ChipConfig) -> Path:
    """The module of a chip, from the cache if it was built before. Raises TspError."""
    check_config(config)
    config = replace(config, debug=True)
    build = _Build(config.name, toolchain.find(), _zig())
    objects = build.objects(chip_verilog(config))
    return build.module(objects, harness(config) + (SOURCES / "shim.cpp").read_text())


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
    """Compilations for one config: of the Verilated chip, which takes half a minute, and of the module around it."""

    def __init__(self, name: str, tools: Toolchain, zig: Zig) -> None:
        self._name, self._tools, self._zig = name, tools, zig
        self._console = Console(stderr=True)
        self._own = {path.relative_to(SOURCES): path.read_bytes() for path in sorted(SOURCES.rglob("*"))
                     if path.is_file()}
        self._versions = (*TARGET, FAST, SLOW, tools.verilator_version, zig.version)

    def objects(self, verilog: str) -> Path:
        """A folder of the cache with the chip's objects, and the headers that the harness includes in `obj`."""
        headers = [data for path, data in self._own.items() if path.parts[0] == "include"]
        key = cache.content_key(verilog, *headers, *self._versions, *VERILATOR)

        def make(folder: Path) -> None:
            self._console.print(f"compiling {self._name} to WebAssembly (once; then it comes from the cache)")
            start = time.monotonic()
            self._headers(folder)
            (folder / "chip.v").write_text(verilog)
            self._call(folder, [str(self._tools.verilator), *VERILATOR, "--Mdir", "obj", "chip.v"],
                       "Verilator refuses the chip")
            sources = [f"obj/{path.name}" for path in sorted((folder / "obj").glob("*.cpp"))]
            self._compile_all(folder, sources)
            for path in (folder / "obj").iterdir():
                if path.suffix != ".h":
                    path.unlink()
            shutil.rmtree(folder / "zig", ignore_errors=True)
            self._console.print(f"{self._name} compiled to WebAssembly in {time.monotonic() - start:.0f} s")

        waiting = f"waiting: {self._name} is being compiled elsewhere"
        return cache.cached("wasm-objects", key, make, lambda: self._console.print(waiting))

    def module(self, objects: Path, text: str) -> Path:
        """The module of objects and the harness's text."""
        key = cache.content_key(objects.name, text, *self._own.values(), *self._versions, *LINK)

        def make(folder: Path) -> None:
            self._headers(folder)
            (folder / "harness.cpp").write_text(text)
            shutil.copytree(objects / "obj", folder / "obj")
            for source in ("harness.cpp", "runtime.cpp"):
                self._compile(folder, source)
            exports = [f"-Wl,--export={name}" for name in sorted(set(re.findall(r"\bsim_\w+(?=\()", text)))]
            parts = sorted([*(str(path) for path in objects.glob("*.o")), "harness.o", "runtime.o"])
            self._call(folder, [str(self._zig.path), "c++", *TARGET, FAST, *LINK, *exports, *parts, "-o", WASM],
                       "the chip does not link")
            for name in ("obj", "zig", "include"):
                shutil.rmtree(folder / name, ignore_errors=True)

        return cache.cached("wasm", key, make) / WASM

    def _headers(self, folder: Path) -> None:
        """The sources of the room, where the compiler finds them by a relative name."""
        for path, data in self._own.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)

    def _compile_all(self, folder: Path, sources: list[str]) -> None:
        columns = TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console, transient=True,
                      disable=not self._console.is_terminal) as progress:
            task = progress.add_task(f"compiling {self._name}", total=len(sources))
            with ThreadPoolExecutor(JOBS) as pool:
                for _ in pool.map(lambda source: self._compile(folder, source), sources):
                    progress.advance(task)

    def _compile(self, folder: Path, source: str) -> None:
        root = self._tools.verilator_root / "include"
        level = SLOW if source.endswith("__Slow.cpp") else FAST
        where = [f"-ffile-prefix-map={root}=verilator", "-Iinclude", "-Iobj", f"-I{root}", f"-I{root}/vltstd",
                 "-include", "stdint.h"]  # svdpi.h, which large chips include, expects it
        self._call(folder, [str(self._zig.path), "c++", *TARGET, level, *where, "-c", source, "-o",
                            f"{Path(source).stem}.o"], f"the compiler refuses {source}")

    def _call(self, folder: Path, command: list[str], failure: str) -> None:
        """Runs a tool in the folder; a `TspError` with its first error line if it fails."""
        environment = self._tools.environment() | {
            "ZIG_GLOBAL_CACHE_DIR": str(cache.cache_root() / "zig"),  # libc++ and libc, built at the first use
            "ZIG_LOCAL_CACHE_DIR": str(folder / "zig"),
        }
        done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace")
        if done.returncode:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line.lower()]
            (folder / "build.log").write_text(done.stderr + done.stdout)
            raise TspError(f"{failure}: {(lines or [f'exit status {done.returncode}'])[0]} (all of it in "
                           f"{folder / 'build.log'})")
