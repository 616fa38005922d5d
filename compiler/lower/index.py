"""Index registers: what each of them addresses, and how a value becomes an offset in them.

An index register takes its offset from lane 0, and masks of lanes and of planes from lanes 1 and 2 of the same vector.
The constants named here are such vectors. "one", "words" (the vectors of a head), "steps" (the accumulator entries of
its output) and "turn" (the vectors of a turn of the classifier's loop) scale lane 0; "one_lane" and "one_plane" hold a
1 in the lane of a mask; "lanes" and "planes" are full masks.
"""

from collections.abc import Iterable
from typing import Any

from arch.isa import Alu, ErUse, Func
from compiler.ir import Imm, Mem, Reg
from compiler.place.layout import INDEX_SEQUENCE
from compiler.place.placement import Placement

from .builder import Builder

INDEX_K, INDEX_V, INDEX_EMBEDDING = 1, 2, 3
"""In the weight slices."""
INDEX_SCALE = 4
"""Of the K scales, in E0 and W0."""
INDEX_EMB_SCALE, INDEX_HIGH, INDEX_TURN = 5, 6, 7
"""In E0: scales of the embedding's rows, rotations by multiples of `ROPE_STEP`, scores of a turn of the classifier's
loop."""
INDEX_LOW, INDEX_TOKENS = 5, 6
"""In W0: rotations by less than `ROPE_STEP`, known tokens."""


SECOND = {INDEX_K: 6, INDEX_V: 7, INDEX_SCALE: 2, INDEX_TOKENS: 1}
"""Registers of the second of two sequences in one program, where the first one has these. No slice uses a number twice:
neither keys nor, with scales of their own, values then lie in E0 and W0."""


def register_of(placement: Placement, register: int) -> int:
    """The index register that a sequence of a program has for this one, which addresses its state. Others are shared:
    only the beginning or the end of a token uses them, for a moment."""
    return SECOND.get(register, register) if placement.sequence else register


def index_turn(placement: Placement) -> int:
    """E0's index register of a turn's scores. Of several sequences, it is one that only the first part of a token
    uses, for that of the sequence has its number."""
    return INDEX_EMB_SCALE if placement.geometry.in_flight else INDEX_TURN


def load_index(b: Builder, label: str, value: Reg | Mem, *, shift: int = 0, scale: str, masks: Reg | Mem,
               slices: Iterable[str], register: int, own: bool = False) -> None:
    """Index register of some slices = (value >> shift) * the constant `scale`, with the masks of a vector.

    own: it addresses a tensor of the sequence's state. Of sequences in flight, `masks` then holds the offset of the
    present one, see `own_masks`. Of several in one program, the register is its own, see `register_of`.
    """
    cluster, several = b.cluster(label), own and b.geometry.in_flight
    register = register_of(b.placement, register) if own else register
    stream, _ = cluster.alu(a=value, pre=shift, round=0, func=Func.MUL,
                            b=b.constant(f"own_{scale}" if several else scale),
                            alu=Alu.ADD if several else Alu.OR, c=masks)
    cluster.index(stream, slices, register)


def own_masks(b: Builder, name: str) -> Mem:
    """The constant "lanes" or "planes"; of sequences in flight, with the present one's offset in lane 0."""
    if not b.geometry.in_flight:
        return b.constant(name)
    return b.placement.tensors[f"own_{name}"].mem(0, 1, index=INDEX_SEQUENCE, cells=())


def choose_sequence(b: Builder) -> None:
    """Index register of the present sequence, in all slices that hold states; the next token is of the next one."""
    label, tensors = "sequence", b.placement.layout.tensors
    slices = {"E0", "W0"} | {tensor.slice for tensor in tensors if tensor.copies > 1}
    cluster = b.cluster(label)
    stream, _ = cluster.alu(a=b.tensor("current"))
    cluster.index(stream, sorted(slices), INDEX_SEQUENCE)
    b.op(label, a=b.placement.tensors["next"].mem(0, 1, index=INDEX_SEQUENCE, cells=()), dst=b.tensor("current"))


def one_hot_mask(b: Builder, label: str, value: Reg, mask: int, *, one: str, before: int = 0, rest: Mem,
                 nothing: Reg | None = None, dst: Reg) -> None:
    """dst = (the constant `one` << (value & mask) - before) | `rest`: a mask of one lane or plane, and another mask.

    nothing: where it is -1, no lane or plane is in the mask; elsewhere it is 0.
    """
    er = b.exponents.take()
    if nothing is None:
        b.op(label, a=value, alu=Alu.AND, c=Imm(mask), er_dst=er)
    else:
        b.op(label, a=value, alu=Alu.AND, c=Imm(mask), dst=dst)
        b.op(label, a=dst, alu=Alu.OR, c=nothing, er_dst=er)
    b.op(label, **shifted_one(b, one, er, before), alu=Alu.OR, c=rest, dst=dst)
    b.exponents.give(er)


def shifted_one(b: Builder, one: str, er: int, before: int) -> dict[str, Any]:
    """Fields of an operation whose operand a is the constant `one` << exponent - before; 0 if that is negative."""
    return {"a": b.constant(one), "pre": before, "er_use": ErUse.PRE, "er": er, "er_neg": 1, "round": 0}
