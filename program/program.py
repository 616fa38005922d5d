"""A compiled program: everything that a device needs to run it, and everything that is known before it runs."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from arch import row
from arch.config import ChipConfig
from base.errors import TspError

from .integer import IntegerModel, from_arrays, model_sizes
from .quality import Quality, Trial
from .shape import ModelConfig
from .weights import Stored, unpack_all

DEFAULT_CLOCK_MHZ = 50.0
"""The default clock for tokens/s: the clock of the bitstreams for the ULX3S."""


@dataclass(frozen=True)
class Segment:
    """A straight piece of a token's program.

    start: first cycle of its first turn, counted from the token's start pulse.
    length: cycles of one turn.
    turns: how often it is executed; a program file calls it `passes`.
    weight_bytes: bytes that the matrix units consume in all turns.
    """

    name: str
    start: int
    length: int
    turns: Annotated[int, Field(alias="passes")]
    weight_bytes: int


@dataclass(frozen=True)
class Bucket:
    """The program of tokens at positions from the previous bucket's limit to `limit` - 1.

    period: cycles from a token's start pulse to the next one.
    chunks: vectors of positions that attention covers.
    """

    limit: int
    period: int
    chunks: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Symbol:
    """The place of a tensor.

    slice: name of its slice ("E0").
    addr: first quad.
    quads: quads in each layer.
    stride: quads from layer to layer; 0 if the tensor is global.
    """

    slice: str
    addr: int
    quads: int
    stride: int


class Event(NamedTuple):
    """One burst of a token's program, in the first turn of its segment. Cycles count from the start pulse."""

    label: str
    queue: str
    engine: str
    op: str
    segment: str
    first: int
    last: int


EVENT_COLUMNS = ("bucket", *Event._fields)
"""Columns of `Program.schedule`: the bucket, then an event's fields. Texts are indices into `Program.texts`."""


def bytes_read(model: ModelConfig, position: float, four_bit: Collection[str] = ()) -> float:
    """Bytes that the token at `position` must read: every weight matrix once, and its keys and values.

    This is the least possible number: there is no padding, heads that share keys read them once, and only one row of
    the embedding counts.

    four_bit: names of matrices with half a byte an element.
    """
    shapes = {name: shape for name, shape in model.shapes().items() if len(shape) == 3 or name == "classifier"}
    weights = sum(math.prod(shape) / (2 if name in four_bit else 1) for name, shape in shapes.items())
    return weights + model.dim + 2 * model.n_layers * model.n_kv_heads * model.head_dim * (position + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A compiled model.

    config: the only chip that it runs on.
    model: the checkpoint's sizes.
    context: positions served.
    four_bit: names of matrices streamed as int4.
    starts: start PC of every queue in every bucket.
    maps: lane permutations by number.
    symbols: places of all tensors, including those that the host touches.
    texts, schedule: the bursts, int32 [events, EVENT_COLUMNS]. See `events`.
    trials: how static and dynamic scales were chosen, if they were.
    queues: instruction words by queue name.
    image: uint8 [quad, plane, lane] by slice name.
    tokenizer: `Tokenizer.to_bytes`.
    arrays: `integer.to_arrays` of the integer model without its weights, for the reference device.
    stored, channels: places of the weights in the image. See `weights`.
    """

    config: ChipConfig
    model: ModelConfig
    context: int
    four_bit: tuple[str, ...]
    buckets: tuple[Bucket, ...]
    starts: dict[str, tuple[int, ...]]
    maps: dict[int, tuple[int, ...]]
    symbols: dict[str, Symbol]
    texts: tuple[str, ...]
    stored: dict[str, Stored]
    trials: tuple[Trial, ...] = ()
    quality: Quality | None = None
    queues: dict[str, tuple[int, ...]] = field(repr=False)
    image: dict[str, np.ndarray] = field(repr=False)
    schedule: np.ndarray = field(repr=False)
    tokenizer: bytes = field(repr=False)
    arrays: dict[str, np.ndarray] = field(repr=False)
    channels: dict[str, np.ndarray] = field(repr=False)

    @property
    def first_token(self) -> int:
        """The token that begins every sequence, or -1 if any token may."""
        return model_sizes(self.arrays)["first"]

    def integer_model(self) -> IntegerModel:
        """The integer model, with its weights from the image."""
        sizes = model_sizes(self.arrays)
        return from_arrays(self.arrays | unpack_all(self.stored, self.image, self.channels, self.config, sizes))

    # -- what is known before anything runs --

    def bucket(self, position: int) -> Bucket:
        """The bucket that serves a position. Raises TspError beyond the context."""
        if not 0 <= position < self.context:
            raise TspError(f"position must be in 0..{self.context - 1} (the program's context), not {position}")
        return next(bucket for bucket in self.buckets if position < bucket.limit)

    def cycles(self, position: int) -> int:
        """Cycles of the token at `position`. They are exact."""
        return self.bucket(position).period

    def positions(self, bucket: Bucket) -> range:
        """Positions that a bucket serves, within the context."""
        before = max((other.limit for other in self.buckets if other.limit < bucket.limit), default=0)
        return range(before, min(bucket.limit, self.context))

    @property
    def mean_cycles(self) -> float:
        """Mean cycles of a token, over all positions of the context."""
        return sum(b.period * len(self.positions(b)) for b in self.buckets) / self.context

    def bytes_read(self, position: float) -> float:
        """Bytes that the token at `position` must read."""
        return bytes_read(self.model, position, self.four_bit)

    def roofline_fraction(self, position: int | None = None) -> float:
        """Bytes that a token must read, over the bytes that the matrix units could take in its cycles.

        By default, the mean over the context.
        """
        if position is not None:
            return self.bytes_read(position) / (self.config.macs * self.cycles(position))
        return self.bytes_read((self.context - 1) / 2) / (self.config.macs * self.mean_cycles)

    def tokens_per_second(self, clock_mhz: float, cycles: float | None = None) -> float:
        """Tokens per second at a clock, for tokens of `cycles` cycles. By default, for the mean."""
        return clock_mhz * 1e6 / (self.mean_cycles if cycles is None else cycles)

    def sram_use(self) -> dict[str, tuple[int, int]]:
        """(quads used, quads in all) by slice."""
        depths = row.slice_depths(self.config)
        return {name: (len(data), depths[name]) for name, data in self.image.items()}

    def queue_use(self) -> dict[str, tuple[int, int]]:
        """(instructions used, instructions that fit) by queue."""
        return {queue.name: (len(self.queues[queue.name]), row.queue_depth(self.config, queue))
                for queue in row.queues(self.config)}

    def events(self, bucket: int) -> list[Event]:
        """All bursts of bucket number `bucket`, in the order of their first cycles."""
        rows = self.schedule[self.schedule[:, 0] == bucket, 1:].tolist()
        return [Event(*(self.texts[n] for n in row[:5]), *row[5:]) for row in rows]
