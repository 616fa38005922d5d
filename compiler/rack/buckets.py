"""A token's program on all chips of a rack, for each context bucket."""

import functools
import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from arch import queue_store, row
from arch.rack import RackConfig
from base.errors import TspError
from compiler.ir import Block
from compiler.lower.exchange import exchanges
from compiler.lower.stages import lower_in_flight, lower_stage
from compiler.lower.token import lower_token
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import Placement
from compiler.schedule import scheduler
from compiler.schedule.assemble import Code, assemble
from compiler.schedule.buckets import Borders, Likely, choose, refuse

from .merge import merged, part_of
from .plan import Plan

EFFORT, EFFORT_OF_FEW = 80_000, 200_000
"""Of the scheduler, for all chips together; and for up to FEW chips, whose blocks are shorter."""
FEW = 2
MIXES = tuple(n / 16 for n in range(16))
"""Of the scheduler: more first priorities than for one chip. They save up to 1 % of the cycles of stories260K."""
LARGER = "more or larger chips"
"""What has larger queues, for messages."""
Blocks = list[list[Block]]
"""By chip, the blocks of a token."""
Known = dict[Hashable, tuple[Sequence[int], int]]
"""Of blocks that are alike: the starts of their clusters, and their length."""


@dataclass(frozen=True, kw_only=True)
class Placements:
    """The chips of a rack and what each of them holds. plan: how the model is divided among them."""

    rack: RackConfig
    plan: Plan
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
        chips = zip(self.chips, exchanges(self.rack, self.plan.groups), strict=True)
        if self.plan.pipeline == 1:
            return [lower_token(placement, chunks, valid, exchange) for placement, exchange in chips]
        if self.sequences > 1:
            return [lower_in_flight(placement, chunks, exchange) for placement, exchange in chips]
        turns = self.chips[-1].vocabulary.turns
        return [lower_stage(placement, chunks, valid, exchange, turns) for placement, exchange in chips]


def build_buckets(placements: Placements, count: int | None = None) -> list[list[Code]]:
    """By bucket and chip, the programs of `count` buckets. By default, as many as all chips hold.

    Raises TspError that names the queue if `count` buckets, or by default a single one, do not fit.
    """
    rack, chunks = placements.rack, placements.chunks
    lowered, known = functools.cache(placements.lower), Known()
    effort = EFFORT_OF_FEW if len(rack.chips) <= FEW else EFFORT

    def likely() -> Callable[[Borders], bool]:
        hasty = check_queues(placements)
        chips = [Likely(config, _of_chip(lowered, chip), hasty[chip]) for chip, config in enumerate(rack.chips)]
        return functools.partial(_may_fit, chips)

    return choose(
        chunks, min(chunks, *(config.buckets for config in rack.chips)), count,
        build=lambda valid, size: build(placements, lowered(valid, size), size, effort, known),
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
    hasty = build(placements, placements.lower(0, placements.chunks), placements.chunks, effort=0)
    refuse(_overflow(placements.rack, [hasty]), LARGER)
    return hasty


def build(placements: Placements, blocks: Blocks, chunks: int, effort: int = EFFORT, known: Known | None = None,
          ) -> list[Code]:
    """Schedule the blocks of all chips together, and assemble those of each.

    All chips begin a block in the same cycle, which is a multiple of a slot behind the first one's. With sequences in
    flight, only the first block is one of all chips, for there are no transfers between groups behind it.

    known: schedules of earlier calls with the same effort; those of this call are added.
    """
    for config, own in zip(placements.rack.chips, blocks, strict=True):
        check_lifetimes(config, own)
    known = {} if known is None else known
    return (_together if placements.sequences == 1 else _apart)(placements, blocks, chunks, effort, known)


def _together(placements: Placements, blocks: Blocks, chunks: int, effort: int, known: Known) -> list[Code]:
    slot = placements.rack.chips[0].slot

    def scheduled(block: Block, following: scheduler.Schedule | None) -> scheduler.Schedule:
        return _whole_slots(_scheduled(block, effort, known, following), slot)

    together = scheduler.schedule_blocks([merged(dict(enumerate(each))) for each in zip(*blocks, strict=True)],
                                         scheduled)
    return _assembled(placements, range(len(blocks)), blocks, scheduler.overlap(together, slot), chunks)


def _apart(placements: Placements, blocks: Blocks, chunks: int, effort: int, known: Known) -> list[Code]:
    """The period is that of the slowest group."""
    slot = placements.rack.chips[0].slot if placements.plan.tensor > 1 else 1
    firsts = {chip: own[0] for chip, own in enumerate(blocks)}
    first = _scheduled(merged(firsts), effort // 2, known)
    codes = list[Code]()
    for group in placements.plan.groups:
        block, starts = part_of(firsts, first.starts, group)
        schedules = [_whole_slots(scheduler.schedule_at(block, starts, first.length), slot)]
        for each in zip(*(blocks[chip][1:] for chip in group), strict=True):
            block = merged(dict(zip(group, each, strict=True)))
            schedules.append(_whole_slots(_scheduled(block, effort // 2, known), slot))
        codes += _assembled(placements, group, blocks, scheduler.overlap(schedules, slot), chunks)
    period = max(code.bucket.period for code in codes)
    return [replace(code, bucket=replace(code.bucket, period=period)) for code in codes]


def _assembled(placements: Placements, chips: range, blocks: Blocks, together: Sequence[scheduler.Schedule],
               chunks: int) -> list[Code]:
    """The programs of chips whose blocks are scheduled together."""
    codes = []
    for chip in chips:
        schedules = [replace(schedule, block=block, placed=tuple(p for p in schedule.placed if p.burst.chip == chip))
                     for schedule, block in zip(together, blocks[chip], strict=True)]
        codes.append(assemble(placements.rack.chips[chip], schedules, chunks))
    return codes


def _whole_slots(schedule: scheduler.Schedule, slot: int) -> scheduler.Schedule:
    return replace(schedule, length=schedule.length + -schedule.length % slot)


def _scheduled(block: Block, effort: int, known: Known, following: scheduler.Schedule | None = None,
               ) -> scheduler.Schedule:
    """`scheduler.schedule_block`, once for all blocks that are alike: those of groups whose layers are alike, and those
    of buckets that do not depend on the bucket."""
    key = _likeness(block)
    if following:
        key = key, _likeness(following.block), following.starts
    if key not in known:
        found = scheduler.schedule_block(block, effort, MIXES, following)
        known[key] = found.starts, found.length
        return found
    return scheduler.schedule_at(block, *known[key])


def _likeness(block: Block) -> Hashable:
    """What blocks have in common that have the same schedule: everything but the names of chips and cells, and what the
    instructions say."""
    chips, cells = dict[int, int](), dict[Hashable, int]()
    clusters = [
        (id(cluster.config),
         [(b.queue, b.op, b.engine, b.at, b.count, b.interval, b.taken, chips.setdefault(b.chip, len(chips)))
          for b in cluster.bursts],
         [(s.source, s.drive, s.count, s.interval, s.group, sorted((way.name, end) for way, end in s.reach.items()),
           chips.setdefault(s.chip, len(chips))) for s in cluster.streams],
         [[(cells.setdefault(each.cell, len(cells)), each.first, each.last) for each in accesses]
          for accesses in (cluster.reads, cluster.writes)]) for cluster in block.clusters]
    return hashlib.sha256(repr((block.turns > 1, clusters)).encode()).digest()


def _overflow(rack: RackConfig, built: list[list[Code]]) -> str:
    """What does not fit the queues of some chip; "" if all fits."""
    for chip, config in enumerate(rack.chips):
        words: dict[str, Iterable[int]] = {
            queue.name: [word for codes in built for word in codes[chip].words[queue.name]]
            for queue in row.queues(config)}
        if found := queue_store.overflow(config, words):
            return f"chip {chip}: {found}"
    return ""
