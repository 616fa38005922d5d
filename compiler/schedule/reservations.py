"""What clusters need of a chip in each cycle: dispatch slots, engines and stream registers."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from arch import isa
from arch.isa import Dir
from compiler.ir import Cluster, Stream


class Need(NamedTuple):
    """The cycles in which a cluster needs a resource.

    start: cycle of bit 0 of the mask, from the start of the cluster on.
    mask: a bit for each cycle.
    solid: the mask has no holes.
    """

    resource: Any
    start: int
    mask: int
    solid: bool


def needs_of(cluster: Cluster) -> list[Need]:
    """Everything that a cluster needs. Raises ValueError if it needs a resource twice in one cycle: it could never be
    placed."""
    needs = []
    for burst in cluster.bursts:
        needs.append(Need(("dispatch", burst.queue, burst.chip), burst.at - isa.ENGINE, (1 << isa.MIN_DELAY) - 1, True))
        span = burst.end - burst.at
        needs.append(Need(("engine", burst.queue, burst.engine, burst.chip), burst.at, (1 << span) - 1, True))
    for stream in cluster.streams:
        needs += _of_stream(stream)
    _check(cluster, needs)
    return needs


def _of_stream(stream: Stream) -> list[Need]:
    needs, mask = [], _mask(stream.count, stream.interval)
    for direction, end in stream.reach.items():
        sign = 1 if direction is Dir.E else -1
        for position in range(stream.source + sign, end + sign, sign):
            needs.append(Need(("stream", direction, stream.group, position, stream.chip),
                              stream.drive + abs(position - stream.source), mask, stream.interval == 1))
    return needs


def _mask(count: int, interval: int) -> int:
    """A mask of `count` bits: 0, interval, 2 * interval, .."""
    return ((1 << count * interval) - 1) // ((1 << interval) - 1)


def _check(cluster: Cluster, needs: Sequence[Need]) -> None:
    low = min(need.start for need in needs)
    taken: dict[Hashable, int] = defaultdict(int)
    for need in needs:
        if taken[need.resource] >> need.start - low & need.mask:
            raise ValueError(f"cluster {cluster.label!r} needs {need.resource} twice in one cycle")
        taken[need.resource] |= need.mask << need.start - low


def mirrored(needs: Sequence[Need]) -> list[Need]:
    """The needs for time that runs backward. Masks are the same from either end."""
    return [need._replace(start=1 - need.start - need.mask.bit_length()) for need in needs]


# --- resources that others stand for -------------------------------------------------------------------------------


def essential(clusters: Sequence[Sequence[Need]]) -> list[list[Need]]:
    """The needs of clusters, without those that can never be what two of them meet at first.

    A resource stands for another one if all clusters that need the other need it too, at one distance of cycles: where
    two clusters meet at the other, they meet at this one. So the reading of weights stands for the streams that carry
    them. It leaves half of the needs, and the same schedules.
    """
    uses, users = [_uses(needs) for needs in clusters], defaultdict[Hashable, list[int]](list)
    for number, own in enumerate(uses):
        for resource in own:
            users[resource].append(number)
    spared = set[Hashable]()
    for resource in sorted(users, key=lambda each: len(users[each])):
        own = [uses[number] for number in users[resource]]
        others = [other for other in own[0] if other != resource and other not in spared]
        if any(all(other in use for use in own) and _stands_for(other, resource, own) for other in others):
            spared.add(resource)
    return [[need for need in needs if need.resource not in spared] for needs in clusters]


@dataclass(frozen=True)
class _Use:
    """The cycles in which a cluster needs a resource: cycle of bit 0, and a bit for each cycle."""

    start: int
    mask: int


def _uses(needs: Sequence[Need]) -> dict[Hashable, _Use]:
    found: dict[Hashable, _Use] = {}
    for need in needs:
        known = found.get(need.resource, _Use(need.start, 0))
        start = min(known.start, need.start)
        found[need.resource] = _Use(start, known.mask << known.start - start | need.mask << need.start - start)
    return found


def _stands_for(other: Hashable, resource: Hashable, uses: Sequence[dict[Hashable, _Use]]) -> bool:
    """Whether a resource stands for another one, in the uses of all clusters that need the latter."""
    first, distances, at = uses[0], list[int](), 0
    while first[other].mask >> at:  # of the beginnings of its runs
        if first[other].mask >> at & 1:
            distances.append(first[other].start + at - first[resource].start)
            while first[other].mask >> at & 1:
                at += 1
        at += 1
    return any(all(_within(use[resource], use[other], distance) for use in uses) for distance in distances)


def _within(use: _Use, other: _Use, distance: int) -> bool:
    """Whether a use, so many cycles later, lies within another one."""
    later = use.start + distance - other.start
    return later >= 0 and not use.mask << later & ~other.mask
