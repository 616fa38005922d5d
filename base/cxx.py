"""The C++ compiler that the environment names."""

import os
import shlex

from .errors import TspError


def cxx() -> tuple[str, ...]:
    """The words of $CXX, split as a shell splits them: a command and its arguments. g++ if it is not set.

    Raises TspError if CXX cannot be split.
    """
    text = os.environ.get("CXX", "")
    try:
        return tuple(shlex.split(text)) or ("g++",)
    except ValueError as error:
        raise TspError(f"CXX must be a command and its arguments, not {text!r} ({error}): set it to a C++ compiler "
                       "such as g++") from None
