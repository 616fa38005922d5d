"""What a model needs of each chip of a rack that is divided by rows and by layers: as the compiler lays it out, in SRAM
of the greatest size."""

from dataclasses import dataclass, replace

from arch.config import ChipConfig
from arch.rack import RackConfig, mesh, row
from base.errors import TspError
from compiler.capacity import four_bit_matrices, hollow_model
from compiler.rack.by_layers import stages
from compiler.rack.by_rows import planes_of
from compiler.rack.capacity import least_cycles, place_group
from compiler.rack.fit import MOST_CHIPS
from compiler.rack.plan import FEW, Plan
from program.shape import ModelConfig

from .shapes import Shape

ROOM = 1 << 20
"""Quads of a slice with all the SRAM that it can have."""


@dataclass(frozen=True, kw_only=True)
class Divided:
    """A model on groups of chips.

    tensor, pipeline: chips of a group, and groups. bytes: of SRAM, by chip of the first group, of the one in the middle
    with the most layers, and of the last. layers: of these groups. least_cycles: of a token, for the matrices alone.
    """

    tensor: int
    pipeline: int
    bytes: tuple[tuple[int, ...], ...]
    layers: tuple[int, ...]
    least_cycles: int

    @property
    def most(self) -> int:
        """Bytes of SRAM that the fullest chip needs."""
        return max(max(own) for own in self.bytes)


def divide(shape: Shape, config: ChipConfig, *, precision: str, context: int, tensor: int, pipeline: int,
           rack: RackConfig | None = None) -> Divided:
    """What each chip needs. rack: that of the chips. Without one, the chips of a group are all linked with each other,
    if they are not too many for that.

    Raises TspError if the compiler does not take such a model, or the parts do not fit the greatest SRAM.
    """
    if shape.experts > 1 or shape.windowed_layers:
        raise TspError(f"{shape.name}: the compiler takes no experts and no windows: leave out --tensor and --pipeline")
    if tensor < 1 or pipeline < 1:
        raise TspError(f"--tensor and --pipeline must be at least 1, not {tensor} and {pipeline}")
    model = ModelConfig(dim=shape.dim, hidden_dim=shape.hidden, n_layers=shape.layers, n_heads=shape.heads,
                        n_kv_heads=shape.kv_heads, vocab_size=shape.vocab, seq_len=shape.context,
                        head_dim=shape.head_dim, shared_classifier=shape.tied)
    four_bit = four_bit_matrices(precision)
    plan = Plan(tensor=tensor, pipeline=pipeline, scattered=tensor > FEW, halve=True)
    groups = [rack.part(group) for group in plan.groups] if rack else [_group(config, tensor)] * pipeline
    integer = hollow_model(model, config.lanes, context, four_bit)
    every = stages(groups[0].name, integer, plan) if pipeline > 1 else []
    middle = max(every[1:-1], key=lambda stage: len(stage.layers[stage.number]), default=None)
    found = [*every[:1], *filter(None, [middle]), *every[-1:]] or [None]
    placed = [place_group(model, _roomy(groups[stage.number if stage else 0]), integer, plan, stage,
                          planes_of(integer)) for stage in found]
    return Divided(
        tensor=tensor, pipeline=pipeline,
        bytes=tuple(tuple(sum(map(each.layout.cost, each.layout.tensors)) * config.quad_bytes for each in chips)
                    for chips in placed),
        layers=tuple(chips[0].geometry.model.layers for chips in placed),
        least_cycles=round(least_cycles(model, groups[0], four_bit, plan)))


def _roomy(group: RackConfig) -> RackConfig:
    """The same with SRAM of the greatest size."""
    return replace(group, chips=tuple(replace(chip, mem_depths=(ROOM,) * len(chip.mem_depths))
                                      for chip in group.chips))


def _group(config: ChipConfig, chips: int) -> RackConfig:
    name = f"{chips} x {config.name}"
    return (mesh if chips <= MOST_CHIPS else row)(name, config.name, chips)
