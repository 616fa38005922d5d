"""A rack of Verilated chips: a model and a context for each, in one thread or several.

A chip runs ahead up to the next flit that it takes. A flit is known by the cycle of its arrival, counted from the cycle
in which all chips are ready. So the results are those of chips in lockstep, bit for bit. See links.cpp.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from arch.config import ChipConfig
from arch.isa import C2C_SEND
from arch.rack import Port, RackConfig
from sim.device.protocol import ChipFault
from sim.device.rack import Changes, HostedRack, Ran

from .chip import TimeoutExceeded, VerilatedChip, bind

CHANGE = np.dtype([("flit", "<u8"), ("bits", "u1", 24)])
JOB = np.dtype([("linked", "<u8"), ("step", "<u8"), ("cycles", "<u8"), ("outcome", "<i8"), ("fault", "<u8", 2)])
"""Structures of links.cpp."""
LINE = 64
"""Bytes of a cache line, to which channels are aligned."""
LATENCY, SENT, PASSED, TAKEN = 0, 8, 9, 16
"""Places of a channel's counters in words of 8 bytes."""
SIDES = "WE"
START_CYCLES = 1 << 16
"""Most cycles from RUN until a chip is ready."""
_P = ctypes.c_void_p
_U32, _U64, _I64 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
_FUNCTIONS = {
    "link_channel_bytes": (_U64, ()), "link_create": (_P, (_P,)), "link_destroy": (None, (_P,)),
    "link_connect": (None, (_P, _U32, _U32, _P, _P)), "link_changes": (None, (_P, _U32, _U32, _P, _U64)),
    "link_start": (_I64, (_P, _U32, _U64)), "link_step": (_I64, (_P, _U64, _P)), "link_run": (None, (_P, _U64, _U64)),
}


class Outcome(IntEnum):
    """Why a chip stopped. The numbers are those of links.cpp."""

    BLOCKED = -1
    MISSING = -2
    LOST = -3
    LATE = -4


class _Threaded:
    """A library whose functions all run in one thread: a Verilated model must be used by the thread that made it."""

    def __init__(self, library: Any, thread: ThreadPoolExecutor) -> None:
        self.library, self._thread = library, thread

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.library, name)
        return lambda *arguments: self._thread.submit(function, *arguments).result()


class LinkedChip(VerilatedChip):
    """One chip of a `VerilatedRack`. thread: in which all of it happens."""

    def __init__(self, config: ChipConfig, thread: ThreadPoolExecutor, debug: bool = False) -> None:
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
        """Not by itself: a RECEIVE waits for another chip. See `VerilatedRack.run`."""
        raise TypeError("a chip of a rack runs with the others: call VerilatedRack.run")

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
        return self._linked.value, step, cycles.ctypes.data, 0, 0

    def close(self) -> None:
        """Free the chip."""
        if self._sim:
            self._lib.link_destroy(self._linked)
            super().close()


class VerilatedRack(HostedRack):
    """Verilated chips of a rack, which exchange flits in the cycles of the schedule.

    debug: builds with traps and probes.
    threads: that the chips share. By default, as many as there are processors without work, and at most one a chip.
    max_cycles: of a run, before it counts as endless.
    """

    def __init__(self, rack: RackConfig, debug: bool = False, *, threads: int | None = None,
                 max_cycles: int = 1 << 40) -> None:
        self.rack, self._most = rack, max_cycles
        count = min(len(rack.chips), threads or idle_processors())
        self._threads = [ThreadPoolExecutor(max_workers=1, thread_name_prefix="chips") for _ in range(count)]
        self.chips = self._chips = [LinkedChip(config, self._threads[n % count], debug)
                                    for n, config in enumerate(rack.chips)]
        self._channels = {near: self._channel(near, latency) for near, (_, latency) in rack.across.items()}
        for near, (far, _) in rack.across.items():
            self._chips[near.chip].connect(near.side, near.number, self._channels[near], self._channels[far])

    def _channel(self, near: Port, latency: int) -> np.ndarray:
        """The memory of what a port sends, uint64, at the beginning of a cache line."""
        size = self._chips[near.chip].channel_bytes
        memory = np.zeros(size + LINE, np.uint8)
        at = -memory.ctypes.data % LINE
        channel = memory[at : at + size].view(np.uint64)
        channel[LATENCY] = latency + C2C_SEND
        return channel

    def run(self, n_tokens: int, changes: Changes | None = None) -> Ran:
        """Run tokens on all chips. Raises ChipFault where a flit is missing or is not taken, TimeoutExceeded."""
        for near, channel in self._channels.items():
            channel[[SENT, PASSED, TAKEN]] = 0
            self._chips[near.chip].change(near.side, near.number, (changes or {}).get(near, {}))
        ready = [chip.prepare(n_tokens) for chip in self._chips]
        if not all(found == 1 for found in ready):
            return self._not_started(ready)
        cycles = np.zeros((len(self._chips), n_tokens), np.uint64)
        ended = self._run(cycles)
        return Ran(cycles=[own[:count].tolist() for own, count in zip(cycles, ended, strict=True)],
                   sent={near: int(channel[SENT]) for near, channel in self._channels.items()})

    def _run(self, cycles: np.ndarray) -> list[int]:
        """How many tokens of each chip ended. cycles: uint64 [chip, token], to be written."""
        jobs = np.array([chip.job(own) for chip, own in zip(self._chips, cycles, strict=True)], JOB)
        mine = [jobs[n :: len(self._threads)].copy() for n in range(len(self._threads))]
        runs = [thread.submit(self._chips[n].functions.link_run, own.ctypes.data, len(own), self._most)
                for n, (thread, own) in enumerate(zip(self._threads, mine, strict=True))]
        for n, run in enumerate(runs):
            run.result()
            jobs[n :: len(self._threads)] = mine[n]
        ended = jobs["outcome"].tolist()
        self._check(ended, jobs["fault"].tolist())
        return ended

    def _not_started(self, ready: list[int]) -> Ran:
        """Some chip has no bucket for the position, and so none has started."""
        if any(ready):
            raise ChipFault(f"chip {next(n for n, found in enumerate(ready) if found != 1)} of rack {self.rack.name} "
                            "is not ready to start a token")
        return Ran(cycles=[[] for _ in self._chips])

    def _check(self, ended: Sequence[int], places: Sequence[Sequence[int]]) -> None:
        """Raises what went wrong first. places: of a chip's fault, 8 * side + port, and the cycle."""
        faults = [(cycle, n, port) for n, (port, cycle) in enumerate(places)
                  if ended[n] in (Outcome.MISSING, Outcome.LOST)]
        if faults:
            cycle, n, place = min(faults)
            what = "no flit arrives" if ended[n] == Outcome.MISSING else "a flit that arrived was not taken"
            port = Port(n, SIDES[place // 8], place % 8)
            raise ChipFault(f"rack {self.rack.name}: {what} at port {port} in cycle {cycle}")
        if any(found < 0 for found in ended):
            raise TimeoutExceeded(f"rack {self.rack.name}: tokens must end within {self._most} cycles, but did not")
        for near, channel in self._channels.items():
            if left := int(channel[SENT] - channel[TAKEN]):
                raise ChipFault(f"rack {self.rack.name}: {left} flits that arrived at port {self.rack.across[near][0]} "
                                "were not taken")

    @property
    def now(self) -> int:
        return self._chips[0].now

    def close(self) -> None:
        """Free all chips and end the threads."""
        for chip in self._chips:
            chip.close()
        for thread in self._threads:
            thread.shutdown()


def idle_processors() -> int:
    """Processors without work, and at least one.

    Threads that share a chip's work with others wait for each other several hundred times a token, so they pay only
    where each has a processor of its own.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available - round(os.getloadavg()[0]))
