"""A chip of which nothing but the host port can be reached: what a board needs to be a device.

`ChipDevice("fpga", HostChip(config, port))` runs a program on whatever is behind `port`.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.host_map import Control, Space
from arch.row import queues
from base.errors import TspError
from program.image import Image

STATE = (Control.RUN, Control.POSITION, Control.CYCLES, Control.TOKEN_CYCLES)
"""Registers 0..3: when RUN has become 0, the others no longer change."""
ICU_PARTS = 4
"""Addresses of one instruction; see `arch.isa.icu_address`."""
Access = tuple[Space, int, int]
"""Space, address, 128-bit data of a write."""


class Port(Protocol):
    """Bulk access to a host port, in order."""

    def write(self, accesses: Iterable[Access]) -> None: ...

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]: ...


class HostChip:
    """A `sim.device.device.Chip` by host accesses alone.

    config: the chip behind the port. port: how it is reached. timeout: seconds that a token may take.

    Tokens run one by one, since the chip keeps the cycles of the last one only. A token takes one write and one read,
    as long as it ends before the read comes. Raises TspError where it does not end.
    """

    def __init__(self, config: ChipConfig, port: Port, *, timeout: float = 10.0) -> None:
        self.config, self._port, self._timeout = config, port, timeout
        self._slices = [queue.name for queue in queues(config) if queue.unit == "MEM"]

    def host_write(self, space: Space, addr: int, data: int) -> None:
        """One access."""
        self._port.write([(space, addr, data)])

    def host_read(self, space: Space, addr: int) -> int:
        """One access."""
        return self._port.read(space, [addr])[0]

    def load_mem(self, name: str, data: np.ndarray, at: int = 0) -> None:
        """Write uint8 [quad, plane, lane] to a slice from quad `at` on."""
        rows = np.ascontiguousarray(data, np.uint8).reshape(-1, self.config.lanes)
        base = self._address(name, at)
        self._port.write((Space.MEM, base + n, int.from_bytes(row.tobytes(), "little")) for n, row in enumerate(rows))

    def read_mem(self, name: str, at: int = 0, count: int | None = None) -> np.ndarray:
        """uint8 [count, plane, lane] from quad `at` on; to the end of the slice by default."""
        depth = self.config.mem_depths[int(name.removeprefix("MEM_")[1:])]
        count = depth - at if count is None else count
        base = self._address(name, at)
        words = self._port.read(Space.MEM, range(base, base + count * PLANES))
        raw = b"".join(word.to_bytes(self.config.lanes, "little") for word in words)
        return np.frombuffer(raw, np.uint8).reshape(count, PLANES, self.config.lanes)

    def _address(self, name: str, quad: int) -> int:
        return self._slices.index(name) << 22 | quad << 2

    def load_queue(self, name: str, words: Iterable[int], at: int = 0) -> None:
        """Write all instructions of a queue, from its beginning."""
        if at:
            raise ValueError(f"at must be 0: a queue is loaded as a whole, not from {at!r} on")
        self._tables(queues={name: list(words)})

    def load_starts(self, name: str, pcs: Sequence[int]) -> None:
        """Start PC of a queue in every bucket."""
        self._tables(starts={name: pcs})

    def load_buckets(self, table: Sequence[tuple[int, int]]) -> None:
        """(period, first position beyond it) of every bucket; entries that are not named become empty."""
        self._tables(buckets=[*table, *[(0, 0)] * (self.config.buckets - len(table))])

    def load_map(self, number: int, lanes: Sequence[int]) -> None:
        """Permutation map: output lane l takes input lane lanes[l]."""
        self.host_write(Space.MAP, number, sum(int(source) << 4 * lane for lane, source in enumerate(lanes)))

    def _tables(self, **parts) -> None:
        image = Image(**({"config": self.config, "queues": {}, "starts": {}, "buckets": ()} | parts))
        self._port.write(_sorted(access for access in image.host_words() if access[0] is not Space.CONTROL))

    def run(self, n_tokens: int) -> list[int]:
        """Run tokens from the present position; cycles of each as the chip counted them. Ends early at a trap."""
        cycles: list[int] = []
        before = self._state()[Control.POSITION]
        for _ in range(n_tokens):
            self.host_write(Space.CONTROL, Control.RUN.value, 1)
            state = self._wait()
            if state[Control.POSITION] == before:
                break
            before = state[Control.POSITION]
            cycles.append(state[Control.TOKEN_CYCLES])
        return cycles

    def _state(self) -> dict[Control, int]:
        """The registers of a run, read in this order."""
        return dict(zip(STATE, self._port.read(Space.CONTROL, [register.value for register in STATE]), strict=True))

    def _wait(self) -> dict[Control, int]:
        end = time.monotonic() + self._timeout
        while (state := self._state())[Control.RUN]:
            if time.monotonic() > end:
                raise TspError(f"the chip must end a token within {self._timeout} s, but did not")
        return state


def _sorted(accesses: Iterable[Access]) -> Iterator[Access]:
    """Writes of one queue's instructions in an order that needs few words on a line, and other accesses as they are.

    The chip keeps upper parts until others are written, so that instructions of equal ones need them once; among these
    the short ones come first.
    """
    instructions: list[tuple[list[int], list[Access], Access]] = []
    upper: list[Access] = []
    for access in accesses:
        if access[0] is not Space.ICU:
            yield access
        elif access[1] % ICU_PARTS:
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
