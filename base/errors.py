"""The one exception that a user of `tsp` sees."""


class TspError(Exception):
    """A user-facing error of one line: the thing that is wrong, the limit that it breaks, and the remedy.

    The command line prints it and exits with status 2. Any other exception that escapes is a bug of Metronome.
    """
