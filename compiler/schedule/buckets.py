"""A token's program for each context bucket. A chip gets as many buckets as its queues hold."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from arch import queue_store, row
from arch.config import ChipConfig
from arch.vectors import ceil_div
from base.errors import TspError
from compiler.ir import Block
from compiler.lower.together import lower_together
from compiler.lower.token import lower_token
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import Placement

from . import scheduler
from .assemble import Code, assemble

SHORT = 64
"""Most vectors of positions of a context whose buckets are evenly spaced."""
WIDENING = 1.6
"""Exponent of a longer context's borders: border i of n is at chunks * (i / n) ** WIDENING."""
TOLERANCE = 1.02
"""Ratio of predicted instructions to a queue's depth beyond which buckets are not scheduled."""
EFFORT_TOGETHER = 150_000
"""Of the scheduler, for several sequences in one program: it saves another percent of the cycles of stories260K."""
T = TypeVar("T")
Borders = list[tuple[int, int]]
"""(first chunk, end) of each bucket."""


def build_buckets(placement: Placement, count: int | None = None) -> list[Code]:
    """The programs of `count` buckets. By default there are as many buckets as the table and the queues hold.

    Raises TspError that names the queue if `count` buckets, or by default a single one, do not fit.
    """
    config, chunks = placement.geometry.config, placement.geometry.chunks
    effort = scheduler.EFFORT if placement.geometry.together == 1 else EFFORT_TOGETHER
    lowered = functools.cache(functools.partial(lower, placement))
    return choose(
        chunks, min(config.buckets, chunks), count,
        build=lambda valid, size: build(config, lowered(valid, size), size, effort),
        overflow=lambda built: overflow(config, built),
        likely=lambda: Likely(config, lowered, check_queues(placement)).fits,
        larger="a larger config",
    )


def choose(chunks: int, most: int, count: int | None, *, build: Callable[[int, int], T],
           overflow: Callable[[list[T]], str], likely: Callable[[], Callable[[Borders], bool]],
           larger: str) -> list[T]:
    """The programs of `count` buckets of `chunks` vectors. By default there are as many as fit, at most `most`.

    build: the program of a bucket, by its borders. overflow: what does not fit the queues; "" if all fits. likely:
    makes a prediction of that from borders. It raises TspError if a single bucket does not fit. larger: what would have
    larger queues, for messages.

    Raises TspError.
    """
    ready = functools.cache(build)

    def built(number: int) -> list[T]:
        return [ready(*border) for border in borders_of(chunks, number)]

    if count is not None:
        if not 1 <= count <= most:
            raise TspError(f"buckets must be in 1..{most}, not {count}")
        refuse(overflow(built(count)), f"fewer buckets, {larger} or a shorter --context")
        return built(count)
    fits = likely()
    numbers = (number for number in range(most, 1, -1) if fits(borders_of(chunks, number)))
    return next((built(number) for number in numbers if not overflow(built(number))), built(1))


def lower(placement: Placement, valid: int, chunks: int) -> list[Block]:
    """The blocks of a token, or of a period of several sequences. valid: behind which vector of positions the bucket
    begins."""
    if placement.geometry.together > 1:
        return lower_together(placement, chunks)
    return lower_token(placement, chunks, valid)


def check_queues(placement: Placement) -> Code:
    """The whole context as one bucket, scheduled without search. Raises TspError that names the queue if it does not
    fit."""
    config, chunks = placement.geometry.config, placement.geometry.chunks
    hasty = build(config, lower(placement, 0, chunks), chunks, effort=0)
    refuse(overflow(config, [hasty]), "a larger config")
    return hasty


def borders_of(chunks: int, number: int) -> Borders:
    """The borders of `number` buckets.

    A short context has evenly spaced buckets. In a long context later buckets are wider, because its first positions
    are used more often than its last ones.
    """
    if chunks <= SHORT:
        return list(itertools.pairwise(ceil_div(chunks * i, number) for i in range(number + 1)))
    return list(itertools.pairwise(round(chunks * (i / number) ** WIDENING) for i in range(number + 1)))


class Likely:
    """Predicts whether buckets fit the queues, so that few are scheduled in vain.

    A queue's instructions are its bursts, which are known without scheduling, and a few that only wait. The prediction
    takes the number of the latter from `full`, the program of the whole context.
    """

    def __init__(self, config: ChipConfig, lowered: Callable[[int, int], list[Block]], full: Code) -> None:
        self._config = config
        self._bursts = functools.cache(lambda valid, chunks: _bursts(lowered(valid, chunks)))
        bursts = self._bursts(0, full.bucket.chunks)
        self._rest = Counter({name: len(words) - bursts[name] for name, words in full.words.items()})

    def fits(self, borders: Borders) -> bool:
        """Whether buckets with these borders should fit. It counts the largest first, so few are lowered in vain."""
        words = Counter[str]()
        for border in reversed(borders):
            words += self._bursts(*border) + self._rest
            if any(words[queue.name] > row.queue_depth(self._config, queue) * TOLERANCE
                   for queue in row.queues(self._config)):
                return False
        return True


def _bursts(blocks: list[Block]) -> Counter[str]:
    """Instructions by queue, without those that only wait."""
    return Counter(b.queue.name for block in blocks for cluster in block.clusters for b in cluster.bursts)


def build(config: ChipConfig, blocks: Sequence[Block], chunks: int, effort: int = scheduler.EFFORT) -> Code:
    """Schedule and assemble the blocks of a bucket that ends at `chunks` vectors of positions."""
    check_lifetimes(config, blocks)

    def scheduled(block: Block, following: scheduler.Schedule | None) -> scheduler.Schedule:
        return scheduler.schedule_block(block, effort, following=following)

    return assemble(config, scheduler.overlap(scheduler.schedule_blocks(blocks, scheduled)), chunks)


def overflow(config: ChipConfig, built: list[Code]) -> str:
    """What does not fit the queues; "" if all fits."""
    return queue_store.overflow(config, {queue.name: [word for code in built for word in code.words[queue.name]]
                                         for queue in row.queues(config)})


def refuse(overflow: str, remedy: str) -> None:
    """Raises TspError if something overflows."""
    if overflow:
        raise TspError(f"{overflow}: use {remedy}")
