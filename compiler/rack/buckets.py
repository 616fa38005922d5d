"""A token's program on all chips of a rack, for each context bucket."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from arch import queue_store, row
from arch.rack import RackConfig
from base.errors import TspError
from compiler.ir import Block
from compiler.lower.exchange import Exchange
from compiler.lower.stages import lower_stage
from compiler.lower.token import lower_token
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import Placement
from compiler.schedule import scheduler
from compiler.schedule.assemble import Code, assemble
from compiler.schedule.buckets import Likely, borders_of

from .merge import merged

EFFORT = 80_000
MIXES = tuple(n / 16 for n in range(16))
"""Of the scheduler: more first priorities than for one chip. They save up to 1 % of the cycles of stories260K."""
Blocks = list[list[Block]]
"""By chip, the blocks of a token."""


@dataclass(frozen=True, kw_only=True)
class Placements:
    """The chips of a rack and what each of them holds."""

    rack: RackConfig
    chips: Sequence[Placement]

    @property
    def chunks(self) -> int:
        """Vectors of positions."""
        return self.chips[0].geometry.chunks

    def lower(self, valid: int, chunks: int) -> Blocks:
        """The blocks of a token, by chip, see `compiler.lower.builder.Builder`."""
        return [(lower_stage if placement.geometry.stage else lower_token)(
            placement, chunks, valid, Exchange(self.rack, chip)) for chip, placement in enumerate(self.chips)]


def build_buckets(placements: Placements, count: int | None = None) -> list[list[Code]]:
    """By bucket and chip, the programs of `count` buckets. By default, as many as all chips hold.

    Raises TspError that names the queue if `count` buckets, or by default a single one, do not fit.
    """
    rack, chunks = placements.rack, placements.chunks
    lowered = functools.cache(placements.lower)
    ready = functools.cache(lambda valid, size: build(rack, lowered(valid, size), size))

    def built(number: int) -> list[list[Code]]:
        return [ready(*border) for border in borders_of(chunks, number)]

    most = min(chunks, *(config.buckets for config in rack.chips))
    if count is not None:
        if not 1 <= count <= most:
            raise TspError(f"buckets must be in 1..{most}, not {count}")
        _refuse(_overflow(rack, built(count)), "fewer buckets, more or larger chips or a shorter --context")
        return built(count)
    hasty = check_queues(placements)
    likely = [Likely(config, _of_chip(lowered, chip), hasty[chip]) for chip, config in enumerate(rack.chips)]
    numbers = (n for n in range(most, 1, -1) if all(each.fits(borders_of(chunks, n)) for each in likely))
    return next((built(number) for number in numbers if not _overflow(rack, built(number))), built(1))


def _of_chip(lowered: Callable[[int, int], Blocks], chip: int) -> Callable[[int, int], list[Block]]:
    return lambda valid, chunks: lowered(valid, chunks)[chip]


def check_queues(placements: Placements) -> list[Code]:
    """The whole context as one bucket, by chip, scheduled without search. Raises TspError that names the queue if it
    does not fit."""
    hasty = build(placements.rack, placements.lower(0, placements.chunks), placements.chunks, effort=0)
    _refuse(_overflow(placements.rack, [hasty]), "more or larger chips")
    return hasty


def build(rack: RackConfig, blocks: Blocks, chunks: int, effort: int = EFFORT) -> list[Code]:
    """Schedule the blocks of all chips together, and assemble those of each.

    All chips begin a block in the same cycle, which is a multiple of a slot behind the first one's.
    """
    for config, own in zip(rack.chips, blocks, strict=True):
        check_lifetimes(config, own)
    slot = rack.chips[0].slot
    together = [scheduler.schedule_block(merged(each), effort, MIXES) for each in zip(*blocks, strict=True)]
    together = [replace(schedule, length=schedule.length + -schedule.length % slot) for schedule in together]
    together = scheduler.overlap(together, slot)
    codes = []
    for chip, (config, own) in enumerate(zip(rack.chips, blocks, strict=True)):
        schedules = [replace(schedule, block=block, placed=tuple(p for p in schedule.placed if p.burst.chip == chip))
                     for schedule, block in zip(together, own, strict=True)]
        codes.append(assemble(config, schedules, chunks))
    return codes


def _overflow(rack: RackConfig, built: list[list[Code]]) -> str:
    """What does not fit the queues of some chip; "" if all fits."""
    for chip, config in enumerate(rack.chips):
        words: dict[str, Iterable[int]] = {
            queue.name: [word for codes in built for word in codes[chip].words[queue.name]]
            for queue in row.queues(config)}
        if found := queue_store.overflow(config, words):
            return f"chip {chip}: {found}"
    return ""


def _refuse(overflow: str, remedy: str) -> None:
    if overflow:
        raise TspError(f"{overflow}: use {remedy}")
