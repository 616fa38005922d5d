"""Whether a model fits a chip, and what limits it: from its shapes alone, without calibration."""

from dataclasses import dataclass

from arch.config import ChipConfig
from compiler.schedule.buckets import build_buckets
from program.shape import ModelConfig

from .capacity import check_fit, fitting_context, four_bit_matrices


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a chip makes of a model.

    context: positions that fit (0: not even a vector of them). limit: what does not fit, or keeps the context below the
    model's; "" if nothing does. sram: (quads used, quads there are) by slice. cycles: of a token, by bucket (first
    position beyond it, cycles), exact if the model needs no dynamic scale (`scales`); () if nobody asked.
    """

    config: ChipConfig
    context: int
    limit: str
    sram: dict[str, tuple[int, int]]
    cycles: tuple[tuple[int, int], ...]


def fit(model: ModelConfig, config: ChipConfig, *, context: int | None = None, weights: str = "int8",
        cycles: bool = False) -> Fit:
    """Fit a model to a chip; with `cycles`, schedule its tokens, which takes seconds.

    Raises TspError if the arguments are out of range.
    """
    four_bit = four_bit_matrices(weights)
    served, limit = fitting_context(model, config, context, four_bit)
    if not served:
        return Fit(config=config, context=0, limit=limit, sram={}, cycles=())
    placement = check_fit(model, config, served, four_bit)
    buckets = build_buckets(placement) if cycles else []
    layout = placement.layout
    sram = {name: (layout.depth(name) - layout.free(name), layout.depth(name)) for name in layout.strides}
    periods = tuple((min(code.bucket.limit, served), code.bucket.period) for code in buckets)
    return Fit(config=config, context=served, limit=limit, sram=sram, cycles=periods)
