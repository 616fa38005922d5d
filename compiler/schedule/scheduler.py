"""A list scheduler over exact reservation tables. It is the only pass that knows time.

The scheduler places one cluster after the other. Each goes to the earliest cycle in which its cells are ready and
every queue, engine, port and stream slot that it needs is free. A cluster may fill a hole before clusters that were
placed earlier. A reservation table is one Python integer for each resource, with one bit for each cycle.

Program order defines the dependences (`_Graph`), but not the order of placement. That order is a priority. The first
priority weighs how much must follow a cluster against how early it may start. Each schedule then gives the priorities
of the next: its clusters are placed backward from the end, each as late as possible, and then forward in the order of
these starts. The result is as long or shorter ("justification" in project scheduling). The shortest schedule is kept,
and varied: its starts, each moved by a few random cycles, are priorities too. The random numbers are always the same.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from arch import isa, row
from arch.isa import LinkOp
from arch.latencies import latencies
from compiler.ir import Block, Burst, Cell, Cluster

from .placer import Graph, Placer
from .reservations import essential, mirrored, needs_of

FIRST = 1 + isa.MIN_DELAY
"""Earliest element of a block. In cycle 0 of a block each queue issues a NOP, to which a loop returns."""
EFFORT = 100_000
"""Clusters placed in the search for a short schedule of one block. Each schedule places all clusters of the block."""
MIXES = (0, 1 / 4, 1 / 2, 3 / 4)
"""First priorities: weight of a cluster's earliest start. The rest of the weight is on the work that must follow it."""
LAGS = (0, 1 / 8, 1 / 4, 1 / 2)
"""How much less urgent the second of two sequences is, in parts of the shortest time that a block can take: while one
keeps the matrix units busy, the other then keeps the VXM busy."""
PATIENCE = 2
"""Backward and forward placements without gain before the search leaves a schedule."""
SPREADS = (3, 8, 15, 30)
"""Standard deviations, in cycles, of the variations of a schedule."""
VARIATIONS = 80
"""Variations without gain before the search ends."""


@dataclass(frozen=True)
class Placed:
    """A burst with its cycle in its block and all its fields."""

    burst: Burst
    at: int
    fields: dict
    label: str

    @property
    def dispatch(self) -> int:
        """Cycle of dispatch."""
        return self.at - isa.ENGINE


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A block in time. Cycles count from the block's beginning.

    starts: first cycle of each cluster.
    placed: the bursts of the clusters.
    length: cycles from the beginning of a turn to the beginning of the next one, or of the next block.
    """

    block: Block
    starts: tuple[int, ...]
    placed: tuple[Placed, ...]
    length: int


def _jump(block: Block) -> int:
    """The delay of what ends a block: END_LOOP on the chips of its clusters, or the word before the next block."""
    if block.turns == 1:
        return isa.MIN_DELAY
    return max((latencies(cluster.config).min_delay_jump for cluster in block.clusters), default=isa.MIN_DELAY_JUMP)


def schedule_block(block: Block, effort: int = EFFORT, mixes: Sequence[float] = MIXES,
                   following: Schedule | None = None) -> Schedule:
    """Place the clusters of a block.

    effort: most clusters placed in the search for a short schedule.
    mixes: first priorities of the search, see `MIXES`.
    following: what comes behind the block, if that is known: the schedule is one that it may follow soon.
    """
    return _Scheduler(block, following and _Trace(following)).run(effort, mixes)


def schedule_blocks(blocks: Sequence[Block], scheduled: Callable[[Block, Schedule | None], Schedule]) -> list[Schedule]:
    """Schedules of blocks that follow each other, made from the last one to the first. scheduled: places the clusters
    of a block, and is told what follows it. For a loop that is nothing: more often its next turn does."""
    found: list[Schedule] = []
    for block in reversed(blocks):
        found.insert(0, scheduled(block, found[0] if found and block.turns == 1 else None))
    return found


def schedule_at(block: Block, starts: Sequence[int], length: int) -> Schedule:
    """The schedule of a block whose clusters start in known cycles."""
    placed = (Placed(burst, at + burst.at, _bind(burst), cluster.label)
              for cluster, at in zip(block.clusters, starts, strict=True) for burst in cluster.bursts)
    return Schedule(block=block, starts=tuple(starts), placed=tuple(placed), length=length)


class _Scheduler:
    """Searches for a short schedule of a block. following: the trace of what comes behind it, if it is known."""

    def __init__(self, block: Block, following: "_Trace | None" = None) -> None:
        self._block, clusters = block, block.clusters
        needs = essential([needs_of(cluster) for cluster in clusters])
        graph, latest = Graph(clusters), [_end(cluster) for cluster in clusters]
        self._ends = [following.least_before(cluster) + FIRST for cluster in clusters] if following else latest
        first = [FIRST - min(burst.at for burst in cluster.bursts) for cluster in clusters]
        slots = [_slot(cluster) for cluster in clusters]
        self._forward = Placer(graph, needs, first, slots)
        self._spare = max(map(int.__sub__, latest, self._ends), default=0)
        self._backward = Placer(graph.mirrored(), [mirrored(own) for own in needs],
                                [end + self._spare for end in self._ends],
                                [(every, -phase % every) for every, phase in slots])
        self._jump = _jump(block)
        self._sequences = [cluster.sequence for cluster in clusters]
        self._dispatched = [max(burst.at for burst in cluster.bursts) - isa.ENGINE for cluster in clusters]

    def run(self, effort: int, mixes: Sequence[float]) -> Schedule:
        """See `schedule_block`."""
        starts, left = self._shortest(effort // max(1, len(self._ends)), mixes)
        found, varied = (schedule_at(self._block, each, self._length(each))
                         for each in (starts, self._varied(starts, left)))
        return min(found, varied, key=_turn) if varied.length < found.length else found

    def _shortest(self, left: int, mixes: Sequence[float]) -> tuple[list[int], int]:
        """(starts of the clusters in the shortest schedule found, what is left of the placements)."""
        count = len(self._ends)
        lags = LAGS if any(self._sequences) else (0,)
        earliest, rest = self._forward.earliest(), self._backward.earliest()
        bound = max((a + b for a, b in zip(earliest, rest, strict=True)), default=FIRST) - FIRST - self._spare
        best = self._forward.place(range(count))
        for lag, share in itertools.product(lags, mixes):
            starts = self._forward.place([share * a - (1 - share) * b + lag * bound * sequence for a, b, sequence
                                          in zip(earliest, rest, self._sequences, strict=True)])
            least, patience, left = self._length(starts), PATIENCE, left - 1
            while True:
                best = min(best, starts, key=self._length)
                if self._length(best) <= bound or left <= 0:
                    return best, 0
                if not patience:
                    break
                starts, left = self._turned(starts), left - 2
                patience = PATIENCE if self._length(starts) < least else patience - 1
                least = min(least, self._length(starts))
        return best, left

    def _varied(self, best: list[int], left: int) -> list[int]:
        """The shortest schedule found among variations of one, with so many placements."""
        chance, patience = random.Random(len(best)), VARIATIONS
        while left >= 3 and patience:
            spread = chance.choice(SPREADS)
            starts = self._turned(self._forward.place([at + chance.gauss(0, spread) for at in best]))
            gain, left = self._length(best) - self._length(starts), left - 3
            patience = VARIATIONS if gain > 0 else patience - 1
            best = starts if gain >= 0 else best
        return best

    def _turned(self, starts: Sequence[int]) -> list[int]:
        """The schedule after one placement backward from its end and one forward."""
        late = self._backward.place([-at - end for at, end in zip(starts, self._ends, strict=True)])
        return self._forward.place([-at for at in late])

    def _length(self, starts: Sequence[int]) -> int:
        end = max(map(int.__add__, starts, self._ends), default=FIRST)
        dispatched = max(map(int.__add__, starts, self._dispatched), default=0)
        return max(end - FIRST, dispatched + isa.MIN_DELAY + self._jump)


# --- borders -------------------------------------------------------------------------------------------------------


def overlap(schedules: Sequence[Schedule], step: int = 1) -> list[Schedule]:
    """The same schedules, shortened: the next block, or the block's next turn, may begin while a block still ends.

    step: a divisor of all lengths, those that are returned too.
    """
    traces, shorter = [_Trace(schedule) for schedule in schedules], []
    for schedule, (trace, next_trace) in zip(schedules, itertools.pairwise(traces), strict=False):
        following, length = [next_trace, *([trace] if schedule.block.turns > 1 else [])], schedule.length
        while length - step >= trace.least and all(trace.may_meet(other, length - step) for other in following):
            length -= step
        shorter.append(replace(schedule, length=length))
    return [*shorter, *schedules[len(shorter) :]]


def _turn(schedule: Schedule) -> int:
    """Cycles from one turn of the block's loop to the next; its length if it is no loop."""
    trace, length = _Trace(schedule), schedule.length
    while schedule.block.turns > 1 and length > trace.least and trace.may_meet(trace, length - 1):
        length -= 1
    return length


class _Trace:
    """The cycles in which a block needs each resource and each cell.

    The cells of a layer have the same names in all layers, so some conflicts between turns are only apparent.

    least: cycles that the block's dispatches take.
    length: of the block.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.length = schedule.length
        self.busy: dict[Hashable, int] = defaultdict(int)
        self.read: dict[Cell, tuple[int, int]] = {}
        self.written: dict[Cell, tuple[int, int]] = {}
        for cluster, at in zip(schedule.block.clusters, schedule.starts, strict=True):
            for need in needs_of(cluster):
                self.busy[need.resource] |= need.mask << at + need.start
            for accesses, known in ((cluster.reads, self.read), (cluster.writes, self.written)):
                for access in accesses:
                    first, last = known.get(access.cell, (at + access.first, at + access.last))
                    known[access.cell] = min(first, at + access.first), max(last, at + access.last)
        dispatched = max((placed.dispatch for placed in schedule.placed), default=0)
        self.least = dispatched + isa.MIN_DELAY + _jump(schedule.block)

    def least_before(self, cluster: Cluster) -> int:
        """Cycles from the start of a cluster of the block before to a beginning of this one at which they surely do not
        meet, nor the cluster and what follows this block."""
        ends = [_end(cluster) - self.length, *(burst.at - isa.ENGINE + isa.MIN_DELAY for burst in cluster.bursts)]
        for need in needs_of(cluster):
            if busy := self.busy.get(need.resource):
                ends.append(need.start + need.mask.bit_length() - (busy & -busy).bit_length() + 1)
        for write in cluster.writes:
            ends += [write.last - cells[write.cell][0] + distance for cells, distance in
                     ((self.read, 0), (self.written, 1)) if write.cell in cells]
        ends += [read.last - self.written[read.cell][0] + 1 for read in cluster.reads if read.cell in self.written]
        return max(ends)

    def may_meet(self, other: "_Trace", length: int) -> bool:
        """Whether the other block may begin `length` cycles after the beginning of this one."""
        return (not any(busy >> length & other.busy.get(resource, 0) for resource, busy in self.busy.items())
                and self._before(self.written, other.read, length)
                and self._before(self.written, other.written, length - 1)
                and self._before(self.read, other.written, length - 1))

    @staticmethod
    def _before(early: Mapping[Cell, tuple[int, int]], late: Mapping[Cell, tuple[int, int]], length: int) -> bool:
        return all(last <= length + late[cell][0] for cell, (_, last) in early.items() if cell in late)


def _slot(cluster: Cluster) -> tuple[int, int]:
    """(every, phase) of the cycles of a block in which a cluster may start: its SENDs begin with slots.

    Blocks begin `Latencies.start` cycles after the beginning of a slot, for their lengths are multiples of a slot.
    Raises ValueError if its SENDs cannot begin with slots together.
    """
    every, sends = cluster.config.slot, [burst for burst in cluster.bursts if burst.op is LinkOp.SEND]
    if not sends:
        return 1, 0
    start = latencies(cluster.config).start
    phases = {-(burst.at + start) % every for burst in sends}
    if len(phases) > 1 or any(burst.count > 1 and burst.interval % every for burst in sends):
        raise ValueError(f"cluster {cluster.label!r} sends flits that do not all begin with slots")
    return every, phases.pop()


def _bind(burst: Burst) -> dict:
    """The burst's fields. In the VXM they include the drive bits of the directions that are sampled."""
    fields = dict(burst.fields)
    for prefix, stream in burst.drives.items() if burst.queue == row.VXM else ():
        fields |= {f"{prefix}_{direction.name.lower()}": 1 for direction in stream.reach}
    return fields


def _end(cluster: Cluster) -> int:
    """Last cycle of any activity of the cluster, relative to its start."""
    ends = [write.last for write in cluster.writes] + [burst.end for burst in cluster.bursts]
    for stream in cluster.streams:
        last = stream.drive + (stream.count - 1) * stream.interval
        ends += [last + abs(end - stream.source) for end in stream.reach.values()]
    return max(ends)
