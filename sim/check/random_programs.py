"""Random programs that are legal by construction: every unit, operation and field, at random times.

A consumer is aimed at a stream that a producer already drives. The generator searches the window whose dispatch cycle
meets the producer's elements. It keeps the instruction if everything that it needs and occupies is free in all turns of
the window (`sim.check.random_schedule`). Every bucket is a separate program. Nothing is in flight between tokens.
"""


from random import Random
from typing import Protocol

import numpy as np

from arch.config import ChipConfig
from arch.isa import Instr, Op, encode
from arch.queue_store import store_of
from arch.row import queues
from arch.vectors import quads_of_int32
from program.image import Image

from .random_instructions import INDEX_QUADS, MAX_OFFSET, Builder
from .random_placement import Stock

MARGIN = 20
"""Least cycles between the last element of a token and the next start pulse."""


def random_image(config: ChipConfig, seed: int, attempts: int = 400) -> tuple[Image, int]:
    """A random legal image, and the number of tokens that uses every bucket. The same seed gives the same image."""
    rng = Random(seed)
    words: dict[str, list[int]] = {queue.name: [] for queue in queues(config)}
    starts: dict[str, list[int]] = {queue.name: [] for queue in queues(config)}
    stores = {queue.name: store_of(config, queue) for queue in queues(config)}
    stocks = {name: Stock(store) for name, store in stores.items()}
    buckets, position = [], 0
    for _ in range(rng.randint(1, min(3, config.buckets))):
        program = Builder(config, rng, stocks).build(attempts)
        if not program:
            break
        for name, nodes in program.layout.items():
            starts[name].append(len(words[name]))
            words[name] += [encode(instr) for node in nodes for instr in node.emit(stores[name].max_delay)]
            words[name].append(encode(Instr(Op.SYNC)))
        position += rng.randint(1, 2)
        buckets.append((program.end + MARGIN + rng.randint(0, 30), position))
    maps = [random_map(rng, config.lanes) for _ in range(config.sxm_maps)]
    return Image(config=config, queues=words, starts=starts, buckets=buckets, maps=dict(enumerate(maps)),
                 mems=memories(config, rng)), position


class Chance(Protocol):
    """The common interface of `random.Random` and numpy's generators."""

    def random(self) -> float: ...


def random_map(rng: Chance, n_lanes: int) -> list[int]:
    """A random permutation map that the SXM can route (`arch.isa.routable`)."""
    lanes = [0] * n_lanes
    for k in range((n_lanes - 1).bit_length()):
        bits = [int(rng.random() < 0.5) for _ in range(2 << k)]
        lanes = [taken | bits[lane & (2 << k) - 1] << k for lane, taken in enumerate(lanes)]
    return lanes


def memories(config: ChipConfig, rng: Random) -> dict[str, np.ndarray]:
    """Quads of index vectors, followed by random bytes, many of them small numbers."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    memories = {}
    for queue in queues(config):
        if queue.unit == "MEM":
            depth = min(config.mem_depths[queue.slice], 512)
            shape = depth, config.lanes
            lanes = numbers.integers(-1 << 31, 1 << 31, shape) >> numbers.integers(0, 32, shape)
            lanes[:INDEX_QUADS, 0] = numbers.integers(0, MAX_OFFSET + 1, INDEX_QUADS)
            memories[queue.name] = quads_of_int32(lanes)
    return memories
