"""Chips whose memories are larger than instructions can address, for models that no chip of ours holds.

Nothing can be compiled for them, but their schedules are as good as any: time depends on what an instruction does, not
on whether its fields have bits enough for the numbers.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from arch.config import ChipConfig
from arch.isa import FIELDS, Op
from arch.rack import RackConfig
from arch.vectors import ceil_div
from compiler.ir import Block
from program.shape import ModelConfig

ROOM = 1 << 30
"""Quads of a slice that holds any part of any model."""


class RoomyConfig(ChipConfig):
    """A chip of any size."""

    def __post_init__(self) -> None:
        """No field is checked."""


def roomy(config: ChipConfig) -> RoomyConfig:
    """The same chip with SRAM that holds any model."""
    same: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(config)}
    same["mem_depths"] = (ROOM,) * len(config.mem_depths)
    return RoomyConfig(**same)


def buffered(config: ChipConfig, model: ModelConfig, context: int, times: int) -> RoomyConfig:
    """The same with activation buffers that are long enough for a model: for its residual, its inner layer, its
    attention's output and the weights of two heads' positions at the same time. times: as many accumulators as the chip
    has."""
    counts = model.dim, model.hidden_dim, model.n_heads * model.head_dim, 2 * context
    entries = sum(ceil_div(count, config.lanes) for count in counts)
    return replace(roomy(config), acc_depth=times * config.acc_depth,
                   act_depth=max(config.act_depth, 1 << (entries - 1).bit_length()))


def larger(rack: RackConfig, make: Callable[[ChipConfig], ChipConfig]) -> RackConfig:
    """The same rack of other chips."""
    return replace(rack, chips=tuple(map(make, rack.chips)))


def assumed(config: ChipConfig, real: ChipConfig) -> list[str]:
    """What a chip has more of than another one."""
    found = ["SRAM of any size"] if config.mem_depths != real.mem_depths else []
    for name, what in (("act_depth", "activation buffers of {} entries, not {}"),
                       ("acc_depth", "accumulator files of {} vectors, not {}")):
        numbers = getattr(config, name), getattr(real, name)
        found += [what.format(*numbers)] if numbers[0] != numbers[1] else []
    return found


def shorten(blocks: Iterable[Block]) -> set[str]:
    """Replace numbers that instructions have too few bits for by the greatest that they have, so that the blocks can be
    assembled. Returns what was too large: "LOAD.act (at most 255)".

    The blocks keep their time and their length, for the scheduler looks at cells, counts and intervals.
    """
    found = set[str]()
    for block in blocks:
        most = FIELDS[Op.LOOP]["stride"].range[1]
        if any(stride > most for stride in block.strides.values()):
            found.add(f"LOOP.stride (at most {most:,})")
            block.strides = {name: min(stride, most) for name, stride in block.strides.items()}
        for burst in (burst for cluster in block.clusters for burst in cluster.bursts):
            for name, spec in FIELDS[burst.op].items():
                number = burst.fields.get(name)
                if isinstance(number, int) and not spec.kind and number > spec.range[1]:
                    burst.fields[name] = spec.range[1]
                    found.add(f"{burst.op.name}.{name} (at most {spec.range[1]:,})")
    return found
