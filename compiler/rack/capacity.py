"""The context that fits a rack, and what limits it. Only the model's shapes count, not its weights."""

import functools

from arch.rack import RackConfig
from base.errors import TspError
from compiler.capacity import check_wanted, hollow_model, longest_context, rope_rate
from compiler.lower.exchange import Exchange
from compiler.lower.token import lower_token
from compiler.place.lifetimes import check_lifetimes
from compiler.place.placement import place
from program.integer import IntegerModel
from program.shape import ModelConfig

from .buckets import Placements, check_queues
from .share_out import own_model, shares


def choose_context(model: ModelConfig, rack: RackConfig, wanted: int | None, four_bit: frozenset[str]) -> int:
    """The context `wanted`, if it fits. By default, as much of the model's context as fits. Raises TspError that names
    what does not fit."""
    served, problem = fitting_context(model, rack, wanted, four_bit)
    if not served:
        raise TspError(f"rack {rack.name}: {problem}")
    if wanted is not None and served < wanted:
        raise TspError(f"rack {rack.name}: a context of {wanted} does not fit: {problem} or --context {served}")
    return served


def fitting_context(model: ModelConfig, rack: RackConfig, wanted: int | None,
                    four_bit: frozenset[str]) -> tuple[int, str]:
    """As `compiler.capacity.fitting_context`. Raises TspError if `wanted` is out of range."""
    check_wanted(model, wanted)
    return longest_context(model, wanted, rack.chips[0].lanes,
                           functools.partial(_problem, model, rack, four_bit, False),
                           functools.partial(_problem, model, rack, four_bit, True))


def place_all(model: ModelConfig, rack: RackConfig, integer: IntegerModel) -> Placements:
    """Lay out what each chip of a rack holds. Raises TspError that names what does not fit."""
    rate, lanes = rope_rate(model, integer), rack.chips[0].lanes
    return Placements(rack=rack, chips=[place(config, own_model(integer, share, lanes), rate, share)
                                        for config, share in zip(rack.chips, shares(rack, integer), strict=True)])


def check_fit(model: ModelConfig, rack: RackConfig, context: int, four_bit: frozenset[str]) -> Placements:
    """Place and lower the model's shapes, without weights. Raises TspError that names what does not fit."""
    if len({config.lanes for config in rack.chips}) > 1:
        raise TspError(f"rack {rack.name}: all chips must have the same number of lanes")
    for config in rack.chips:
        if four_bit and not config.int4:
            raise TspError(f"config {config.name} has no int4 weights: use int8")
    placements = place_all(model, rack, hollow_model(model, rack.chips[0].lanes, context, four_bit))
    for config, placement in zip(rack.chips, placements.chips, strict=True):
        assert placement.geometry.share
        check_lifetimes(config, lower_token(placement, placements.chunks, 0, Exchange(rack, placement.geometry.share)))
    return placements


def _problem(model: ModelConfig, rack: RackConfig, four_bit: frozenset[str], queues: bool, context: int) -> str:
    try:
        placements = check_fit(model, rack, context, four_bit)
        if queues:
            check_queues(placements)
    except TspError as error:
        return str(error)
    return ""
