"""The mapping of a model's heads and matrices to lanes, sides and rows of a chip. It knows no addresses and no time.

A *head set* is one K/V head of one or more vectors, or the two K/V heads that share a vector, with half its lanes each.
Head sets alternate between the two hemispheres.
"""

from dataclasses import dataclass, replace

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.vectors import SIDES, ceil_div
from base.errors import TspError
from program.integer import KEYS, IntegerModel

from .hollow import is_hollow, taken
from .share import Heads, Share
from .stage import Stage

DRAIN_BURST = 4
"""Vectors that one burst drains from an accumulator file, where `Geometry.burst` does not apply."""

WORKING = 8
"""Registers that serve as working space for the heads of both sides."""
LEAST_WORKING = 6
"""The same, of each of several sequences in one program: fewer, for one waits while another works."""


def native_head_size(head_size: int, lanes: int) -> int:
    """The least head size that a chip serves without padding and that is at least `head_size`.

    Native sizes are half a vector (at least PLANES lanes) and the multiples of a vector: 8, 16, 32, 48.. with 16 lanes.
    """
    half = max(lanes // 2, PLANES)
    return half if head_size <= half else ceil_div(head_size, lanes) * lanes


@dataclass(frozen=True)
class Head:
    """A query head.

    number: its number in the model.
    kv: its K/V head.
    head_set: the head set of its K/V head.
    query: its number among the query heads of its K/V head.
    member: the number of its K/V head in the head set.
    """

    number: int
    kv: int
    head_set: int
    query: int
    member: int

    @property
    def side(self) -> str:
        """Hemisphere of the head's set."""
        return SIDES[self.head_set % 2]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model on a chip.

    model: the model; on a chip of a rack, the rows or layers of it that the chip holds.
    share: what the other chips hold, if rows are divided. stage: if layers are.
    together: independent sequences that a program advances in each of its periods.
    halve: whether both hemispheres share the positions of a single head set, see `halved`.
    """

    config: ChipConfig
    model: IntegerModel
    share: Share | None = None
    stage: Stage | None = None
    together: int = 1
    halve: bool = False

    def __post_init__(self) -> None:
        size, rows = self.model.head_size, self.config.rows
        if self.model.lanes != self.lanes:
            raise TspError(f"the model is quantised for {self.model.lanes} lanes, but config {self.config.name} has "
                           f"{self.lanes}: quantise it for this config")
        if self.model.group % (DRAIN_BURST * self.lanes):
            raise TspError(f"groups of W2's input must be a multiple of {DRAIN_BURST * self.lanes} channels, not "
                           f"{self.model.group}: quantise the model with other groups")
        if size != native_head_size(size, self.lanes):
            raise TspError(f"head size {size} must be {native_head_size(1, self.lanes)} or a multiple of {self.lanes}: "
                           "quantise the model with padding")
        if min(size, self.lanes) % rows:
            raise TspError(f"head size {size} does not suit the {rows} weight rows of config {self.config.name}: "
                           f"use a config with at most {size} rows")

    @property
    def static_keys(self) -> bool:
        """Whether keys have static scales."""
        return KEYS not in self.model.dynamic

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
    def inner(self) -> int:
        """Vectors of the feed-forward inner layer on all chips."""
        return self.share.hidden[-1].stop if self.share else self.hidden

    @property
    def down(self) -> range:
        """Vectors of the feed-forward inner layer, among those of all chips, that this chip multiplies with W2."""
        return self.share.hidden[self.share.chip] if self.share and self.share.summed else range(self.inner)

    def added(self, matrix: str) -> int:
        """Vectors of the residual that this chip computes the addends of by a matrix ("wo", "w2")."""
        return len(self.share.rows(matrix)) if self.share else self.dim

    @property
    def embedded(self) -> range:
        """Vectors of the residual whose columns of the embedding this chip has."""
        divided = self.share and (self.share.scattered or "embedding" not in self.share.whole)
        return self.share.residual[self.share.chip] if self.share and divided else range(self.dim)

    @property
    def resident(self) -> range:
        """Vectors of the residual that this chip has."""
        scattered = self.share and self.share.scattered
        return self.share.residual[self.share.chip] if self.share and scattered else range(self.dim)

    @property
    def vocab(self) -> int:
        """Vectors of the logits."""
        return ceil_div(self.model.vocab, self.lanes)

    @property
    def tokens(self) -> int:
        """Tokens of the vocabulary, those of other chips too."""
        whole = self.share or self.stage
        return whole.tokens if whole else self.model.vocab

    @property
    def sequences(self) -> int:
        """Sequences whose states the chip holds."""
        return self.stage.sequences if self.stage else self.together

    @property
    def in_flight(self) -> bool:
        """Whether an index register says which of several sequences a program works on."""
        return bool(self.stage) and self.sequences > 1

    @property
    def registers(self) -> int:
        """Registers of the VXM for each sequence of a program."""
        return self.config.rf_depth // self.together

    @property
    def embeds(self) -> bool:
        """Whether the chip has the embedding."""
        return not self.stage or self.stage.first

    @property
    def classifies(self) -> bool:
        """Whether the chip has the classifier, or some of its rows."""
        return not self.stage or self.stage.last

    @property
    def chunks(self) -> int:
        """Vectors of positions that the K/V cache holds."""
        return ceil_div(self.model.context, self.lanes)

    @property
    def halved(self) -> bool:
        """Whether both hemispheres work on each query head: of the only head set, they have vectors of positions in
        turn. A half of its cache is numbered like a head set: 0 in the west, 1 in the east."""
        return self.halve and self.head_sets == 1 and self.together == 1

    @property
    def caches(self) -> int:
        """Head sets, or halves of one, that have a cache."""
        return 2 if self.halved else self.head_sets

    @property
    def cached_chunks(self) -> int:
        """Vectors of positions that a cache holds."""
        return ceil_div(self.chunks, 2) if self.halved else self.chunks

    def known(self, valid: int) -> int:
        """Of the first `valid` vectors of positions, which are full at every token of a bucket, those that its program
        takes as such: of both halves the same number."""
        return valid - valid % 2 if self.halved else valid

    def halves(self, head_set: int) -> list[int]:
        """The caches that hold a head set."""
        return [0, 1] if self.halved else [head_set]

    @property
    def head_vectors(self) -> int:
        """Vectors of a head."""
        return ceil_div(self.model.head_size, self.lanes)

    @property
    def heads_per_vector(self) -> int:
        """K/V heads that share a vector: the members of a head set."""
        return max(1, self.lanes // self.model.head_size)

    @property
    def shared_accumulators(self) -> int:
        """Accumulator vectors of a side that the heads of a shared vector own, one each."""
        return self.heads_per_vector if self.heads_per_vector > 1 else 0

    @property
    def head_sets(self) -> int:
        """Head sets of the model."""
        return ceil_div(self.model.kv_heads, self.heads_per_vector)

    @property
    def queries_per_kv(self) -> int:
        """Query heads of a K/V head."""
        return self.model.heads // max(1, self.model.kv_heads)

    @property
    def vector_entries(self) -> int:
        """Accumulator entries of a vector, with int8 weights."""
        return self.lanes // self.config.rows

    @property
    def head_entries(self) -> int:
        """Accumulator entries of one head's attention output."""
        return self.model.head_size // self.config.rows

    @property
    def burst(self) -> int:
        """Vectors of logits, or of attention weights, in a burst.

        A burst has 64 values, or 128 with 64 accumulators. It takes at most a quarter of the accumulator file, but at
        least DRAIN_BURST vectors. Longer bursts need fewer instructions, but leave less room for other work between
        them.
        """
        return max(DRAIN_BURST, min(64 // self.lanes * (1 + self.config.acc_depth // 64), self.config.acc_depth // 4))

    @property
    def logit_burst(self) -> int:
        """Vectors of logits in a burst. It is short on a chip of a rack, which has few of them."""
        return DRAIN_BURST if self.share else self.burst

    def noise_of_layers(self) -> int:
        """Vectors of a side's tokens whose noise each layer makes, of several sequences in one program: the end of a
        token makes the noise of at least as many. There the VXM has as much time to spare as in a layer."""
        return min(self.logit_burst, ceil_div(self.vocab, 2) // (self.model.layers + 1))

    @property
    def late_logits(self) -> tuple[int, ...]:
        """Vectors of logits of each side that are still to be computed when a part of the others is searched: two
        bursts; on a chip of a rack three before, too, as its bursts are short."""
        return (3 * self.logit_burst, 2 * self.logit_burst) if self.share else (2 * self.logit_burst,)

    @property
    def position_burst(self) -> int:
        """Vectors of positions in a burst of scores or of their exponentials. It is longer where neither of them takes
        registers."""
        return 2 * self.burst if self.head_vectors > 1 and self.config.acc_depth >= 64 else self.burst

    @property
    def residual_in_registers(self) -> bool:
        """Whether the residual stays in the VXM's registers: it is short, or there are few query vectors beside it."""
        vectors = len(self.resident)
        if self.together > 1:
            return vectors + 2 * self.head_vectors + self.shared_accumulators + LEAST_WORKING <= self.registers
        return vectors <= 6 or (vectors <= 8 and vectors + len(self.query_vectors()) <= 16)

    @property
    def queries_in_registers(self) -> bool:
        """Whether a token's queries stay in the VXM's registers: the other contents leave room for them."""
        residual = len(self.resident) if self.residual_in_registers else 0
        masks = self.heads_per_vector if self.heads_per_vector > 1 else 0
        sums = self.head_vectors if self.halved else 0
        return (len(self.query_vectors()) + residual + 2 * self.head_vectors + masks + sums + WORKING
                <= self.registers)

    @property
    def masks_on_both_sides(self) -> bool:
        """Whether the masks of positions are in both inner slices: in the one across from any score. Of several
        sequences in one program, and where a side has every other one, they never are in registers."""
        return self.head_vectors > 1 or self.together > 1 or self.halved

    @property
    def by_sides(self) -> bool:
        """Whether the queries, keys and values of a side are computed together, see `compiler.lower.by_sides`: of
        several sequences, and if a side computes the queries of its own heads."""
        return (self.together > 1 and self.static_keys and self.head_vectors == 1 and self.heads_per_vector == 1
                and self.head_sets % 2 == 0)

    def kv_heads(self, side: str) -> list[int]:
        """K/V heads of a hemisphere, as caches number them: halves of a head have two numbers."""
        if self.halved:
            first = SIDES.index(side) * self.heads_per_vector
            return [first + kv for kv in range(self.model.kv_heads)]
        return [kv for kv in range(self.model.kv_heads) if SIDES[kv // self.heads_per_vector % 2] == side]

    def heads(self, side: str) -> list[Head]:
        """Query heads of a hemisphere, in order of processing. Heads that share an output vector are adjacent."""
        found = []
        for head_set in range(SIDES.index(side), self.head_sets, 2):
            for query in range(self.queries_per_kv):
                for member in range(self.heads_per_vector):
                    kv = head_set * self.heads_per_vector + member
                    if kv < self.model.kv_heads:
                        found.append(Head(kv * self.queries_per_kv + query, kv, head_set, query, member))
        return found

    def query_vectors(self) -> list[tuple[int, int, int]]:
        """(head set, query, vector of the head) of all vectors of queries, and of attention's output, in order."""
        return [(head_set, query, vector) for query in range(self.queries_per_kv) for head_set in range(self.head_sets)
                for vector in range(self.head_vectors)]

    def channels(self, head_set: int, query: int, vector: int, heads_per_kv: int) -> np.ndarray:
        """Channel of a projection that each lane of a vector holds, -1 for none [lanes].

        head_set, query, vector: the vector, as in `query_vectors`.
        heads_per_kv: heads of the projection for each K/V head.
        """
        size = self.model.head_size
        lanes = np.arange(self.lanes)
        if size < self.lanes:
            member, within = lanes // size, lanes % size
        else:
            member, within = 0 * lanes, vector * self.lanes + lanes
        kv = head_set * self.heads_per_vector + member
        return np.where(kv < self.model.kv_heads, (kv * heads_per_kv + query) * size + within, -1)


    def of_chip(self, heads: Heads) -> "Geometry":
        """The geometry of a chip that has these heads; its other sizes are those of this chip."""
        model = replace(self.model, kv_heads=len(heads.kv), heads=len(heads.queries))
        return replace(self, model=model, share=None)

    def attention_vectors(self) -> list[np.ndarray]:
        """Channels of the vectors of attention's output, of all chips one after the other."""
        if not self.share:
            return [self.channels(*place, self.queries_per_kv) for place in self.query_vectors()]
        found, size = [], self.model.head_size
        for heads in self.share.heads:
            starts = size * np.array([*heads.queries, 0])
            own = self.of_chip(heads).attention_vectors()
            found += [np.where(channels >= 0, starts[channels // size] + channels % size, -1) for channels in own]
        return found

    def first_vector(self, chip: int) -> int:
        """Number of a chip's first vector of attention's output among those of all chips."""
        return sum(len(self.of_chip(heads).query_vectors()) for heads in self.share.heads[:chip]) if self.share else 0


def gather(x: np.ndarray, axis: int, channels: np.ndarray) -> np.ndarray:
    """Take `channels` along an axis. Channels that are -1 or beyond the end give zeros."""
    if is_hollow(x):
        return taken(x, channels, axis)
    valid = (channels >= 0) & (channels < x.shape[axis])
    y = np.take(x, np.where(valid, channels, 0), axis=axis)
    shape = [1] * y.ndim
    shape[axis] = len(channels)
    return np.where(valid.reshape(shape), y, 0).astype(x.dtype)
