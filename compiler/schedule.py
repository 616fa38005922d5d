"""When everything happens: a list scheduler over exact reservation tables; the only pass that knows time.

Clusters are placed one after the other, each at the earliest cycle where its cells are ready and every queue, engine,
port and stream slot that it needs is free. Later clusters may fill holes before earlier ones. A reservation table is
one Python integer a resource, a bit a cycle.

Program order says what depends on what (`_Graph`), not what is placed first: that is a priority, by default how much
must follow a cluster. No priority is best for all programs, so several are tried and the shortest schedule is kept.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from hw import isa
from hw.isa import Dir

from .ir import Burst, Cell, Cluster, Stream

FIRST = 1 + isa.MIN_DELAY
"""Earliest element of a segment: each queue spends the segment's cycle 0 on a NOP, LOOP's return point."""
EFFORT = 8000
"""Clusters placed in search of a short schedule of one segment; each priority tried places all of them."""
TRIES = 40
"""Most priorities tried for a segment."""
MIXES = (0, 1 / 4, 1 / 2)
"""First priorities tried: the share that a cluster's earliest start has, beside what must follow it."""
NOISE = 12
"""Cycles by which further tries vary the best priority so far."""


@dataclass(frozen=True)
class Placed:
    """A burst with its absolute cycle in its segment and all fields known."""

    burst: Burst
    at: int
    fields: dict
    label: str

    @property
    def dispatch(self) -> int:
        """Cycle of dispatch."""
        return self.at - isa.ENGINE


@dataclass(eq=False)
class Segment:
    """A straight piece of program: clusters in order of priority, issued `passes` times.

    strides: quads that a slice's relative addresses advance with each pass.
    """

    name: str
    clusters: list[Cluster] = field(default_factory=list)
    passes: int = 1
    strides: Mapping[str, int] = field(default_factory=dict)
    placed: list[Placed] = field(default_factory=list)
    length: int = 0

    @property
    def weight_bytes(self) -> int:
        """Bytes that the matrix units consume in all passes."""
        return self.passes * sum(cluster.weight_bytes for cluster in self.clusters)


def _mask(count: int, interval: int) -> int:
    """Bits 0, interval, 2 * interval, .. (count of them)."""
    return ((1 << count * interval) - 1) // ((1 << interval) - 1)


@dataclass(frozen=True)
class _Need:
    """Cycles (bits of mask, from cycle `start` on) for which a cluster needs a resource."""

    resource: Hashable
    start: int
    mask: int
    solid: bool


def _needs(cluster: Cluster) -> list[_Need]:
    needs = []
    for burst in cluster.bursts:
        needs.append(_Need(("dispatch", burst.queue), burst.at - isa.ENGINE, (1 << isa.MIN_DELAY) - 1, True))
        span = burst.last - burst.at + 1
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
    """What a segment's clusters must wait for, from their cells and program order.

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


class Scheduler:
    """Places the clusters of a segment."""

    def run(self, segment: Segment) -> None:
        """Fill in `placed` and `length`."""
        clusters = segment.clusters
        self._graph = _Graph(clusters)
        self._needs = [_needs(cluster) for cluster in clusters]
        for cluster, needs in zip(clusters, self._needs, strict=True):
            _check_alone(cluster, needs)
        self._first = [FIRST - min(burst.at for burst in cluster.bursts) for cluster in clusters]
        self._ends = [_end(cluster) for cluster in clusters]
        self._dispatched = [max(burst.at for burst in cluster.bursts) - isa.ENGINE for cluster in clusters]
        starts = self._shortest()
        segment.length = self._length(starts)
        segment.placed = [Placed(burst, at + burst.at, _bind(burst), cluster.label)
                          for cluster, at in zip(clusters, starts, strict=True) for burst in cluster.bursts]

    def _shortest(self) -> list[int]:
        """Starts of the clusters in the shortest schedule found."""
        count, chance = len(self._needs), random.Random(0)
        earliest, rest = self._earliest(), self._rest()
        bound = max((a + b for a, b in zip(earliest, rest, strict=True)), default=FIRST) - FIRST
        candidates = [[share * early - (1 - share) * late for early, late in zip(earliest, rest, strict=True)]
                      for share in MIXES]
        best = self._place(range(count))
        urgency = candidates[0]
        for number in range(max(1, min(TRIES, EFFORT // max(1, count)))):
            if self._length(best) <= bound:
                break
            tried = candidates[number] if number < len(candidates) else [u + NOISE * chance.random() for u in urgency]
            starts = self._place(self._graph.order(tried))
            if self._length(starts) <= self._length(best):
                best, urgency = starts, tried
        return best

    def _earliest(self) -> list[int]:
        """Earliest start of each cluster, were everything free."""
        starts = list(self._first)
        for number, before in enumerate(self._graph.before):
            starts[number] = max([starts[number], *(starts[i] + distance for i, distance in before.items())])
        return starts

    def _rest(self) -> list[int]:
        """Least cycles from each cluster's start to the end of the segment."""
        rest = list(self._ends)
        for number, after in reversed(list(enumerate(self._graph.after))):
            rest[number] = max([rest[number], *(rest[i] + distance for i, distance in after.items())])
        return rest

    def _length(self, starts: Sequence[int]) -> int:
        end = max(map(int.__add__, starts, self._ends), default=FIRST)
        dispatched = max(map(int.__add__, starts, self._dispatched), default=0)
        return max(end - FIRST, dispatched + isa.MIN_DELAY + isa.MIN_DELAY_JUMP)

    def _place(self, order: Sequence[int]) -> list[int]:
        """Starts of the clusters if they are placed in this order."""
        busy: dict[Hashable, int] = defaultdict(int)
        starts = [0] * len(order)
        for number in order:
            at = self._first[number]
            for other, distance in self._graph.before[number].items():
                at = max(at, starts[other] + distance)
            needs = self._needs[number]
            while wait := _wait(busy, needs, at):
                at += wait
            for need in needs:
                busy[need.resource] |= need.mask << at + need.start
            starts[number] = at
        return starts


def _wait(busy: Mapping[Hashable, int], needs: Sequence[_Need], at: int) -> int:
    """0 if all is free for a cluster at cycle `at`, else cycles after which to try again."""
    wait = 0
    for need in needs:
        if conflict := busy[need.resource] >> at + need.start & need.mask:
            wait = max(wait, conflict.bit_length() if need.solid else 1)
    return wait


def _bind(burst: Burst) -> dict:
    """Fields with, in the VXM, the drive bits of the directions that somebody samples."""
    fields = dict(burst.fields)
    for prefix, stream in burst.drives.items() if burst.queue == "VXM" else ():
        fields |= {f"{prefix}_{direction.name.lower()}": 1 for direction in stream.reach}
    return fields


def _end(cluster: Cluster) -> int:
    """Last cycle, relative to the cluster, in which anything of it happens."""
    ends = [write.last for write in cluster.writes] + [burst.last + 1 for burst in cluster.bursts]
    for stream in cluster.streams:
        last = stream.drive + (stream.count - 1) * stream.interval
        ends += [last + abs(end - stream.source) for end in stream.reach.values()]
    return max(ends)
