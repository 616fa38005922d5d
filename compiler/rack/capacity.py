"""The context that fits a rack with each plan, and what limits it. Only the model's shapes count, not its weights."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from arch.rack import RackConfig
from base.errors import TspError
from compiler.capacity import check_wanted, hollow_model, hollow_sizes, longest_context, rope_rate
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import Placement, place
from compiler.place.stage import Stage
from compiler.schedule.assemble import Code
from program.integer import MATRICES, IntegerModel, array_shapes
from program.shape import ModelConfig

from .buckets import Placements, check_queues
from .by_layers import layers_of, stages
from .by_rows import own_model, planes_of, shares
from .plan import Choice, Plan

SHORT_ROW = 8
"""Vectors of a row of the embedding: so many stay in registers."""


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
    """The plan with the greatest context and, of several, the fewest cycles, scheduled without search. Its context is 0
    if none fits.

    A plan whose matrices alone take more cycles than one that serves all that is wanted is not tried. `Plan.halve` is
    tried last. Nobody who asks for no context gets a longer one by `Plan.summed` at the price of cycles.

    Raises TspError if `wanted` is out of range.
    """
    check_wanted(model, wanted)
    least, best, most = {plan: least_cycles(model, rack, four_bit, plan) for plan in among}, None, 0.0

    def try_(plan: Plan) -> None:
        nonlocal best, most
        trial = _Trial(model, rack, four_bit, plan)
        choice = trial.choice(wanted)
        if best and best.context and not wanted and plan.summed and trial.cycles(choice) >= most:
            return
        if best is None or (choice.context, -trial.cycles(choice)) > (best.context, -most):
            best, most = choice, trial.cycles(choice)

    for plan in sorted(among, key=least.__getitem__):
        if best and best.context == (wanted or model.seq_len) and least[plan] >= most:
            break
        try_(plan)
    assert best
    for plan in halved(model, rack, four_bit, best.plan):
        try_(plan)
    best = _with_rows(model, rack, wanted, four_bit, best)
    if best.context and best.plan.sequences > 1:
        return replace(best, plan=balanced(model, rack, best.context, four_bit, best.plan))
    return best


def _with_rows(model: ModelConfig, rack: RackConfig, wanted: int | None, four_bit: frozenset[str], choice: Choice,
               ) -> Choice:
    """The choice with the whole embedding on each chip, if that fits and its rows are short: then they
    take less time whole than with a transfer."""
    plan = choice.plan
    short = model.dim <= SHORT_ROW * rack.chips[0].lanes
    if not choice.context or not short or plan.tensor == 1 or plan.scattered:
        return choice
    whole = replace(plan, whole=plan.whole | {"embedding"})
    better = _Trial(model, rack, four_bit, whole).choice(wanted)
    return better if better.context >= choice.context else choice


def halved(model: ModelConfig, rack: RackConfig, four_bit: frozenset[str], plan: Plan) -> list[Plan]:
    """The same plan with both hemispheres on each head of a chip with one K/V head; none if there is no such chip."""
    if plan.halve:
        return []
    other = replace(plan, halve=True)
    try:
        placements = place_hollow(model, rack, 1, four_bit, other)
    except TspError:
        return []
    return [other] if any(chip.geometry.halved for chip in placements.chips) else []


def least_cycles(model: ModelConfig, rack: RackConfig, four_bit: frozenset[str], plan: Plan) -> float:
    """Cycles that the matrices alone take of a token; of a period, with sequences in flight."""
    shapes = array_shapes(hollow_sizes(model, rack.chips[0].lanes, model.seq_len))
    sizes = {name: math.prod(shapes[name]) / (2 if name in four_bit else 1) for name in MATRICES}
    a_chip = sum(size / (1 if name in plan.whole else plan.tensor) for name, size in sizes.items())
    return a_chip / max(chip.macs for chip in rack.chips) / plan.sequences


class _Trial:
    """A plan for the shapes of a model."""

    def __init__(self, model: ModelConfig, rack: RackConfig, four_bit: frozenset[str], plan: Plan,
                 scales: str = "static") -> None:
        self._model, self._rack, self._four_bit, self._plan, self._scales = model, rack, four_bit, plan, scales
        self._cycles = dict[int, int]()
        self._queued = functools.cache(self._queues)

    def choice(self, wanted: int | None) -> Choice:
        """The longest context, and its limit."""
        context, limit = longest_context(self._model, wanted, self._rack.chips[0].lanes, self.room,
                                         self._registers, self._queued)
        return Choice(plan=self._plan, context=context, limit=limit)

    def cycles(self, choice: Choice) -> int:
        """Of a token at the end of a choice's context, or of a period; 0 if it has none."""
        return self._cycles[choice.context] if choice.context else 0

    def room(self, context: int) -> str:
        """What does not fit SRAM; "" if all fits."""
        return self._problem(place_hollow, context)

    def _registers(self, context: int) -> str:
        return self._problem(check_fit, context)

    def _queues(self, context: int) -> str:
        def scheduled(*arguments: Any) -> None:
            self._cycles[context] = check_queues(check_fit(*arguments))[0].bucket.period

        return self._problem(scheduled, context)

    def _problem(self, check: Callable[..., object], context: int) -> str:
        try:
            check(self._model, self._rack, context, self._four_bit, self._plan, self._scales)
        except TspError as error:
            return str(error).removeprefix(f"rack {self._rack.name}: ")  # which every message of a rack begins with
        return ""


def roomy_context(model: ModelConfig, rack: RackConfig, wanted: int | None, four_bit: frozenset[str], plan: Plan,
                  scales: str) -> int:
    """The longest context that SRAM has room for: `Choice.context` is no longer."""
    return max(longest_context(model, wanted, rack.chips[0].lanes, _Trial(model, rack, four_bit, each, scales).room)[0]
               for each in [plan, *halved(model, rack, four_bit, plan)])


def rescaled(model: ModelConfig, rack: RackConfig, four_bit: frozenset[str], choice: Choice, scales: str) -> Choice:
    """The same plan, and as much of its context as fits with scales of another kind, see `dynamic_inputs`."""
    return _Trial(model, rack, four_bit, choice.plan, scales).choice(choice.context)


def balanced(model: ModelConfig, rack: RackConfig, context: int, four_bit: frozenset[str], plan: Plan) -> Plan:
    """The plan with its layers divided anew: the slowest group takes as few predicted cycles as possible.

    The plan is returned as it is if that does not fit, or is not faster.
    """
    codes = check_queues(check_fit(model, rack, context, four_bit, plan))
    better = rebalanced(plan, codes, model.n_layers)
    try:
        faster = check_queues(check_fit(model, rack, context, four_bit, better))
    except TspError:
        return plan
    return better if faster[0].bucket.period < codes[0].bucket.period else plan


def rebalanced(plan: Plan, codes: Sequence[Code], layers: int) -> Plan:
    """The plan with its layers divided by the cycles of its programs. codes: of each chip."""
    layer = max(code.schedules[1].length for code in codes)
    other = [sum(each.length * each.block.turns for n, each in enumerate(codes[group.start].schedules) if n != 1)
             for group in plan.groups]
    return replace(plan, layers=tuple(divide(layers, layer, other)))


def divide(layers: int, layer: int, other: Sequence[int]) -> list[int]:
    """How many layers each group gets, at least one, so that the slowest takes the fewest cycles. layer: cycles of one.
    other: by group, cycles of all else."""
    counts = [1] * len(other)
    for _ in range(layers - len(other)):
        ends = [count * layer + more for count, more in zip(counts, other, strict=True)]
        counts[ends.index(min(ends))] += 1
    return counts


def check_chips(rack: RackConfig, four_bit: frozenset[str]) -> None:
    """Raises TspError if the chips of a rack cannot work on one model."""
    if len({config.lanes for config in rack.chips}) > 1:
        raise TspError(f"rack {rack.name}: all chips must have the same number of lanes")
    for config in rack.chips:
        if four_bit and not config.int4:
            raise TspError(f"rack {rack.name}: config {config.name} has no int4 weights: use int8")


def place_all(model: ModelConfig, rack: RackConfig, integer: IntegerModel, plan: Plan) -> Placements:
    """Lay out what each chip of a rack holds. Raises TspError that names what does not fit."""
    parts: list[Stage | None] = [None] if plan.pipeline == 1 else [*stages(rack.name, integer, plan)]
    planes = planes_of(integer) if plan.tensor > 1 else {}
    chips = [placement for group, stage in zip(plan.groups, parts, strict=True)
             for placement in place_group(model, rack.part(group), integer, plan, stage, planes)]
    return Placements(rack=rack, plan=plan, chips=chips)


def place_group(model: ModelConfig, group: RackConfig, integer: IntegerModel, plan: Plan, stage: Stage | None,
                planes: Mapping[str, int]) -> list[Placement]:
    """Lay out what each chip of a group holds. planes: `by_rows.planes_of` the whole model.

    Raises TspError that names what does not fit.
    """
    rate, lanes = rope_rate(model, integer), group.chips[0].lanes
    own = layers_of(integer, stage) if stage else integer
    if plan.tensor == 1:
        return [place(group.chips[0], own, rate, stage=stage, halve=plan.halve)]
    parts = shares(group, integer, planes, plan.whole, plan.scattered, plan.halve, plan.summed)
    return [place(config, own_model(own, share, lanes), rate, share, stage, halve=plan.halve)
            for config, share in zip(group.chips, parts, strict=True)]


def place_hollow(model: ModelConfig, rack: RackConfig, context: int, four_bit: frozenset[str], plan: Plan,
                 scales: str = "static") -> Placements:
    """Lay out the model's shapes, without weights. scales: see `dynamic_inputs`.

    Raises TspError that names what does not fit.
    """
    return place_all(model, rack, hollow_model(model, rack.chips[0].lanes, context, four_bit, scales), plan)


def check_fit(model: ModelConfig, rack: RackConfig, context: int, four_bit: frozenset[str], plan: Plan,
              scales: str = "static") -> Placements:
    """Place and lower the model's shapes, as `place_hollow`. Raises TspError that names what does not fit."""
    placements = place_hollow(model, rack, context, four_bit, plan, scales)
    for config, blocks in zip(rack.chips, placements.lower(0, placements.chunks), strict=True):
        check_lifetimes(config, blocks)
    return placements
