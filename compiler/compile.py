"""The driver: a checkpoint becomes a program, pass by pass."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from arch import isa, row
from arch.config import ChipConfig
from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.quantize.calibrate import CALIBRATION_SEEDS, cut, sample_sequences, text_length
from compiler.quantize.float_model import FloatModel
from compiler.quantize.scales import SCALES, choose
from compiler.schedule.buckets import Built, build_buckets
from compiler.verify.index_reach import check_products, index_bounds, index_least
from program import integer
from program.program import EVENT_COLUMNS, Bucket, Program, Segment, Symbol
from program.quality import Quality, Trial
from program.shape import ModelConfig
from program.tokenizer import Tokenizer

from . import lower
from .capacity import choose_context, four_bit_matrices, rope_rate
from .place.placement import Placement, place
from .quantize import quantizer
from .verify import proof

Progress = Callable[[str], None]
"""Called with the name of each pass as it begins."""

QUALITY_TOKENS = 256
TRIAL_TOKENS = 128
MANY_PARAMETERS = 2_000_000
"""The reference device is slow with such a model: a quarter of the tokens has to do."""
TRIAL_SEED, QUALITY_SEED = 31_000, 30_000
"""Texts that scales are chosen with and that the quality is measured on; calibration uses other seeds."""


def compile_checkpoint(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    *,
    config: ChipConfig,
    context: int | None = None,
    weights: str = "int8",
    scales: str = "measured",
    text: Sequence[int] | None = None,
    buckets: int | None = None,
    measure: bool = True,
    progress: Progress = lambda name: None,
) -> Program:
    """Compile for a chip. Raises TspError naming what does not fit.

    context: positions served; by default the checkpoint's, shortened to what fits. weights: a key of `WEIGHTS`.
    scales: a key of `SCALES`. text: tokens to take static scales from (`files.read_text`), by default what the model
    writes. buckets: context buckets; by default as many as the queues hold. measure: compare the result with the float
    model.
    """
    four_bit = four_bit_matrices(weights)
    own = checkpoint.config
    if scales not in SCALES:
        raise TspError(f"scales must be one of {', '.join(SCALES)}, not {scales!r}")
    if tokenizer.vocab_size != own.vocab_size:
        raise TspError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {own.vocab_size}: "
                       "it belongs to another model")
    progress("context")
    context = choose_context(own, config, context, four_bit)
    progress("quantize")
    checkpoint = replace(checkpoint, config=replace(own, seq_len=text_length(context, own.seq_len)))
    *texts, trial, unseen = write_texts(checkpoint, tokenizer, text)
    make = quantizer.quantiser(checkpoint, context=context, calibration_tokens=texts, four_bit=four_bit,
                              lanes=config.lanes)
    dynamic, trials = SCALES[scales], []
    if dynamic is None:
        progress("scales")
        model, trials = choose(make, checkpoint, _beginning(trial[:context], TRIAL_TOKENS, checkpoint))
    else:
        model = make(dynamic)
    progress("place")
    placement = place(config, model, rope_rate(own, model))
    progress("lower, schedule, assemble")
    built = build_buckets(placement, buckets)
    progress("verify")
    check_products(placement)
    bounds = index_bounds(placement)
    for valid, bucket in zip([0, *(b.chunks for b in built)], built, strict=False):
        proof.verify_bucket(config, bucket.code.words, bucket.code.period, bounds, index_least(placement, valid))
    progress("quality")
    measured = _beginning(unseen[:context], QUALITY_TOKENS, checkpoint)
    quality = quantizer.evaluate(model, checkpoint, measured) if measure else None
    progress("pack")
    return _pack(own, tokenizer, placement, built, trials, quality)


# --- calibration and quality ---------------------------------------------------------------------------------------


def write_texts(checkpoint: Checkpoint, tokenizer: Tokenizer, own: Sequence[int] | None) -> list[list[int]]:
    """Texts of the model's context: those that static scales are taken from, one to choose between static and dynamic
    ones, and one to measure quality on. The float model writes them all, or all but the first if there is a text."""
    model, length = FloatModel(checkpoint, np.float32), checkpoint.config.seq_len
    given = [] if own is None else cut(own, length, tokenizer.bos)
    seeds = [*([] if given else CALIBRATION_SEEDS), TRIAL_SEED, QUALITY_SEED]
    return given + sample_sequences(model, length, seeds, tokenizer.bos)


def _beginning(text: list[int], tokens: int, checkpoint: Checkpoint) -> list[int]:
    return text[: tokens // 4 if checkpoint.n_parameters >= MANY_PARAMETERS else tokens]


# --- pack ----------------------------------------------------------------------------------------------------------


def _pack(model: ModelConfig, tokenizer: Tokenizer, placement: Placement, built: list[Built],
          trials: list[Trial], quality: Quality | None) -> Program:
    config, integer_model = placement.geometry.config, placement.geometry.model
    queues: dict[str, tuple[int, ...]] = {}
    starts: dict[str, tuple[int, ...]] = {}
    for queue in row.queues(config):
        parts = [b.code.words[queue.name] for b in built]
        starts[queue.name] = tuple(sum(map(len, parts[:i])) for i in range(len(parts)))
        queues[queue.name] = tuple(word for part in parts for word in part)
    texts, events = _schedule_table(built)
    return Program(
        config=config, model=model, context=integer_model.context, four_bit=tuple(sorted(integer_model.four_bit)),
        buckets=tuple(_bucket(b, config.quad_bytes) for b in built), starts=starts, queues=queues,
        maps={number: tuple(lanes) for number, lanes in lower.permutations(config).items()},
        symbols=_symbols(placement), image=placement.layout.image(), tokenizer=tokenizer.to_bytes(),
        arrays=integer.to_arrays(integer_model), texts=texts, schedule=events, trials=tuple(trials), quality=quality,
    )


def _bucket(built: Built, quad_bytes: int) -> Bucket:
    segments = tuple(Segment(s.name, isa.START + start, s.length, s.passes, s.weight_quads * quad_bytes)
                     for s, start in zip(built.segments, built.code.starts, strict=True))
    return Bucket(built.code.limit, built.code.period, built.chunks, segments)


def _symbols(placement: Placement) -> dict[str, Symbol]:
    """Every tensor with a place of its own, by its own name or by what it holds and its slice ("weights w2 E1")."""
    strides = placement.layout.strides
    shared = {id(t) for t, _ in placement.layout.shared}
    own = {id(t) for t in placement.tensors.values()}
    named = {name: t for name, t in placement.tensors.items() if id(t) not in shared}
    named |= {f"{t.name} {t.slice}": t for t in placement.layout.tensors if id(t) not in own}
    return {name: Symbol(t.slice, t.addr, t.quads, strides[t.slice] if t.per_layer else 0)
            for name, t in sorted(named.items())}


def _schedule_table(built: list[Built]) -> tuple[tuple[str, ...], np.ndarray]:
    """(texts, int32 [events, EVENT_COLUMNS]), ordered by bucket and first cycle."""
    texts: dict[str, int] = {}
    rows = []
    for number, bucket in enumerate(built):
        own = []
        for segment, start in zip(bucket.segments, bucket.code.starts, strict=True):
            offset = isa.START + start
            for p in segment.placed:
                names = (p.label, p.burst.queue, p.burst.engine, p.burst.op.name, segment.name)
                last = p.at + (p.burst.count - 1) * p.burst.interval
                codes = [texts.setdefault(name, len(texts)) for name in names]
                own.append((number, *codes, offset + p.at, offset + last))
        rows += sorted(own, key=lambda row: row[-2])
    return tuple(texts), np.array(rows, "<i4").reshape(-1, len(EVENT_COLUMNS))
