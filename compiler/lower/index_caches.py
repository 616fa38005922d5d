"""Index registers with which a token writes its keys, their scales and its values into the K/V cache."""

from arch.config import PLANES
from arch.isa import Alu
from arch.vectors import SIDES
from compiler.ir import Imm, Reg
from compiler.place.layout import Tensor
from compiler.place.placement import ACROSS

from .builder import Builder
from .index import INDEX_K, INDEX_SCALE, INDEX_V, load_index, one_hot_mask, own_masks, shifted_one

LABEL = "index vectors"


def index_caches(b: Builder, position: Reg) -> None:
    """Index registers of keys, of their scales if they have some, and of values."""
    nothing = _at_constant_position(b, position)
    (_index_halves if b.geometry.halved else _index_whole)(b, position, nothing)
    b.free(nothing)


def _at_constant_position(b: Builder, position: Reg) -> Reg | None:
    """-1 where the position's keys and values are constants of the model, which no token writes, else 0; None if there
    are none. The caller returns the register."""
    if b.model.first < 0:
        return None
    flag = b.regs(1)
    b.op(LABEL, a=position, alu=Alu.EQ, c=Imm(0), dst=flag)
    return flag


def _index_whole(b: Builder, position: Reg, nothing: Reg | None) -> None:
    """Of caches that hold all positions."""
    rows = b.config.rows
    for group, slices in _slices_by_group(b.placement.k).items():
        masks = b.regs(1)
        one_hot_mask(b, LABEL, position, rows - 1, one="one_plane", before=PLANES * (group - 1),
                     rest=own_masks(b, "lanes"), nothing=nothing, dst=masks)
        _load_keys(b, position, masks, slices)
        b.free(masks)
    masks = b.regs(1)
    one_hot_mask(b, LABEL, position, b.geometry.lanes - 1, one="one_lane", rest=own_masks(b, "planes"),
                 nothing=nothing, dst=masks)
    _load_values(b, position, masks, _slices_by_group(b.placement.v), ["E0", "W0"])
    b.free(masks)


def _index_halves(b: Builder, position: Reg, nothing: Reg | None) -> None:
    """Of the halves of a head's cache, see `Geometry.halved`. The one that does not have the position gets an exponent
    below 0, which leaves no lane and no plane in its masks."""
    lanes, bits = b.geometry.lanes, b.config.lane_bits
    within, lane, row, east = (b.regs(1) for _ in range(4))
    b.op(LABEL, a=position, pre=bits + 1, round=0, dst=within)
    b.op(LABEL, a=position, alu=Alu.AND, c=Imm(lanes - 1), dst=lane)
    b.op(LABEL, a=within, pre=-bits, alu=Alu.OR, c=lane, dst=within)
    b.op(LABEL, a=lane, alu=Alu.AND, c=Imm(b.config.rows - 1), dst=row)
    b.op(LABEL, a=position, alu=Alu.AND, c=Imm(lanes), dst=east)
    if nothing:
        b.op(LABEL, a=row, alu=Alu.OR, c=nothing, dst=row)
        b.op(LABEL, a=lane, alu=Alu.OR, c=nothing, dst=lane)
    heads = b.geometry.heads_per_vector
    for half, (side, alu, before) in enumerate(zip(SIDES, (Alu.SUB, Alu.ADD), (0, lanes), strict=True)):
        er = b.exponents.take()
        b.op(LABEL, a=row, alu=alu, c=east, er_dst=er)
        for group, slices in _slices_by_group(b.placement.k, half, 1).items():
            masks = b.regs(1)
            b.op(LABEL, **shifted_one(b, "one_plane", er, before + PLANES * (group - 1)), alu=Alu.OR,
                 c=own_masks(b, "lanes"), dst=masks)
            _load_keys(b, within, masks, slices)
            b.free(masks)
        b.exponents.give(er)
        er, masks = b.exponents.take(), b.regs(1)
        b.op(LABEL, a=lane, alu=alu, c=east, er_dst=er)
        b.op(LABEL, **shifted_one(b, "one_lane", er, before), alu=Alu.OR, c=own_masks(b, "planes"), dst=masks)
        _load_values(b, within, masks, _slices_by_group(b.placement.v, half, heads), [ACROSS[side]])
        b.exponents.give(er)
        b.free(masks)
    b.free(within, lane, row, east)


def _load_keys(b: Builder, position: Reg, masks: Reg, slices: set[str]) -> None:
    load_index(b, LABEL, position, shift=b.config.rows.bit_length() - 1, scale="words", masks=masks,
               slices=sorted(slices), register=INDEX_K, own=True)


def _load_values(b: Builder, position: Reg, masks: Reg, slices: dict[int, set[str]], scales: list[str]) -> None:
    """slices: of values, by weight group. scales: slices of the keys' scales."""
    if not b.geometry.static_keys:
        load_index(b, LABEL, position, shift=b.config.lane_bits, scale="one", masks=masks, slices=scales,
                   register=INDEX_SCALE, own=True)
    load_index(b, LABEL, position, shift=b.config.lane_bits, scale="steps", masks=masks,
               slices=sorted(set().union(*slices.values())), register=INDEX_V, own=True)


def _slices_by_group(tensors: dict[tuple[int, int], Tensor], half: int = 0, heads: int = 0) -> dict[int, set[str]]:
    """Slices of keys or values by weight group. heads: of a half of the cache; by default, all are meant."""
    found: dict[int, set[str]] = {}
    for (number, group), tensor in tensors.items():
        if not heads or number // heads == half:
            found.setdefault(group, set()).add(tensor.slice)
    return found
