"""Whether a model fits a chip, and what limits it. Only the model's shapes count; nothing is calibrated."""

from dataclasses import dataclass

from arch.config import ChipConfig
from compiler.schedule.buckets import build_buckets
from program.shape import ModelConfig

from .capacity import check_fit, fitting_context, four_bit_matrices


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a model fits a chip.

    sequences: in one program. context: positions that fit; 0 if not even one vector of them fits.
    limit: what keeps the context below the model's; "" if nothing does.
    sram: (quads used, quads in all) by slice.
    cycles: (first position beyond the bucket, cycles of a period) of each bucket. They are exact if the model is
    compiled with these scales. () if not requested.
    """

    config: ChipConfig
    context: int
    limit: str
    sram: dict[str, tuple[int, int]]
    cycles: tuple[tuple[int, int], ...]
    sequences: int = 1


def fit(model: ModelConfig, config: ChipConfig, *, context: int | None = None, weights: str = "int8",
        cycles: bool = False, sequences: int = 1, scales: str = "static") -> Fit:
    """Fit a model to a chip.

    cycles: also schedule its tokens, which takes seconds. sequences: in one program; the context is that of each.
    scales: see `compiler.capacity.dynamic_inputs`.

    Raises TspError if the arguments are out of range.
    """
    four_bit = four_bit_matrices(weights)
    served, limit = fitting_context(model, config, context, four_bit, sequences, scales)
    if not served:
        return Fit(config=config, context=0, limit=limit, sram={}, cycles=(), sequences=sequences)
    placement = check_fit(model, config, served, four_bit, sequences, scales)
    buckets = build_buckets(placement) if cycles else []
    layout = placement.layout
    sram = {name: (layout.depth(name) - layout.free(name), layout.depth(name)) for name in layout.strides}
    periods = tuple((min(code.bucket.limit, served), code.bucket.period) for code in buckets)
    return Fit(config=config, context=served, limit=limit, sram=sram, cycles=periods, sequences=sequences)
