"""Where `tsp` begins. Its modules take a second to import; ctrl-C ends it without a traceback even then."""

import signal


def app() -> int:
    """Run the command; the exit code."""
    try:
        from .main import app as command

        return command()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
