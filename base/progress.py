"""Progress of long work: lines with an estimate, ever less often."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 4.0
"""Seconds before the first line."""
Tell = Callable[[float], None]
"""Called with the fraction of the work that is done, 0..1."""


@contextmanager
def progress(what: str, expected: float = 0.0, *, done: Callable[[], float] | None = None,
             every: float = EVERY) -> Iterator[Tell]:
    """Print lines on standard error until the block ends, at first every few seconds, later ever less often.

    The first line comes after `every` seconds. The wait for the next one is then a fifth of the time spent, but at
    least `every`. A shorter block prints nothing.

    The block gets a function to report the fraction that is done.

    what: the work, for example "loading the board".
    expected: seconds that the work is expected to take, used while no fraction is known.
    done: returns the fraction that is done, in place of reports from the block. Another thread calls it.
    every: seconds before the first line.
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
        """The work, its time so far, and the estimate of the time left."""
        spent = self.spent(now)
        text = f"{self._what}: {spent:.0f} s"
        if self._done > 0:
            return f"{text}, {self._done:.0%}, about {spent / self._done - spent:.0f} s left"
        if not self._expected:
            return text
        left = self._expected - spent
        return f"{text} of about {self._expected:.0f} s" + ("" if left > 0 else ", longer than expected")
