"""How far the index registers of compiled programs reach: the one thing about data that `verify` has to be told."""

import numpy as np

from hw.config import LANES

from .lower_base import (
    INDEX_EMB_SCALE,
    INDEX_EMBEDDING,
    INDEX_HIGH,
    INDEX_K,
    INDEX_LOW,
    INDEX_SCALE,
    INDEX_TOKENS,
    INDEX_V,
)
from .place import Placement


def index_bounds(placement: Placement) -> dict[tuple[str, int], int]:
    """Greatest offset that a program of this placement ever puts into (slice, register), over positions and tokens."""
    g = placement.geometry
    positions = g.chunks * LANES
    bounds = {
        ("E0", INDEX_SCALE): g.chunks - 1,
        ("W0", INDEX_SCALE): g.chunks - 1,
        ("E0", INDEX_HIGH): (g.chunks - 1) * g.words,
        ("E0", INDEX_EMB_SCALE): (g.model.vocab - 1) // LANES,
        ("W0", INDEX_LOW): (LANES - 1) * g.words,
        ("W0", INDEX_TOKENS): positions // LANES,
    }
    bounds |= {(tensor.slice, INDEX_K): (positions - 1) // g.config.rows * g.words for tensor in placement.k.values()}
    bounds |= {(tensor.slice, INDEX_V): (g.chunks - 1) * g.head_steps for tensor in placement.v.values()}
    table, token = placement.matrices["embedding"], np.arange(g.model.vocab)
    step = table.acts * (token // 32 * table.steps + token % LANES // g.config.rows)
    bounds |= {(tensor.slice, INDEX_EMBEDDING): int(step.max()) for side in table.tensors.values() for tensor in side}
    return bounds


def index_least(placement: Placement, valid: int) -> dict[tuple[str, int], int]:
    """Least offset, where it is not 0, in a bucket behind `valid` vectors of positions: what belongs to these may be
    read at any time, as nobody writes it."""
    g = placement.geometry
    least = {("E0", INDEX_SCALE): valid, ("W0", INDEX_SCALE): valid}
    least |= {(tensor.slice, INDEX_K): valid * LANES // g.config.rows * g.words for tensor in placement.k.values()}
    return least | {(tensor.slice, INDEX_V): valid * g.head_steps for tensor in placement.v.values()}
