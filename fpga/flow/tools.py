"""Finds and runs yosys, nextpnr and the packers. Native tools on PATH come before the WebAssembly ones of PyPI."""

import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from base.child import run_group
from base.errors import TspError

FORCE_WASM = "METRONOME_YOWASP"
"""Environment variable: if set, native tools are ignored."""


PACKAGES = {"gowin_pack": "apycula"}
"""Packages of the tools that are Python programs and do not print their version."""


@dataclass(frozen=True)
class Tool:
    """A program of the flow: its command and its version."""

    name: str
    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Run:
    """User CPU time of a tool's run."""

    user_s: float


@cache
def find(name: str) -> Tool:
    """The tool of this name ("yosys", "nextpnr-ecp5", "ecppack", ...). Raises TspError if there is none."""
    beside = Path(sys.executable).parent
    if name in PACKAGES:
        return _of_package(name, shutil.which(name, path=str(beside)))
    native = None if os.environ.get(FORCE_WASM) else shutil.which(name)
    path = native or shutil.which(f"yowasp-{name}", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if path is None:
        raise TspError(f"{name} was not found, neither on PATH nor as yowasp-{name}; run `pip install '.[fpga]'` "
                       "(or `make bitstream`)")
    return Tool(name, (path,), _version(name, path))


def _of_package(name: str, path: str | None) -> Tool:
    """A tool in the folder of this Python."""
    package = PACKAGES[name]
    if path is None:
        raise TspError(f"{name} was not found beside {sys.executable}; run `pip install '.[fpga]'` "
                       "(or `make bitstream`)")
    return Tool(name, (path,), f"{package} {metadata.version(package)}")


def _version(name: str, path: str) -> str:
    """The first line with a digit that `--version` prints, on standard output or standard error.

    A message of a WebAssembly tool about its first run does not count.
    """
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise TspError(f"`{path} --version` failed: {error}") from error
    lines = [line for line in (answer.stdout + answer.stderr).splitlines()
             if any(c.isdigit() for c in line) and not line.startswith("Preparing to run")]
    if not lines:
        raise TspError(f"`{path} --version` must print a version, but did not")
    return lines[0].replace('"', "").replace(f"{Path(path).name} -- ", "").strip()


def run(tool: Tool, arguments: list[str], folder: Path, log: str) -> Run:
    """Run a tool in a folder, with its output in `log` there. Raises TspError that names the log if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with open(folder / log, "w") as out:
        status = run_group([*tool.command, *arguments], folder, out)
    spent = Run(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    if status:
        raise TspError(f"{tool.name} failed: {_complaint(folder / log)}; see {folder / log}")
    return spent


def _complaint(log: Path) -> str:
    """The line of a log that begins with ERROR, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "it printed nothing")
