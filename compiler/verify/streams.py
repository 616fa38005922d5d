"""A replay of a token's streams: which drive every sample sees.

A *packet* is one column of stream registers that travels along the row. It is at position p in cycle packet + p if it
travels east, and in cycle packet - p if it travels west. A drive replaces planes of the packet at its unit's position.
So a sample sees the nearest drive upstream, and the order of evaluation does not matter.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from arch.config import PLANES, POSITIONS
from arch.host_map import Trap
from arch.isa import Dir

from .dispatches import Word

Lane = tuple[Dir, int]
"""(direction, group) of a stream."""


@dataclass(frozen=True)
class Flow:
    """Values that one word drives and another samples.

    producer, consumer: the words, as indices into `VerifyReport.words`.
    direction, group: the stream.
    samples: byte vectors (a plane of a group each) that are sampled.
    """

    producer: int
    consumer: int
    direction: Dir
    group: int
    samples: int


@dataclass(frozen=True, eq=False)
class _Taps:
    """Byte vectors that words drive or sample on one stream, as parallel arrays."""

    words: np.ndarray
    positions: np.ndarray
    planes: np.ndarray
    cycles: np.ndarray

    def at(self, position: int) -> "_Taps":
        """The taps of the units at one position."""
        chosen = self.positions == position
        return _Taps(self.words[chosen], self.positions[chosen], self.planes[chosen], self.cycles[chosen])


@dataclass(eq=False)
class _Recorder:
    """Collects taps word by word."""

    parts: list[tuple[int, int, tuple[int, ...], np.ndarray]] = field(default_factory=list)

    def add(self, word: int, position: int, planes: int, cycles: np.ndarray) -> None:
        self.parts.append((word, position, tuple(p for p in range(PLANES) if planes >> p & 1), cycles.ravel()))

    def taps(self) -> _Taps:
        sizes = [len(planes) * cycles.size for _, _, planes, cycles in self.parts]
        words = np.repeat([word for word, *_ in self.parts], sizes)
        positions = np.repeat([position for _, position, *_ in self.parts], sizes)
        planes = np.concatenate([np.repeat(planes, cycles.size) for _, _, planes, cycles in self.parts])
        cycles = np.concatenate([np.tile(cycles, len(planes)) for _, _, planes, cycles in self.parts])
        return _Taps(words, positions, planes, cycles)


class Streams:
    """The drives and samples of a token's words, and the proof that every sample sees a drive.

    period: last cycle in which a drive or sample may be.
    """

    def __init__(self, period: int) -> None:
        self._size = period + POSITIONS
        self._drives: dict[Lane, _Recorder] = defaultdict(_Recorder)
        self._samples: dict[Lane, _Recorder] = defaultdict(_Recorder)

    def drive(self, word: int, position: int, lane: Lane, planes: int, cycles: np.ndarray) -> None:
        """Record that word number `word` drives planes of a stream at the end of these cycles."""
        if planes:
            self._drives[lane].add(word, position, planes, cycles)

    def sample(self, word: int, position: int, lane: Lane, planes: int, cycles: np.ndarray) -> None:
        """Record that word number `word` samples planes of a stream in these cycles."""
        if planes:
            self._samples[lane].add(word, position, planes, cycles)

    def replay(self, words: Sequence[Word]) -> tuple[list[Flow], list[tuple[int, Dir, int]]]:
        """Flows, and (word, direction, group) of drives that are never sampled.

        Raises IllegalProgram if two drives meet, or if a sample sees no drive.
        """
        flows: list[Flow] = []
        for lane in sorted({**self._drives, **self._samples}, key=lambda lane: (lane[0].value, lane[1])):
            flows += self._replay_lane(lane, words)
        seen = {(flow.producer, flow.direction, flow.group) for flow in flows}
        driven = {(part[0], *lane): None for lane, recorder in self._drives.items() for part in recorder.parts}
        return flows, [drive for drive in driven if drive not in seen]

    def _replay_lane(self, lane: Lane, words: Sequence[Word]) -> Iterator[Flow]:
        if lane not in self._samples:
            self._driven(lane, words)
            return
        table, producers = self._driven(lane, words)
        samples = self._samples[lane].taps()
        visible = np.full((PLANES, self._size), -1, np.int32)
        for position in range(POSITIONS) if lane[0] is Dir.E else reversed(range(POSITIONS)):
            taken = samples.at(position)
            found = visible[taken.planes, self._packets(lane, taken)]
            if (found < 0).any():
                _empty_read(lane, taken, int(np.argmin(found)), words)
            pairs = producers[found].astype(np.int64) * len(words) + taken.words
            for pair, count in zip(*np.unique(pairs, return_counts=True), strict=True):
                yield Flow(*divmod(int(pair), len(words)), *lane, int(count))
            here = table[position]
            np.copyto(visible, here, where=here >= 0)

    def _driven(self, lane: Lane, words: Sequence[Word]) -> tuple[np.ndarray, np.ndarray]:
        """Number of the drive [position, plane, packet], or -1; and the word of every drive."""
        table = np.full((POSITIONS, PLANES, self._size), -1, np.int32)
        if lane not in self._drives:
            return table, np.empty(0, np.int64)
        drives = self._drives[lane].taps()
        place = drives.positions, drives.planes, self._packets(lane, drives)
        numbers = np.arange(len(drives.words), dtype=np.int32)
        table[place] = numbers
        lost = table[place] != numbers
        if lost.any():
            _collision(lane, drives, lost, table[place], words)
        return table, drives.words

    def _packets(self, lane: Lane, taps: _Taps) -> np.ndarray:
        """Number of the packet at each tap's position and cycle, from 0 on."""
        if lane[0] is Dir.E:
            return taps.cycles - taps.positions + POSITIONS - 1
        return taps.cycles + taps.positions


def _collision(lane: Lane, drives: _Taps, lost: np.ndarray, winners: np.ndarray, words: Sequence[Word]) -> None:
    first = int(np.argmin(np.where(lost, drives.cycles, np.iinfo(np.int64).max)))
    other = words[int(drives.words[winners[first]])].label
    raise words[int(drives.words[first])].error(
        Trap.COLLISION, drives.cycles[first],
        f"drives plane {drives.planes[first]} of {lane[0].name} group {lane[1]}, and so does {other}")


def _empty_read(lane: Lane, samples: _Taps, at: int, words: Sequence[Word]) -> None:
    raise words[int(samples.words[at])].error(
        Trap.EMPTY_READ, samples.cycles[at],
        f"samples plane {samples.planes[at]} of {lane[0].name} group {lane[1]}, which holds no value")
