"""The cache: what is expensive to build is kept under a hash of all that it is made from."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .errors import TspError

UNUSED_DAYS = 30
"""Entries of the cache that nobody used for so long are removed."""


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
