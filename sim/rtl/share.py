"""Chips of a rack that share a process: a Verilated model and a context for each, and the channels between them."""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from arch.config import ChipConfig
from arch.isa import C2C_SEND
from arch.rack import Port, RackConfig
from sim.device.rack import Changes

from .chip import VerilatedChip, bind
from .threads import OneThread

CHANGE = np.dtype([("flit", "<u8"), ("bits", "u1", 24)])
JOB = np.dtype([("linked", "<u8"), ("step", "<u8"), ("cycles", "<u8"), ("outcome", "<i8"), ("fault", "<u8", 2)])
"""Structures of links.cpp."""
LINE = 64
"""Bytes of a cache line, to which channels are aligned."""
LATENCY, PATIENCE, SENT, PASSED, TAKEN, CLOSED, FLITS = 0, 1, 8, 9, 16, 17, 18
"""Places in a channel, in words of 8 bytes. FLITS: where its flits begin."""
SIDES = "WE"
START_CYCLES = 1 << 16
"""Most cycles from RUN until a chip is ready."""
_P = ctypes.c_void_p
_U32, _U64, _I64, _INT = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_int
_FUNCTIONS = {
    "link_channel_bytes": (_U64, ()), "link_create": (_P, (_P,)), "link_destroy": (None, (_P,)),
    "link_connect": (None, (_P, _U32, _U32, _P, _P)), "link_changes": (None, (_P, _U32, _U32, _P, _U64)),
    "link_start": (_I64, (_P, _U32, _U64)), "link_step": (_I64, (_P, _U64, _P)), "link_run": (None, (_P, _U64, _U64)),
    "link_turn": (_INT, (_P, _U64, _U64, _P)), "link_wait": (None, (_U32,)),
}


class Outcome(IntEnum):
    """Why a chip stopped. The numbers are those of links.cpp."""

    BLOCKED = -1
    MISSING = -2
    LOST = -3
    LATE = -4


class _Threaded:
    """A library whose functions all run in one thread: a Verilated model must be used by the thread that made it."""

    def __init__(self, library: Any, thread: OneThread) -> None:
        self.library, self._thread = library, thread

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.library, name)
        return lambda *arguments: self._thread.call(function, *arguments)


class LinkedChip(VerilatedChip):
    """One chip of a rack. thread: in which all of it happens."""

    def __init__(self, config: ChipConfig, thread: OneThread, debug: bool = False) -> None:
        self.thread = thread
        super().__init__(config, debug)
        self._linked = _P(self._lib.link_create(self._sim))
        self._kept: dict[tuple[str, int], np.ndarray] = {}

    def _bind(self, path: Path) -> Any:
        library = bind(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        return _Threaded(library, self.thread)

    @property
    def now(self) -> int:
        """Cycles since reset; of a run in its thread, those up to now."""
        return self.functions.sim_cycle(self._sim)

    @property
    def channel_bytes(self) -> int:
        """Bytes of a channel."""
        return self._lib.link_channel_bytes()

    def connect(self, side: str, port: int, out: np.ndarray, into: np.ndarray) -> None:
        """The channels at a port, which must stay as long as the chip."""
        self._lib.link_connect(self._linked, SIDES.index(side), port, out.ctypes.data, into.ctypes.data)

    def change(self, side: str, port: int, changes: Mapping[int, int]) -> None:
        """Wrong bits of the flits that a port sends in the next run, by their number."""
        found = np.zeros(len(changes), CHANGE)
        for n, flit in enumerate(sorted(changes)):
            found[n] = flit, np.frombuffer(changes[flit].to_bytes(24, "little"), np.uint8)
        self._kept[side, port] = found
        self._lib.link_changes(self._linked, SIDES.index(side), port, found.ctypes.data, len(found))

    def run(self, n_tokens: int, max_cycles: int = 1 << 40) -> np.ndarray:
        """Not by itself: a RECEIVE waits for another chip."""
        raise TypeError("a chip of a rack runs with the others: call the rack's run")

    def prepare(self, n_tokens: int) -> int:
        """Let tokens wait for those of the other chips: 1 once the first is ready, 0 if it never will be, or LATE."""
        return self._lib.link_start(self._linked, n_tokens, START_CYCLES)

    @property
    def functions(self) -> Any:
        """The library, to be called in the chip's thread."""
        return self._lib.library

    def job(self, cycles: np.ndarray) -> tuple:
        """The chip's `JOB`. cycles: uint64 for each token."""
        step = ctypes.cast(self.functions.link_step, _P).value
        return self._linked.value, step, cycles.ctypes.data, Outcome.BLOCKED.value, 0

    def close(self) -> None:
        """Free the chip."""
        if self._sim:
            self._lib.link_destroy(self._linked)
            super().close()


@dataclass(frozen=True, kw_only=True)
class ChipRan:
    """How a run ended on a chip.

    outcome: tokens that ended, or an `Outcome`. cycles: of the tokens. place, cycle: of a fault, 8 * side + port, and
    when.
    """

    outcome: int
    cycles: list[int]
    place: int
    cycle: int


@dataclass(frozen=True, kw_only=True)
class ShareRan:
    """How a run ended on some chips. sent, taken: flits, by the port that sends them."""

    chips: dict[int, ChipRan]
    sent: dict[Port, int]
    taken: dict[Port, int]


class Share:
    """Some chips of a rack, in one process.

    numbers: of the chips. threads: that the chips share, at most one a chip.
    patience: cycles that a chip goes on after it has sent a flit to a chip that is not among them.

    chips: by their numbers. channels: of every port that sends from or to one of the chips.
    """

    def __init__(self, rack: RackConfig, numbers: Iterable[int], threads: Sequence[OneThread], debug: bool = False, *,
                 patience: int = 0) -> None:
        self.rack, self._threads = rack, threads
        self.chips = {number: LinkedChip(rack.chips[number], threads[n % len(threads)], debug)
                      for n, number in enumerate(sorted(numbers))}
        self.size = next(iter(self.chips.values())).channel_bytes
        self.channels = {near: self._channel(latency, 0 if far.chip in self.chips else patience)
                         for near, (far, latency) in sorted(rack.across.items())
                         if near.chip in self.chips or far.chip in self.chips}
        for near, (far, _) in rack.across.items():
            if near.chip in self.chips:
                self.chips[near.chip].connect(near.side, near.number, self.channels[near], self.channels[far])

    def _channel(self, latency: int, patience: int) -> np.ndarray:
        """The memory of what a port sends, uint64, at the beginning of a cache line."""
        memory = np.zeros(self.size + LINE, np.uint8)
        at = -memory.ctypes.data % LINE
        channel = memory[at : at + self.size].view(np.uint64)
        channel[LATENCY], channel[PATIENCE] = latency + C2C_SEND, patience
        return channel

    def prepare(self, n_tokens: int, changes: Changes | None) -> dict[int, int]:
        """Let all chips wait for the start of tokens: as `LinkedChip.prepare`, chip by chip."""
        for near, channel in self.channels.items():
            channel[[SENT, PASSED, TAKEN, CLOSED]] = 0
            if near.chip in self.chips:
                self.chips[near.chip].change(near.side, near.number, (changes or {}).get(near, {}))
        return {number: chip.prepare(n_tokens) for number, chip in self.chips.items()}

    def jobs(self, n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """A `JOB` for each chip, and where it writes the cycles of its tokens: uint64 [chip, token]."""
        cycles = np.zeros((len(self.chips), n_tokens), np.uint64)
        return np.array([chip.job(own) for chip, own in zip(self.chips.values(), cycles, strict=True)], JOB), cycles

    def run(self, n_tokens: int, max_cycles: int) -> ShareRan:
        """Run tokens on all chips of a rack, in all threads."""
        jobs, cycles = self.jobs(n_tokens)
        count, chips = len(self._threads), list(self.chips.values())
        mine = [jobs[n::count].copy() for n in range(count)]
        runs = [thread.submit(chip.functions.link_run, own.ctypes.data, len(own), max_cycles)
                for thread, chip, own in zip(self._threads, chips[:count], mine, strict=True)]
        for n, run in enumerate(runs):
            run.result()
            jobs[n::count] = mine[n]
        return self.ran(jobs, cycles)

    def ran(self, jobs: np.ndarray, cycles: np.ndarray) -> ShareRan:
        """What became of `jobs`."""
        chips = {}
        for number, job, own in zip(self.chips, jobs, cycles, strict=True):
            place, cycle = job["fault"].tolist()
            outcome = int(job["outcome"])
            chips[number] = ChipRan(outcome=outcome, cycles=own[: max(0, outcome)].tolist(), place=place, cycle=cycle)
        sent = {near: int(channel[SENT]) for near, channel in self.channels.items() if near.chip in self.chips}
        taken = {near: int(channel[TAKEN]) for near, channel in self.channels.items()
                 if self.rack.across[near][0].chip in self.chips}
        return ShareRan(chips=chips, sent=sent, taken=taken)

    def close(self) -> None:
        """Free all chips."""
        for chip in self.chips.values():
            chip.close()


def place_name(place: int) -> tuple[str, int]:
    """Side and number of a fault's port."""
    return SIDES[place // 8], place % 8


def joined(parts: Sequence[ShareRan]) -> ShareRan:
    """What became of all chips of a rack."""
    return ShareRan(chips=dict(sorted(item for part in parts for item in part.chips.items())),
                    sent={near: count for part in parts for near, count in part.sent.items()},
                    taken={near: count for part in parts for near, count in part.taken.items()})
