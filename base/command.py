"""A module as a command: what is wrong with its arguments is one line on stderr and exit code 2, as all it refuses."""

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

REFUSED, INTERRUPTED = 2, 130
"""Exit codes: the input is refused; the user has enough."""


def run(main: Callable[..., None], name: str) -> NoReturn:
    """Run `main` with the arguments of this process, and exit. name: of the command, before what it refuses."""
    commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    commands.command()(main)
    try:
        sys.exit(commands(standalone_mode=False))
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = usage_error(error)
        if message is None:
            raise
        print(f"{name}:", message, file=sys.stderr)
        sys.exit(REFUSED)


def usage_error(error: Exception) -> str | None:
    """What typer says, in one line, of a wrong option or value; None of any other exception."""
    format_message = getattr(error, "format_message", None)
    return None if format_message is None else " ".join(format_message().split())
