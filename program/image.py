"""What a host writes into a chip before a run, as plain data, and how it is written through the host port."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.host_map import Control, Space, icu_address
from arch.isa import width
from arch.queue_store import Numbers
from arch.row import queues

WORD_BITS = 128


class Host(Protocol):
    """The host port of a chip, whatever runs it."""

    def host_write(self, space: Space, addr: int, data: int) -> None: ...

    def host_read(self, space: Space, addr: int) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Image:
    """A loaded chip.

    queues: instruction words by queue name. starts: start PC in every bucket by queue name. buckets: (period, first
    position beyond it). maps: permutation maps, a source lane for every lane. mems: uint8 [quad, plane, lane] by slice
    name, from quad 0 on.
    """

    config: ChipConfig
    queues: Mapping[str, Sequence[int]]
    starts: Mapping[str, Sequence[int]]
    buckets: Sequence[tuple[int, int]]
    maps: Sequence[Sequence[int]] = ()
    mems: Mapping[str, np.ndarray] = field(default_factory=dict)

    def host_words(self) -> Iterator[tuple[Space, int, int]]:
        """Every host write (space, address, data) that loads the image, position 0 included."""
        slices = [queue.name for queue in queues(self.config) if queue.unit == "MEM"]
        for name, data in self.mems.items():
            base = slices.index(name) << 22
            for address, row in enumerate(np.ascontiguousarray(data, np.uint8).reshape(-1, self.config.lanes)):
                yield Space.MEM, base + address, int.from_bytes(row.tobytes(), "little")
        for number, queue in enumerate(queues(self.config)):
            number_of = Numbers(self.config, queue)
            parts = range((width(queue.unit) - 1) // WORD_BITS, -1, -1)
            for address, word in enumerate(self.queues.get(queue.name, ())):
                name = number_of(word)
                for part in parts:
                    data = word >> WORD_BITS * part & (1 << WORD_BITS) - 1
                    yield Space.ICU, icu_address(number, address, name, part), data
            for bucket, pc in enumerate(self.starts.get(queue.name, ())):
                yield Space.START, number << 8 | bucket, pc
        for bucket, (period, limit) in enumerate(self.buckets):
            yield Space.BUCKET, bucket, limit << 32 | period
        for number, lanes in enumerate(self.maps):
            yield Space.MAP, number, sum(source << 4 * lane for lane, source in enumerate(lanes))
        yield Space.CONTROL, Control.POSITION.value, 0

    def load(self, host: Host) -> None:
        """Write the image through a host port."""
        for space, addr, data in self.host_words():
            host.host_write(space, addr, data)


def quads_of(lanes: np.ndarray) -> np.ndarray:
    """uint8 [quad, plane, lane] of int32 lanes [quad, lane]."""
    data = np.ascontiguousarray(lanes, "<i4").view(np.uint8).reshape(*lanes.shape, PLANES)
    return data.transpose(0, 2, 1).copy()
