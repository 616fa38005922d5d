"""A token's program on all chips of a rack, for each context bucket."""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from arch import queue_store, row
from arch.config import ChipConfig
from arch.rack import RackConfig
from base.errors import TspError
from compiler.ir import Block
from compiler.lower.exchange import Exchange
from compiler.lower.stages import lower_in_flight, lower_stage
from compiler.lower.token import lower_token
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import Placement
from compiler.schedule import scheduler
from compiler.schedule.assemble import Code, assemble
from compiler.schedule.buckets import Borders, Likely, choose, refuse

from .merge import merged, starts_of

EFFORT = 80_000
MIXES = tuple(n / 16 for n in range(16))
"""Of the scheduler: more first priorities than for one chip. They save up to 1 % of the cycles of stories260K."""
LARGER = "more or larger chips"
"""What has larger queues, for messages."""
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

    @property
    def sequences(self) -> int:
        """Independent sequences in flight."""
        return self.chips[0].geometry.sequences

    def valid(self, chunks: int) -> int:
        """How many of the first `chunks` vectors of positions, which a bucket begins behind, are known to be full:
        none where sequences have positions of their own."""
        return chunks if self.sequences == 1 else 0

    def lower(self, valid: int, chunks: int) -> Blocks:
        """The blocks of a token, by chip, see `compiler.lower.builder.Builder`. valid: behind which the bucket
        begins."""
        chips = [(placement, Exchange(self.rack, chip)) for chip, placement in enumerate(self.chips)]
        if self.sequences > 1:
            return [lower_in_flight(placement, chunks, exchange) for placement, exchange in chips]
        return [(lower_stage if placement.geometry.stage else lower_token)(placement, chunks, valid, exchange)
                for placement, exchange in chips]


def build_buckets(placements: Placements, count: int | None = None) -> list[list[Code]]:
    """By bucket and chip, the programs of `count` buckets. By default, as many as all chips hold.

    Raises TspError that names the queue if `count` buckets, or by default a single one, do not fit.
    """
    rack, chunks = placements.rack, placements.chunks
    lowered = functools.cache(placements.lower)

    def likely() -> Callable[[Borders], bool]:
        hasty = check_queues(placements)
        chips = [Likely(config, _of_chip(lowered, chip), hasty[chip]) for chip, config in enumerate(rack.chips)]
        return functools.partial(_may_fit, chips)

    return choose(
        chunks, min(chunks, *(config.buckets for config in rack.chips)), count,
        build=lambda valid, size: build(rack, lowered(valid, size), size, apart=placements.sequences > 1),
        overflow=lambda built: _overflow(rack, built), likely=likely, larger=LARGER,
    )


def _may_fit(likely: Sequence[Likely], borders: Borders) -> bool:
    """Whether buckets with these borders should fit all chips. A bucket between others may need more registers than
    that of the whole context, which fits: it has its mask in registers."""
    try:
        return all(each.fits(borders) for each in likely)
    except TspError:
        return False


def _of_chip(lowered: Callable[[int, int], Blocks], chip: int) -> Callable[[int, int], list[Block]]:
    return lambda valid, chunks: lowered(valid, chunks)[chip]


def check_queues(placements: Placements) -> list[Code]:
    """The whole context as one bucket, by chip, scheduled without search. Raises TspError that names the queue if it
    does not fit."""
    hasty = build(placements.rack, placements.lower(0, placements.chunks), placements.chunks, effort=0,
                  apart=placements.sequences > 1)
    refuse(_overflow(placements.rack, [hasty]), LARGER)
    return hasty


def build(rack: RackConfig, blocks: Blocks, chunks: int, effort: int = EFFORT, *, apart: bool = False) -> list[Code]:
    """Schedule the blocks of all chips together, and assemble those of each.

    All chips begin a block in the same cycle, which is a multiple of a slot behind the first one's.

    apart: only the first block is scheduled for all chips together, for there are no transfers behind it.
    """
    for config, own in zip(rack.chips, blocks, strict=True):
        check_lifetimes(config, own)
    return (_apart if apart else _together)(rack, blocks, chunks, effort)


def _together(rack: RackConfig, blocks: Blocks, chunks: int, effort: int) -> list[Code]:
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


def _apart(rack: RackConfig, blocks: Blocks, chunks: int, effort: int) -> list[Code]:
    """The period is that of the slowest chip."""
    firsts = [own[0] for own in blocks]
    first = scheduler.schedule_block(merged(firsts), effort // 2, MIXES)
    known: dict[Hashable, scheduler.Schedule] = {}
    codes = []
    for config, own, starts in zip(rack.chips, blocks, starts_of(firsts, first.starts), strict=True):
        schedules = [scheduler.schedule_at(own[0], starts, first.length)]
        for block in own[1:]:
            if (key := _alike(config, block)) not in known:
                known[key] = scheduler.schedule_block(block, effort // 2, MIXES)
            found = known[key]
            schedules.append(scheduler.schedule_at(block, found.starts, found.length))
        codes.append(assemble(config, scheduler.overlap(schedules), chunks))
    period = max(code.bucket.period for code in codes)
    return [replace(code, bucket=replace(code.bucket, period=period)) for code in codes]


def _alike(config: ChipConfig, block: Block) -> Hashable:
    """What blocks have in common that have the same schedule."""
    return config, block.turns, tuple(
        (tuple((b.queue, b.op, b.at, b.count, tuple(sorted(b.fields.items()))) for b in cluster.bursts),
         tuple((read.cell, read.first, read.last) for read in cluster.reads),
         tuple((write.cell, write.first, write.last) for write in cluster.writes)) for cluster in block.clusters)


def _overflow(rack: RackConfig, built: list[list[Code]]) -> str:
    """What does not fit the queues of some chip; "" if all fits."""
    for chip, config in enumerate(rack.chips):
        words: dict[str, Iterable[int]] = {
            queue.name: [word for codes in built for word in codes[chip].words[queue.name]]
            for queue in row.queues(config)}
        if found := queue_store.overflow(config, words):
            return f"chip {chip}: {found}"
    return ""
