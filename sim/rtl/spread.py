"""A rack of Verilated chips that is spread over the ranks of MPI, each of which holds some of them, in one thread."""

import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

from arch.config import ChipConfig
from arch.host_map import Space
from arch.rack import RackConfig
from base.errors import TspError
from base.progress import Tell
from program.image import Image
from sim.device.hosted_chip import HostPort
from sim.device.rack import Changes, HostedRack, Ran
from sim.memory import available_memory, check_memory

from .exchange import Exchange, chips_of, owner
from .linked import all_ready, checked, not_started
from .ranks import ANSWER, END, ORDER, Ranks, receive
from .share import Share, ShareRan, joined
from .threads import OneThread

PATIENCE = 16
"""Cycles that a chip goes on after a flit to another rank before messages leave: most SENDs are over by then."""
MEMORY, OPEN, ACCESS, ASK, RUN, CLOSE = "memory", "open", "access", "ask", "run", "close"
"""The orders to a rank."""
SILENT = (ACCESS, CLOSE)
"""Those that have no answer."""


class RemoteChip(HostPort):
    """A chip that another rank holds, for its host."""

    def __init__(self, ranks: Ranks, rank: int, number: int, config: ChipConfig) -> None:
        self.config, self._ranks, self._rank, self._number = config, ranks, rank, number

    def load(self, image: Image, tell: Tell = lambda done: None) -> None:
        """As a whole."""
        self._ranks.order(self._rank, ACCESS, self._number, "load", image)
        tell(1.0)

    def write(self, accesses: np.ndarray) -> None:
        """In the rank that holds the chip."""
        self._ranks.order(self._rank, ACCESS, self._number, "write", accesses)

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        """From the rank that holds the chip."""
        self._ranks.order(self._rank, ASK, self._number, "read", space, addrs)
        return self._ranks.answer(self._rank)


class SpreadRack(HostedRack):
    """Verilated chips of a rack in several ranks, as `VerilatedRack` in one process.

    ranks: at most one a chip. debug, max_cycles: as of `VerilatedRack`.

    Raises TspError if there are more ranks, or a machine has too little memory for its chips.
    """

    def __init__(self, rack: RackConfig, ranks: Ranks, debug: bool = False, *, max_cycles: int = 1 << 40) -> None:
        self.rack, self._ranks, self._most = rack, ranks, max_cycles
        ranks.used = True
        if ranks.size > len(rack.chips):
            raise TspError(f"rack {rack.name} has {len(rack.chips)} chips, so mpirun may start at most as many ranks, "
                           f"not {ranks.size}")
        ranks.order_all(MEMORY)
        check_machines(rack, [_machine(), *ranks.answers()])
        ranks.order_all(OPEN, rack, debug)
        try:
            share = Share(rack, chips_of(rack, ranks.size, 0), [ranks.thread], debug, patience=PATIENCE)
        finally:
            ranks.answers()
        self._share, self._exchange = share, ranks.thread.call(Exchange, ranks.comm, share)
        owners = [owner(rack, ranks.size, n) for n in range(len(rack.chips))]
        self.chips = [RemoteChip(ranks, held, n, rack.chips[n]) if held else share.chips[n]
                      for n, held in enumerate(owners)]

    def run(self, n_tokens: int, changes: Changes | None = None) -> Ran:
        """Run tokens on all chips of all ranks. Raises as `VerilatedRack.run`."""
        return self._ranks.thread.call(self._run, n_tokens, changes)

    def _run(self, n_tokens: int, changes: Changes | None) -> Ran:
        self._ranks.order_all(RUN, n_tokens, changes, self._most)
        ready, ours = self._exchange.run(n_tokens, changes, self._most)
        parts = self._ranks.answers()
        if not all_ready(self.rack, ready) or ours is None:
            return not_started(self.rack)
        return checked(self.rack, joined([ours, *parts]), self._most)

    @property
    def now(self) -> int:
        return self._share.chips[0].now

    def close(self) -> None:
        """Free the chips in all ranks."""
        self._ranks.order_all(CLOSE)
        self._share.close()


def check_machines(rack: RackConfig, found: Sequence[tuple[str, int | None]]) -> None:
    """Raises TspError where the chips of all ranks on a machine take more memory than it has.

    found: of each rank, the machine's name and its free memory.
    """
    for name in sorted({name for name, _ in found}):
        chips = [n for rank, (there, _) in enumerate(found) if there == name
                 for n in chips_of(rack, len(found), rank)]
        free = min((memory for there, memory in found if there == name and memory is not None), default=None)
        check_memory(rack, free, chips, f" on {name}")


def _machine() -> tuple[str, int | None]:
    return socket.gethostname(), available_memory()


class _Held:
    """What another rank than 0 does: its orders by name, each of which gives the answer."""

    def __init__(self, comm: Any) -> None:
        self._comm, self._thread = comm, OneThread(here=True)

    def memory(self) -> tuple[str, int | None]:
        return _machine()

    def open(self, rack: RackConfig, debug: bool) -> None:
        mine = chips_of(rack, self._comm.size, self._comm.rank)
        self._share = Share(rack, mine, [self._thread], debug, patience=PATIENCE)
        self._exchange = Exchange(self._comm, self._share)

    def access(self, number: int, name: str, *arguments: Any) -> None:
        getattr(self._share.chips[number], name)(*arguments)

    def ask(self, number: int, name: str, *arguments: Any) -> Any:
        return getattr(self._share.chips[number], name)(*arguments)

    def run(self, n_tokens: int, changes: Changes | None, most: int) -> ShareRan | None:
        return self._exchange.run(n_tokens, changes, most)[1]

    def close(self) -> None:
        self._share.close()


def serve(comm: Any) -> None:
    """Hold chips for rank 0 until it says that it is over. A refusal is its answer."""
    held = _Held(comm)
    while (order := receive(comm, 0, ORDER))[0] != END:
        name, arguments = order
        try:
            answer = getattr(held, name)(*arguments)
        except TspError as error:
            answer = error
            if name in SILENT:
                raise
        if name not in SILENT:
            comm.send(answer, dest=0, tag=ANSWER)
