"""The driver for racks: a checkpoint becomes one program for each chip."""

from collections.abc import Sequence

import numpy as np

from arch.rack import RackConfig
from compiler.capacity import four_bit_matrices
from compiler.compile import Progress, check_arguments, check_quality, pack, quantized, write_texts
from compiler.frontend.checkpoint import Checkpoint
from compiler.place.geometry import Geometry
from compiler.quantize import quantizer
from compiler.schedule.assemble import Code
from compiler.verify import proof
from compiler.verify.index_reach import check_products, index_bounds, index_least
from compiler.verify.rack import verify_links
from program.integer import IntegerModel
from program.rack import RackProgram
from program.tokenizer import Tokenizer

from .buckets import Placements, build_buckets
from .by_rows import joined_rows, padded_rows
from .capacity import check_fit, choose_plan, place_all
from .plan import plans


def compile_rack(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    *,
    rack: RackConfig,
    tensor: int | None = None,
    pipeline: int | None = None,
    sequences: int = 1,
    context: int | None = None,
    weights: str = "int8",
    scales: str = "measured",
    text: Sequence[int] | None = None,
    buckets: int | None = None,
    measure: bool = True,
    accept_quality: bool = False,
    progress: Progress = lambda name: None,
) -> RackProgram:
    """Compile for a rack. The arguments are those of `compiler.compile.compile_checkpoint`.

    tensor, pipeline: chips of a group that divide rows, and groups that divide layers. By default, of all that give
    the longest context, those with the fewest predicted cycles. sequences: independent ones in flight, as many as
    groups; or 1.

    Every logit is that of the model on one chip with as many lanes, if the context is the same.

    Raises TspError naming what does not fit.
    """
    four_bit, own = four_bit_matrices(weights), checkpoint.config
    check_arguments(own, tokenizer, scales)
    progress("context")
    choice = choose_plan(own, rack, context, four_bit, plans(rack, tensor, pipeline, sequences))
    context = choice.context
    progress("texts")
    texts = write_texts(checkpoint, context, tokenizer, text)
    model, trials = quantized(checkpoint, texts, context, rack.chips[0].lanes, four_bit, scales, progress,
                              lambda shape: check_fit(shape, rack, context, four_bit, choice.plan))
    progress("place")
    placements = place_all(own, rack, model, choice.plan)
    progress("lower, schedule, assemble")
    codes = build_buckets(placements, buckets)
    progress("verify")
    verify(placements, codes)
    progress("quality")
    quality = quantizer.evaluate(model, texts.floats.exact, *texts.unseen) if measure else None
    if quality and not accept_quality:
        check_quality(checkpoint.source, quality)
    progress("pack")
    chips = []
    for chip, placement in enumerate(placements.chips):
        chips.append(pack(own, tokenizer, model, placement, [code[chip] for code in codes], trials, quality,
                          _channels(model, placement.geometry)))
    return RackProgram(rack=rack, chips=tuple(chips))


def _channels(model: IntegerModel, geometry: Geometry) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a chip holds, as `pack` takes it. "logits": its tokens; "layers": its layers, if it has not all."""
    stage, share = geometry.stage, geometry.share
    rows = joined_rows(model, share, geometry.lanes) if share else {}
    found = {"layers": np.array(stage.layers[stage.number], "<i4")} if stage else {}
    if not geometry.classifies:
        found["logits"] = np.empty(0, "<i4")
    elif share:
        found["logits"] = padded_rows(rows["classifier"], geometry.vocab * geometry.lanes)
    return rows, found


def verify(placements: Placements, codes: Sequence[Sequence[Code]]) -> None:
    """Prove every bucket of every chip, and the flits between the chips. codes: by bucket and chip.

    Raises IllegalProgram.
    """
    for placement in placements.chips:
        check_products(placement)
    valid = 0
    for own in codes:
        verify_links(placements.rack, [
            proof.verify_bucket(config, code.words, code.bucket.period, index_bounds(placement),
                                index_least(placement, valid))
            for config, placement, code in zip(placements.rack.chips, placements.chips, own, strict=True)])
        valid = placements.valid(own[0].bucket.chunks)
