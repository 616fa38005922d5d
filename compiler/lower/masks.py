"""Masks of positions in the matrix units, see `compiler.place.masks`."""

from arch.config import PLANES
from arch.isa import Alu, ErUse, Op, Order, Sat
from arch.row import SXM
from arch.vectors import SIDES
from compiler.ir import Acc, Act, Imm, Iota, Mem, Reg
from compiler.place.masks import ACTIVATION, MASKED_TOGETHER, mask_quads, mask_steps

from .builder import Builder

LABEL = "mask"


def masking_products(b: Builder, position: Reg) -> dict[str, Act]:
    """Writes the weights "masks" of a token, and loads the activations that they meet, by side."""
    start, later = b.regs(1), b.regs(b.masked)
    b.op(LABEL, a=position, pre=-3, alu=Alu.ADD, c=Imm(8 - 8 * first_masked(b) * b.geometry.lanes), dst=start)
    b.op(LABEL, a=Iota(), pre=1 - (8 * PLANES).bit_length(), alu=Alu.RSUB, c=start, n=b.masked, dst=later)
    for block in range(b.masked):
        _write_block(b, block, later[block : block + 1])
    b.free(start, later)
    steps = mask_steps(b.model)
    acts = {side: Act(side, b.masking.start, steps) for side in SIDES}
    cluster = b.cluster(LABEL)
    b.load(cluster, cluster.alu(a=Imm(ACTIVATION), n=steps)[0], acts)
    return acts


def first_masked(b: Builder) -> int:
    """The first vector of positions that is masked."""
    return b.chunks - b.masked * MASKED_TOGETHER


def _write_block(b: Builder, block: int, later: Reg) -> None:
    """The weights of a block. later: 8 times the positions from the first one of each of its quads on that are there,
    a lane for each quad; more than PLANES of them, or less than 0, are as many as these.

    A lane of `words` is all bytes of a quad: those of positions that are there are shifted out.
    """
    words, er = b.tensor("mask_words", block, 1), b.exponents.take()
    b.op(LABEL, a=later, alu=Alu.MAX, c=Imm(0), sat=Sat.S8, er_dst=er)
    b.op(LABEL, a=b.constant("masked"), er_use=ErUse.PRE, er=er, er_neg=1, dst=words)
    b.exponents.give(er)
    groups = b.config.weight_groups
    for group in range(groups):
        cluster = b.cluster(LABEL)
        copies = cluster.read(words, SXM["E"], mask_quads(b.geometry))
        weights = cluster.sxm(copies, Op.SHIFT, lane=group, lane_inc=groups, distribute=1)
        for side in SIDES:
            cluster.write(weights, _weights(b, side, group + 1, block))


def _weights(b: Builder, side: str, group: int, block: int) -> Mem:
    quads = mask_quads(b.geometry)
    return b.placement.masks[side, group].mem(block * quads, quads)


def mask_accumulators(b: Builder, masking: Act, acc: Acc, start: int) -> None:
    """Accumulators = what the products of vectors `start`.. are added to: 0, or far below. They are a whole block."""
    side = acc.side
    block, rest = divmod(start - first_masked(b), MASKED_TOGETHER)
    assert not rest and acc.count == MASKED_TOGETHER
    weights = [_weights(b, side, group, block) for group in range(1, b.config.groups)]
    b.cluster(LABEL).mac(weights, masking, acc, vector_entries=b.geometry.vector_entries, order=Order.TILE)
