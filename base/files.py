"""Output files of a command: checked before the work begins, and written whole or not at all."""

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import combinations
from pathlib import Path

from .errors import TspError

Name = str | os.PathLike[str]


def check_output(path: Name, *inputs: Path) -> None:
    """Raises TspError unless `path` can be written as a regular file and is not one of the inputs.

    Links are followed: the target of a link is the output. Nothing is changed.
    """
    path = Path(path)
    if path == Path():
        raise TspError("the name of an output is empty or names this folder: name a file")
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise TspError(f"{path}: cannot write: it is {what}, and outputs are regular files: name another file")
    target = _target(path)
    if not target.parent.is_dir():
        raise TspError(f"{path}: cannot write: there is no folder {target.parent}: make it, or name another file")
    if not os.access(target.parent, os.W_OK | os.X_OK) or (mode is not None and not os.access(target, os.W_OK)):
        raise TspError(f"{path}: cannot write: permission denied: name a file elsewhere")
    if any(_same(path, other) for other in inputs):
        raise TspError(f"{path}: cannot write: the command reads this very file: name another file")


def check_outputs(paths: Iterable[Path | None], inputs: Iterable[Path] = ()) -> None:
    """`check_output` for all paths that are not None. They must also differ from each other."""
    inputs, given = list(inputs), [path for path in paths if path is not None]
    for path in given:
        check_output(path, *inputs)
    for one, other in combinations(given, 2):
        if _same(one, other):
            raise TspError(f"{other}: cannot write: two outputs have this name: give each its own name")


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files, each of them whole. If one cannot be written, none is. Raises TspError."""
    check_outputs(contents)
    with ExitStack() as stack:
        for path, data in contents.items():
            temporary = stack.enter_context(whole(path))
            try:
                with open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise cannot_write(path, error) from error


@contextmanager
def whole(path: Name, keep: tuple[type[BaseException], ...] = ()) -> Iterator[Path]:
    """An empty file beside `path` to write to. It becomes `path` at the end of the block.

    An exception removes the file. An exception of a type in `keep` leaves at `path` what was written so far, if that is
    anything.

    Raises TspError if the file cannot be written.
    """
    target = _target(Path(path))
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        os.fchmod(handle, stat.S_IMODE(_mode(target) or 0o666 & ~_umask()))
        os.close(handle)
        try:
            yield temporary
        except keep:
            if temporary.stat().st_size:
                _put(temporary, path)
            raise
        _put(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Name, error: OSError) -> TspError:
    """The error for an output that the system refuses."""
    return TspError(f"{path}: cannot write: {(error.strerror or str(error)).lower()}: name a file elsewhere")


def _put(temporary: Path, path: Name) -> None:
    try:
        os.replace(temporary, _target(Path(path)))
    except OSError as error:
        raise cannot_write(path, error) from error


def _target(path: Path) -> Path:
    """The file that links lead to. It need not exist."""
    return Path(os.path.realpath(path))


def _mode(path: Path) -> int | None:
    """Kind and permissions of a file; None if it does not exist. Raises TspError."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_write(path, error) from error


def _same(one: Path, other: Path) -> bool:
    """Whether two names lead to the same file. It need not exist yet."""
    with suppress(OSError):
        return os.path.samefile(one, other)
    return _target(one) == _target(other)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


