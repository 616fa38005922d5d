"""A chip as its host sees it: its host port, and the tokens that it runs. Each way to run a chip is a subclass."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.host_map import WORD, Control, Space
from arch.row import queues
from base.progress import Tell
from program.image import (
    Image,
    accesses,
    bucket_accesses,
    host_words,
    map_accesses,
    mem_accesses,
    mem_addresses,
    queue_accesses,
    start_accesses,
)

BLOCK = 4096
"""Quads of an image between two reports of progress."""


class HostPort(ABC):
    """The host port of a chip.

    A subclass defines how accesses reach the chip. All other methods use these.

    config: the chip's config.
    """

    config: ChipConfig

    @abstractmethod
    def write(self, accesses: np.ndarray) -> None:
        """Host writes (an array of `program.image.ACCESS`) in the given order."""

    @abstractmethod
    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        """The host words at these addresses, after all writes so far."""

    def close(self) -> None:  # noqa: B027  most chips hold nothing
        """Free the chip's resources."""

    def load(self, image: Image, tell: Tell = lambda done: None) -> None:
        """Write an image, and position 0.

        tell: called with the fraction of the memories that is written.
        """
        self.write(image.tables())
        done, total = 0, sum(map(len, image.mems.values()))
        for name, quads in image.mems.items():
            for start in range(0, len(quads), BLOCK):
                self.load_mem(name, quads[start : start + BLOCK], start)
                done += len(quads[start : start + BLOCK])
                tell(done / total)
        self.host_write(Space.CONTROL, Control.POSITION.value, 0)

    def host_write(self, space: Space, addr: int, data: int) -> None:
        """One access: a 128-bit word."""
        self.write(accesses(space, [addr], host_words([data])))

    def host_read(self, space: Space, addr: int) -> int:
        """One access: a 128-bit word."""
        return self.read(space, [addr])[0]

    def load_mem(self, name: str, data: np.ndarray, at: int = 0) -> None:
        """Write uint8 [quad, plane, lane] to a slice ("MEM_E0") from quad `at` on."""
        self.write(mem_accesses(self.config, name, data, at))

    def read_mem(self, name: str, at: int = 0, count: int | None = None) -> np.ndarray:
        """uint8 [count, plane, lane] from quad `at` on. By default, to the end of the slice."""
        number = next(queue.slice for queue in queues(self.config) if queue.name == name)
        count = self.config.mem_depths[number] - at if count is None else count
        words = self.read(Space.MEM, mem_addresses(self.config, name, at, count).tolist())
        raw = b"".join(word.to_bytes(WORD // 8, "little") for word in words)
        return np.frombuffer(raw, np.uint8).reshape(count, PLANES, WORD // 8)[..., : self.config.lanes].copy()

    def load_queue(self, name: str, words: Iterable[int]) -> None:
        """Write all instructions of a queue, from its beginning."""
        self.write(queue_accesses(self.config, name, words))

    def load_starts(self, name: str, pcs: Sequence[int]) -> None:
        """Write the start PC of a queue in every bucket."""
        self.write(start_accesses(self.config, name, pcs))

    def load_buckets(self, table: Sequence[tuple[int, int]]) -> None:
        """Write (period, first position beyond it) of every bucket. The remaining entries become empty."""
        self.write(bucket_accesses(self.config, table))

    def load_map(self, number: int, lanes: Sequence[int]) -> None:
        """Write a permutation map: output lane l takes input lane lanes[l]."""
        self.write(map_accesses(number, lanes))


class HostedChip(HostPort):
    """A chip that runs tokens by itself. The chips of a rack run together: see `sim.device.rack.HostedRack`."""

    @abstractmethod
    def run(self, n_tokens: int) -> Iterable[int]:
        """Run tokens from the current position. Returns the cycles of each, from its start pulse to the next."""
