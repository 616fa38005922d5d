"""The contents that a host writes into a chip before a run, and the host accesses that write them.

Accesses are arrays of ACCESS, so millions of them need no Python call each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.host_map import WORD, Space, address, bucket_word, map_word
from arch.isa import width
from arch.queue_store import Numbers
from arch.row import Queue, queues, slices

from .program import Program

ACCESS = np.dtype([("space", "<u4"), ("addr", "<u4"), ("data", "<u4", WORD // 32)])
"""A host write, in the layout of sim/rtl/harness.cpp."""
Access = tuple[Space, int, int]
"""A host write in Python: space, address, word."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """The contents of a loaded chip.

    config: the chip's config.
    queues: instruction words by queue name.
    starts: start PC in every bucket, by queue name.
    buckets: (period, first position beyond it). The remaining entries become empty.
    maps: permutation maps by number: a source lane for every lane.
    mems: uint8 [quad, plane, lane] from quad 0 on, by queue name of the slice.
    """

    config: ChipConfig
    queues: Mapping[str, Sequence[int]]
    starts: Mapping[str, Sequence[int]]
    buckets: Sequence[tuple[int, int]]
    maps: Mapping[int, Sequence[int]] = field(default_factory=dict)
    mems: Mapping[str, np.ndarray] = field(default_factory=dict)

    def tables(self) -> np.ndarray:
        """The writes [ACCESS] of queues, starts, buckets and maps."""
        parts = []
        for queue in queues(self.config):
            parts.append(queue_accesses(self.config, queue.name, self.queues.get(queue.name, ())))
            parts.append(start_accesses(self.config, queue.name, self.starts.get(queue.name, ())))
        parts.append(bucket_accesses(self.config, self.buckets))
        parts += [map_accesses(number, lanes) for number, lanes in self.maps.items()]
        return np.concatenate(parts)

    def accesses(self) -> np.ndarray:
        """The writes that load the image [ACCESS]. They touch no CONTROL register."""
        return np.concatenate([self.tables(), *(mem_accesses(self.config, name, quads)
                                                for name, quads in self.mems.items())])


def image_of(program: Program) -> Image:
    """The image of a program. Limits of buckets are numbers of periods."""
    names = {name: queue.name for name, queue in slices(program.config).items()}
    return Image(config=program.config, queues=program.queues, starts=program.starts, maps=program.maps,
                 buckets=[(bucket.period, bucket.limit * program.periods_a_token) for bucket in program.buckets],
                 mems={names[name]: quads for name, quads in program.image.items()})


# --- parts of an image ---------------------------------------------------------------------------------------------


def mem_accesses(config: ChipConfig, name: str, quads: np.ndarray, at: int = 0) -> np.ndarray:
    """Writes of uint8 [quad, plane, lane] to a slice ("MEM_E0") from quad `at` on."""
    rows = np.ascontiguousarray(quads, np.uint8).reshape(-1, config.lanes)
    return accesses(Space.MEM, mem_addresses(config, name, at, len(rows) // PLANES),
                    np.pad(rows, ((0, 0), (0, WORD // 8 - config.lanes))).view("<u4"))


def mem_addresses(config: ChipConfig, name: str, at: int, count: int) -> np.ndarray:
    """Addresses of all planes of `count` quads of a slice."""
    number = [queue.name for queue in queues(config) if queue.unit == "MEM"].index(name)
    return address(Space.MEM, slice=number, quad=at) + np.arange(count * PLANES)


def queue_accesses(config: ChipConfig, name: str, words: Iterable[int]) -> np.ndarray:
    """Writes of all instructions of a queue, from its beginning. Each instruction begins with its upper part."""
    number, queue = _numbered(config, name)
    number_of, parts = Numbers(config, queue), range(-(-width(queue.unit) // WORD) - 1, -1, -1)
    writes = [(address(Space.ICU, queue=number, instruction=n, number=word_number, part=part),
               word >> WORD * part & (1 << WORD) - 1)
              for n, word in enumerate(words) for word_number in [number_of(word)] for part in parts]
    return accesses(Space.ICU, [addr for addr, _ in writes], host_words(data for _, data in writes))


def start_accesses(config: ChipConfig, name: str, pcs: Sequence[int]) -> np.ndarray:
    """Writes of a queue's start PC in every bucket."""
    number, _ = _numbered(config, name)
    return accesses(Space.START, [address(Space.START, queue=number, bucket=n) for n in range(len(pcs))],
                    host_words(pcs))


def bucket_accesses(config: ChipConfig, table: Sequence[tuple[int, int]]) -> np.ndarray:
    """Writes of the whole bucket table.

    table: (period, first position beyond it) of each bucket. The remaining entries become empty.
    """
    words = [bucket_word(*entry) for entry in table] + [0] * (config.buckets - len(table))
    return accesses(Space.BUCKET, range(len(words)), host_words(words))


def map_accesses(number: int, lanes: Sequence[int]) -> np.ndarray:
    """Write of a permutation map: output lane l takes input lane lanes[l]."""
    return accesses(Space.MAP, [number], host_words([map_word(lanes)]))


def _numbered(config: ChipConfig, name: str) -> tuple[int, Queue]:
    """(number in host addresses, queue) of the queue with this name."""
    return next((number, queue) for number, queue in enumerate(queues(config)) if queue.name == name)


# --- accesses ------------------------------------------------------------------------------------------------------


def accesses(space: Space, addrs: Sequence[int] | np.ndarray, words: np.ndarray) -> np.ndarray:
    """Writes [ACCESS] of host words, uint32 [n, 4], to these addresses of a space."""
    found = np.zeros(len(addrs), ACCESS)
    found["space"], found["addr"], found["data"] = space.value, addrs, words
    return found


def host_words(words: Iterable[int]) -> np.ndarray:
    """Integers as host words, uint32 [n, 4]."""
    raw = b"".join(int(word).to_bytes(WORD // 8, "little") for word in words)
    return np.frombuffer(raw, "<u4").reshape(-1, WORD // 32)


def each(found: np.ndarray) -> Iterator[Access]:
    """Accesses one by one."""
    spaces = {space.value: space for space in Space}
    raw = found["data"].tobytes()
    for n, (space, addr) in enumerate(zip(found["space"].tolist(), found["addr"].tolist(), strict=True)):
        yield spaces[space], addr, int.from_bytes(raw[n * WORD // 8 : (n + 1) * WORD // 8], "little")
