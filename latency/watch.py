"""A monitor: one request after another, the figures of the last ones, and an alarm when they spread too much."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from . import summary
from .api import Api, Question
from .sample import Sample


@dataclass(frozen=True, kw_only=True)
class State:
    """After a request: how many there were, the last one, and the window's figures; cv: in percent, of the metric that
    is watched, None before the window is full. alarm: why, or "".
    """

    requests: int
    last: Sample
    monitor: summary.Figures
    cv: float | None
    chip_cv: float | None
    alarm: str

    def as_json(self) -> dict[str, object]:
        """What `tsp watch --json` prints a line of."""
        return {"requests": self.requests, "ttft_ms": 1e3 * self.last.ttft, "e2el_ms": 1e3 * self.last.e2el,
                "tps": self.last.tokens_per_second, **self.monitor, "cv_percent": self.cv,
                "on_chip_cv_percent": self.chip_cv, "alarm": self.alarm or None}


async def watch(api: Api, question: Question, *, window: int, metric: str, limit: float, interval: float,
                requests: int | None) -> AsyncIterator[State]:
    """A state after each request. It is an alarm that the CV of the last `window` requests is above `limit` percent, or
    that the chip took other cycles than predicted. requests: at most, None for no end. Raises as `Api.ask` does."""
    held: deque[Sample] = deque(maxlen=window)
    count = 0
    while requests is None or count < requests:
        if count:
            await asyncio.sleep(interval)
        held.append(await api.ask(question))
        count += 1
        yield _state(count, list(held), window, metric, limit)


def _state(count: int, held: list[Sample], window: int, metric: str, limit: float) -> State:
    last, full = held[-1], len(held) == window
    wall, chip = (summary.summarise(summary.values_of(held, metric, on_chip=on_chip))["cv_percent"]
                  for on_chip in (False, True))
    cv = wall if full else None
    alarm = ""
    if last.chip and not last.chip.kept:
        alarm = f"the chip took {last.chip.measured} cycles, {last.chip.predicted} were predicted"
    elif cv is not None and cv > limit:
        alarm = f"CV of {metric} is {cv:.1f} %, more than {limit:g} %, over the last {window} requests"
    return State(requests=count, last=last, monitor=summary.monitor(held), cv=cv, chip_cv=chip if full else None,
                 alarm=alarm)
