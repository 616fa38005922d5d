"""The common parts of the cycle model: time, streams, errors, and the engine that executes bursts.

Cycle t has two halves. In the first, everything that *reads* registers in t runs: dispatches, samples, array reads.
In the second, everything that *writes* registers at the end of t runs: drives, commits. So the order of callbacks
within a half does not matter, as in hardware.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from arch.config import PLANES, POSITIONS, ChipConfig
from arch.host_map import Trap
from arch.isa import ENGINE, Instr
from arch.latencies import latencies
from arch.row import Queue

LANE_MASKS: tuple[np.int32, ...] = tuple(
    np.uint32(sum(0xFF << 8 * plane for plane in range(PLANES) if planes >> plane & 1)).view(np.int32)
    for planes in range(1 << PLANES)
)
"""Byte masks of an int32 lane, indexed by a set of planes."""
RING = 8
"""Packets kept in each direction: a power of two above POSITIONS."""


class ProgramError(Exception):
    """An illegal program: which trap, in which cycle, at which queue, and what was wrong."""

    def __init__(self, trap: Trap, cycle: int, queue: str, what: str):
        super().__init__(f"cycle {cycle}: {queue}: {trap.name}: {what}")
        self.trap = trap
        self.cycle = cycle
        self.queue = queue


class Timeline:
    """The current cycle, the pending actions, and the sticky error bits."""

    def __init__(self, strict: bool):
        self.now = 0
        self.strict = strict
        self.errors = 0
        self._reads: defaultdict[int, list[tuple[Callable, tuple]]] = defaultdict(list)
        self._writes: defaultdict[int, list[tuple[Callable, tuple]]] = defaultdict(list)

    def read(self, cycle: int, action: Callable, *args: Any) -> None:
        """Call `action(*args)` in the first half of `cycle`, which must be later than now."""
        self._reads[cycle].append((action, args))

    def write(self, cycle: int, action: Callable, *args: Any) -> None:
        """Call `action(*args)` in the second half of `cycle`, now or later."""
        self._writes[cycle].append((action, args))

    def run_cycle(self) -> None:
        """Run all actions of the current cycle. Does not advance `now`."""
        for action, args in self._reads.pop(self.now, ()):
            action(*args)
        for action, args in self._writes.pop(self.now, ()):
            action(*args)

    @property
    def idle(self) -> bool:
        """Whether no action is pending."""
        return not self._reads and not self._writes

    def trap(self, trap: Trap, queue: str, what: str) -> None:
        """Set the error bit. A strict model also raises ProgramError."""
        self.errors |= 1 << trap.value
        if self.strict:
            raise ProgramError(trap, self.now, queue, what)


class Streams:
    """The stream registers, kept as packets that travel.

    A packet is the contents of one column of registers. In cycle t, the eastward packet t - p and the westward packet
    t + p are at position p. A unit that drives in cycle t replaces planes of the packet at its position, after all
    units have sampled. So no data is ever moved. Packets enter the row empty.
    """

    def __init__(self, config: ChipConfig, time: Timeline):
        self._time, self._lanes = time, config.lanes
        self._packets = [[np.zeros((config.groups, config.lanes), np.int32) for _ in range(RING)] for _ in range(2)]
        self._driven = [[0] * RING for _ in range(2)]
        self._fresh = [[(-1, 0)] * RING for _ in range(2)]

    def enter(self) -> None:
        """Begin a cycle: empty packets enter at E[0] and W[6]."""
        for direction, position in ((0, 0), (1, POSITIONS - 1)):
            slot = self._slot(direction, position)
            if self._driven[direction][slot]:
                self._packets[direction][slot].fill(0)
                self._driven[direction][slot] = 0

    def _slot(self, direction: int, position: int) -> int:
        return (self._time.now + position if direction else self._time.now - position) % RING

    def sample(self, direction: int, position: int, planes: int, queue: str) -> np.ndarray:
        """int32 lanes of the vector group: a view, valid in the first half of this cycle. `planes` must be driven."""
        slot = self._slot(direction, position)
        missing = planes & ~self._driven[direction][slot]
        if missing:
            self._time.trap(Trap.EMPTY_READ, queue, f"{'EW'[direction]} vector: planes {missing:04b} hold no value")
        return self._packets[direction][slot][0]

    def sample_weights(self, direction: int, position: int, queue: str) -> np.ndarray:
        """int32 lanes of the weight groups: a view. All their planes must be driven."""
        slot = self._slot(direction, position)
        packet = self._packets[direction][slot]
        missing = (1 << PLANES * len(packet)) - 16 & ~self._driven[direction][slot]
        if missing:
            self._time.trap(Trap.EMPTY_READ, queue, f"{'EW'[direction]} weights: streams {missing:b} hold no value")
        return packet[1:]

    def drive(self, direction: int, position: int, planes: int, value: np.ndarray, queue: str, group: int = 0) -> None:
        """Drive int32 lanes on `planes` of a group, in a cycle's second half. They are readable one hop further in
        now + 1."""
        slot = self._slot(direction, position)
        bits = planes << PLANES * group
        cycle, mask = self._fresh[direction][slot]
        if cycle != self._time.now:
            mask = 0
        elif mask & bits:
            self._time.trap(Trap.COLLISION, queue,
                            f"{'EW'[direction]} group {group}: planes {planes:04b} are driven twice")
        self._fresh[direction][slot] = self._time.now, mask | bits
        self._driven[direction][slot] |= bits
        lanes = self._packets[direction][slot][group]
        if planes == 15:
            lanes[:] = value
        else:
            lanes ^= (lanes ^ value) & LANE_MASKS[planes]

    def values(self, direction: int) -> np.ndarray:
        """All registers of a direction, uint8 [position, stream, lane]."""
        packets = np.stack([self._packets[direction][self._slot(direction, p)] for p in range(POSITIONS)])
        return planes_of(packets).reshape(POSITIONS, -1, self._lanes)

    def driven(self, direction: int) -> np.ndarray:
        """Driven bits [position] of a direction, stream s at bit s."""
        return np.array([self._driven[direction][self._slot(direction, p)] for p in range(POSITIONS)], np.uint32)


def planes_of(lanes: np.ndarray) -> np.ndarray:
    """View int32 [..., lane] as uint8 [..., plane, lane]."""
    return np.moveaxis(lanes.view(np.uint8).reshape(*lanes.shape, PLANES), -1, -2)


class Burst:
    """An instruction in execution.

    index: the element that executes next.
    """

    __slots__ = ("count", "index", "instr", "interval", "work")

    def __init__(self, instr: Instr, work: Any, count: int, interval: int):
        self.instr = instr
        self.work = work
        self.index = 0
        self.count = count
        self.interval = interval


class Unit(ABC):
    """A functional unit with named engines. Each engine executes one burst at a time.

    Subclasses implement `dispatch`, which starts engines. The work of an element is a function of its number.
    """

    def __init__(self, queue: Queue, config: ChipConfig, time: Timeline, streams: Streams):
        self.name = queue.name
        self.position = queue.position
        self.config = config
        self.latencies = latencies(config)
        self.time = time
        self.streams = streams
        self._last: dict[str, int] = {}

    @abstractmethod
    def dispatch(self, instr: Instr, offsets: tuple[int, int]) -> None:
        """Start an instruction.

        offsets: relative-address offsets of the two loop levels.
        """

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Architectural state by name, copied."""

    @property
    def busy(self) -> bool:
        """Whether an engine has an element to execute in this cycle or later."""
        return any(last >= self.time.now for last in self._last.values())

    def trap(self, trap: Trap, what: str) -> None:
        self.time.trap(trap, self.name, what)

    def check(self, value: int, limit: int, what: str) -> int:
        """The value modulo limit. Traps ADDRESS unless 0 <= value < limit."""
        if not 0 <= value < limit:
            self.trap(Trap.ADDRESS, f"{what} must be in 0..{limit - 1}, not {value}")
        return value % limit

    def start(self, engine: str, instr: Instr, work: Callable[[int], None], count: int, interval: int,
              taken: int = 1) -> None:
        """Start a burst on an engine.

        work: work(i) runs in the first cycle of element i.
        taken: cycles that an element occupies the engine.
        """
        if count > 1 and interval < taken:
            self.trap(Trap.ENGINE_BUSY, f"{instr.op.name}: interval must be at least {taken}, not {interval}")
        first = self.time.now + ENGINE
        if self._last.get(engine, -1) >= first:
            self.trap(Trap.ENGINE_BUSY, f"{instr.op.name}: the last element of the previous burst executes in cycle "
                                        f"{self._last[engine]}")
        self._last[engine] = first + (count - 1) * interval + taken - 1
        self.time.read(first, self._element, Burst(instr, work, count, interval))

    def _element(self, burst: Burst) -> None:
        index = burst.index
        burst.index = index + 1
        if burst.index < burst.count:
            self.time.read(self.time.now + burst.interval, self._element, burst)
        burst.work(index)
