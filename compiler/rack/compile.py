"""The driver for racks: a checkpoint becomes one program for each chip."""

from collections.abc import Sequence

from arch.rack import RackConfig
from compiler.capacity import four_bit_matrices
from compiler.compile import Progress, check_arguments, check_quality, pack, quantized, write_texts
from compiler.frontend.checkpoint import Checkpoint
from compiler.quantize import quantizer
from compiler.schedule.assemble import Code
from compiler.verify import proof
from compiler.verify.index_reach import check_products, index_bounds, index_least
from compiler.verify.rack import verify_links
from program.rack import RackProgram
from program.tokenizer import Tokenizer

from .buckets import Placements, build_buckets
from .capacity import check_fit, choose_plan, place_all
from .share_out import joined_rows


def compile_rack(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    *,
    rack: RackConfig,
    partition: str | None = None,
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

    partition: a key of `plan.KINDS`; by default the one with the fewest predicted cycles.

    Every logit is that of the model on one chip with as many lanes, if the context is the same.

    Raises TspError naming what does not fit.
    """
    four_bit, own = four_bit_matrices(weights), checkpoint.config
    check_arguments(own, tokenizer, scales)
    progress("context")
    choice = choose_plan(own, rack, context, four_bit, partition)
    context = choice.context
    progress("texts")
    texts = write_texts(checkpoint, context, tokenizer, text)
    lanes = rack.chips[0].lanes
    model, trials = quantized(checkpoint, texts, context, lanes, four_bit, scales, progress,
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
        assert placement.geometry.share
        chips.append(pack(own, tokenizer, model, placement, [code[chip] for code in codes], trials, quality,
                          joined_rows(model, placement.geometry.share, lanes)))
    return RackProgram(rack=rack, chips=tuple(chips))


def verify(placements: Placements, codes: Sequence[Sequence[Code]]) -> None:
    """Prove every bucket of every chip, and the flits between the chips. codes: by bucket and chip.

    Raises VerifyError.
    """
    for placement in placements.chips:
        check_products(placement)
    valid = 0
    for own in codes:
        verify_links(placements.rack, [
            proof.verify_bucket(config, code.words, code.bucket.period, index_bounds(placement),
                                index_least(placement, valid))
            for config, placement, code in zip(placements.rack.chips, placements.chips, own, strict=True)])
        valid = own[0].bucket.chunks
