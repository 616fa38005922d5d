"""Joins the blocks of a rack's chips: all clusters in one order, and the parts of each transfer in one cluster."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from base.errors import TspError
from compiler.ir import Block, Burst, Cluster, Part, Read, Stream, Write


def merged(blocks: Mapping[int, Block]) -> Block:
    """One block of what some chips do at the same time. blocks: by chip; one that does nothing has no clusters.

    Raises TspError if the chips do not repeat the block equally often.
    """
    one, first = next(iter(blocks.items()))
    for chip, block in blocks.items():
        if (block.name, block.turns) != (first.name, first.turns):
            raise TspError(f"chip {chip} takes {block.turns} turns of block {block.name!r}, chip {one} {first.turns} "
                           f"of {first.name!r}: the model divides too unevenly among the chips")
    return Block(first.name, first.turns, {}, [_joined(parts, parts) for parts in _in_order(blocks)])


def part_of(blocks: Mapping[int, Block], starts: Sequence[int], chips: Collection[int]) -> tuple[Block, list[int]]:
    """What some of the chips do in a block of all of them, and the starts of its clusters. starts: those of the
    clusters of `merged`."""
    first = next(iter(blocks.values()))
    found, begin = Block(first.name, first.turns, {}), list[int]()
    for parts, start in zip(_in_order(blocks), starts, strict=True):
        if mine := [chip for chip in parts if chip in chips]:
            found.clusters.append(_joined(parts, mine))
            begin.append(start)
    return found, begin


def _in_order(blocks: Mapping[int, Block]) -> list[dict[int, Cluster]]:
    """All clusters, those of each chip in its order; by chip, those that go together. A transfer comes when it is next
    on all chips that take part.

    Raises ValueError if the chips disagree about the order of their transfers.
    """
    chips = {chip: block.clusters for chip, block in blocks.items()}
    found, at = list[dict[int, Cluster]](), dict.fromkeys(chips, 0)
    while any(at[chip] < len(own) for chip, own in chips.items()):
        before = dict(at)
        waiting: dict[Hashable, dict[int, Cluster]] = {}
        wanted: dict[Hashable, frozenset[int]] = {}
        for chip, own in chips.items():
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


def _joined(parts: Mapping[int, Cluster], chips: Iterable[int]) -> Cluster:
    """One cluster of those of several chips, which are the parts of one transfer, or of a single chip. chips: those
    whose parts are joined; the others' times count all the same."""
    late = _lateness(parts)
    whole = next(iter(parts.values()))
    found = Cluster(whole.label, whole.config, weight_quads=sum(parts[chip].weight_quads for chip in chips))
    for chip in chips:
        _put(found, parts[chip], chip, late[chip])
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
