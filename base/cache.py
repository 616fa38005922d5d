"""The cache: what is expensive to build is kept under a hash of all that it is made from.

An entry is a folder with a list of its files and of their sums; one that does not match its list is made anew. A cache
that cannot be written, another user's for example, serves what it holds.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from .errors import TspError

UNUSED_DAYS = 30
"""Entries of the cache that nobody used for so long are removed."""
LIST = ".files.json"
"""The list of an entry's files: name, size and sha256 of each."""
ELSEWHERE = "set METRONOME_CACHE to another folder"
"""The remedy for a cache that is of no use."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room."""


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
        root = Path("~") / ".cache" / "metronome"
    try:
        root = root.expanduser().absolute()
    except RuntimeError:
        raise TspError(f"the cache folder {root} is in the home folder of a user that this machine does not know: "
                       f"{ELSEWHERE}") from None
    if len(str(root).split()) != 1:
        raise TspError(f"make cannot build in a folder with spaces in its name: {root}; {ELSEWHERE}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TspError(f"the cache folder {root} cannot be made or entered: {error.strerror}; {ELSEWHERE}") from error
    return root


def check_executable(folder: Path) -> None:
    """Raises TspError if the system runs nothing that lies in a folder of the cache."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise TspError(f"simulators cannot run from the cache folder {cache_root()}, whose disk is mounted noexec: "
                       f"{ELSEWHERE}")


@contextmanager
def locked(entry: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the entry's lock file; a second process (or thread) waits. The kernel releases it if the holder dies.

    Raises TspError where the cache cannot be written.
    """
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = open(entry.with_name(entry.name + ".lock"), "w")  # noqa: SIM115  closed below
    except OSError as error:
        raise _unwritable(error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _unwritable(error) from error
        yield


def _unwritable(error: OSError) -> Exception:
    """What is raised where the system refuses to write an entry: the error itself if there is no room."""
    if error.errno in FULL:
        return error
    return TspError(f"the cache folder {cache_root()} cannot be written: {(error.strerror or str(error)).lower()}; "
                    f"{ELSEWHERE}")


def cached(kind: str, key: str, make: Callable[[Path], None], on_wait: Callable[[], None] | None = None) -> Path:
    """The folder `kind/key` of the cache, filled by `make(folder)` at the first call, or if it is damaged.

    `make` works in a folder of another name, which is renamed when it is finished: an entry is whole or absent. What a
    failed `make` left stays in `key.build` for reading, until the next try. Raises TspError where an entry has to be
    made and the cache cannot be written.
    """
    entry = cache_root() / kind / key
    if not _whole(entry):
        with locked(entry, on_wait):
            if not _whole(entry):
                _fill(entry, make)
                _prune(entry.parent)
    with suppress(OSError):  # of another user's cache
        os.utime(entry)
    return entry


def _fill(entry: Path, make: Callable[[Path], None]) -> None:
    unfinished = entry.with_name(entry.name + ".build")
    try:
        shutil.rmtree(entry, ignore_errors=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(error) from error
    make(unfinished)
    try:
        _write_list(unfinished)
        unfinished.rename(entry)
    except OSError as error:
        raise _unwritable(error) from error


def _whole(entry: Path) -> bool:
    """Whether an entry is there, and each of its files as it was made.

    One without a list, from a version that wrote none, gets one if it holds anything at all.
    """
    if not entry.is_dir():
        return False
    try:
        listed = json.loads((entry / LIST).read_bytes())
    except FileNotFoundError:
        found = _sums(entry)
        if found:
            with suppress(OSError):
                _write_list(entry)
        return bool(found)
    except (OSError, ValueError):
        return False
    return listed == _sums(entry)


def _write_list(folder: Path) -> None:
    (folder / LIST).write_text(json.dumps(_sums(folder), sort_keys=True))


def _sums(folder: Path) -> dict[str, list]:
    """[size, sha256] of every file in a folder, by its name; without those that cannot be read."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.name != LIST and path.is_file():
            with suppress(OSError):
                data = path.read_bytes()
                sums[str(path.relative_to(folder))] = [len(data), hashlib.sha256(data).hexdigest()]
    return sums


def cached_text(kind: str, key: str, make: Callable[[], str]) -> str:
    """The text that `make()` returned at the first call with this key."""
    entry = cached(kind, key, lambda folder: _write(folder / "text", make()))
    return (entry / "text").read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _prune(folder: Path) -> None:
    """Removes entries that nobody used for UNUSED_DAYS; the lock files stay, for a waiter may hold one."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for entry in folder.iterdir():
        if entry.is_dir() and entry.stat().st_mtime < oldest:
            shutil.rmtree(entry, ignore_errors=True)
