"""What a model needs of each chip of a rack that is divided by rows and by layers: as the compiler lays it out, in SRAM
of the greatest size."""

from dataclasses import dataclass

from arch.config import MAX_PORTS, ChipConfig
from arch.rack import MAX_CHIPS, RackConfig, mesh, row, shelves
from base.errors import TspError
from compiler.capacity import check_sequences, four_bit_matrices, hollow_model, rope_rate
from compiler.place.placement import place
from compiler.rack.by_layers import stages
from compiler.rack.by_rows import planes_of
from compiler.rack.capacity import least_cycles, place_group
from compiler.rack.fit import MOST_CHIPS
from compiler.rack.plan import FEW, Plan, plans

from .cycles import Cycles, schedule
from .roomy import larger, roomy
from .shapes import Shape


@dataclass(frozen=True, kw_only=True)
class Divided:
    """A model on groups of chips.

    tensor, pipeline: chips of a group, and groups. sequences: of a program. bytes: of SRAM, by chip of the first group,
    of the one in the middle with the most layers, and of the last. layers: of these groups. least_cycles: of a token,
    for the matrices alone; of a period, with several sequences. cycles: as scheduled, if that is asked for.
    """

    tensor: int
    pipeline: int
    sequences: int
    bytes: tuple[tuple[int, ...], ...]
    layers: tuple[int, ...]
    least_cycles: int
    cycles: Cycles | None = None

    @property
    def tokens_a_period(self) -> int:
        """Tokens that the cycles are of: all sequences advance at once on one chip, and in turn in flight."""
        return self.sequences if self.tensor * self.pipeline == 1 else 1

    @property
    def most(self) -> int:
        """Bytes of SRAM that the fullest chip needs."""
        return max(max(own) for own in self.bytes)


def divide(shape: Shape, config: ChipConfig, *, precision: str, context: int, tensor: int, pipeline: int,
           rack: RackConfig | None = None, sequences: int = 1, scales: str = "static", cycles: bool = False) -> Divided:
    """What each chip needs.

    rack: that of the chips. Without one, all chips are linked with each other, if they are not too many for that; see
    `_links`. sequences: of a program; on more than one chip, in flight. scales: of activations. cycles: schedule, too,
    which takes some seconds to a minute.

    Raises TspError if the compiler does not take such a model, or such groups.
    """
    if shape.experts > 1 or shape.windowed_layers:
        raise TspError(f"{shape.name}: the compiler takes no experts and no windows: leave out --cycles, --tensor and "
                       "--pipeline")
    if tensor < 1 or pipeline < 1:
        raise TspError(f"--tensor and --pipeline must be at least 1, not {tensor} and {pipeline}")
    model, four_bit = shape.model, four_bit_matrices(precision)
    alone = tensor * pipeline == 1
    if alone:
        check_sequences(sequences)
    elif sequences not in (1, pipeline):
        raise TspError(f"sequences in flight must be as many as groups of chips, {pipeline}, not {sequences}")
    plan = Plan(tensor=tensor, pipeline=pipeline, scattered=tensor > FEW, halve=True,
                sequences=1 if alone else sequences)
    found = None
    if cycles:
        machine = config if alone else rack or _links(config, tensor, pipeline)
        among = plans(machine, tensor, pipeline, sequences) if isinstance(machine, RackConfig) else []
        found = schedule(model, machine, among, context=context, four_bit=four_bit, scales=scales, sequences=sequences)
        plan = found.plan or plan
    groups = [rack.part(group) for group in plan.groups] if rack else [_group(config, tensor)] * pipeline
    integer = hollow_model(model, config.lanes, context, four_bit, scales)
    if alone:
        placed = [[place(roomy(config), integer, rope_rate(model, integer), together=sequences)]]
    else:
        every = stages(groups[0].name, integer, plan) if pipeline > 1 else []
        middle = max(every[1:-1], key=lambda stage: len(stage.layers[stage.number]), default=None)
        chosen = [*every[:1], *filter(None, [middle]), *every[-1:]] or [None]
        placed = [place_group(model, larger(groups[stage.number if stage else 0], roomy), integer, plan, stage,
                              planes_of(integer)) for stage in chosen]
    return Divided(
        tensor=tensor, pipeline=pipeline, sequences=sequences, cycles=found,
        bytes=tuple(tuple(sum(map(each.layout.cost, each.layout.tensors)) * config.quad_bytes for each in chips)
                    for chips in placed),
        layers=tuple(chips[0].geometry.model.layers for chips in placed),
        least_cycles=round(least_cycles(model, groups[0], four_bit, plan) * (sequences if alone else 1)))


def _group(config: ChipConfig, chips: int) -> RackConfig:
    name = f"{chips} x {config.name}"
    return (mesh if chips <= MOST_CHIPS else row)(name, config.name, chips)


def _links(config: ChipConfig, tensor: int, pipeline: int) -> RackConfig:
    """Groups of chips: all linked with each other; or those of a group, and those of the same place in all groups; or,
    of single ones, each with the next. Raises TspError if a chip has too few ports for that."""
    chips, name = tensor * pipeline, f"{pipeline} x {tensor} x {config.name}"
    if chips <= MOST_CHIPS:
        return mesh(name, config.name, chips)
    if tensor == 1 and chips <= MAX_CHIPS:
        return row(name, config.name, chips)
    if tensor + pipeline - 2 > 2 * MAX_PORTS or chips > MAX_CHIPS:
        raise TspError(f"{pipeline} x {tensor} chips cannot all be linked, each by its {2 * MAX_PORTS} "
                       f"ports, up to {MAX_CHIPS} chips: use smaller groups, or say how they are linked with --rack "
                       "NAME.json")
    return shelves(name, config.name, pipeline, tensor)
