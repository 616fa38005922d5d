"""Cycles of a token, scheduled from a model's shapes for chips that need not hold it.

The schedules are those of compiling, but only of the first and the last context bucket.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from arch import row
from arch.config import ChipConfig
from arch.isa import EncodingError
from arch.rack import RackConfig
from arch.vectors import ceil_div
from base.errors import TspError
from compiler.capacity import check_fit, dynamic_inputs
from compiler.ir import Block
from compiler.place.placement import Placement
from compiler.rack import buckets as of_rack
from compiler.rack.buckets import Blocks, Placements
from compiler.rack.capacity import check_chips, halved, least_cycles, place_hollow, rebalanced
from compiler.rack.plan import Plan
from compiler.schedule import scheduler
from compiler.schedule.assemble import Code
from compiler.schedule.buckets import EFFORT_TOGETHER, TOLERANCE, borders_of, build, lower, overflow, refuse
from program.shape import ModelConfig

from .roomy import assumed, buffered, larger, roomy, shorten

LARGER = "larger chips, or more of them with --tensor and --pipeline"
"""What has larger queues, for messages."""
ACCUMULATORS = 1, 2
"""Times as many as the chip has."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """Cycles of the positions `first` to `last`."""

    first: int
    last: int
    cycles: int


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """Cycles of a token; with several sequences, of a period, which advances each of them.

    periods: of the first and the last of `buckets` context buckets, which is how many the queues should hold.
    scales, sequences: that they are of. plan: how the model is divided among the chips; None on one chip.
    assumed: what the chips would need more of to hold the model. beyond: fields that instructions would need more bits
    for then.
    """

    periods: tuple[Period, ...]
    buckets: int
    scales: str
    sequences: int
    plan: Plan | None
    assumed: tuple[str, ...]
    beyond: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """The figures by name."""
        return {**asdict(self), "plan": str(self.plan) if self.plan else ""}


@dataclass(frozen=True, kw_only=True)
class _Chips:
    """A model's shapes on chips. plan: how they are divided; None on one chip. lowered: by chip, the blocks of a
    bucket. scheduled: by chip, its program."""

    configs: Sequence[ChipConfig]
    plan: Plan | None
    chunks: int
    lowered: Callable[[int, int], Blocks]
    scheduled: Callable[[Blocks, int, int | None], list[Code]]
    beyond: set[str]

    def program(self, valid: int, chunks: int, effort: int | None = None) -> list[Code]:
        """By chip, the program of a bucket. effort: of the scheduler, by default that of compiling. Raises TspError."""
        blocks = self.lowered(valid, chunks)
        for own in blocks:
            self.beyond.update(shorten(own))
        try:
            return self.scheduled(blocks, chunks, effort)
        except EncodingError as error:
            raise TspError(f"no instruction does what this model needs: {error}") from None

    @functools.cached_property
    def hasty(self) -> list[Code]:
        """By chip, the program of the whole context, scheduled without search."""
        return self.program(0, self.chunks, 0)

    @property
    def period(self) -> int:
        """Its cycles."""
        return self.hasty[0].bucket.period

    def buckets(self) -> int:
        """How many the queues should hold. Raises TspError if they do not hold one.

        Their instructions are assumed to grow evenly with a bucket's end.
        """
        for chip, (config, code) in enumerate(zip(self.configs, self.hasty, strict=True)):
            found = overflow(config, [code])
            refuse(found and f"chip {chip}: {found}", LARGER)
        least, full = self.lowered(0, 1), self.lowered(0, self.chunks)
        queues = [(row.queue_depth(config, queue) * TOLERANCE, len(code.words[queue.name]),
                   _bursts(long, queue) - _bursts(short, queue))
                  for config, code, short, long in zip(self.configs, self.hasty, least, full, strict=True)
                  for queue in row.queues(config)]
        most = min(self.chunks, *(config.buckets for config in self.configs))

        def fits(number: int) -> bool:
            shorter = [1 - (size - 1) / max(1, self.chunks - 1) for _, size in borders_of(self.chunks, number)]
            return all(sum(words - more * part for part in shorter) <= depth for depth, words, more in queues)

        number = next((number for number in range(most, 1, -1) if fits(number)), 1)
        while number > 1 and self._has_too_many_words(number):
            number -= 1
        return number

    def _has_too_many_words(self, number: int) -> bool:
        """Whether so many buckets have more distinct words than the queues of some chip hold, scheduled without search.
        Chips of boards hold few."""
        few = [chip for chip, config in enumerate(self.configs) if config.icu_words]
        codes = [self.program(*border, 0) for border in borders_of(self.chunks, number)] if few else []
        return any(overflow(self.configs[chip], [code[chip] for code in codes]) for chip in few)


def _bursts(blocks: Sequence[Block], queue: row.Queue) -> int:
    """Instructions of a queue, without those that only wait."""
    return sum(burst.queue == queue for block in blocks for cluster in block.clusters for burst in cluster.bursts)


def schedule(model: ModelConfig, machine: ChipConfig | RackConfig, among: Sequence[Plan], *, context: int,
             four_bit: frozenset[str], scales: str, sequences: int) -> Cycles:
    """Schedule a model on one chip, or on a rack by the best of several plans.

    Where the chips do not hold the model, they get memories that do.

    Raises TspError that names what is in the way: a file of registers, a queue, or a division that cannot be.
    """
    dynamic_inputs(scales)
    chips = _first_that_fits(model, machine, among, context, four_bit, scales, sequences)
    borders, lanes = borders_of(chips.chunks, chips.buckets()), chips.configs[0].lanes
    periods = tuple(Period(first=valid * lanes, last=min(size * lanes, context) - 1,
                           cycles=chips.program(valid, size)[0].bucket.period)
                    for valid, size in dict.fromkeys((borders[0], borders[-1])))
    real = machine if isinstance(machine, ChipConfig) else machine.chips[0]
    return Cycles(periods=periods, buckets=len(borders), scales=scales, sequences=sequences,
                  plan=chips.plan, assumed=tuple(assumed(chips.configs[0], real)),
                  beyond=tuple(sorted(chips.beyond)))


def _first_that_fits(model: ModelConfig, machine: ChipConfig | RackConfig, among: Sequence[Plan], context: int,
                     four_bit: frozenset[str], scales: str, sequences: int) -> _Chips:
    """On the chips as they are, or else with ever more memory. Raises TspError.

    What a chip multiplies of the inner layer is not tried with activation buffers that are shorter.
    """
    kinds: list[Callable[[ChipConfig], ChipConfig]] = [
        lambda config: config, roomy, *(functools.partial(buffered, model=model, context=context, times=times)
                                        for times in ACCUMULATORS)]
    first = machine if isinstance(machine, ChipConfig) else machine.chips[0]
    inner = ceil_div(model.hidden_dim, first.lanes)
    if min((ceil_div(inner, plan.tensor) if plan.summed else inner for plan in among), default=inner) > first.act_depth:
        kinds = kinds[2:]
    for kind in kinds:
        chips = kind(machine) if isinstance(machine, ChipConfig) else larger(machine, kind)
        try:
            return _on(model, chips, among, context, four_bit, scales, sequences)
        except TspError:
            if kind is kinds[-1]:
                raise
    raise AssertionError


def _on(model: ModelConfig, machine: ChipConfig | RackConfig, among: Sequence[Plan], context: int,
        four_bit: frozenset[str], scales: str, sequences: int) -> _Chips:
    """Raises TspError if the model does not fit. Like compiling, it chooses a plan by static scales."""
    if isinstance(machine, ChipConfig):
        return _alone(check_fit(model, machine, context, four_bit, sequences, scales))
    check_chips(machine, four_bit)
    chips = _best(model, machine, among, context, four_bit)
    if chips.plan and chips.plan.sequences > 1:
        chips = _balanced(chips, model, machine, context, four_bit)
    if scales == "static":
        return chips
    assert chips.plan
    return _together(place_hollow(model, machine, context, four_bit, chips.plan, scales))


def _best(model: ModelConfig, rack: RackConfig, among: Sequence[Plan], context: int, four_bit: frozenset[str],
          ) -> _Chips:
    """The plan with the fewest cycles, scheduled without search, as `compiler.rack.capacity.best_plan` finds it."""
    least, best, problem = {plan: least_cycles(model, rack, four_bit, plan) for plan in among}, None, None

    def tried(plan: Plan) -> _Chips | None:
        nonlocal problem
        try:
            trial = _together(place_hollow(model, rack, context, four_bit, plan))
            return min(best or trial, trial, key=lambda chips: chips.period)
        except TspError as error:
            problem = problem or error
            return best

    for plan in sorted(among, key=least.__getitem__):
        if best and least[plan] >= best.period:
            break
        best = tried(plan)
    for plan in halved(model, rack, four_bit, best.plan if best and best.plan else among[0]):
        best = tried(plan)
    if not best:
        assert problem
        raise problem
    return best


def _balanced(chips: _Chips, model: ModelConfig, rack: RackConfig, context: int, four_bit: frozenset[str]) -> _Chips:
    """The same with layers divided by cycles, if that is faster."""
    assert chips.plan
    plan = rebalanced(chips.plan, chips.hasty, model.n_layers)
    try:
        other = _together(place_hollow(model, rack, context, four_bit, plan))
        return other if other.period < chips.period else chips
    except TspError:
        return chips


def _alone(placement: Placement) -> _Chips:
    config, together = placement.geometry.config, placement.geometry.together
    usual = scheduler.EFFORT if together == 1 else EFFORT_TOGETHER

    def scheduled(blocks: Blocks, chunks: int, effort: int | None) -> list[Code]:
        return [build(config, blocks[0], chunks, usual if effort is None else effort)]

    return _Chips(configs=[config], plan=None, chunks=placement.geometry.chunks, beyond=set(), scheduled=scheduled,
                  lowered=lambda valid, chunks: [lower(placement, valid, chunks)])


def _together(placements: Placements) -> _Chips:
    def scheduled(blocks: Blocks, chunks: int, effort: int | None) -> list[Code]:
        return of_rack.build(placements, blocks, chunks, of_rack.EFFORT if effort is None else effort)

    return _Chips(configs=placements.rack.chips, plan=placements.plan, chunks=placements.chunks, beyond=set(),
                  scheduled=scheduled, lowered=placements.lower)
