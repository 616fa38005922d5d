"""From placed bursts to the words of the instruction queues, with their delays."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from arch import isa, row
from arch.config import ChipConfig
from arch.isa import AnyOp, Instr, Op
from arch.latencies import latencies
from arch.queue_store import store_of
from program.program import Bucket, Segment

from .scheduler import FIRST, Schedule


@dataclass(frozen=True, kw_only=True)
class Code:
    """A token's program for one context bucket.

    bucket: the bucket's figures.
    schedules: the scheduled block of each segment.
    words: instruction words by queue name, from the bucket's start PC on.
    """

    bucket: Bucket
    schedules: tuple[Schedule, ...]
    words: dict[str, list[int]]


def assemble(config: ChipConfig, schedules: Sequence[Schedule], chunks: int) -> Code:
    """Instruction words of all queues for the blocks of a bucket that ends at `chunks` vectors of positions."""
    starts = [0, *itertools.accumulate(schedule.length * schedule.block.turns for schedule in schedules)]
    first, jump = latencies(config).start, latencies(config).min_delay_jump
    words = {queue.name: _queue(queue, schedules, starts, store_of(config, queue).max_delay, jump)
             for queue in row.queues(config)}
    segments = (Segment(s.block.name, first + start, s.length, s.block.turns,
                        s.block.weight_quads * config.quad_bytes)
                for s, start in zip(schedules, starts, strict=False))
    period = first + starts[-1] + FIRST + 1
    period += -period % (config.slot if any(config.ports) else 1)
    bucket = Bucket(chunks * config.lanes, period, chunks, tuple(segments))
    return Code(bucket=bucket, schedules=tuple(schedules), words=words)


def _queue(queue: row.Queue, schedules: Sequence[Schedule], starts: Sequence[int], longest: int,
           jump: int) -> list[int]:
    """Words of one queue: events (dispatch cycle, operation, fields), then their delays.

    starts: first cycle of each block, and the end of the last one, in cycles after the first dispatch.
    longest: the queue's longest delay.
    jump: the delay of END_LOOP.
    """
    events: list[tuple[int, AnyOp, dict]] = [(0, Op.NOP, {})]
    for schedule, start in zip(schedules, starts, strict=False):
        own: list[tuple[int, AnyOp, dict]] = sorted((p.dispatch, p.burst.op, p.fields) for p in schedule.placed
                                                    if p.burst.queue == queue)
        if not own:
            continue
        body, turns = [(start + at, op, fields) for at, op, fields in own], schedule.block.turns
        if turns > 1:
            end, stride = start + schedule.length, schedule.block.strides.get(queue.slice_name, 0)
            body = [(start - isa.MIN_DELAY, Op.LOOP, {"count": turns, "stride": stride}), (start, Op.NOP, {}),
                    *body, (end - jump, Op.END_LOOP, {}),
                    (end + schedule.length * (turns - 1), Op.NOP, {})]
        events += body
    last = events[-1][0]
    events.append((max(last + isa.MIN_DELAY, min(starts[-1], last + longest)), Op.SYNC, {}))
    return _with_delays(events, longest, jump)


def _with_delays(events: list[tuple[int, AnyOp, dict]], longest: int, jump: int) -> list[int]:
    """The words of events. END_LOOP always has the delay of the jump, however long its loop runs."""
    words = []
    for (at, op, fields), (following, *_) in itertools.pairwise(events):
        gap = jump if op is Op.END_LOOP else following - at
        delay = _first_delay(gap, longest)
        words.append(isa.encode(Instr(op, delay, fields)))
        gap -= delay
        while gap:
            delay = _first_delay(gap, longest)
            words.append(isa.encode(Instr(Op.NOP, delay)))
            gap -= delay
    words.append(isa.encode(Instr(events[-1][1], isa.MIN_DELAY, events[-1][2])))
    return words


def _first_delay(gap: int, longest: int) -> int:
    """The longest delay that leaves either no gap or one of at least MIN_DELAY."""
    if gap <= longest:
        return gap
    return longest if gap - longest >= isa.MIN_DELAY else longest - isa.MIN_DELAY
