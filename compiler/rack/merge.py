"""Joins the blocks of a rack's chips: all clusters in one order, and the parts of each transfer in one cluster."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from base.errors import TspError
from compiler.ir import Block, Burst, Cluster, Part, Read, Stream, Write


def merged(blocks: Sequence[Block]) -> Block:
    """One block of what all chips do at the same time. blocks: by chip; a chip that does nothing has no clusters.

    Raises TspError if the chips do not repeat the block equally often.
    """
    first = blocks[0]
    for chip, block in enumerate(blocks):
        if (block.name, block.turns) != (first.name, first.turns):
            raise TspError(f"chip {chip} takes {block.turns} turns of block {block.name!r}, chip 0 {first.turns} of "
                           f"{first.name!r}: the model divides too unevenly among the chips")
    return Block(first.name, first.turns, {}, [_joined(parts) for parts in _in_order(blocks)])


def starts_of(blocks: Sequence[Block], starts: Sequence[int]) -> list[list[int]]:
    """By chip, the starts of its clusters. starts: those of the clusters of `merged`."""
    found: list[list[int]] = [[] for _ in blocks]
    for parts, start in zip(_in_order(blocks), starts, strict=True):
        for chip, late in _lateness(parts).items():
            found[chip].append(start + late)
    return found


def _in_order(blocks: Sequence[Block]) -> list[dict[int, Cluster]]:
    """All clusters, those of each chip in its order; by chip, those that go together. A transfer comes when it is next
    on all chips that take part.

    Raises ValueError if the chips disagree about the order of their transfers.
    """
    chips = [block.clusters for block in blocks]
    found, at = list[dict[int, Cluster]](), [0] * len(chips)
    while any(n < len(own) for n, own in zip(at, chips, strict=True)):
        before = list(at)
        waiting: dict[Hashable, dict[int, Cluster]] = {}
        wanted: dict[Hashable, frozenset[int]] = {}
        for chip, own in enumerate(chips):
            while at[chip] < len(own):
                if isinstance(cluster := own[at[chip]], Part):
                    waiting.setdefault(cluster.key, {})[chip] = cluster
                    wanted[cluster.key] = cluster.chips
                    break
                found.append({chip: cluster})
                at[chip] += 1
        for key, parts in waiting.items():
            if parts.keys() == wanted[key]:
                found.append(parts)
                for chip in parts:
                    at[chip] += 1
        if at == before:
            raise ValueError(f"the chips disagree about their next transfer: {list(waiting)}")
    return found


def _joined(parts: Mapping[int, Cluster]) -> Cluster:
    """One cluster of those of several chips, which are the parts of one transfer, or of a single chip."""
    whole = next(iter(parts.values()))
    found = Cluster(whole.label, whole.config, weight_quads=sum(part.weight_quads for part in parts.values()))
    for chip, late in _lateness(parts).items():
        _put(found, parts[chip], chip, late)
    return found


def _lateness(parts: Mapping[int, Cluster]) -> dict[int, int]:
    """By chip, how many cycles later than the whole cluster its part begins."""
    sent = next((part.anchor for part in parts.values() if isinstance(part, Part) and not part.late), 0)
    return {chip: sent + part.late - part.anchor if isinstance(part, Part) and part.late else 0
            for chip, part in parts.items()}


def _put(whole: Cluster, part: Cluster, chip: int, late: int) -> None:
    """Add a chip's cluster, `late` cycles later, to one of several chips."""
    streams = {stream: replace(stream, drive=stream.drive + late, chip=chip) for stream in part.streams}
    whole.streams += streams.values()
    whole.bursts += [_moved(burst, streams, chip, late) for burst in part.bursts]
    whole.reads += [Read((chip, read.cell), read.first + late, read.last + late, read.value) for read in part.reads]
    whole.writes += [Write((chip, write.cell), write.first + late, write.last + late, write.value)
                     for write in part.writes]


def _moved(burst: Burst, streams: dict[Stream, Stream], chip: int, late: int) -> Burst:
    return replace(burst, at=burst.at + late, chip=chip, samples=[streams[stream] for stream in burst.samples],
                   drives={name: streams[stream] for name, stream in burst.drives.items()})
