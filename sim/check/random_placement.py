"""Finds legal places for the instructions of a random program, and reserves what they occupy.

Only `sim.check.random_instructions` knows what an operation does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from arch.config import VXM, ChipConfig
from arch.isa import ENGINE, ENGINES, FMT_PLANES, Fmt, Instr, Op, encode
from arch.latencies import latencies
from arch.queue_store import Store
from arch.row import Queue, queues

from .random_schedule import Instance, Loop, Reservations, Window


@dataclass(frozen=True)
class Run:
    """Elements that a unit drives: slot, planes, position, and the cycles of the first turn."""

    direction: int
    group: int
    planes: int
    position: int
    first: int
    interval: int
    count: int
    index_vectors: bool = False


class Stock:
    """The distinct words, or parts of words, in a queue's store (`arch.queue_store`)."""

    def __init__(self, store: Store):
        self._parts = [(part, {0}) for part in store.parts]

    def takes(self, instrs: list[Instr]) -> bool:
        """Whether there is room for these instructions."""
        words = [encode(instr) for instr in instrs]
        return all(len(known | {part.of(word) for word in words}) <= part.words for part, known in self._parts)

    def add(self, instrs: list[Instr]) -> bool:
        """Store the instructions if there is room for all of them."""
        if not self.takes(instrs):
            return False
        for part, known in self._parts:
            known.update(part.of(encode(instr)) for instr in instrs)
        return True


@dataclass
class Program:
    """One bucket's program in the making."""

    layout: dict[str, list[Window | Loop]]
    windows: dict[str, list[Window]]
    end: int
    taken: Reservations = field(default_factory=Reservations)
    runs: list[Run] = field(default_factory=list)


class Placement:
    """Places instructions in one bucket's program, by random choices.

    stocks: contents of each queue's store.
    program: set before the first instruction is placed.
    """

    program: Program

    def __init__(self, config: ChipConfig, rng: Random, stocks: dict[str, Stock]):
        self.config = config
        self.latencies = latencies(config)
        self.stocks = stocks
        self.rng = rng
        self.queues = queues(config)

    # --- choices -------------------------------------------------------------------------------------------------

    def depth(self, queue: Queue) -> int:
        """Quads of a slice that programs use."""
        return min(self.config.mem_depths[queue.slice], 512)

    def some(self, *units: str) -> Queue:
        return self.rng.choice([queue for queue in self.queues if queue.unit in units])

    def bit(self, probability: float = 0.5) -> int:
        return int(self.rng.random() < probability)

    def place(self, queue: Queue) -> tuple[Window, int]:
        """A random window and offset."""
        window = self.rng.choice(self.program.windows[queue.name])
        return window, self.rng.randrange(window.length)

    def burst(self, most: int = 24) -> dict[str, int]:
        return {"count": self.rng.choice([1, 1, 2, 3, self.rng.randint(1, most)]),
                "interval": self.rng.choice([1, 1, 1, 2, 3, self.rng.randint(1, 12)])}

    def target(self, *units: str, index_vectors: bool = False) -> tuple[Queue, Run, Window, int, dict] | None:
        """A consumer for a driven run: queue, run, window, offset, and a burst that samples elements of the run."""
        rng = self.rng
        runs = [run for run in self.program.runs[-60:] if run.group == 0 and (run.index_vectors or not index_vectors)]
        if not runs:
            return None
        run = rng.choice(runs)
        behind = [queue for queue in self.queues if queue.unit in units
                  and (queue.unit != "SXM" or run.direction == outward(queue))
                  and (queue.position < run.position if run.direction else queue.position > run.position)]
        if not behind:
            return None
        queue = rng.choice(behind)
        skip = rng.randrange(run.count) if self.bit(0.3) else 0
        every = rng.choice([1, 1, 1, 2])
        most = (run.count - skip - 1) // every + 1
        burst = {"count": rng.randint(1, most), "interval": min(run.interval * every, 255)}
        cycle = run.first + skip * run.interval + abs(queue.position - run.position) - ENGINE
        found = self.window_at(queue, cycle)
        return (queue, run, *found, burst) if found else None

    def window_at(self, queue: Queue, cycle: int) -> tuple[Window, int] | None:
        """The window and offset that are dispatched in `cycle`, in any turn."""
        for window in self.program.windows[queue.name]:
            for start in window.starts:
                if 0 <= cycle - start.cycle < window.length:
                    return window, cycle - start.cycle
        return None

    def readable_operand(self, queue: Queue, cycles: list[int], wanted: list[Fmt]) -> tuple[int, list[Fmt]] | None:
        """A random direction of the vector group, and those of the `wanted` formats that may be sampled in all these
        cycles."""
        choices = []
        for direction in (0, 1):
            formats = [fmt for fmt in wanted if all(
                self.program.taken.readable(direction, 0, FMT_PLANES[fmt], queue.position, cycle) for cycle in cycles)]
            if formats:
                choices.append((direction, formats))
        return self.rng.choice(choices) if choices else None

    # --- placing -------------------------------------------------------------------------------------------------

    def elements(self, window: Window, offset: int, count: int, interval: int) -> Iterator[tuple[Instance, list[int]]]:
        """Every dispatch, with the cycles in which its elements execute."""
        for instance in window.instances(offset):
            first = instance.cycle + ENGINE
            yield instance, [first + i * interval for i in range(count)]

    def taken(self, instr: Instr) -> int:
        """Cycles that an element occupies its engine."""
        return self.config.vxm_fold if instr.op is Op.ALU else 1

    def fits(self, queue: Queue, window: Window, offset: int, instr: Instr) -> bool:
        """Whether the window accepts a word there, and the engine is free then and finishes before the token ends."""
        if not window.accepts(offset) or not self.stocks[queue.name].takes([instr]):
            return False
        count, interval = burst_of(instr)
        engine = self.program.taken.engines[queue.name, ENGINES[instr.op]]
        wanted: set[int] = set()
        for _, cycles in self.elements(window, offset, count, interval):
            spread = range(cycles[0], cycles[-1] + self.taken(instr))
            if spread[-1] >= self.program.end or not engine.isdisjoint(spread) or not wanted.isdisjoint(spread):
                return False
            wanted.update(spread)
        return True

    def keep(self, queue: Queue, window: Window, offset: int, instr: Instr) -> None:
        """Place the word and reserve its engine."""
        window.words[offset] = instr
        self.stocks[queue.name].add([instr])
        engine = self.program.taken.engines[queue.name, ENGINES[instr.op]]
        for _, cycles in self.elements(window, offset, *burst_of(instr)):
            engine.update(range(cycles[0], cycles[-1] + self.taken(instr)))

    def drivable(self, queue: Queue, drives: list[tuple[int, int, int, list[int]]]) -> bool:
        """Whether drives (direction, group, planes, cycles) collide with nothing, each other included."""
        seen = set()
        for direction, group, planes, cycles in drives:
            for cycle in cycles:
                if (direction, group, cycle) in seen:
                    return False
                seen.add((direction, group, cycle))
                if not self.program.taken.drivable(direction, group, planes, queue.position, cycle):
                    return False
        return True

    def drive(self, queue: Queue, drives: list[tuple[int, int, int, list[int]]], index_vectors: bool = False) -> None:
        for direction, group, planes, cycles in drives:
            for cycle in cycles:
                self.program.taken.drive(direction, group, planes, queue.position, cycle)
            if cycles and planes:
                interval = cycles[1] - cycles[0] if len(cycles) > 1 else 1
                self.program.runs.append(Run(direction, group, planes, queue.position, cycles[0], interval,
                                             len(cycles), index_vectors))

    def sampled(self, queue: Queue, window: Window, offset: int, instr: Instr, direction: int, planes: int,
                group: int = 0) -> bool:
        return all(self.program.taken.readable(direction, group, planes, queue.position, cycle)
                   for _, cycles in self.elements(window, offset, *burst_of(instr)) for cycle in cycles)

    def produce(self, queue: Queue, window: Window, offset: int, instr: Instr, latency: int, direction: int,
                planes: int = 15, group: int = 0) -> bool:
        """Place a producer of one result for each element, if it is legal there."""
        if not self.fits(queue, window, offset, instr):
            return False
        drives = [(direction, group, planes, [cycle + latency for cycle in cycles])
                  for _, cycles in self.elements(window, offset, *burst_of(instr))]
        if not self.drivable(queue, drives):
            return False
        self.keep(queue, window, offset, instr)
        self.drive(queue, drives)
        return True


def outward(queue: Queue) -> int:
    """Direction away from the VXM on the side of a queue's unit."""
    return int(queue.position < VXM)


def burst_of(instr: Instr) -> tuple[int, int]:
    """(elements, interval) of any instruction."""
    if instr.op is Op.MAC:
        return instr.acts * instr.accs, 1
    return (1, 1) if instr.op is Op.INDEX else (instr.count, instr.interval)
