"""When everything happens: a list scheduler over exact reservation tables; the only pass that knows time.

Clusters are placed one after the other, in program order, each at the earliest cycle where its cells are ready and
every queue, engine, port and stream slot that it needs is free. Later clusters may fill holes before earlier ones,
so program order is priority, not sequence. A reservation table is one Python integer a resource, a bit a cycle.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from hw import isa
from hw.isa import Dir

from .ir import Burst, Cell, Cluster, Stream

FIRST = 1 + isa.MIN_DELAY
"""Earliest element of a segment: each queue spends the segment's cycle 0 on a NOP, LOOP's return point."""


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


class _Tables:
    """Reservation tables of one segment."""

    def __init__(self) -> None:
        self._busy: dict[Hashable, int] = defaultdict(int)

    def delay(self, need: _Need, at: int) -> int:
        """0 if free for a cluster at cycle `at`, else cycles after which to try again."""
        conflict = self._busy[need.resource] >> at + need.start & need.mask
        if not conflict:
            return 0
        return conflict.bit_length() if need.solid else 1

    def reserve(self, need: _Need, at: int) -> None:
        """Take the cycles."""
        self._busy[need.resource] |= need.mask << at + need.start


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


class Scheduler:
    """Places the clusters of a segment."""

    def run(self, segment: Segment) -> None:
        """Fill in `placed` and `length`."""
        self._tables = _Tables()
        self._ready: dict[Cell, int] = {}
        self._last_read: dict[Cell, int] = {}
        segment.placed = []
        end = 0
        for cluster in segment.clusters:
            end = max(end, self._place(cluster, segment))
        last_dispatch = max((placed.dispatch for placed in segment.placed), default=0)
        segment.length = max(end - FIRST, last_dispatch + isa.MIN_DELAY + isa.MIN_DELAY_JUMP)

    def _earliest(self, cluster: Cluster) -> int:
        at = FIRST - min(burst.at for burst in cluster.bursts)
        for read in cluster.reads:
            if read.cell in self._ready:
                at = max(at, self._ready[read.cell] - read.first)
        for write in cluster.writes:
            known = max(self._last_read.get(write.cell, -1), self._ready.get(write.cell, -1))
            if known >= 0:
                at = max(at, known + 1 - write.first)
        return at

    def _place(self, cluster: Cluster, segment: Segment) -> int:
        """Reserve the cluster; returns the cycle in which its last effect is complete."""
        needs = _needs(cluster)
        _check_alone(cluster, needs)
        at = self._earliest(cluster)
        while wait := max((self._tables.delay(need, at) for need in needs), default=0):
            at += wait
        for need in needs:
            self._tables.reserve(need, at)
        self._commit(cluster, at)
        for burst in cluster.bursts:
            segment.placed.append(Placed(burst, at + burst.at, _bind(burst), cluster.label))
        return at + _end(cluster)

    def _commit(self, cluster: Cluster, at: int) -> None:
        for read in cluster.reads:
            self._last_read[read.cell] = max(self._last_read.get(read.cell, 0), at + read.last)
        for write in cluster.writes:
            self._ready[write.cell] = max(self._ready.get(write.cell, 0), at + write.last)


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
