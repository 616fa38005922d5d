"""A rack of Verilated chips: a model, a context and a thread for each.

A chip runs ahead up to the next flit that it takes. It is known by its arrival's cycle, counted from the cycle in which
all chips are ready, so the results are those of chips in lockstep, bit for bit. See links.cpp.
"""

import ctypes
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from arch.config import ChipConfig
from arch.isa import C2C_SEND
from arch.rack import Port, RackConfig
from sim.device.device import ChipFault
from sim.device.rack import Changes, HostedRack, Ran

from .chip import TimeoutExceeded, VerilatedChip, bind

CHANGE = np.dtype([("flit", "<u8"), ("bits", "u1", 24)])
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
    "link_start": (_I64, (_P, _U32, _U64)), "link_run": (_I64, (_P, _U64, _P, _U32, _P)),
}


class Outcome(IntEnum):
    """Why a chip stopped. The numbers are those of links.cpp."""

    BLOCKED = -1
    MISSING = -2
    LOST = -3
    LATE = -4


class _Thread:
    """A library whose functions all run in one thread: a Verilated model must be used by the thread that made it."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chip")

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        return _Call(self._pool, function)

    def end(self) -> None:
        self._pool.shutdown()


class _Call:
    """A function that runs in a thread."""

    def __init__(self, pool: ThreadPoolExecutor, function: Any) -> None:
        self._pool, self._function = pool, function

    def begin(self, *arguments: Any) -> Future:
        return self._pool.submit(self._function, *arguments)

    def __call__(self, *arguments: Any) -> Any:
        return self.begin(*arguments).result()


class LinkedChip(VerilatedChip):
    """One chip of a `VerilatedRack`, in a thread of its own."""

    def __init__(self, config: ChipConfig, debug: bool = False) -> None:
        super().__init__(config, debug)
        self._linked = _P(self._lib.link_create(self._sim))
        self._kept: dict[tuple[str, int], np.ndarray] = {}
        self._cycles, self._fault = np.zeros(0, np.uint64), np.zeros(2, np.uint64)

    def _bind(self, path: Path) -> Any:
        library = bind(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        return _Thread(library)

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
        raise NotImplementedError("the chips of a rack run together")

    def begin_start(self, n_tokens: int) -> Future:
        """Let tokens wait for the others: 1 once the first one is ready, 0 if it never will be."""
        self._cycles = np.zeros(n_tokens, np.uint64)
        return self._lib.link_start.begin(self._linked, n_tokens, START_CYCLES)

    def begin_run(self, max_cycles: int, wait: bool) -> Future:
        """Run these tokens: how many of them ended, or an `Outcome`.

        wait: for the other chips. Otherwise it ends with BLOCKED where a flit has not come, and is to be called again.
        """
        return self._lib.link_run.begin(self._linked, max_cycles, self._cycles.ctypes.data, wait,
                                        self._fault.ctypes.data)

    def cycles(self, count: int) -> list[int]:
        """Cycles of the tokens that ended."""
        return self._cycles[:count].tolist()

    @property
    def fault(self) -> tuple[str, int, int]:
        """Side and number of the port, and the cycle, of what went wrong."""
        port, cycle = self._fault.tolist()
        return SIDES[port // 8], port % 8, cycle

    def close(self) -> None:
        """Free the chip and end its thread."""
        if self._sim:
            self._lib.link_destroy(self._linked)
            super().close()
            self._lib.end()


class VerilatedRack(HostedRack):
    """Verilated chips of a rack, which exchange flits in the cycles of the schedule.

    debug: builds with traps and probes. in_turn: run the chips one after the other, each as far as it gets, rather than
    all at once. max_cycles: of a run, before it counts as endless.
    """

    def __init__(self, rack: RackConfig, debug: bool = False, *, in_turn: bool = False,
                 max_cycles: int = 1 << 40) -> None:
        self.rack, self._most, self._in_turn = rack, max_cycles, in_turn
        self.chips = self._chips = [LinkedChip(config, debug) for config in rack.chips]
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
        ready = _all(chip.begin_start(n_tokens) for chip in self._chips)
        if not all(ready):
            return self._not_started(ready)
        ended = self._run_in_turn() if self._in_turn else _all(chip.begin_run(self._most, True) for chip in self._chips)
        self._check(ended)
        return Ran(cycles=[chip.cycles(count) for chip, count in zip(self._chips, ended, strict=True)],
                   sent={near: int(channel[SENT]) for near, channel in self._channels.items()})

    def _run_in_turn(self) -> list[int]:
        ended: list[int] = [Outcome.BLOCKED] * len(self._chips)
        while Outcome.BLOCKED in ended:
            for n, chip in enumerate(self._chips):
                if ended[n] == Outcome.BLOCKED:
                    ended[n] = chip.begin_run(self._most, False).result()
        return ended

    def _not_started(self, ready: list[int]) -> Ran:
        """Some chip has no bucket for the position, and so has none started."""
        if Outcome.LATE in ready or any(ready):
            raise ChipFault(f"chip {next(n for n, found in enumerate(ready) if found != 1)} of rack {self.rack.name} "
                            "is not ready to start a token")
        return Ran(cycles=[[] for _ in self._chips])

    def _check(self, ended: list[int]) -> None:
        """Raises what went wrong first."""
        faults = [(chip.fault[2], n) for n, (chip, found) in enumerate(zip(self._chips, ended, strict=True))
                  if found in (Outcome.MISSING, Outcome.LOST)]
        if faults:
            cycle, n = min(faults)
            side, number, _ = self._chips[n].fault
            what = "no flit arrives" if ended[n] == Outcome.MISSING else "a flit that arrived was not taken"
            raise ChipFault(f"rack {self.rack.name}: {what} at port {Port(n, side, number)} in cycle {cycle}")
        if any(found < 0 for found in ended):
            raise TimeoutExceeded(f"rack {self.rack.name}: tokens must end within {self._most} cycles, but did not")
        for near, channel in self._channels.items():
            if channel[SENT] != channel[TAKEN]:
                raise ChipFault(f"rack {self.rack.name}: {int(channel[SENT] - channel[TAKEN])} flits that arrived at "
                                f"port {self.rack.across[near][0]} were not taken")

    @property
    def now(self) -> int:
        return self._chips[0].now

    def close(self) -> None:
        """Free all chips."""
        for chip in self._chips:
            chip.close()


def _all(futures: Iterable[Future]) -> list[int]:
    """The results, once all are there."""
    return [future.result() for future in list(futures)]
