"""What all commands have in common: what is refused is one line on stderr and exit code 2, whatever refuses it."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

import typer

from .cache import FULL
from .errors import TspError

REFUSED, INTERRUPTED, TERMINATED = 2, 130, 143
"""Exit codes: the input is refused; the user has enough; the system or another program has."""
NAMES = {errno.ENAMETOOLONG: "a shorter name", errno.ENOTDIR: "another", errno.EISDIR: "a file",
         errno.ELOOP: "one that links lead to", errno.ENOENT: "one that is there"}
"""Remedies for names, by what the system says."""


def run(main: Callable[..., None], name: str) -> NoReturn:
    """Run `main` with the arguments of this process, and exit. name: of the command, before what it refuses."""
    prepare()
    commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    commands.command()(main)
    try:
        sys.exit(commands(standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = refusal(error)
        if message is None:
            raise
        print(f"{name}:", message, file=sys.stderr)
        sys.exit(REFUSED)


def prepare() -> None:
    """Set this process up: a letter that the output's encoding has not is escaped, and SIGTERM ends what was begun.

    SIGTERM raises SystemExit(TERMINATED), so that builds are stopped and temporary files removed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may say what signals do
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(number := getattr(signal, name)) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def refusal(error: BaseException) -> str | None:
    """One line about an exception that is no bug: wrong input, wrong arguments, or what the system has not; else None.

    An OSError for want of room (`base.cache.FULL`) is not among them: that is no refusal.
    """
    if isinstance(error, TspError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "the machine has not enough memory for this: use a smaller model, config or --context"
    if isinstance(error, OSError) and error.errno not in FULL and not isinstance(error, BrokenPipeError):
        return _refused_by_system(error)
    return usage_error(error)


def _refused_by_system(error: OSError) -> str:
    what = (error.strerror or str(error) or type(error).__name__).lower()
    if error.filename is None:
        return f"the system refuses: {what}"
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else error.filename
    if len(str(name)) > 200:
        name = f"{str(name)[:80]}.. ({len(str(name))} characters)"
    remedy = NAMES.get(error.errno or 0, "another, or give this user access to it")
    return f"{name}: {what}: name {remedy}"


def usage_error(error: BaseException) -> str | None:
    """What typer says, in one line, of a wrong option or value; None of any other exception."""
    format_message = getattr(error, "format_message", None)
    return None if format_message is None else " ".join(format_message().split())
