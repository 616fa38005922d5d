"""The reach of the index registers in compiled programs. It is the only fact about data that `verify` needs.

An index register takes three lanes of an index vector (`arch.isa.Op.INDEX`). All are computed at run time:

- lane 0, the offset: (value >> shift) * scale, where value is the token, the position, or the number of a turn of the
  classifier's loop times the lanes. Of sequences in flight, the number of one is added, or is the offset alone; it
  comes from constant tables (`compiler.lower.index.choose_sequence`). `index_bounds` gives its greatest value,
  `check_products` proves the arithmetic, and `verify` proves that the register has enough bits.
- lane 1, the lane mask: 1 << (position mod lanes), or all ones, or none. It has no bit beyond the chip's lanes.
- lane 2, the plane mask: all ones, or 1 << (row number - first row of the weight group). The register keeps only 4
  bits. The program relies on that: for a row of another group or side, no plane is left.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from arch.isa import Sat
from arch.numerics import INT32, SAT_LIMIT
from arch.vectors import ceil_div
from base.errors import TspError
from compiler.lower.index import (
    INDEX_EMB_SCALE,
    INDEX_EMBEDDING,
    INDEX_HIGH,
    INDEX_K,
    INDEX_LOW,
    INDEX_SCALE,
    INDEX_SEQUENCE,
    INDEX_TOKENS,
    INDEX_V,
    index_turn,
    register_of,
)
from compiler.place.placement import Placement
from program.arithmetic import ROPE_STEP


def index_bounds(placement: Placement) -> dict[tuple[str, int], int]:
    """Greatest offset over all positions and tokens, by (slice, register), in programs of this placement."""
    g = placement.geometry
    positions = g.chunks * g.lanes
    bounds: dict[tuple[str, int], int] = {("W0", INDEX_TOKENS): positions // g.lanes}
    last = g.cached_chunks - 1
    bounds |= {} if g.static_keys else {("E0", INDEX_SCALE): last, ("W0", INDEX_SCALE): last}
    bounds |= {(tensor.slice, INDEX_K): (g.cached_chunks * g.lanes - 1) // g.config.rows * g.head_vectors
               for tensor in placement.k.values()}
    bounds |= {(tensor.slice, INDEX_V): last * g.head_entries for tensor in placement.v.values()}
    if g.in_flight:
        bounds = {key: bound * g.sequences + g.sequences - 1 for key, bound in bounds.items()}
        bounds |= {(name, INDEX_SEQUENCE): g.sequences - 1 for name in placement.layout.strides}
    elif g.together > 1:
        each = map(placement.of, range(g.together))
        bounds = {(name, register_of(own, register)): bound
                  for own in each for (name, register), bound in bounds.items()}
    bounds["E0", INDEX_HIGH] = (ceil_div(g.model.context, ROPE_STEP) - 1) * g.head_vectors
    bounds["W0", INDEX_LOW] = (ROPE_STEP - 1) * g.head_vectors
    if placement.vocabulary.turns:
        bounds["E0", index_turn(placement)] = (placement.vocabulary.turns - 1) * 2 * placement.vocabulary.body
    if not g.embeds:
        return bounds
    bounds["E0", INDEX_EMB_SCALE] = (g.tokens - 1) // g.lanes
    table, token = placement.matrices["embedding"], np.arange(g.tokens)
    step = table.acts * (token // (2 * g.lanes) * table.vector_entries + token % g.lanes // g.config.rows)
    bounds |= {(tensor.slice, INDEX_EMBEDDING): int(step.max()) for side in table.tensors.values() for tensor in side}
    return bounds


def index_least(placement: Placement, valid: int) -> dict[tuple[str, int], int]:
    """Least offset, if not 0, by (slice, register), in a bucket that begins after `valid` vectors of positions.

    The bucket's program writes nothing that belongs to these vectors, so it may read them at any time.
    """
    g = placement.geometry
    valid = g.known(valid) // len(g.halves(0))
    least = {} if g.static_keys else {("E0", INDEX_SCALE): valid, ("W0", INDEX_SCALE): valid}
    least |= {(tensor.slice, INDEX_K): valid * g.vector_entries * g.head_vectors for tensor in placement.k.values()}
    return least | {(tensor.slice, INDEX_V): valid * g.head_entries for tensor in placement.v.values()}


@dataclass(frozen=True)
class Product:
    """A multiplication that makes a part of an offset.

    what: the part, for messages.
    value: the greatest value of the operand.
    scale: the constant factor.
    """

    what: str
    value: int
    scale: int


def products(placement: Placement) -> Iterator[Product]:
    """Every multiplication that `compiler.lower` writes to make an offset, with its greatest operand."""
    g = placement.geometry
    token, position = g.tokens - 1, g.chunks * g.lanes
    step = g.sequences if g.in_flight else 1
    yield Product("the key's offset", position // g.config.rows, g.head_vectors * step)
    yield Product("the value's offset", position // g.lanes, g.head_entries * step)
    yield Product("the next token's offset", position // g.lanes, step)
    yield Product("the coarse rotation's offset", position // ROPE_STEP, g.head_vectors)
    yield Product("the fine rotation's offset", ROPE_STEP - 1, g.head_vectors)
    if not g.embeds:
        return
    table = placement.matrices["embedding"]
    yield Product("the embedding's offset", token // (2 * g.lanes), table.acts * table.vector_entries)
    yield Product("the embedding's offset in a vector", g.lanes // g.config.rows - 1, table.acts)
    yield Product("the embedding scale's offset", token // g.lanes, 1)
    if (loop := placement.vocabulary).turns:
        yield Product("the offset of a turn's scores", loop.turns - 1, 2 * loop.body)
        yield Product("the first token of a turn", g.lanes * (loop.turns - 1), 2 * loop.body)


def check_products(placement: Placement) -> None:
    """Prove that no offset saturates or wraps in the VXM. Raises TspError that names the first one that does.

    The multiplier takes 18 bits of each factor, and its product must be an int32.
    """
    most = SAT_LIMIT[Sat.S18]
    for product in products(placement):
        for name, value, limit in (("operand", product.value, most), ("factor", product.scale, most),
                                   ("product", product.value * product.scale, INT32[1])):
            if value > limit:
                raise TspError(f"{product.what}: its {name} must be at most {limit} on the chip, not {value}: use a "
                               "smaller model or context")
