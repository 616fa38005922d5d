"""The mapping of a model's heads and matrices to lanes, sides and rows of a chip. It knows no addresses and no time.

A *word* here is a vector of all lanes. A *unit* here is one K/V head of one or more words, or two K/V heads that share
a word, with half a word each. Units alternate between the two hemispheres.
"""

from dataclasses import dataclass

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.vectors import SIDES, ceil_div
from base.errors import TspError
from program.integer import IntegerModel

CHUNK = 4
"""Vectors that one burst drains from an accumulator file, where `Geometry.burst` does not apply."""

WORKING = 8
"""Registers that serve as working space for the heads of both sides."""


def native_head_size(head_size: int, lanes: int) -> int:
    """The least head size that a chip serves without padding and that is at least `head_size`.

    Native sizes are half a word (at least PLANES lanes) and the multiples of a word: 8, 16, 32, 48.. with 16 lanes.
    """
    half = max(lanes // 2, PLANES)
    return half if head_size <= half else ceil_div(head_size, lanes) * lanes


@dataclass(frozen=True)
class Head:
    """A query head.

    number: its number in the model.
    kv: its K/V head.
    unit: the unit of its K/V head.
    rep: its number among the query heads of its K/V head.
    part: its part of a shared word.
    """

    number: int
    kv: int
    unit: int
    rep: int
    part: int

    @property
    def side(self) -> str:
        """Hemisphere of the head's unit."""
        return SIDES[self.unit % 2]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model on a chip, in vectors and words."""

    config: ChipConfig
    model: IntegerModel

    def __post_init__(self) -> None:
        size, rows = self.model.head_size, self.config.rows
        if self.model.lanes != self.lanes:
            raise TspError(f"the model is quantized for {self.model.lanes} lanes, config {self.config.name} has "
                           f"{self.lanes}: quantize it for this config")
        if self.model.group % (CHUNK * self.lanes):
            raise TspError(f"groups of W2's input must be a multiple of {CHUNK * self.lanes} channels, not "
                           f"{self.model.group}: quantize the model with others")
        if size != native_head_size(size, self.lanes):
            raise TspError(f"head size {size} must be {native_head_size(1, self.lanes)} or a multiple of {self.lanes}: "
                           "quantize with padding")
        if min(size, self.lanes) % rows:
            raise TspError(f"head size {size} does not suit the {rows} weight rows of config {self.config.name}: "
                           f"use a config with at most {size} rows")

    @property
    def lanes(self) -> int:
        """Lanes of a vector."""
        return self.config.lanes

    @property
    def dim(self) -> int:
        """Vectors of the residual."""
        return ceil_div(self.model.dim, self.lanes)

    @property
    def hidden(self) -> int:
        """Vectors of the feed-forward inner layer."""
        return ceil_div(self.model.hidden, self.lanes)

    @property
    def vocab(self) -> int:
        """Vectors of the logits."""
        return ceil_div(self.model.vocab, self.lanes)

    @property
    def chunks(self) -> int:
        """Vectors of positions that the K/V cache holds."""
        return ceil_div(self.model.context, self.lanes)

    @property
    def words(self) -> int:
        """Words of a head."""
        return ceil_div(self.model.head_size, self.lanes)

    @property
    def per_word(self) -> int:
        """K/V heads that share a word."""
        return max(1, self.lanes // self.model.head_size)

    @property
    def shared_accumulators(self) -> int:
        """Accumulator vectors of a side that the heads of a shared word own, one each."""
        return self.per_word if self.per_word > 1 else 0

    @property
    def units(self) -> int:
        """Units of K/V heads."""
        return ceil_div(self.model.kv_heads, self.per_word)

    @property
    def rep(self) -> int:
        """Query heads of a K/V head."""
        return self.model.heads // self.model.kv_heads

    @property
    def steps(self) -> int:
        """Accumulator entries of a vector, with int8 weights."""
        return self.lanes // self.config.rows

    @property
    def head_steps(self) -> int:
        """Accumulator entries of one head's attention output."""
        return self.model.head_size // self.config.rows

    @property
    def burst(self) -> int:
        """Vectors of logits, or of attention weights, in a burst.

        A burst has 64 values, or 128 with 64 accumulators. It takes at most a quarter of the accumulator file, but at
        least CHUNK vectors. Longer bursts need fewer instructions, but leave less room for other work between them.
        """
        return max(CHUNK, min(64 // self.lanes * (1 + self.config.acc_depth // 64), self.config.acc_depth // 4))

    @property
    def position_burst(self) -> int:
        """Vectors of positions in a burst of scores or of their exponentials. It is longer where neither of them takes
        registers."""
        return 2 * self.burst if self.words > 1 and self.config.acc_depth >= 64 else self.burst

    @property
    def residual_in_registers(self) -> bool:
        """Whether the residual stays in the VXM's registers: it is short, or there are few query words beside it."""
        return self.dim <= 6 or (self.dim <= 8 and self.dim + len(self.q_words()) <= 16)

    @property
    def queries_in_registers(self) -> bool:
        """Whether a token's queries stay in the VXM's registers: the other contents leave room for them."""
        shared = self.per_word if self.per_word > 1 else 0
        residual = self.dim if self.residual_in_registers else 0
        return len(self.q_words()) + residual + 2 * self.words + shared + WORKING <= self.config.rf_depth

    def kv_heads(self, side: str) -> list[int]:
        """K/V heads of a hemisphere."""
        return [kv for kv in range(self.model.kv_heads) if SIDES[kv // self.per_word % 2] == side]

    def heads(self, side: str) -> list[Head]:
        """Query heads of a hemisphere, in order of processing. Heads that share an output word are adjacent."""
        found = []
        for unit in range(SIDES.index(side), self.units, 2):
            for rep in range(self.rep):
                for part in range(self.per_word):
                    kv = unit * self.per_word + part
                    if kv < self.model.kv_heads:
                        found.append(Head(kv * self.rep + rep, kv, unit, rep, part))
        return found

    def q_words(self) -> list[tuple[int, int, int]]:
        """(unit, rep, word) of all query (and attention output) words, in order."""
        return [(u, r, w) for r in range(self.rep) for u in range(self.units) for w in range(self.words)]

    def channels(self, unit: int, rep: int, word: int, heads_per_kv: int) -> np.ndarray:
        """Channel of a projection that each lane of a word holds, -1 for none [lanes]."""
        size = self.model.head_size
        lanes = np.arange(self.lanes)
        part, within = (lanes // size, lanes % size) if size < self.lanes else (0 * lanes, word * self.lanes + lanes)
        kv = unit * self.per_word + part
        return np.where(kv < self.model.kv_heads, (kv * heads_per_kv + rep) * size + within, -1)


def gather(x: np.ndarray, axis: int, channels: np.ndarray) -> np.ndarray:
    """Take `channels` along an axis. Channels that are -1 or beyond the end give zeros."""
    valid = (channels >= 0) & (channels < x.shape[axis])
    y = np.take(x, np.where(valid, channels, 0), axis=axis)
    shape = [1] * y.ndim
    shape[axis] = len(channels)
    return np.where(valid.reshape(shape), y, 0).astype(x.dtype)
