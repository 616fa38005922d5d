"""Places for the instructions of a random program: windows of the queues' time, loops, reservations.

An instruction that is added never makes a legal program illegal, so instructions may be added in any order. A sampled
slot stays driven, whatever else is driven. The checks only need to exclude collisions, busy engines, register
conflicts, bank conflicts and overwritten index vectors.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

from arch.config import PLANES
from arch.isa import MIN_DELAY, Instr, Op
from arch.row import Queue

Slot = tuple[int, int, int]
"""(direction, stream, packet). A packet keeps its number at all positions."""


def packet(direction: int, position: int, cycle: int) -> int:
    """Number of the packet at `position` in `cycle`."""
    return cycle + position if direction else cycle - position


@dataclass(frozen=True)
class Instance:
    """One dispatch of an instruction: its cycle, and the finished turns of loop levels 0 and 1."""

    cycle: int
    turns: tuple[int, int]


@dataclass
class Window:
    """A stretch of a queue's time in which words may be placed. Inside a loop it repeats in every turn.

    starts: its beginnings in all turns.
    strides: quads that each loop level adds to relative addresses in a turn.
    """

    length: int
    starts: list[Instance]
    strides: tuple[int, int] = (0, 0)
    words: dict[int, Instr] = field(default_factory=dict)

    def accepts(self, offset: int) -> bool:
        """Whether a word may be dispatched there. Offset 0 has the window's first word, and words keep MIN_DELAY."""
        if not (offset == 0 or offset >= MIN_DELAY) or offset > self.length - MIN_DELAY:
            return False
        return all(abs(offset - other) >= MIN_DELAY for other in self.words)

    def instances(self, offset: int) -> list[Instance]:
        return [Instance(start.cycle + offset, start.turns) for start in self.starts]

    def emit(self, max_delay: int) -> Iterator[Instr]:
        """The window's words with their delays, which fill it exactly."""
        words = {0: Instr(Op.NOP)} | self.words
        offsets = [*sorted(words), self.length]
        for offset, after in itertools.pairwise(offsets):
            gap, instr = after - offset, words[offset]
            while gap:
                delay = gap if gap <= max_delay else min(max_delay, gap - MIN_DELAY)
                yield Instr(instr.op, delay, instr.fields)
                gap, instr = gap - delay, Instr(Op.NOP)


@dataclass
class Loop:
    """A loop of a queue: LOOP, the body's windows and inner loops, END_LOOP with the delay `jump`."""

    count: int
    stride: int
    jump: int
    body: "list[Window | Loop]"

    def emit(self, max_delay: int) -> Iterator[Instr]:
        yield Instr(Op.LOOP, MIN_DELAY, {"count": self.count, "stride": self.stride})
        for node in self.body:
            yield from node.emit(max_delay)
        yield Instr(Op.END_LOOP, self.jump)

    def windows(self) -> Iterator[Window]:
        for node in self.body:
            yield from node.windows() if isinstance(node, Loop) else [node]


@dataclass(frozen=True)
class Phase:
    """A stretch of a token's time. With `count` it is a loop: that many turns of `body`, which ends with a `jump`."""

    length: int
    count: int = 0
    jump: int = 0
    body: "tuple[Phase, ...]" = ()


def random_phases(rng: Random, jump: int) -> list[Phase]:
    """Two to five phases. Some are loops, and some of the loops are nested.

    jump: delay of END_LOOP.
    """
    phases = []
    for _ in range(rng.randint(2, 5)):
        if rng.random() < 0.5:
            phases.append(Phase(rng.randint(20, 160)))
            continue
        body = [Phase(rng.randint(8, 40))]
        if rng.random() < 0.5:
            inner = Phase(rng.randint(6, 20))
            body += [_loop(rng.randint(1, 4), jump, [inner]), Phase(rng.randint(4, 20))]
        phases.append(_loop(rng.randint(1, 4), jump, body))
    return phases


def _loop(count: int, jump: int, body: list[Phase]) -> Phase:
    once = sum(phase.length for phase in body) + jump
    return Phase(MIN_DELAY + count * once, count, jump, tuple(body))


def layout(rng: Random, phases: Iterable[Phase], starts: list[Instance], strides: tuple[int, ...],
           depth: int) -> list[Window | Loop]:
    """Windows and loops of one queue. A loop phase may become a single window."""
    nodes: list[Window | Loop] = []
    for phase in phases:
        if not phase.count or rng.random() < 0.3:
            nodes.append(Window(phase.length, starts, _two(strides)))
        else:
            nodes.append(_layout_loop(rng, phase, starts, strides, depth))
        starts = [Instance(start.cycle + phase.length, start.turns) for start in starts]
    return nodes


def _two(strides: tuple[int, ...]) -> tuple[int, int]:
    outer, inner = (*strides, 0, 0)[:2]
    return outer, inner


def _layout_loop(rng: Random, phase: Phase, starts: list[Instance], strides: tuple[int, ...], depth: int) -> Loop:
    stride = rng.randint(0, depth // 32)
    once = (phase.length - MIN_DELAY) // phase.count
    level = len(strides)
    inside = [Instance(start.cycle + MIN_DELAY + k * once, (k, 0) if level == 0 else (start.turns[0], k))
              for start in starts for k in range(phase.count)]
    return Loop(phase.count, stride, phase.jump, layout(rng, phase.body, inside, (*strides, stride), depth))


class Reservations:
    """The resources that a token's instructions occupy, cycle by cycle. Check first, then `commit`."""

    def __init__(self) -> None:
        self.drivers: defaultdict[Slot, set[int]] = defaultdict(set)
        self.frozen: defaultdict[Slot, list[tuple[int, int]]] = defaultdict(list)
        self.engines: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self.reads: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        self.commits: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)

    def readable(self, direction: int, group: int, planes: int, position: int, cycle: int) -> bool:
        """Whether units upstream drove all these planes of the packet."""
        return all(self.source(direction, group, plane, position, cycle) is not None
                   for plane in range(PLANES) if planes >> plane & 1)

    def source(self, direction: int, group: int, plane: int, position: int, cycle: int) -> int | None:
        """Position of the nearest driver upstream of a sample; None if there is none."""
        slot = direction, PLANES * group + plane, packet(direction, position, cycle)
        if direction:
            return min((p for p in self.drivers.get(slot, ()) if p > position), default=None)
        return max((p for p in self.drivers.get(slot, ()) if p < position), default=None)

    def drivable(self, direction: int, group: int, planes: int, position: int, cycle: int) -> bool:
        """Whether nothing else drives these planes there and then, and no index vector is overwritten."""
        return all(position not in self.drivers.get(slot, ())
                   and not any(low <= position <= high for low, high in self.frozen.get(slot, ()))
                   for slot in slots(direction, group, planes, position, cycle))

    def drive(self, direction: int, group: int, planes: int, position: int, cycle: int) -> None:
        for slot in slots(direction, group, planes, position, cycle):
            self.drivers[slot].add(position)

    def freeze(self, direction: int, group: int, source: int, position: int, cycle: int) -> None:
        """Forbid drives between `source` and `position` of what is sampled at `position`."""
        for slot in slots(direction, group, 15, position, cycle):
            self.frozen[slot].append((min(source, position + direction), max(source, position + direction - 1)))

    def bank_free(self, queue: Queue, read: bool, cycle: int, low: int, high: int) -> bool:
        """Whether a read of quads low..high meets no commit of them, and a commit no read."""
        others = (self.commits if read else self.reads).get((queue.name, cycle), ())
        return all(high < a or b < low for a, b in others)

    def access(self, queue: Queue, read: bool, cycle: int, low: int, high: int) -> None:
        (self.reads if read else self.commits)[queue.name, cycle].append((low, high))


def slots(direction: int, group: int, planes: int, position: int, cycle: int) -> list[Slot]:
    at = packet(direction, position, cycle)
    return [(direction, PLANES * group + plane, at) for plane in range(PLANES) if planes >> plane & 1]
