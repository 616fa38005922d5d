"""Work that may take longer than a user likes to wait for: a line every few seconds, with an estimate."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 4.0
"""Seconds before the first line."""
Tell = Callable[[float], None]
"""Called with the part of the work that is done, 0..1."""


@contextmanager
def progress(what: str, expected: float = 0.0, *, done: Callable[[], float] | None = None,
             every: float = EVERY) -> Iterator[Tell]:
    """Tell on standard error what is at work, until the block ends: after a few seconds, then ever more seldom.

    A line comes after `every` seconds, and the next ones after a fifth of the time spent. Nothing is told of a block
    that ends before.

    what: the work, "loading the board" for example. expected: seconds that it takes, if nothing better is known. The
    part that is done comes from the block, which may call what it gets, or from `done`, which another thread calls.
    """
    report = _Report(what, expected)
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(max(every, report.spent(time.monotonic()) / 5)):
            if done:
                report.tell(done())
            print(report.line(time.monotonic()), file=sys.stderr, flush=True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield report.tell
    finally:
        ended.set()
        thread.join()


class _Report:
    def __init__(self, what: str, expected: float) -> None:
        self._what, self._expected, self._done = what, expected, 0.0
        self._began = time.monotonic()

    def spent(self, now: float) -> float:
        """Seconds since the work began."""
        return now - self._began

    def tell(self, done: float) -> None:
        self._done = done

    def line(self, now: float) -> str:
        """What is at work, for how long, and how much longer."""
        spent = self.spent(now)
        text = f"{self._what}: {spent:.0f} s"
        if self._done > 0:
            return f"{text}, {self._done:.0%}, about {spent / self._done - spent:.0f} s left"
        if not self._expected:
            return text
        left = self._expected - spent
        return f"{text} of about {self._expected:.0f} s" + ("" if left > 0 else ", longer than expected")
