"""Figures of a program before it runs: the cycles of each operation, and the map of the SRAM."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from arch import row
from base.errors import TspError
from program.program import Bucket, Event, Program, Segment

ENGINES = {"MEM": ("read", "write", "index"), "VXM": ("alu",), "SXM": ("sxm",), "MXM": ("load", "mac", "drain"),
           "C2C": ("send", "receive")}
"""Engines of a unit, in the order of the pictures. Other engines follow by name."""
BETWEEN = "between tokens"
"""Name of the cycles before the first and after the last segment."""


# --- operations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """An operation of one segment. Cycles are those of one turn.

    turns: turns of the segment.
    first, last: first and last cycle of its bursts in the first turn, counted from the token's start pulse.
    mxm, vxm: cycles in which a matrix unit, or the vector unit, works for it.
    exposed: cycles in which no matrix unit works at all and this operation holds up the others. It is the active
    operation that began first, or the last active one if none is active.
    """

    label: str
    segment: str
    turns: int
    first: int
    last: int
    mxm: int
    vxm: int
    exposed: int

    @property
    def span(self) -> int:
        """Cycles from `first` to `last`, both included."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Total:
    """A segment, or the cycles between tokens. The sum of (mxm + exposed) * turns over a bucket's totals is its
    period."""

    segment: str
    turns: int
    length: int
    mxm: int
    vxm: int
    weight_bytes: int

    @property
    def exposed(self) -> int:
        """Cycles of a turn in which no matrix unit works."""
        return self.length - self.mxm


def operations(program: Program, number: int) -> list[Operation]:
    """Operations of bucket `number` in order of first appearance."""
    found = []
    for segment, events in by_segment(program, number):
        labels = order(events)
        exposed = _exposed(segment, events, labels)
        for label in labels:
            own = [e for e in events if e.label == label]
            found.append(Operation(
                label, segment.name, segment.turns, min(e.first for e in own), max(e.last for e in own),
                len(_busy(own, "mac")), len(_busy(own, "alu")), exposed.get(label, 0)))
    return found


def totals(program: Program, number: int) -> list[Total]:
    """The segments of bucket `number`, and the cycles between tokens."""
    bucket = get_bucket(program, number)
    found = [Total(segment.name, segment.turns, segment.length, len(_busy(events, "mac")),
                   len(_busy(events, "alu")), segment.weight_bytes)
             for segment, events in by_segment(program, number)]
    between = bucket.period - sum(segment.length * segment.turns for segment in bucket.segments)
    return [*found, Total(BETWEEN, 1, between, 0, 0, 0)]


def get_bucket(program: Program, number: int) -> Bucket:
    """The bucket with this number. Raises TspError if there is none."""
    check_bucket(program.buckets, number)
    return program.buckets[number]


def check_bucket(buckets: Sequence[Bucket], number: int) -> None:
    """Raises TspError if there is no bucket with this number."""
    if not 0 <= number < len(buckets):
        raise TspError(f"bucket must be in 0..{len(buckets) - 1}, not {number}")


def by_segment(program: Program, number: int) -> Iterator[tuple[Segment, list[Event]]]:
    """Segments of a bucket and their events, in the order of their first cycles."""
    segments, events = get_bucket(program, number).segments, program.events(number)
    for segment in segments:
        yield segment, [event for event in events if event.segment == segment.name]


def order(events: Iterable[Event]) -> list[str]:
    """Labels in order of first appearance."""
    return list(dict.fromkeys(event.label for event in events))


def idle(segment: Segment, events: Iterable[Event]) -> list[tuple[int, int]]:
    """Intervals (first, last) of a segment's first turn in which no matrix unit works."""
    busy = _busy(events, "mac")
    gaps: list[tuple[int, int]] = []
    for cycle in range(segment.start, segment.start + segment.length):
        if cycle in busy:
            continue
        if gaps and gaps[-1][1] == cycle - 1:
            gaps[-1] = (gaps[-1][0], cycle)
        else:
            gaps.append((cycle, cycle))
    return gaps


def _busy(events: Iterable[Event], engine: str) -> set[int]:
    """Cycles in which an engine of this name, on either side, executes a burst."""
    return {cycle for e in events if e.engine == engine for cycle in range(e.first, e.last + 1)}


def _exposed(segment: Segment, events: list[Event], labels: list[str]) -> dict[str, int]:
    """Cycles without matrix work, by the label of the operation that they are charged to. Each counts once."""
    rank = {label: n for n, label in enumerate(labels)}
    owner: dict[int, int] = {}
    for event in events:
        for cycle in range(event.first, event.last + 1):
            owner[cycle] = min(owner.get(cycle, len(labels)), rank[event.label])
    found, last = dict.fromkeys(labels, 0), 0
    busy = _busy(events, "mac")
    for cycle in range(segment.start, segment.start + segment.length):
        last = owner.get(cycle, last)
        if cycle not in busy and labels:
            found[labels[last]] += 1
    return found


# --- what lies where -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A tensor in a slice: first quad, quads of all layers, and its share of the slice."""

    name: str
    addr: int
    quads: int
    share: float


def sram_map(program: Program) -> dict[str, list[Stored]]:
    """Tensors by slice, in order of address."""
    layers = program.model.n_layers
    found: dict[str, list[Stored]] = {name: [] for name in program.sram_use()}
    for name, symbol in program.symbols.items():
        quads = symbol.quads * (layers if symbol.stride else 1)
        depth = program.sram_use()[symbol.slice][1]
        found[symbol.slice].append(Stored(name.removesuffix(f" {symbol.slice}"), symbol.addr, quads, quads / depth))
    return {name: sorted(tensors, key=lambda t: t.addr) for name, tensors in found.items()}


# --- the order of the pictures -------------------------------------------------------------------------------------


def row_of_chip(program: Program) -> list[row.Queue]:
    """Queues in the order of the chip's row, west to east. Slice 0 of a hemisphere is next to the VXM."""
    def place(queue: row.Queue) -> tuple[int, int]:
        return queue.position, -queue.slice if queue.side == "W" else queue.slice

    return sorted(row.queues(program.config), key=place)


def tracks(program: Program, events: Iterable[Event]) -> list[tuple[str, str]]:
    """(queue, engine) of all engines in `events`, in the order of the chip's row."""
    used = {(event.queue, event.engine) for event in events}
    found = []
    for queue in row_of_chip(program):
        own = {engine for name, engine in used if name == queue.name}
        first = [engine for engine in ENGINES[queue.unit] if engine in own]
        found += [(queue.name, engine) for engine in (*first, *sorted(own - set(first)))]
    return found
