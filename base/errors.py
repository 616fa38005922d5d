"""The one exception that a user of `tsp` sees."""


class TspError(Exception):
    """A user-facing error of one line: what is wrong (named), the limit it breaks, and the remedy.

    The command line prints it and exits with status 2; anything else that escapes is a bug of ours.
    """
