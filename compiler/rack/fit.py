"""Whether a model fits a rack, and how many chips of a kind it needs. Only the model's shapes count."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from arch.config import MAX_PORTS, ChipConfig
from arch.rack import RackConfig, mesh
from compiler.capacity import dynamic_inputs, four_bit_matrices
from program.shape import ModelConfig

from .buckets import build_buckets
from .by_rows import uneven
from .capacity import best_plan, place_hollow, rescaled, roomy_context
from .plan import Choice, Plan, plans

MOST_CHIPS = 2 * MAX_PORTS + 1
"""Chips that may all be linked with each other."""


@dataclass(frozen=True, kw_only=True)
class RackFit:
    """How a model fits a rack.

    context, limit, cycles: as of `compiler.fit.Fit`.
    sram: by chip, (quads used, quads in all) by slice.
    plan: how the model is divided.
    uneven: what does not divide evenly, a line each.
    """

    rack: RackConfig
    context: int
    limit: str
    sram: tuple[dict[str, tuple[int, int]], ...]
    cycles: tuple[tuple[int, int], ...]
    plan: Plan
    uneven: tuple[str, ...] = ()

    @property
    def fullness(self) -> list[float]:
        """By chip, the part of its SRAM that is used."""
        return [sum(used for used, _ in own.values()) / sum(there for _, there in own.values()) for own in self.sram]


def fit_rack(model: ModelConfig, rack: RackConfig, *, context: int | None = None, weights: str = "int8",
             cycles: bool = False, tensor: int | None = None, pipeline: int | None = None,
             sequences: int = 1, scales: str = "static") -> RackFit:
    """Fit a model to a rack.

    cycles: also schedule its tokens, which takes seconds. scales: see `compiler.capacity.dynamic_inputs`. tensor,
    pipeline: see `plan.plans`; by default any. sequences: in flight; the context is that of each, and the cycles are
    those of a period.

    Raises TspError if the arguments are out of range.
    """
    four_bit = four_bit_matrices(weights)
    choice = _choose(model, rack, context, four_bit, plans(rack, tensor, pipeline, sequences), scales)
    return _fit(model, rack, choice, four_bit, cycles, scales)


def _choose(model: ModelConfig, rack: RackConfig, context: int | None, four_bit: frozenset[str],
            among: Sequence[Plan], scales: str) -> Choice:
    """As compiling chooses: by static scales, whatever the model needs."""
    dynamic_inputs(scales)
    choice = best_plan(model, rack, context, four_bit, among)
    return rescaled(model, rack, four_bit, choice, scales) if choice.context and scales != "static" else choice


def _fit(model: ModelConfig, rack: RackConfig, choice: Choice, four_bit: frozenset[str], cycles: bool,
         scales: str) -> RackFit:
    served = choice.context
    if not served:
        return RackFit(rack=rack, context=0, limit=choice.limit, sram=(), cycles=(), plan=choice.plan)
    placements = place_hollow(model, rack, served, four_bit, choice.plan, scales)
    codes = [own[0] for own in build_buckets(placements)] if cycles else []
    sram = tuple({name: (layout.depth(name) - layout.free(name), layout.depth(name)) for name in layout.strides}
                 for layout in (placement.layout for placement in placements.chips))
    periods = tuple((min(code.bucket.limit, served), code.bucket.period) for code in codes)
    share = placements.chips[0].geometry.share
    return RackFit(rack=rack, context=served, limit=choice.limit, sram=sram, cycles=periods, plan=choice.plan,
                   uneven=tuple(uneven(share) if share else ()))


def chips_needed(model: ModelConfig, config: ChipConfig, *, context: int | None = None,
                 weights: str = "int8", scales: str = "static") -> RackFit | None:
    """The smallest rack of chips of a named config, all linked with each other, that holds a model's context.

    If there is none of up to `MOST_CHIPS`, it is the one with the longest context, whose `limit` says what is in the
    way of more. None if the weights alone are too large for all of them.
    """
    wanted, four_bit = context or model.seq_len, four_bit_matrices(weights)
    weight_bytes = sum(math.prod(shape) for shape in model.shapes().values()) / (2 if weights == "int4" else 1)
    best, less = None, list[tuple[int, RackConfig, Plan]]()
    for chips in range(max(2, int(weight_bytes / config.sram_bytes)), MOST_CHIPS + 1):
        rack, plan = mesh(f"{chips} x {config.name}", config.name, chips), Plan(tensor=chips, pipeline=1)
        room = roomy_context(model, rack, context, four_bit, plan, scales)
        if room < wanted:
            less.append((room, rack, plan))
            continue
        best = _longer(best, _fit_plan(model, rack, context, four_bit, plan, scales))
        if best.context >= wanted:
            return best
    for room, rack, plan in sorted(less, key=lambda each: -each[0]):
        if best is None or room > best.context:
            best = _longer(best, _fit_plan(model, rack, context, four_bit, plan, scales))
    return best


def _fit_plan(model: ModelConfig, rack: RackConfig, context: int | None, four_bit: frozenset[str], plan: Plan,
              scales: str) -> RackFit:
    choice = _choose(model, rack, context, four_bit, [plan], scales)
    return _fit(model, rack, choice, four_bit, cycles=False, scales=scales)


def _longer(one: RackFit | None, other: RackFit) -> RackFit:
    """The one with the longer context; the first, if they are equal."""
    return one if one and one.context >= other.context else other
