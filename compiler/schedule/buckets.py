"""A token's program for each context bucket, as many buckets as the chip's queues hold."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from arch import queue_store, row
from arch.config import ChipConfig
from arch.lanes import ceil_div
from base.errors import TspError
from compiler import lower
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import Placement

from . import assemble, scheduler

TOLERANCE = 1.02
"""By how much foretold instructions may exceed a queue before the buckets are not even tried."""


@dataclass(frozen=True)
class Built:
    """A bucket's program: attention over `chunks` vectors of positions."""

    chunks: int
    segments: tuple[scheduler.Segment, ...]
    code: assemble.Bucket


def build_buckets(placement: Placement, count: int | None = None) -> list[Built]:
    """Buckets of evenly spaced chunk counts: `count`, or as many as the table and the queues hold.

    Raises TspError naming the queue if even one bucket does not fit.
    """
    config, chunks = placement.geometry.config, placement.geometry.chunks
    lowered = functools.cache(lambda valid, size: lower.Lower(placement, size, valid).run())
    ready = functools.cache(lambda valid, size: build(config, lowered(valid, size), size))

    def built(number: int) -> list[Built]:
        return [ready(*border) for border in _even(chunks, number)]

    most = min(config.buckets, chunks)
    if count is not None:
        if not 1 <= count <= most:
            raise TspError(f"buckets must be in 1..{most}, not {count}")
        _refuse(_overflow(config, built(count)))
        return built(count)
    hasty = check_queues(placement)
    likely = _Likely(config, lowered, hasty)
    numbers = (number for number in range(most, 1, -1) if likely.fits(_even(chunks, number)))
    return next((built(number) for number in numbers if not _overflow(config, built(number))), built(1))


def check_queues(placement: Placement) -> Built:
    """The whole context as one bucket, scheduled in haste. Raises TspError naming the queue that does not hold it."""
    config, chunks = placement.geometry.config, placement.geometry.chunks
    hasty = build(config, lower.Lower(placement, chunks).run(), chunks, effort=0)
    _refuse(_overflow(config, [hasty]))
    return hasty


def _even(chunks: int, number: int) -> list[tuple[int, int]]:
    """First chunk and end of `number` buckets, evenly spaced."""
    return list(itertools.pairwise(ceil_div(chunks * i, number) for i in range(number + 1)))


class _Likely:
    """Foretells whether buckets fit the queues, so that few are scheduled in vain.

    A queue's instructions are its bursts, known without scheduling, and a few that only wait: as many as in `full`.
    """

    def __init__(self, config: ChipConfig, lowered: Callable[[int, int], list[scheduler.Segment]], full: Built) -> None:
        self._config = config
        self._bursts = functools.cache(lambda valid, chunks: _bursts(lowered(valid, chunks)))
        bursts = self._bursts(0, full.chunks)
        self._rest = Counter({name: len(words) - bursts[name] for name, words in full.code.words.items()})

    def fits(self, borders: list[tuple[int, int]]) -> bool:
        """Whether buckets of these borders should fit. Begins with the largest, for none is lowered in vain."""
        words = Counter[str]()
        for border in reversed(borders):
            words += self._bursts(*border) + self._rest
            if any(words[queue.name] > row.queue_depth(self._config, queue) * TOLERANCE
                   for queue in row.queues(self._config)):
                return False
        return True


def _bursts(segments: list[scheduler.Segment]) -> Counter[str]:
    """Instructions by queue, without those that wait."""
    return Counter(b.queue for segment in segments for cluster in segment.clusters for b in cluster.bursts)


def build(config: ChipConfig, segments: list[scheduler.Segment], chunks: int, effort: int = scheduler.EFFORT) -> Built:
    """Schedule and assemble the segments of a bucket that ends at `chunks` vectors of positions."""
    check_lifetimes(config, segments)
    for segment in segments:
        scheduler.Scheduler().run(segment, effort)
    scheduler.overlap(segments)
    limit = chunks * config.lanes
    return Built(chunks, tuple(segments), assemble.assemble(config, segments, limit))


def _overflow(config: ChipConfig, built: list[Built]) -> str:
    """What does not fit the queues; nothing if all does."""
    return queue_store.overflow(config, {queue.name: [word for b in built for word in b.code.words[queue.name]]
                                   for queue in row.queues(config)})


def _refuse(overflow: str) -> None:
    if overflow:
        raise TspError(f"{overflow}: use a larger config or a shorter --context")
