"""A chip that only its host port gives access to. A board becomes a device by it.

`ChipDevice("fpga", PortChip(config, port))` runs a program on the chip at `port`.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from arch.config import ChipConfig
from arch.host_map import Control, Space, fields_of
from base.errors import TspError
from program.image import Access, each

from .hosted_chip import HostedChip

STATE = (Control.RUN, Control.POSITION, Control.CYCLES, Control.TOKEN_CYCLES)
"""Registers 0..3. Once RUN reads 0, the others no longer change."""


class Port(Protocol):
    """Bulk access to a host port, in order."""

    def write(self, accesses: Iterable[Access]) -> None: ...

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]: ...


class PortChip(HostedChip):
    """A chip that is driven by host accesses alone.

    Tokens run one by one, because the chip keeps the cycles of the last token only. A token takes one write and one
    read, if it ends before the read arrives. A token that does not end raises TspError.

    config: the chip's config.
    port: the way to its host port.
    timeout: most seconds that a token takes.
    """

    def __init__(self, config: ChipConfig, port: Port, *, timeout: float = 10.0) -> None:
        self.config, self._port, self._timeout = config, port, timeout

    def write(self, accesses: np.ndarray) -> None:
        """Write through the port. Instructions of a queue are sorted so that few host words are needed."""
        self._port.write(_sorted(each(accesses)))

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        """Read through the port."""
        return self._port.read(space, addrs)

    def run(self, n_tokens: int) -> list[int]:
        """Run tokens from the current position. Returns the cycles of each, as the chip counts them.

        Ends early if the chip starts no token: at a position beyond all buckets, with Trap.ADDRESS.
        """
        cycles: list[int] = []
        before = self.state()[Control.POSITION]
        for _ in range(n_tokens):
            self.begin()
            state = self.wait()
            if state[Control.POSITION] == before:
                break
            before = state[Control.POSITION]
            cycles.append(state[Control.TOKEN_CYCLES])
        return cycles

    def begin(self) -> None:
        """Write RUN for one token."""
        self.host_write(Space.CONTROL, Control.RUN.value, 1)

    def state(self) -> dict[Control, int]:
        """The registers of STATE."""
        return dict(zip(STATE, self._port.read(Space.CONTROL, [register.value for register in STATE]), strict=True))

    def wait(self) -> dict[Control, int]:
        """The registers of STATE when the token has ended. Raises TspError if it does not."""
        end = time.monotonic() + self._timeout
        while (state := self.state())[Control.RUN]:
            if time.monotonic() > end:
                raise TspError(f"the chip did not end a token within {self._timeout} s")
        return state


def _sorted(accesses: Iterable[Access]) -> Iterator[Access]:
    """The accesses, with each queue's instructions sorted so that few host words are needed."""
    for queue, group in itertools.groupby(accesses, _queue_of):
        if queue is None:
            yield from group
        else:
            yield from _sorted_instructions(group)


def _queue_of(access: Access) -> int | None:
    return fields_of(Space.ICU, access[1])["queue"] if access[0] is Space.ICU else None


def _sorted_instructions(accesses: Iterable[Access]) -> Iterator[Access]:
    """The writes of one queue's instructions, sorted.

    The chip keeps the upper parts of an instruction until others are written. So instructions with equal upper parts
    are adjacent, and their upper parts are written once. Among them, those with short lower parts come first.
    """
    instructions: list[tuple[list[int], list[Access], Access]] = []
    upper: list[Access] = []
    for access in accesses:
        if fields_of(Space.ICU, access[1])["part"]:
            upper.append(access)
        else:
            instructions.append(([data for _, _, data in upper], upper, access))
            upper = []
    kept: list[int] = []
    for data, upper, access in sorted(instructions, key=lambda each: (each[0], each[2][2].bit_length())):
        if data != kept:
            yield from upper
        yield access
        kept = data
