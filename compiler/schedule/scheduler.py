"""When everything happens: a list scheduler over exact reservation tables; the only pass that knows time.

Clusters are placed one after the other, each at the earliest cycle where its cells are ready and every queue, engine,
port and stream slot that it needs is free. Later clusters may fill holes before earlier ones. A reservation table is
one Python integer a resource, a bit a cycle.

Program order says what depends on what (`_Graph`), not what is placed first: that is a priority, at first how much must
follow a cluster and how early it may start. A schedule then gives the priorities of the next: placed from the end of
time backward, each cluster as late as possible, and forward again in the order of these starts, it comes out shorter
or as long ("justification" in the scheduling of projects). The shortest schedule is kept.
"""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from arch import isa, row
from arch.isa import Dir
from compiler.ir import Block, Burst, Cell, Cluster, Stream

FIRST = 1 + isa.MIN_DELAY
"""Earliest element of a block: each queue spends the block's cycle 0 on a NOP, LOOP's return point."""
EFFORT = 12_000
"""Clusters placed in search of a short schedule of one block; each schedule places all of them."""
MIXES = (0, 1 / 4, 1 / 2, 3 / 4)
"""First priorities: the share that a cluster's earliest start has, beside what must follow it."""
PATIENCE = 2
"""Times that a schedule is turned back and forth without gain before it is left."""


@dataclass(frozen=True)
class Placed:
    """A burst with its cycle in its block and all fields known."""

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
    """A block in time: cycles count from its beginning.

    starts: of its clusters. placed: their bursts. length: cycles from the beginning of a pass to that of the next one,
    or of the next block.
    """

    block: Block
    starts: tuple[int, ...]
    placed: tuple[Placed, ...]
    length: int


def _mask(count: int, interval: int) -> int:
    """Bits 0, interval, 2 * interval, .. (count of them)."""
    return ((1 << count * interval) - 1) // ((1 << interval) - 1)


class _Need(NamedTuple):
    """Cycles (bits of mask, from cycle `start` on) for which a cluster needs a resource."""

    resource: Any
    start: int
    mask: int
    solid: bool


def _needs(cluster: Cluster) -> list[_Need]:
    needs = []
    for burst in cluster.bursts:
        needs.append(_Need(("dispatch", burst.queue), burst.at - isa.ENGINE, (1 << isa.MIN_DELAY) - 1, True))
        span = burst.end - burst.at
        needs.append(_Need(("engine", burst.queue, burst.engine), burst.at, (1 << span) - 1, True))
    for stream in cluster.streams:
        needs += _stream_needs(stream)
    return needs


def _check_alone(cluster: Cluster, needs: list[_Need]) -> None:
    """Raises ValueError if a cluster's own bursts need a resource twice: no cycle would ever suit it."""
    low = min(need.start for need in needs)
    taken: dict[Hashable, int] = defaultdict(int)
    for need in needs:
        if taken[need.resource] >> need.start - low & need.mask:
            raise ValueError(f"cluster {cluster.label!r} needs {need.resource} twice in one cycle")
        taken[need.resource] |= need.mask << need.start - low


def _stream_needs(stream: Stream) -> list[_Need]:
    needs, mask = [], _mask(stream.count, stream.interval)
    for direction, end in stream.reach.items():
        sign = 1 if direction is Dir.E else -1
        for position in range(stream.source + sign, end + sign, sign):
            needs.append(_Need(("stream", direction, stream.group, position),
                               stream.drive + abs(position - stream.source), mask, stream.interval == 1))
    return needs


class _Graph:
    """What a block's clusters must wait for, from their cells and program order.

    before[i]: least distance of i's start from that of each cluster it waits for. after: the same the other way round.
    """

    def __init__(self, clusters: Sequence[Cluster]) -> None:
        self.before: list[dict[int, int]] = [{} for _ in clusters]
        self.after: list[dict[int, int]] = [{} for _ in clusters]
        self._written: dict[Cell, tuple[int, int]] = {}
        self._read: dict[Cell, dict[int, int]] = defaultdict(dict)
        for number, cluster in enumerate(clusters):
            self._wait(number, cluster)
            self._note(number, cluster)

    def _edge(self, first: int, second: int, distance: int) -> None:
        if first != second and distance > self.before[second].get(first, distance - 1):
            self.before[second][first] = self.after[first][second] = distance

    def _wait(self, number: int, cluster: Cluster) -> None:
        for read in cluster.reads:
            if read.cell in self._written:
                writer, ready = self._written[read.cell]
                self._edge(writer, number, ready - read.first)
        for write in cluster.writes:
            if write.cell in self._written:
                writer, ready = self._written[write.cell]
                self._edge(writer, number, ready + 1 - write.first)
            for reader, last in self._read[write.cell].items():
                self._edge(reader, number, last + 1 - write.first)

    def _note(self, number: int, cluster: Cluster) -> None:
        for read in cluster.reads:
            readers = self._read[read.cell]
            readers[number] = max(read.last, readers.get(number, read.last))
        for write in cluster.writes:
            writer, ready = self._written.get(write.cell, (-1, 0))
            self._written[write.cell] = number, max(write.last, ready) if writer == number else write.last
            self._read[write.cell] = {}

    def mirrored(self) -> "_Graph":
        """The same with time running backward."""
        graph = _Graph(())
        graph.before, graph.after = self.after, self.before
        return graph

    def order(self, urgency: Sequence[float]) -> list[int]:
        """Clusters with the least `urgency` first, but none before what it waits for."""
        open_ = [len(before) for before in self.before]
        ready = [(urgency[i], i) for i, count in enumerate(open_) if not count]
        heapq.heapify(ready)
        found = []
        while ready:
            _, number = heapq.heappop(ready)
            found.append(number)
            for following in self.after[number]:
                open_[following] -= 1
                if not open_[following]:
                    heapq.heappush(ready, (urgency[following], following))
        return found


def schedule_block(block: Block, effort: int = EFFORT) -> Schedule:
    """Place the clusters of a block; effort: clusters placed, at most, in search of a short schedule."""
    return _Scheduler(block.clusters).run(block, effort)


class _Scheduler:
    """Searches for a short schedule of clusters."""

    def __init__(self, clusters: Sequence[Cluster]) -> None:
        needs = [_needs(cluster) for cluster in clusters]
        for cluster, need in zip(clusters, needs, strict=True):
            _check_alone(cluster, need)
        numbers = {resource: i for i, resource in enumerate({need.resource for own in needs for need in own})}
        needs = [[need._replace(resource=numbers[need.resource]) for need in own] for own in needs]
        graph, self._ends = _Graph(clusters), [_end(cluster) for cluster in clusters]
        first = [FIRST - min(burst.at for burst in cluster.bursts) for cluster in clusters]
        self._forward = _Placer(graph, needs, first, len(numbers))
        self._backward = _Placer(graph.mirrored(), [_mirrored(own) for own in needs], self._ends, len(numbers))
        self._dispatched = [max(burst.at for burst in cluster.bursts) - isa.ENGINE for cluster in clusters]

    def run(self, block: Block, effort: int) -> Schedule:
        """See `schedule_block`."""
        starts = self._shortest(effort)
        placed = (Placed(burst, at + burst.at, _bind(burst), cluster.label)
                  for cluster, at in zip(block.clusters, starts, strict=True) for burst in cluster.bursts)
        return Schedule(block=block, starts=tuple(starts), placed=tuple(placed), length=self._length(starts))

    def _shortest(self, effort: int) -> list[int]:
        """Starts of the clusters in the shortest schedule found."""
        count = len(self._ends)
        earliest, rest = self._forward.earliest(), self._backward.earliest()
        bound = max((a + b for a, b in zip(earliest, rest, strict=True)), default=FIRST) - FIRST
        best = self._forward.place(range(count))
        left = effort // max(1, count)
        for share in MIXES:
            starts = self._forward.place([share * a - (1 - share) * b for a, b in zip(earliest, rest, strict=True)])
            least, patience, left = self._length(starts), PATIENCE, left - 1
            while True:
                best = min(best, starts, key=self._length)
                if self._length(best) <= bound or left <= 0:
                    return best
                if not patience:
                    break
                starts, left = self._turned(starts), left - 2
                patience = PATIENCE if self._length(starts) < least else patience - 1
                least = min(least, self._length(starts))
        return best

    def _turned(self, starts: Sequence[int]) -> list[int]:
        """The schedule placed anew from its end backward, and from there forward."""
        late = self._backward.place([-at - end for at, end in zip(starts, self._ends, strict=True)])
        return self._forward.place([-at for at in late])

    def _length(self, starts: Sequence[int]) -> int:
        end = max(map(int.__add__, starts, self._ends), default=FIRST)
        dispatched = max(map(int.__add__, starts, self._dispatched), default=0)
        return max(end - FIRST, dispatched + isa.MIN_DELAY + isa.MIN_DELAY_JUMP)


@dataclass(eq=False)
class _Placer:
    """Places clusters in one direction of time; `first` are the least starts. Resources are numbers."""

    graph: _Graph
    needs: list[list[_Need]]
    first: list[int]
    resources: int

    def earliest(self) -> list[int]:
        """Earliest start of each cluster, were everything free."""
        starts = list(self.first)
        for number in self.graph.order(range(len(starts))):
            for other, distance in self.graph.before[number].items():
                starts[number] = max(starts[number], starts[other] + distance)
        return starts

    def place(self, urgency: Sequence[float]) -> list[int]:
        """Starts of the clusters if the most urgent (of least value) are placed first."""
        busy = [0] * self.resources
        starts = [0] * len(self.first)
        for number in self.graph.order(urgency):
            at = self.first[number]
            for other, distance in self.graph.before[number].items():
                at = max(at, starts[other] + distance)
            needs = self.needs[number]
            starts[number] = at = _free_from(busy, needs, at)
            for resource, start, mask, _ in needs:
                busy[resource] |= mask << at + start
        return starts


# --- borders -------------------------------------------------------------------------------------------------------


def overlap(schedules: Sequence[Schedule]) -> list[Schedule]:
    """The same, each block shorter as far as what follows (the next one, or its next pass) may begin while it ends."""
    traces, shorter = [_Trace(schedule) for schedule in schedules], []
    for schedule, (trace, next_trace) in zip(schedules, itertools.pairwise(traces), strict=False):
        following, length = [next_trace, *([trace] if schedule.block.passes > 1 else [])], schedule.length
        while length > trace.least and all(trace.may_meet(other, length - 1) for other in following):
            length -= 1
        shorter.append(replace(schedule, length=length))
    return [*shorter, *schedules[len(shorter) :]]


class _Trace:
    """When a block needs each resource and each cell; least: cycles that its dispatches take.

    A cell that belongs to a layer has the same name in all of them, so that passes seem to meet where they do not.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.busy: dict[Hashable, int] = defaultdict(int)
        self.read: dict[Cell, tuple[int, int]] = {}
        self.written: dict[Cell, tuple[int, int]] = {}
        for cluster, at in zip(schedule.block.clusters, schedule.starts, strict=True):
            for need in _needs(cluster):
                self.busy[need.resource] |= need.mask << at + need.start
            for accesses, known in ((cluster.reads, self.read), (cluster.writes, self.written)):
                for access in accesses:
                    first, last = known.get(access.cell, (at + access.first, at + access.last))
                    known[access.cell] = min(first, at + access.first), max(last, at + access.last)
        dispatched = max((placed.dispatch for placed in schedule.placed), default=0)
        self.least = dispatched + isa.MIN_DELAY + isa.MIN_DELAY_JUMP

    def may_meet(self, other: "_Trace", length: int) -> bool:
        """Whether the other may begin `length` cycles behind the beginning of this one."""
        return (not any(busy >> length & other.busy.get(resource, 0) for resource, busy in self.busy.items())
                and self._before(self.written, other.read, length)
                and self._before(self.written, other.written, length - 1)
                and self._before(self.read, other.written, length - 1))

    @staticmethod
    def _before(early: Mapping[Cell, tuple[int, int]], late: Mapping[Cell, tuple[int, int]], length: int) -> bool:
        return all(last <= length + late[cell][0] for cell, (_, last) in early.items() if cell in late)


def _mirrored(needs: list[_Need]) -> list[_Need]:
    """Needs with time running backward; masks read the same from either end."""
    return [need._replace(start=1 - need.start - need.mask.bit_length()) for need in needs]


def _free_from(busy: Sequence[int], needs: Sequence[_Need], at: int) -> int:
    """The first cycle from `at` on in which all is free for a cluster."""
    free = 0
    for resource, start, mask, solid in itertools.cycle(needs):
        if free == len(needs):
            break
        while conflict := busy[resource] >> at + start & mask:
            at += conflict.bit_length() if solid else 1
            free = 0
        free += 1
    return at


def _bind(burst: Burst) -> dict:
    """Fields with, in the VXM, the drive bits of the directions that somebody samples."""
    fields = dict(burst.fields)
    for prefix, stream in burst.drives.items() if burst.queue == row.VXM else ():
        fields |= {f"{prefix}_{direction.name.lower()}": 1 for direction in stream.reach}
    return fields


def _end(cluster: Cluster) -> int:
    """Last cycle, relative to the cluster, in which anything of it happens."""
    ends = [write.last for write in cluster.writes] + [burst.end for burst in cluster.bursts]
    for stream in cluster.streams:
        last = stream.drive + (stream.count - 1) * stream.interval
        ends += [last + abs(end - stream.source) for end in stream.reach.values()]
    return max(ends)
