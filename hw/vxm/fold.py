"""Folding: a vector is computed in parts, one a cycle, and assembled again."""

from amaranth.hdl import Const, Module, Mux, Value
from amaranth.lib import data

from ..burst import Burst
from ..idioms import group_lanes, lanes_group, named, register


def part_of(stage: data.View) -> Value:
    """The number of the part in a stage. It has no bits if the VXM is not folded."""
    return stage.part if "part" in stage.shape().members else Const(0, 0)


def sampled(m: Module, engine: Burst, group: Value, name: str, fold: int) -> Value:
    """The current part of the stream group that an element samples in its first cycle.

    Registers hold the later parts.
    """
    if fold == 1:
        return group
    lanes, own = group_lanes(group), len(group) // 32 // fold
    first, *others = (lanes_group(lanes[at : at + own]) for at in range(0, len(lanes), own))
    later = register(m, engine.part_following.any(), f"{name}_later")
    kept = others[-1]
    for part in reversed(range(1, fold)):
        kept = register(m, Mux(later, kept, others[part - 1]) if part < fold - 1 else kept, f"{name}_part{part}")
    return named(m, Mux(later, kept, first), f"{name}_sampled")


def parts(m: Module, part: Value, fold: int, name: str) -> list[Value]:
    """All parts of a vector, valid in the cycle of its last part.

    part: the part of the current cycle.
    """
    parts = [part]
    for number in reversed(range(fold - 1)):
        parts.insert(0, register(m, parts[0], f"{name}_part{number}"))
    return parts


def whole(m: Module, part: Value, fold: int, name: str) -> Value:
    """The whole stream group, valid in the cycle of its last part."""
    if fold == 1:
        return part
    return lanes_group([lane for one in parts(m, part, fold, name) for lane in group_lanes(one)])
