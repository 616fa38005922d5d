"""How far the index registers of compiled programs reach: the one thing about data that `verify` has to be told."""

import numpy as np

from arch.lanes import ceil_div
from compiler.lower.index import (
    INDEX_EMB_SCALE,
    INDEX_EMBEDDING,
    INDEX_HIGH,
    INDEX_K,
    INDEX_LOW,
    INDEX_SCALE,
    INDEX_TOKENS,
    INDEX_V,
)
from compiler.place.placement import Placement
from program.integer import ROPE_STEP


def index_bounds(placement: Placement) -> dict[tuple[str, int], int]:
    """Greatest offset that a program of this placement ever puts into (slice, register), over positions and tokens."""
    g = placement.geometry
    positions = g.chunks * g.lanes
    bounds = {
        ("E0", INDEX_SCALE): g.chunks - 1,
        ("W0", INDEX_SCALE): g.chunks - 1,
        ("E0", INDEX_HIGH): (ceil_div(g.model.context, ROPE_STEP) - 1) * g.words,
        ("E0", INDEX_EMB_SCALE): (g.model.vocab - 1) // g.lanes,
        ("W0", INDEX_LOW): (ROPE_STEP - 1) * g.words,
        ("W0", INDEX_TOKENS): positions // g.lanes,
    }
    bounds |= {(tensor.slice, INDEX_K): (positions - 1) // g.config.rows * g.words for tensor in placement.k.values()}
    bounds |= {(tensor.slice, INDEX_V): (g.chunks - 1) * g.head_steps for tensor in placement.v.values()}
    table, token = placement.matrices["embedding"], np.arange(g.model.vocab)
    step = table.acts * (token // (2 * g.lanes) * table.steps + token % g.lanes // g.config.rows)
    bounds |= {(tensor.slice, INDEX_EMBEDDING): int(step.max()) for side in table.tensors.values() for tensor in side}
    return bounds


def index_least(placement: Placement, valid: int) -> dict[tuple[str, int], int]:
    """Least offset, where it is not 0, in a bucket behind `valid` vectors of positions: what belongs to these may be
    read at any time, as nobody writes it."""
    g = placement.geometry
    least = {("E0", INDEX_SCALE): valid, ("W0", INDEX_SCALE): valid}
    least |= {(tensor.slice, INDEX_K): valid * g.steps * g.words for tensor in placement.k.values()}
    return least | {(tensor.slice, INDEX_V): valid * g.head_steps for tensor in placement.v.values()}
