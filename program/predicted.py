"""What is known of every token before anything runs, of a program for one chip or for a rack."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from base.errors import TspError

from .integer import model_sizes
from .shape import ModelConfig

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


def bytes_read(model: ModelConfig, position: float, four_bit: Collection[str] = ()) -> float:
    """Bytes that the token at `position` must read: every weight matrix once, and its keys and values.

    This is the least possible number: there is no padding, heads that share keys read them once, and only one row of
    the embedding counts.

    four_bit: names of matrices with half a byte an element.
    """
    shapes = {name: shape for name, shape in model.shapes().items() if len(shape) == 3 or name == "classifier"}
    weights = sum(math.prod(shape) / (2 if name in four_bit else 1) for name, shape in shapes.items())
    return weights + model.dim + 2 * model.n_layers * model.n_kv_heads * model.head_dim * (position + 1)


class Predicted(ABC):
    """Cycles of every position. A subclass has the fields of `Program` that are named here.

    Of several sequences, they are those of a period, by the position of the longest one.
    """

    model: ModelConfig
    context: int
    four_bit: tuple[str, ...]
    buckets: tuple[Bucket, ...]
    arrays: dict[str, np.ndarray]
    sequences: int

    @property
    @abstractmethod
    def periods_a_token(self) -> int:
        """Periods that a token of one sequence takes."""

    @property
    def tokens_a_period(self) -> int:
        """Tokens of all sequences that a period gives."""
        return self.sequences // self.periods_a_token

    @property
    def cycles_of_what(self) -> str:
        """What a period's cycles are, as the head of a column."""
        return "cycles a token" if self.tokens_a_period == 1 else f"cycles of {self.tokens_a_period} tokens"

    @property
    @abstractmethod
    def macs(self) -> int:
        """Weight bytes that all matrix units of the machine could take in a cycle."""

    @property
    def first_token(self) -> int:
        """The token that begins every sequence, or -1 if any token may."""
        return model_sizes(self.arrays)["first"]

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
        """Bytes that the tokens of a period must read, each by itself, over the bytes that the matrix units could take
        in its cycles.

        By default, the mean over the context.
        """
        read = self.tokens_a_period * self.bytes_read((self.context - 1) / 2 if position is None else position)
        return read / (self.macs * (self.mean_cycles if position is None else self.cycles(position)))

    def tokens_per_second(self, clock_mhz: float, cycles: float | None = None) -> float:
        """Tokens per second at a clock, of all sequences, for periods of `cycles` cycles. By default, for the mean."""
        return self.tokens_a_period * clock_mhz * 1e6 / (self.mean_cycles if cycles is None else cycles)
