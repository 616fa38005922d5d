"""Weights that mask products of query and key where they are made, in the matrix unit.

Where a chip finds the greatest product while it drains them (`ChipConfig.drain_max`), products without a mask take no
operation of the VXM. So each product is added to one of constant activations and of weights that say which positions
are yet to come. It leaves these so far below all others that no softmax sees them, as `integer.MASKED_PRODUCT` does.

The weights are of MASKED_TOGETHER vectors of positions, for each step of the product the same. A token writes them
once, those of a weight group on both sides together.
"""

from arch import tables
from arch.config import PLANES
from arch.isa import Sat
from arch.numerics import SAT_LIMIT
from arch.vectors import SIDES, ceil_div
from program.integer import IntegerModel

from .geometry import Geometry
from .layout import Layout, Tensor

MASKED_TOGETHER = PLANES
"""Vectors of positions whose weights are written together: they are as many quads as a vector has lanes."""
MOST_BLOCKS = 2
"""Of MASKED_TOGETHER vectors."""
MOST_HEAD_VECTORS = 2
"""Vectors of heads whose products are masked so: a longer head takes more steps, and the VXM is less busy."""
ACTIVATION, WEIGHT = 127, -128
"""Of a product that masks."""
USUAL_SHIFT = 8
"""From products to scores. Up to this shift a model takes as many steps as `capacity.hollow_model` has."""
VANISHES = (1 << tables.EXP2_FRACTION + 3) + 1
"""Scores that are less than the greatest by so much have weight 0."""


def mask_steps(model: IntegerModel) -> int:
    """Activations of a product that masks: as many as it takes for products of any queries and keys."""
    widest = 2 * model.head_size * SAT_LIMIT[Sat.S8] ** 2
    least = widest + (VANISHES + 1 << max(USUAL_SHIFT, model.shifts.score))
    return ceil_div(least, -model.lanes * ACTIVATION * WEIGHT)


def products_masked(g: Geometry) -> bool:
    """Whether products are masked so where there is room for the weights.

    Several sequences in one program mask all positions, which would take too many. Where heads of several vectors keep
    one matrix unit busy, and the other one waits, the VXM has time to spare. So it has where both work on each head.
    """
    balanced = g.head_vectors == 1 or (g.head_vectors <= MOST_HEAD_VECTORS
                                       and len(g.heads("W")) == len(g.heads("E")))
    alone = g.sequences == 1 and not g.halved
    return bool(g.config.drain_max and g.static_keys and g.model.heads and alone and balanced)


def place_masks(g: Geometry, layout: Layout) -> dict[tuple[str, int], Tensor]:
    """By side and weight group, the weights of as many blocks as the slices have room for; {} if that is none."""
    places = [(side, group) for side in SIDES for group in range(1, g.config.groups)]
    quads = mask_quads(g)
    blocks = min(MOST_BLOCKS, *(layout.free(f"{side}{group}") // quads for side, group in places))
    if not products_masked(g) or blocks < 1:
        return {}
    return {(side, group): layout.add("masks", f"{side}{group}", blocks * quads) for side, group in places}


def mask_quads(g: Geometry) -> int:
    """Quads of a group's weights for a block of MASKED_TOGETHER vectors."""
    return MASKED_TOGETHER * g.vector_entries * mask_steps(g.model)
