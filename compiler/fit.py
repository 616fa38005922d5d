"""Whether a model fits a chip, and what limits it: from its shapes alone, without calibration."""

from dataclasses import dataclass

from hw.config import ChipConfig

from .checkpoint import ModelConfig
from .compile import WEIGHTS, build_buckets, check_fit, choose_context
from .errors import TspError


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a chip makes of a model.

    context: positions that fit (0: not even a vector of them). limit: what does not fit, or keeps the context below the
    model's; "" if nothing does. sram: (quads used, quads there are) by slice. cycles: of a token, by bucket (first
    position beyond it, cycles), exact if the model needs no dynamic scale (`scales`).
    """

    config: ChipConfig
    context: int
    limit: str
    sram: dict[str, tuple[int, int]]
    cycles: tuple[tuple[int, int], ...]


def fit(model: ModelConfig, config: ChipConfig, *, context: int | None = None, weights: str = "int8") -> Fit:
    """Fit a model to a chip. Raises TspError if the arguments are out of range."""
    four_bit = WEIGHTS.get(weights)
    if four_bit is None:
        raise TspError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    limit = ""
    wanted = model.seq_len if context is None else context
    if not 1 <= wanted <= model.seq_len:
        raise TspError(f"context must be in 1..{model.seq_len} (the model's context), not {wanted}")
    try:
        check_fit(model, config, wanted, four_bit)
    except TspError as error:
        limit = str(error)
    try:
        served = choose_context(model, config, context, four_bit)
        placement = check_fit(model, config, served, four_bit)
        buckets = build_buckets(placement)
    except TspError as error:
        return Fit(config=config, context=0, limit=str(error), sram={}, cycles=())
    layout = placement.layout
    sram = {name: (layout.depth(name) - layout.free(name), layout.depth(name)) for name in layout.strides}
    cycles = tuple((min(b.code.limit, served), b.code.period) for b in buckets)
    return Fit(config=config, context=served, limit=limit, sram=sram, cycles=cycles)
