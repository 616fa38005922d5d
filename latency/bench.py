"""Many requests, some at once, and their figures."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from base.errors import TspError

from . import summary
from .api import Api, Question, Refused
from .sample import Sample


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A finished run. seconds: of all requests together; failed: number of refused requests by what was said."""

    url: str
    question: Question
    concurrency: int
    seconds: float
    samples: tuple[Sample, ...]
    failed: dict[str, int]

    def as_json(self) -> dict[str, object]:
        """What `tsp bench-api --json` prints."""
        samples = self.samples
        told = summary.cycles(samples)
        return {
            "url": self.url, "model": self.question.model, "endpoint": self.question.path,
            "prompt": self.question.prompt, "max_tokens": self.question.tokens, "concurrency": self.concurrency,
            "requests": len(samples) + sum(self.failed.values()), "completed": len(samples), "failed": self.failed,
            "seconds": self.seconds, "tokens": sum(sample.tokens for sample in samples),
            "throughput_tps": sum(sample.tokens for sample in samples) / self.seconds,
            "cached_tokens": [sample.cached for sample in samples],
            "percentile_method": summary.METHOD, **summary.benchmark(samples), "wall": summary.table(samples),
            "on_chip": summary.table(samples, on_chip=True) if told else None, "cycles": told,
        }


async def run(api: Api, question: Question, *, requests: int, concurrency: int,
              progress: Callable[[int], None] = lambda _: None) -> Bench:
    """Ask `requests` times, `concurrency` at once. progress: called with the number of answers so far.

    A refused request counts, and the others go on. Raises TspError if the server is gone or refuses all.
    """
    samples: list[Sample] = []
    failed = Counter[str]()
    waiting = asyncio.Semaphore(concurrency)

    async def one() -> None:
        async with waiting:
            try:
                samples.append(await api.ask(question))
            except Refused as refused:
                failed[str(refused)] += 1
        progress(len(samples) + failed.total())

    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(requests):
                group.create_task(one())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    seconds = time.perf_counter() - began
    if not samples:
        raise TspError(f"all {requests} requests were refused: {failed.most_common(1)[0][0]}")
    return Bench(url=api.url, question=question, concurrency=concurrency, seconds=seconds, samples=tuple(samples),
                 failed=dict(failed))
