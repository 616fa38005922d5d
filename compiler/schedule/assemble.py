"""From placed bursts to the words of the instruction queues, with every delay counted out."""

import itertools
from dataclasses import dataclass

from arch import isa, row
from arch.config import ChipConfig
from arch.isa import Instr, Op
from arch.queue_store import store_of

from .scheduler import FIRST, Segment


@dataclass(frozen=True)
class Bucket:
    """A token's program for one context bucket.

    words: instructions of every queue, from its start PC on. period: cycles from start pulse to start pulse.
    limit: first position that the bucket does not serve. starts: first cycle of each segment behind the first dispatch.
    """

    limit: int
    period: int
    words: dict[str, list[int]]
    starts: tuple[int, ...]


def assemble(config: ChipConfig, segments: list[Segment], limit: int) -> Bucket:
    """Instruction words of all queues for the segments of one bucket."""
    starts, now = [], 0
    for segment in segments:
        starts.append(now)
        now += segment.length * segment.passes
    words = {queue.name: _queue(queue, segments, starts, store_of(config, queue).max_delay)
             for queue in row.queues(config)}
    return Bucket(limit, isa.START + now + FIRST + 1, words, tuple(starts))


def _queue(queue: row.Queue, segments: list[Segment], starts: list[int], longest: int) -> list[int]:
    """Words of one queue: (dispatch cycle, operation) events, then delays of at most `longest` filled in."""
    events: list[tuple[int, Op, dict]] = [(0, Op.NOP, {})]
    for segment, start in zip(segments, starts, strict=True):
        own = sorted((p.dispatch, p.burst.op, p.fields) for p in segment.placed if p.burst.queue == queue.name)
        if not own:
            continue
        body = [(start + at, op, fields) for at, op, fields in own]
        if segment.passes > 1:
            end, stride = start + segment.length, segment.strides.get(queue.name[4:], 0)
            body = [(start - isa.MIN_DELAY, Op.LOOP, {"count": segment.passes, "stride": stride}), (start, Op.NOP, {}),
                    *body, (end - isa.MIN_DELAY_JUMP, Op.END_LOOP, {}),
                    (end + segment.length * (segment.passes - 1), Op.NOP, {})]
        events += body
    end = starts[-1] + segments[-1].length * segments[-1].passes
    last = events[-1][0]
    events.append((max(last + isa.MIN_DELAY, min(end, last + longest)), Op.SYNC, {}))
    return _with_delays(events, longest)


def _with_delays(events: list[tuple[int, Op, dict]], longest: int) -> list[int]:
    """Words; END_LOOP's delay is the jump's, whatever time its loop takes in all."""
    words = []
    for (at, op, fields), (following, *_) in itertools.pairwise(events):
        gap = isa.MIN_DELAY_JUMP if op is Op.END_LOOP else following - at
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
    """The longest delay that leaves nothing, or at least MIN_DELAY."""
    if gap <= longest:
        return gap
    return longest if gap - longest >= isa.MIN_DELAY else longest - isa.MIN_DELAY
