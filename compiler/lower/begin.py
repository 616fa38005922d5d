"""First part of a token: position and token become index registers, rotations, masks and a row of the embedding."""

from dataclasses import replace

from arch.config import PLANES
from arch.isa import Alu, ErUse, Fmt, Func, Red
from arch.vectors import SIDES
from compiler.ir import Acc, Act, As, Imm, Iota, Mem, Reg
from program.arithmetic import ROPE_FRACTION, ROPE_STEP
from program.integer import RESIDUAL

from .builder import Builder
from .collectives import all_gather
from .index import (
    INDEX_EMB_SCALE,
    INDEX_EMBEDDING,
    INDEX_HIGH,
    INDEX_LOW,
    load_index,
    shifted_one,
)
from .index_caches import index_caches
from .masks import masking_products
from .product import write_residual
from .state import TokenState

MASKS = 6
"""Masks that registers are spared for."""
ROW_REGISTERS = 6
"""Vectors of a row of the embedding that registers are spared for."""
MASK_SHIFT, PRODUCT_MASK_SHIFT = 23, 26
"""Bits below the mask of scores, see `integer.MASKED`, and of products of static keys, see `MASKED_PRODUCT` there."""


def begin(b: Builder) -> TokenState:
    """Reads the tensors "token" and "position"; writes index registers and what it returns."""
    g = b.geometry
    cos, sin = b.regs(g.head_vectors), b.regs(g.head_vectors)
    head_lanes = tuple(b.regs(1) for _ in range(g.heads_per_vector)) if g.heads_per_vector > 1 else ()
    residual = b.regs(len(g.resident)) if g.residual_in_registers else b.tensor("x")
    shift = b.exponents.take() if RESIDUAL in b.model.dynamic else None
    bytes_ = _bytes(b) if g.share and g.share.scattered else None
    position, token = b.regs(1), b.regs(1)
    if g.embeds:
        b.op("token", a=b.tensor("token"), dst=token)
    b.op("position", a=b.tensor("position"), dst=position)
    if g.embeds:
        _embedding(b, token, residual, shift)
    else:
        _without_embedding(b, residual)
    b.free(token)
    index_caches(b, position)
    _rotation(b, position, cos, sin)
    mask, masking = None, dict[str, Act]()
    if b.masked:
        masking = masking_products(b, position)
    else:
        mask = _mask(b, position)
    _head_lanes(b, head_lanes)
    b.free(position)
    return TokenState(residual=residual, bytes=bytes_, shift=shift, cos=cos, sin=sin, head_lanes=head_lanes, mask=mask,
                      masking=masking)


def _bytes(b: Builder) -> int:
    """The exponent register `TokenState.bytes`."""
    er = b.exponents.take()
    b.op("constants", a=Iota(), pre=-3, alu=Alu.AND, c=Imm(8 * (PLANES - 1)), er_dst=er)
    return er


# --- position ------------------------------------------------------------------------------------------------------


def _rotation(b: Builder, position: Reg, cos: Reg, sin: Reg) -> None:
    """cos and sin of the position, as the product of two rotations; sin is negated in odd lanes."""
    label, vectors = "rotation", b.geometry.head_vectors
    low_index, t = b.regs(1), b.regs(vectors)
    b.op(label, a=b.tensor("position"), alu=Alu.AND, c=Imm(ROPE_STEP - 1), dst=low_index)
    planes = b.constant("planes")
    load_index(b, label, low_index, scale="words", masks=planes, slices=["W0"], register=INDEX_LOW)
    load_index(b, label, position, shift=ROPE_STEP.bit_length() - 1, scale="words", masks=planes, slices=["E0"],
               register=INDEX_HIGH)
    low = b.placement.tensors["rope_low"].mem(0, vectors, index=INDEX_LOW, cells=())
    high = b.placement.tensors["rope_high"].mem(0, vectors, index=INDEX_HIGH, cells=())
    cl, sl, ch, sh = As(low, Fmt.LO16), As(low, Fmt.HI16), As(high, Fmt.LO16), As(high, Fmt.HI16)
    product = {"func": Func.MUL, "post": ROPE_FRACTION, "n": vectors}
    b.op(label, a=cl, b=sh, **product, dst=t)
    b.op(label, a=sl, b=ch, **product, alu=Alu.ADD, c=t, dst=t)
    b.op(label, a=t, func=Func.MUL, b=b.constant("sign"), n=vectors, dst=sin)
    b.op(label, a=sl, b=sh, **product, dst=t)
    b.op(label, a=cl, b=ch, **product, alu=Alu.SUB, c=t, dst=cos)
    b.free(low_index, t)


def _mask(b: Builder, position: Reg) -> Reg | None:
    """What scores, or products of static keys, are added to: 0, or far below. Returned if it is in registers.

    A few vectors stay in registers, where heads of one vector leave room for them; otherwise they may be in both inner
    slices.
    """
    label, n, start = "mask", b.chunks - b.valid, b.regs(1)
    several = b.geometry.masks_on_both_sides
    mask = b.regs(n) if not several and n <= MASKS else b.tensor("mask_W0", 0, n)
    b.op(label, a=position, alu=Alu.SUB, c=Imm(b.valid * b.geometry.lanes), dst=start)
    b.op(label, a=Iota(), alu=Alu.GT, c=start, n=n, dst=mask)
    cluster = b.cluster(label)
    shift = PRODUCT_MASK_SHIFT if b.geometry.static_keys else MASK_SHIFT
    stream, _ = b.alu(cluster, a=mask, pre=-shift, n=n, dst=mask)
    if several:
        cluster.write(stream, b.tensor("mask_E0", 0, n))
    b.free(start)
    return mask if isinstance(mask, Reg) else None


def _head_lanes(b: Builder, head_lanes: tuple[Reg, ...]) -> None:
    """Masks of the halves of a vector that two heads share, and zeros in the accumulators of which each head writes its
    own lanes alone."""
    half = b.geometry.lanes // 2
    for reg, alu, border in zip(head_lanes, (Alu.LT, Alu.GT), (half, half - 1), strict=False):
        b.op("constants", a=Iota(), alu=alu, c=Imm(border), dst=reg)
    if not head_lanes or not b.model.heads:
        return
    label, entries = "clear", b.geometry.vector_entries
    cluster = b.cluster(label)
    zero, _ = cluster.alu(a=Imm(0))
    acts = b.load_both(cluster, zero)
    weights = b.placement.matrices["qkv"]
    for side in SIDES:
        for member in range(len(head_lanes)):
            b.cluster(label).mac([t.mem(0, entries, cells=()) for t in weights.tensors[side]], acts[side],
                                 Acc(side, b.head_accumulator(side, member)), vector_entries=entries)


# --- embedding -----------------------------------------------------------------------------------------------------


def _embedding(b: Builder, token: Reg, residual: Reg | Mem, shift: int | None) -> None:
    """residual = embedding row of the token: every side and plane that may hold the row is gathered, one is not
    masked. shift: see `TokenState`."""
    label, rows, lanes = "embedding", b.config.rows, b.geometry.lanes
    table = b.placement.matrices["embedding"]
    low, offset, er = b.regs(1), b.regs(1), b.exponents.take()
    side_bit = b.config.lane_bits
    b.op(label, a=b.tensor("token"), pre=side_bit + 1, round=0, func=Func.MUL, b=b.constant("emb_vector"), dst=offset)
    b.op(label, a=b.tensor("token"), alu=Alu.AND, c=Imm(lanes - 1), dst=low)
    b.op(label, a=low, pre=rows.bit_length() - 1, round=0, func=Func.MUL, b=b.constant("emb_step"), alu=Alu.ADD,
         c=offset, dst=offset)
    b.op(label, a=b.tensor("token"), alu=Alu.AND, c=Imm(lanes | rows - 1), er_dst=er)
    for group in range(1, b.config.weight_groups + 1):
        for side, before in zip(SIDES, (0, lanes), strict=True):  # a token of the other side leaves no plane
            cluster = b.cluster(label)
            stream, _ = cluster.alu(**shifted_one(b, "one_plane", er, before + PLANES * (group - 1)), alu=Alu.OR,
                                    c=offset)
            cluster.index(stream, [table.tensors[side][group - 1].slice], INDEX_EMBEDDING)
    scale = _embedding_scale(b, token, low)
    _unpack_row(b, token, scale, residual, shift)
    b.free(low, offset)
    b.exponents.give(er)


def _without_embedding(b: Builder, residual: Reg | Mem) -> None:
    """Take and return the registers that `_embedding` does. What follows then finds the same ones free: neighbours that
    a model has on one chip, it has on every chip of a rack."""
    low, offset, mine, scale = (b.regs(1) for _ in range(4))
    b.free(mine)
    *_, spare = _rows(b, residual, len(b.geometry.embedded))
    b.free(scale, *spare, low, offset)


def _embedding_scale(b: Builder, token: Reg, low: Reg) -> Reg:
    """The row's scale in every lane. low: the lane in which its vector of scales holds it."""
    label, mine, scale = "embedding", b.regs(1), b.regs(1)
    load_index(b, label, token, shift=b.config.lane_bits, scale="one", masks=b.constant("planes"), slices=["E0"],
               register=INDEX_EMB_SCALE)
    b.op(label, a=Iota(), alu=Alu.EQ, c=low, dst=mine)
    cluster = b.cluster(label)
    table = b.placement.tensors["emb_scale"].mem(0, 1, index=INDEX_EMB_SCALE, cells=())
    picked, _ = cluster.alu(a=table, alu=Alu.AND, c=mine)
    b.alu(cluster, a=b.across_lanes(cluster, picked, Red.SUM), dst=scale)
    b.free(mine)
    return scale


def _unpack_row(b: Builder, token: Reg, scale: Reg, residual: Reg | Mem, shift: int | None) -> None:
    """residual = the bytes of the gathered row * its scale, and its shift. The row lies in the plane that the token's
    last two bits name, and zeros come from everywhere else."""
    label, n, er = "embedding", len(b.geometry.embedded), b.exponents.take()
    table, row, whole = b.placement.matrices["embedding"], Fmt.B3, len(b.geometry.resident)
    b.op(label, a=token, pre=-3, alu=Alu.AND, c=Imm(8 * (PLANES - 1)), er_dst=er)
    work, other, spare = _rows(b, residual, n)
    for group in range(b.config.weight_groups):
        west, east = (table.tensors[side][group].mem(0, n, index=INDEX_EMBEDDING, cells=()) for side in SIDES)
        if group and other:
            b.op(label, a=west, alu=Alu.OR, c=east, n=n, dst=other)
            b.op(label, a=work, alu=Alu.OR, c=other, n=n, dst=work)
        elif group:
            b.op(label, a=west, alu=Alu.OR, c=work, n=n, dst=work)
            b.op(label, a=east, alu=Alu.OR, c=work, n=n, dst=work)
        else:
            b.op(label, a=west, alu=Alu.OR, c=east, n=n, dst=work)
    bytes_ = work
    if whole > n:
        bytes_, row = _row_of_all(b, work, er), Fmt.B0
    else:
        b.op(label, a=work, pre=-8 * (PLANES - 1), er_use=ErUse.PRE, er=er, n=n, dst=work)  # into the upper plane
    write_residual(b, label, [{"a": As(bytes_, row), "func": Func.MUL, "b": scale, "post": b.shifts.emb, "n": whole,
                               "dst": residual}], shift)
    b.free(scale)
    b.exponents.give(er)
    b.free(*spare)


def _rows(b: Builder, residual: Reg | Mem, vectors: int) -> tuple[Reg | Mem, Reg | Mem | None, list[Reg]]:
    """(where a row of the embedding, or this chip's part, is put together, place for a second one, registers of these
    to be returned). Registers of a residual that is as long need no second one."""
    if isinstance(residual, Reg) and residual.count == vectors:
        return residual, None, []
    if vectors > ROW_REGISTERS or b.geometry.together > 1:
        return b.tensor("xg", 0, vectors), b.tensor("h16", 0, vectors), []
    work, other = b.regs(vectors), b.regs(vectors)
    return work, other, [work, other]


def _row_of_all(b: Builder, part: Reg | Mem, er: int) -> Mem:
    """The row, a byte a lane in the lowest plane, from the parts of all chips. part: this chip's, in any plane. er: the
    shift to the lowest one."""
    share = b.geometry.share
    assert share
    own, row = share.residual[b.chip], b.tensor("addends")  # which has nothing to hold yet
    b.op("embedding", a=part, round=0, er_use=ErUse.PRE, er=er, n=len(own), dst=row[own.start : own.stop])
    all_gather(b, "addends", share.residual)
    return replace(row, planes=1)
