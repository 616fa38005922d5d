"""Bytes of a model on a machine, and how many chips hold them.

On a chip of ours the matrices and the cache count as `compiler.place` lays them: channels padded to the chip's lanes,
heads to its head sizes. On other machines nothing is padded, which is the least that they can need.
"""

import math
from dataclasses import dataclass

from arch.vectors import ceil_div
from base.errors import TspError
from compiler.place.geometry import native_head_size
from compiler.place.placement import MOST_STRAIGHT

from .machines import Machine, program_store
from .shapes import Shape

WEIGHT_BYTES = {"fp16": 2.0, "int8": 1.0, "int4": 0.5}
"""Of the layers' matrices. Embedding and classifier have no less than a byte, as `compiler.capacity` keeps them."""
SCALE_BYTES = 2
"""Of an output channel's scale, of a norm's gain, and of a key's scale; none with fp16, but for the gains."""
LOOPED_SCALE_BYTES = 8
"""Of an output channel of the classifier on a chip of ours, if a loop runs over it: an int32 on each side."""
VOCABULARY, POSITIONS = 5, 5
"""int32 vectors on a chip of ours that are as long as the vocabulary (logits, their sum with the noise, the noise's two
halves, the scales of the embedding), and as the context (tokens, scores)."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes of a model, its cache and its programs.

    weights: all matrices. scales: of channels, and gains of norms. kv: of `batch` whole contexts. state: tables and
    work space of one chip of ours (others: not counted). programs: instructions, at most; `programs_apart` if they
    have a memory of their own.
    """

    weights: int
    scales: int
    kv: int
    state: int
    programs: int
    programs_apart: bool

    @property
    def model(self) -> int:
        """All but the programs."""
        return self.weights + self.scales + self.kv + self.state

    @property
    def most(self) -> int:
        """The programs too, where they lie in the same memory."""
        return self.model + (0 if self.programs_apart else self.programs)


@dataclass(frozen=True)
class Tiling:
    """A shape in vectors of a machine's lanes; with one lane, in channels."""

    shape: Shape
    lanes: int

    def vectors(self, channels: int) -> int:
        """Vectors that hold so many channels."""
        return ceil_div(channels, self.lanes)

    @property
    def head_size(self) -> int:
        """Channels of a head as stored."""
        return native_head_size(self.shape.head_dim, self.lanes) if self.lanes > 1 else self.shape.head_dim

    @property
    def heads_per_vector(self) -> int:
        """K/V heads that share a vector."""
        return max(1, self.lanes // self.head_size)

    @property
    def kv_vectors(self) -> int:
        """Vectors of all keys of a position, in a layer."""
        return ceil_div(self.shape.kv_heads, self.heads_per_vector) * self.vectors(self.head_size)

    @property
    def query_vectors(self) -> int:
        """Vectors of all queries of a position, in a layer."""
        return self.kv_vectors * (self.shape.heads // self.shape.kv_heads)

    def layer_weights(self) -> int:
        """Weights of a layer's matrices, padding included."""
        s, dim, hidden = self.shape, self.vectors(self.shape.dim), self.vectors(self.shape.hidden)
        attention = dim * (2 * self.query_vectors + 2 * self.kv_vectors)
        return (attention + s.experts * 3 * dim * hidden) * self.lanes**2 + s.router

    def vocabulary_weights(self) -> int:
        """Weights of the classifier, or of the embedding: on a chip of ours both sides hold as many vectors."""
        vocab = self.vectors(self.shape.vocab)
        return (vocab + (vocab % 2 if self.lanes > 1 else 0)) * self.vectors(self.shape.dim) * self.lanes**2

    def channels(self) -> int:
        """Output channels of a layer's matrices."""
        s = self.shape
        attention = self.query_vectors + 2 * self.kv_vectors + self.vectors(s.dim)
        return (attention + s.experts * (2 * self.vectors(s.hidden) + self.vectors(s.dim))) * self.lanes


def check_precision(precision: str) -> None:
    """Raises TspError unless it is one that is known."""
    if precision not in WEIGHT_BYTES:
        raise TspError(f"precision must be one of {', '.join(WEIGHT_BYTES)}, not {precision!r}")


def need(shape: Shape, machine: Machine, *, precision: str, context: int, batch: int) -> Need:
    """What a model needs of a machine. Raises TspError if the machine does not have the precision."""
    machine.operations(precision)
    tiling = Tiling(shape, machine.lanes)
    weights = weight_bytes(tiling, precision)
    programs = program_store(machine.config) if machine.config else (
        int(weights * machine.programs.value) if machine.programs else 0)
    return Need(weights=weights, scales=scale_bytes(tiling, precision),
                kv=batch * kv_bytes(tiling, precision, context),
                state=state_bytes(tiling, context) if machine.config else 0,
                programs=programs, programs_apart=machine.config is not None)


def weight_bytes(tiling: Tiling, precision: str) -> int:
    """Bytes of all matrices."""
    layers = tiling.shape.layers * tiling.layer_weights() * WEIGHT_BYTES[precision]
    tables = 1 if tiling.shape.tied else 2
    return math.ceil(layers + tables * tiling.vocabulary_weights() * max(1, WEIGHT_BYTES[precision]))


def scale_bytes(tiling: Tiling, precision: str) -> int:
    """Bytes of gains and, with integers, of the channels' scales."""
    shape = tiling.shape
    gains = (shape.layers * shape.norms + 1) * tiling.vectors(shape.dim) * tiling.lanes
    if precision == "fp16":
        return SCALE_BYTES * gains
    looped = tiling.lanes > 1 and ceil_div(tiling.vectors(shape.vocab), 2) > MOST_STRAIGHT
    classifier = tiling.vectors(shape.vocab) * tiling.lanes * (LOOPED_SCALE_BYTES if looped else SCALE_BYTES)
    return SCALE_BYTES * (gains + shape.layers * tiling.channels()) + classifier


def kv_bytes(tiling: Tiling, precision: str, context: int) -> int:
    """Bytes of one sequence's cache: fp16 beside fp16 weights, otherwise int8 with a scale for each key, as dynamic
    keys have one."""
    lanes = tiling.lanes
    positions = tiling.shape.cached(tiling.vectors(context) * lanes)
    width = 2 if precision == "fp16" else 1
    scales = 0 if precision == "fp16" else SCALE_BYTES * positions * _key_scales(tiling)
    return 2 * positions * tiling.kv_vectors * lanes * width + scales


def _key_scales(tiling: Tiling) -> int:
    """Scales of a position's keys in a layer: on a chip of ours two share a quad, on each of its sides."""
    if tiling.lanes == 1:
        return tiling.shape.kv_heads
    heads = range(tiling.shape.kv_heads)
    sides = [sum(head // tiling.heads_per_vector % 2 == side for head in heads) for side in (0, 1)]
    return sum(2 * max(1, ceil_div(count, 2)) for count in sides)


def state_bytes(tiling: Tiling, context: int) -> int:
    """Bytes of what else the SRAM of a chip of ours holds, but for what is small: rotary tables and a few vectors."""
    return 4 * tiling.lanes * (VOCABULARY * tiling.vectors(tiling.shape.vocab) + POSITIONS * tiling.vectors(context))


def chips(count: float, machine: Machine) -> int:
    """Machines whose memory holds so many bytes."""
    return max(1, math.ceil(count / machine.memory.value))
