"""The cache: keeps the results of expensive builds under a hash of all their inputs.

An entry is a folder. A list in it names its files and their sums. An entry that does not match its list is rebuilt. A
cache that cannot be written, another user's for example, still serves what it holds.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from .errors import TspError

UNUSED_DAYS = 30
"""Days without use after which an entry is removed."""
LIST = ".files.json"
"""The list of an entry's files: name, size and sha256 of each."""
ELSEWHERE = "set METRONOME_CACHE to another folder"
"""The remedy for a cache that cannot be used."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The system's error numbers for a full disk."""


def content_key(*parts: str | bytes) -> str:
    """The name of a cache entry: a hash of the parts and of their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:32]


def source_digest(*folders: Path) -> str:
    """A hash of every Python file in the folders, names included. It stands for the output of those sources.

    If a file is younger than this process, the process may have imported an older version of it. The hash is then
    unique to the process, so no other process finds what this one produces.
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
    """When this process began, in the unit of file times. 0 if Linux does not tell: all files then count as younger."""
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
        os.stat(f"{root}/.")
    except OSError as error:
        raise TspError(f"the cache folder {root} cannot be created or entered: {error.strerror}; "
                       f"{ELSEWHERE}") from error
    return root


def check_executable(folder: Path) -> None:
    """Raises TspError if the system executes no files in a folder of the cache."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise TspError(f"simulators cannot run from the cache folder {cache_root()}, whose disk is mounted noexec: "
                       f"{ELSEWHERE}")


@contextmanager
def locked(entry: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the entry's lock file. A second process (or thread) waits. The kernel releases the lock if its holder dies.

    on_wait: called once if another process holds the lock.

    Raises TspError if the cache cannot be written.
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
    """The exception for an entry that the system refuses to write. If the disk is full, it is the error itself."""
    if error.errno in FULL:
        return error
    return TspError(f"the cache folder {cache_root()} cannot be written: {(error.strerror or str(error)).lower()}; "
                    f"{ELSEWHERE}")


def cached(kind: str, key: str, make: Callable[[Path], None], on_wait: Callable[[], None] | None = None) -> Path:
    """The folder `kind/key` of the cache. `make(folder)` fills it at the first call, or if it is damaged.

    `make` works in the folder `key.build`, which is renamed when it is complete. So an entry is whole or absent. After
    a failed `make`, `key.build` stays for inspection until the next try.

    Raises TspError if an entry must be made and the cache cannot be written.
    """
    entry = cache_root() / kind / key
    if not _whole(entry):
        with locked(entry, on_wait):
            if not _whole(entry):
                if entry.exists():
                    print(f"note: {entry} of the cache is damaged and not used", file=sys.stderr, flush=True)
                _fill(entry, make)
                _prune(entry.parent)
    with suppress(OSError):  # the cache may belong to another user
        os.utime(entry)
    return entry


def _fill(entry: Path, make: Callable[[Path], None]) -> None:
    unfinished = entry.with_name(entry.name + ".build")
    try:
        for old in (entry, unfinished):
            shutil.rmtree(old, ignore_errors=True)
            if old.is_file():
                old.unlink()
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
    """Whether an entry exists and each of its files is unchanged.

    Older versions wrote no list. An entry without a list gets one, unless it is empty.
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
    """[size, sha256] by name of every readable file in a folder."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.name != LIST and path.is_file():
            with suppress(OSError):
                data = path.read_bytes()
                sums[str(path.relative_to(folder))] = [len(data), hashlib.sha256(data).hexdigest()]
    return sums


def cached_text(kind: str, key: str, make: Callable[[], str], on_wait: Callable[[], None] | None = None) -> str:
    """The text that `make()` returned at the first call with this key. on_wait: as of `cached`."""
    entry = cached(kind, key, lambda folder: _write(folder / "text", make()), on_wait)
    return (entry / "text").read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _prune(folder: Path) -> None:
    """Remove entries that were not used for UNUSED_DAYS. Lock files stay, because a waiting process may hold one."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for entry in folder.iterdir():
        if entry.is_dir() and entry.stat().st_mtime < oldest:
            shutil.rmtree(entry, ignore_errors=True)
