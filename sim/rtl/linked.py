"""A rack of Verilated chips: a model and a context for each, in one thread or several.

A chip runs ahead up to the next flit that it takes. A flit is known by the cycle of its arrival, counted from the cycle
in which all chips are ready. So the results are those of chips in lockstep, bit for bit. See links.cpp.
"""

import os
from collections.abc import Mapping

from arch.rack import Port, RackConfig
from sim.device.protocol import ChipFault
from sim.device.rack import Changes, HostedRack, Ran

from .chip import TimeoutExceeded
from .share import Outcome, Share, ShareRan, place_name
from .threads import OneThread


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
        self._threads = [OneThread() for _ in range(count)]
        self._share = Share(rack, range(len(rack.chips)), self._threads, debug)
        self.chips = list(self._share.chips.values())

    def run(self, n_tokens: int, changes: Changes | None = None) -> Ran:
        """Run tokens on all chips. Raises ChipFault where a flit is missing or is not taken, TimeoutExceeded."""
        if not all_ready(self.rack, self._share.prepare(n_tokens, changes)):
            return not_started(self.rack)
        return checked(self.rack, self._share.run(n_tokens, self._most), self._most)

    @property
    def now(self) -> int:
        return self._share.chips[0].now

    def close(self) -> None:
        """Free all chips and end the threads."""
        self._share.close()
        for thread in self._threads:
            thread.shutdown()


def all_ready(rack: RackConfig, ready: Mapping[int, int]) -> bool:
    """Whether tokens start on all chips; on none if there is no bucket for the position. Raises ChipFault if only some
    are ready. ready: of `Share.prepare`."""
    if all(found == 1 for found in ready.values()):
        return True
    if any(ready.values()):
        waits = next(n for n, found in sorted(ready.items()) if found != 1)
        raise ChipFault(f"chip {waits} of rack {rack.name} is not ready to start a token")
    return False


def not_started(rack: RackConfig) -> Ran:
    """The run in which no token started."""
    return Ran(cycles=[[] for _ in rack.chips])


def checked(rack: RackConfig, found: ShareRan, most: int) -> Ran:
    """A run of all chips. Raises what went wrong first: ChipFault, or TimeoutExceeded after `most` cycles."""
    ran = [found.chips[n] for n in range(len(rack.chips))]
    faults = [(each.cycle, n, each) for n, each in enumerate(ran) if each.outcome in (Outcome.MISSING, Outcome.LOST)]
    if faults:
        cycle, n, first = min(faults, key=lambda fault: fault[:2])
        what = "no flit arrives" if first.outcome == Outcome.MISSING else "a flit that arrived was not taken"
        raise ChipFault(f"rack {rack.name}: {what} at port {Port(n, *place_name(first.place))} in cycle {cycle}")
    if any(each.outcome < 0 for each in ran):
        raise TimeoutExceeded(f"rack {rack.name}: tokens must end within {most} cycles, but did not")
    for near, (far, _) in rack.across.items():
        if left := found.sent[near] - found.taken[near]:
            raise ChipFault(f"rack {rack.name}: {left} flits that arrived at port {far} were not taken")
    return Ran(cycles=[each.cycles for each in ran], sent=found.sent)


def idle_processors() -> int:
    """Processors without work, and at least one.

    Threads that share a chip's work with others wait for each other several hundred times a token, so they pay only
    where each has a processor of its own.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available - round(os.getloadavg()[0]))
