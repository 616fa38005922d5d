"""The frame of every command: a refusal, whatever its source, is one line on stderr and exit code 2."""

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
"""Exit codes: the input is refused; the user interrupts; the system or another program terminates the command."""
NAMES = {errno.ENAMETOOLONG: "a shorter name", errno.ENOTDIR: "another one", errno.EISDIR: "a file",
         errno.ELOOP: "one without a loop of links", errno.ENOENT: "an existing one"}
"""Remedies for file names, by the system's error number."""


def run(main: Callable[..., None], name: str) -> NoReturn:
    """Run `main` with the arguments of this process, and exit.

    name: name of the command, which begins its error lines.
    """
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
    """Set up this process: open what is closed of its standard streams, escape letters that the output's encoding
    lacks, and clean up on SIGTERM and SIGHUP.

    These signals raise SystemExit(TERMINATED), so builds stop and temporary files are removed.
    """
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set signal handlers
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(number := getattr(signal, name)) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _open_closed() -> None:
    """Open the null device in place of each standard stream that the caller has closed (`tsp .. >&-`).

    Otherwise the next file that is opened gets its number, and takes what a tool prints.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115  until the process ends
            os.set_inheritable(stream.fileno(), True)  # tools have it, too
            setattr(sys, name, stream)


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def refusal(error: BaseException) -> str | None:
    """One line about an exception that is not a bug: wrong input, wrong arguments, or a missing resource. Else None.

    A full disk (`base.cache.FULL`) is not a refusal and gives None.
    """
    if isinstance(error, TspError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "this machine has too little memory for this: use a smaller model, config or --context"
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
    remedy = NAMES.get(error.errno or 0, "another one, or give this user access to it")
    return f"{name}: {what}: name {remedy}"


def usage_error(error: BaseException) -> str | None:
    """Typer's message about a wrong option or value, in one line. None for any other exception."""
    format_message = getattr(error, "format_message", None)
    return None if format_message is None else " ".join(format_message().split())
