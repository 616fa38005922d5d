"""The context that fits a rack with each plan, and what limits it. Only the model's shapes count, not its weights."""

import functools
from collections.abc import Sequence
from dataclasses import replace

from arch.rack import RackConfig
from base.errors import TspError
from compiler.capacity import check_wanted, hollow_model, longest_context, rope_rate
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import Placement, place
from compiler.place.stage import Stage
from program.integer import IntegerModel
from program.shape import ModelConfig

from .buckets import Placements, check_queues
from .by_layers import layers_of, stages
from .by_rows import own_model, planes_of, shares
from .plan import Choice, Plan


def choose_plan(model: ModelConfig, rack: RackConfig, wanted: int | None, four_bit: frozenset[str],
                among: Sequence[Plan]) -> Choice:
    """How to divide a model: with the context `wanted`, if it fits, or as much of the model's context as fits.

    among: the plans to choose from.

    Raises TspError that names what does not fit.
    """
    check_chips(rack, four_bit)
    choice = best_plan(model, rack, wanted, four_bit, among)
    if not choice.context:
        raise TspError(f"rack {rack.name}: {choice.limit}")
    if wanted is not None and choice.context < wanted:
        raise TspError(f"rack {rack.name}: a context of {wanted} does not fit: {choice.limit} or --context "
                       f"{choice.context}")
    return choice


def best_plan(model: ModelConfig, rack: RackConfig, wanted: int | None, four_bit: frozenset[str],
              among: Sequence[Plan]) -> Choice:
    """The plan with the greatest context and, of several, the fewest cycles. Its context is 0 if none fits. Raises
    TspError if `wanted` is out of range."""
    found = [(plan, *fitting_context(model, rack, wanted, four_bit, plan)) for plan in among]
    most = max(context for _, context, _ in found)
    able = [(plan, limit) for plan, context, limit in found if context == most]

    def cycles(of: tuple[Plan, str]) -> int:
        return check_queues(check_fit(model, rack, most, four_bit, of[0]))[0].bucket.period

    plan, limit = min(able, key=cycles) if most and len(able) > 1 else able[0]
    if most and plan.sequences > 1:
        plan = balanced(model, rack, most, four_bit, plan)
    return Choice(plan=plan, context=most, limit=limit)


def balanced(model: ModelConfig, rack: RackConfig, context: int, four_bit: frozenset[str], plan: Plan) -> Plan:
    """The plan with its layers divided anew: the slowest group takes as few predicted cycles as possible.

    The plan is returned as it is if that does not fit, or is not faster.
    """
    codes = check_queues(check_fit(model, rack, context, four_bit, plan))
    layer = max(code.schedules[1].length for code in codes)
    other = [sum(each.length * each.block.turns for n, each in enumerate(codes[group.start].schedules) if n != 1)
             for group in plan.groups]
    better = replace(plan, layers=tuple(divide(model.n_layers, layer, other)))
    if _problem(model, rack, four_bit, better, True, context):
        return plan
    faster = check_queues(check_fit(model, rack, context, four_bit, better))
    return better if faster[0].bucket.period < codes[0].bucket.period else plan


def divide(layers: int, layer: int, other: Sequence[int]) -> list[int]:
    """How many layers each group gets, at least one, so that the slowest takes the fewest cycles. layer: cycles of one.
    other: by group, cycles of all else."""
    counts = [1] * len(other)
    for _ in range(layers - len(other)):
        ends = [count * layer + more for count, more in zip(counts, other, strict=True)]
        counts[ends.index(min(ends))] += 1
    return counts


def fitting_context(model: ModelConfig, rack: RackConfig, wanted: int | None, four_bit: frozenset[str], plan: Plan,
                    ) -> tuple[int, str]:
    """As `compiler.capacity.fitting_context`. Raises TspError if `wanted` is out of range."""
    check_wanted(model, wanted)
    return longest_context(model, wanted, rack.chips[0].lanes,
                           functools.partial(_problem, model, rack, four_bit, plan, False),
                           functools.partial(_problem, model, rack, four_bit, plan, True))


def check_chips(rack: RackConfig, four_bit: frozenset[str]) -> None:
    """Raises TspError if the chips of a rack cannot work on one model."""
    if len({config.lanes for config in rack.chips}) > 1:
        raise TspError(f"rack {rack.name}: all chips must have the same number of lanes")
    for config in rack.chips:
        if four_bit and not config.int4:
            raise TspError(f"rack {rack.name}: config {config.name} has no int4 weights: use int8")


def place_all(model: ModelConfig, rack: RackConfig, integer: IntegerModel, plan: Plan) -> Placements:
    """Lay out what each chip of a rack holds. Raises TspError that names what does not fit."""
    rate, lanes = rope_rate(model, integer), rack.chips[0].lanes
    parts: list[Stage | None] = [None] if plan.pipeline == 1 else [*stages(rack, integer, plan)]
    planes, chips = planes_of(integer) if plan.tensor > 1 else {}, list[Placement]()
    for group, stage in zip(plan.groups, parts, strict=True):
        own, racked = layers_of(integer, stage) if stage else integer, rack.part(group)
        if plan.tensor == 1:
            chips.append(place(racked.chips[0], own, rate, stage=stage))
            continue
        for config, share in zip(racked.chips, shares(racked, integer, planes, plan.whole, plan.scattered),
                                 strict=True):
            chips.append(place(config, own_model(own, share, lanes), rate, share, stage))
    return Placements(rack=rack, plan=plan, chips=chips)


def check_fit(model: ModelConfig, rack: RackConfig, context: int, four_bit: frozenset[str], plan: Plan) -> Placements:
    """Place and lower the model's shapes, without weights. Raises TspError that names what does not fit."""
    placements = place_all(model, rack, hollow_model(model, rack.chips[0].lanes, context, four_bit), plan)
    for config, blocks in zip(rack.chips, placements.lower(0, placements.chunks), strict=True):
        check_lifetimes(config, blocks)
    return placements


def _problem(model: ModelConfig, rack: RackConfig, four_bit: frozenset[str], plan: Plan, queues: bool,
             context: int) -> str:
    try:
        placements = check_fit(model, rack, context, four_bit, plan)
        if queues:
            check_queues(placements)
    except TspError as error:
        return str(error)
    return ""
