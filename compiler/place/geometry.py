"""How a model's heads and matrices map on words of a chip's lanes, on sides and on rows; no addresses, no time.

A *word* is a vector of all lanes. Heads of half a word share one: a *unit* is what K heads share words, that is two
heads in one word, or one head of several words. Units alternate between the two hemispheres.
"""

from dataclasses import dataclass

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.lanes import SIDES, ceil_div
from base.errors import TspError
from program.integer import IntegerModel

CHUNK = 4
"""Vectors drained from an accumulator file in one burst, but those of `Geometry.burst`."""

WORKING = 8
"""Registers that the heads of both sides work in."""


def native_head_size(head_size: int, lanes: int) -> int:
    """The least head size that a chip serves without padding and that holds `head_size`.

    Half a word, if that is a step of a matrix unit, or a multiple of a word: 8, 16, 32, 48... with 16 lanes.
    """
    half = max(lanes // 2, PLANES)
    return half if head_size <= half else ceil_div(head_size, lanes) * lanes


@dataclass(frozen=True)
class Head:
    """A query head: its K/V head, the side that computes it, and which part of a shared word is its own."""

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
    """Sizes in vectors and words of a model on a chip."""

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
        """Accumulator vectors of a side that belong to the heads of a shared word: one a head."""
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
        """Vectors of logits or of positions' weights in a burst: 64 of them, or 128 beside 64 accumulators, as far as
        an accumulator file holds four bursts. Longer bursts are fewer instructions, and leave less room for other work
        between them."""
        return max(CHUNK, min(64 // self.lanes * (1 + self.config.acc_depth // 64), self.config.acc_depth // 4))

    @property
    def position_burst(self) -> int:
        """Vectors of positions in a burst of scores or of their exponentials; more where neither takes registers."""
        return 2 * self.burst if self.words > 1 and self.config.acc_depth >= 64 else self.burst

    @property
    def residual_in_registers(self) -> bool:
        """The residual stays in the VXM's registers: if it is short, or if the queries beside it are few."""
        return self.dim <= 6 or (self.dim <= 8 and self.dim + len(self.q_words()) <= 16)

    @property
    def queries_in_registers(self) -> bool:
        """A token's queries stay in the VXM's registers: if there is room for them beside what else is there."""
        shared = self.per_word if self.per_word > 1 else 0
        residual = self.dim if self.residual_in_registers else 0
        return len(self.q_words()) + residual + 2 * self.words + shared + WORKING <= self.config.rf_depth

    def kv_heads(self, side: str) -> list[int]:
        """K/V heads of a hemisphere."""
        return [kv for kv in range(self.model.kv_heads) if SIDES[kv // self.per_word % 2] == side]

    def heads(self, side: str) -> list[Head]:
        """Query heads of a hemisphere, in order of processing: heads that share an output word are neighbours."""
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
    """Take `channels` along an axis, zeros where the channel is -1 or beyond the end."""
    valid = (channels >= 0) & (channels < x.shape[axis])
    y = np.take(x, np.where(valid, channels, 0), axis=axis)
    shape = [1] * y.ndim
    shape[axis] = len(channels)
    return np.where(valid.reshape(shape), y, 0).astype(x.dtype)
