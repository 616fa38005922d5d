"""The order in which a chip of a rack computes its channels of the inner layer."""

from collections.abc import Sequence

from arch.vectors import ceil_div
from program.integer import groups

from .geometry import DRAIN_BURST, Geometry
from .share import Share


def groups_of(g: Geometry) -> list[range]:
    """Vectors of each group of channels (`integer.groups`) that has an exponent, or of all."""
    if "silu" not in g.model.dynamic:
        return [range(g.inner)]
    return [range(part.start // g.lanes, ceil_div(part.stop, g.lanes))
            for part in groups(g.inner * g.lanes, g.model.group)]


def rounds_of(g: Geometry) -> list[list[range]]:
    """Groups that the chips compute at the same time: in a round, each chip has some of one group at most. Those of
    several chips come first, because their exponents take longer."""
    assert g.share
    rounds: list[tuple[set[int], list[range]]] = []
    owners = {group.start: _owners(g.share, group) for group in groups_of(g)}
    for group in sorted(groups_of(g), key=lambda group: -len(owners[group.start])):
        own = owners[group.start]
        found = next((each for each in rounds if not each[0] & own), None)
        if found is None:
            rounds.append(found := (set(), []))
        found[0].update(own)
        found[1].append(group)
    return [found for _, found in rounds]


def own_chunks(g: Geometry) -> list[range]:
    """Bursts of this chip's vectors, in the order in which it computes them."""
    assert g.share
    own = g.share.hidden[g.share.chip]
    return [chunk for groups in rounds_of(g) for group in groups for chunk in chunks(common(own, group), own.start)]


def chunks(vectors: range, first: int) -> list[range]:
    """Bursts of some vectors; first: vector that a burst may begin with, as each DRAIN_BURST-th from it on."""
    begin = vectors.start - (vectors.start - first) % DRAIN_BURST
    parts = [common(range(start, start + DRAIN_BURST), vectors) for start in range(begin, vectors.stop, DRAIN_BURST)]
    return [part for part in parts if part]


def common(one: range, other: range) -> range:
    """What is in both ranges."""
    start = max(one.start, other.start)
    return range(start, max(start, min(one.stop, other.stop)))


def _owners(share: Share, group: Sequence[int]) -> set[int]:
    assert isinstance(group, range)
    return {chip for chip, part in enumerate(share.hidden) if common(part, group)}
