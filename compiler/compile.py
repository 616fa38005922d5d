"""The driver: a checkpoint becomes a program, pass by pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from arch import row
from arch.config import ChipConfig
from arch.isa import Wfmt
from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.quantize.calibrate import CALIBRATION_SEEDS, cut, sample_sequences, text_length
from compiler.quantize.float_model import MANY_PARAMETERS as LARGE
from compiler.quantize.float_model import FloatModels
from compiler.quantize.scales import ROBUST, SCALES, choose, robust
from compiler.schedule.assemble import Code
from compiler.schedule.buckets import build_buckets
from compiler.verify.index_reach import check_products, index_bounds, index_least
from program import integer
from program.integer import IntegerModel
from program.program import EVENT_COLUMNS, Program, Symbol
from program.quality import Quality, Trial
from program.shape import ModelConfig
from program.tokenizer import Tokenizer
from program.weights import Part, Stored, base_of

from .capacity import check_fit, choose_context, four_bit_matrices, rope_rate
from .lower.qkv import permutations
from .place.placement import Placement, place
from .quantize import quantizer
from .verify import proof

Progress = Callable[[str], None]
"""Called with the name of each pass as it begins."""

QUALITY_TOKENS = 256
TRIAL_TOKENS = 128
MANY_PARAMETERS = 2_000_000
"""The float model is slow with such a model: a quarter of the tokens has to do."""
TRIAL_SEED, QUALITY_SEED = 31_000, 30_000
"""Texts that scales are chosen with and that the quality is measured on; calibration uses other seeds."""
SHORT_TEXT = 96
LARGE_SEEDS = (range(20_000, 20_020), range(31_000, 31_002), range(30_000, 30_004))
"""Texts of a large model (LARGE parameters): more and shorter ones, for all that advance together read its
weights together. To calibrate on, to choose scales with, to measure quality on."""
LEAST_TOP1, MOST_KL = 0.8, 0.1
"""Quality of a usable model: agreement in the best token, and KL as a part of the cross-entropy."""


def compile_checkpoint(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    *,
    config: ChipConfig,
    sequences: int = 1,
    context: int | None = None,
    weights: str = "int8",
    scales: str = "measured",
    text: Sequence[int] | None = None,
    buckets: int | None = None,
    measure: bool = True,
    accept_quality: bool = False,
    progress: Progress = lambda name: None,
) -> Program:
    """Compile for a chip. Raises TspError naming what does not fit.

    sequences: that each period advances by a token (`compiler.lower.together`). context: positions served, of each; by
    default the checkpoint's, shortened to what fits. weights: a key of `WEIGHTS`. scales: a key of `SCALES`. text:
    tokens to take static scales from (`files.read_text`), by default what the model writes. buckets: context buckets;
    by default as many as the queues hold. measure: compare the result with the float model. accept_quality: compile
    even if quantisation ruins the model.
    """
    four_bit = four_bit_matrices(weights)
    own = checkpoint.config
    check_arguments(own, tokenizer, scales)
    progress("context")
    context = choose_context(own, config, context, four_bit, sequences)
    progress("texts")
    texts = write_texts(checkpoint, context, tokenizer, text)
    model, trials = quantized(checkpoint, texts, context, config.lanes, four_bit, scales, progress,
                              lambda shape: check_fit(shape, config, context, four_bit, sequences))
    progress("place")
    placement = place(config, model, rope_rate(own, model), together=sequences)
    progress("lower, schedule, assemble")
    codes = build_buckets(placement, buckets)
    progress("verify")
    check_products(placement)
    bounds = index_bounds(placement)
    for valid, code in zip([0, *(code.bucket.chunks for code in codes)], codes, strict=False):
        least = index_least(placement, valid if sequences == 1 else 0)
        proof.verify_bucket(config, code.words, code.bucket.period, bounds, least)
    progress("quality")
    quality = quantizer.evaluate(model, texts.floats.exact, *texts.unseen) if measure else None
    if quality and not accept_quality:
        check_quality(checkpoint.source, quality)
    progress("pack")
    return pack(own, tokenizer, model, placement, codes, trials, quality)


def check_arguments(model: ModelConfig, tokenizer: Tokenizer, scales: str) -> None:
    """Raises TspError if a tokenizer or the name of scales is wrong."""
    if scales not in SCALES:
        raise TspError(f"scales must be one of {', '.join(SCALES)}, not {scales!r}")
    if tokenizer.vocab_size != model.vocab_size:
        raise TspError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.vocab_size}: "
                       "it belongs to another model")


# --- calibration and quality ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Tokens of texts, each of which begins with BOS, and the float models that all else is taken from.

    calibration: static scales are taken from them. trial: to choose between static and dynamic ones. unseen: quality is
    measured on them.
    """

    floats: FloatModels
    calibration: list[list[int]]
    trial: list[list[int]]
    unseen: list[list[int]]


def write_texts(checkpoint: Checkpoint, context: int, tokenizer: Tokenizer, own: Sequence[int] | None) -> Texts:
    """The float model writes all texts, or all but those of calibration if there is a text of the user's."""
    large = checkpoint.n_parameters >= LARGE
    length = text_length(context, checkpoint.config.seq_len)
    length = min(SHORT_TEXT, length) if large else length
    floats = FloatModels(replace(checkpoint, config=replace(checkpoint.config, seq_len=length)))
    given = [] if own is None else cut(own, length, tokenizer.bos)
    seeds = LARGE_SEEDS if large else (CALIBRATION_SEEDS, [TRIAL_SEED], [QUALITY_SEED])
    kinds = [list(kind) for kind in seeds]
    if given:
        kinds[0] = []
    every = [seed for kind in kinds for seed in kind]
    written = iter(sample_sequences(floats.fast, length, every, tokenizer.bos))
    calibration, trial, unseen = ([next(written)[:context] if n else next(written) for _ in kind]
                                  for n, kind in enumerate(kinds))
    if not large:
        trial = [_beginning(trial[0], TRIAL_TOKENS, checkpoint)]
        unseen = [_beginning(unseen[0], QUALITY_TOKENS, checkpoint)]
    return Texts(floats=floats, calibration=given + calibration, trial=trial, unseen=unseen)


def _beginning(text: list[int], tokens: int, checkpoint: Checkpoint) -> list[int]:
    return text[: tokens // 4 if checkpoint.n_parameters >= MANY_PARAMETERS else tokens]


def quantized(checkpoint: Checkpoint, texts: Texts, context: int, lanes: int, four_bit: frozenset[str], scales: str,
              progress: Progress, check: Callable[[ModelConfig], object]) -> tuple[IntegerModel, list[Trial]]:
    """The integer model, and how its scales were chosen, if they were. check: raises TspError if a model does not fit
    the machine."""
    checkpoint = replace(checkpoint, config=replace(checkpoint.config, seq_len=max(
        context, text_length(context, checkpoint.config.seq_len))))

    def make_robust() -> IntegerModel:
        progress("rotate")
        return robust(checkpoint, texts.calibration, context=context, lanes=lanes)

    def fits() -> bool:
        try:
            check(replace(checkpoint.config, shared_classifier=False))
        except TspError:
            return False
        return True

    progress("quantize")
    if SCALES[scales] is ROBUST:
        return make_robust(), []
    make = quantizer.quantiser(checkpoint, context=context, calibration_tokens=texts.calibration, four_bit=four_bit,
                               lanes=lanes, model=texts.floats.fast)
    if (dynamic := SCALES[scales]) is not None:
        return make(dynamic), []
    progress("scales")
    return choose(make, texts.floats.exact, *texts.trial, 
                  make_robust=lambda: None if four_bit or not fits() else make_robust())


def check_quality(source: str, quality: Quality) -> None:
    """Raises TspError if quantisation ruins the model."""
    if quality.top1 < LEAST_TOP1 or quality.ratio > MOST_KL:
        raise TspError(f"{source}: quantisation ruins this model: {quality}; try --scales robust or --weights int8, or "
                       "compile it anyway with `tsp compile --accept-quality`")


# --- pack ----------------------------------------------------------------------------------------------------------


def pack(model: ModelConfig, tokenizer: Tokenizer, integer_model: IntegerModel, placement: Placement,
         codes: Sequence[Code], trials: list[Trial], quality: Quality | None,
         part: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] = ({}, {})) -> Program:
    """The program of a chip. part: of each stored matrix, the model's numbers of the rows that the chip holds, if it
    does not hold all; and further channels."""
    config = placement.geometry.config
    queues: dict[str, tuple[int, ...]] = {}
    starts: dict[str, tuple[int, ...]] = {}
    for queue in row.queues(config):
        parts = [code.words[queue.name] for code in codes]
        starts[queue.name] = tuple(sum(map(len, parts[:i])) for i in range(len(parts)))
        queues[queue.name] = tuple(word for part in parts for word in part)
    texts, events = _schedule_table(codes)
    return Program(
        config=config, model=model, context=integer_model.context, four_bit=tuple(sorted(integer_model.four_bit)),
        buckets=tuple(code.bucket for code in codes), starts=starts, queues=queues,
        maps={number: tuple(lanes) for number, lanes in permutations(config).items()},
        symbols=_symbols(placement), image=placement.layout.image(), tokenizer=tokenizer.to_bytes(),
        arrays=integer.to_arrays(integer_model, weights=False), stored=_stored(placement),
        channels=_channels(placement, *part), sequences=placement.geometry.sequences, texts=texts,
        schedule=events, trials=tuple(trials), quality=quality,
    )


def _stored(placement: Placement) -> dict[str, Stored]:
    """Where the weights of each matrix lie in the image."""
    strides, layers = placement.layout.strides, placement.geometry.model.layers
    found = {}
    for name, origin in placement.origins.items():
        matrix = placement.matrices[name]
        tensors = [t for groups in matrix.tensors.values() for weights in groups for t in weights.parts]
        groups = {side: [[Part(t.slice, t.addr, t.quads, strides[t.slice] if t.per_layer else 0)
                          for t in weights.parts] for weights in groups] for side, groups in matrix.tensors.items()}
        found[name] = Stored(name, layers if tensors[0].per_layer else 1, matrix.wfmt is Wfmt.INT4, origin.act_major,
                             groups)
    return found


def _channels(placement: Placement, rows: Mapping[str, np.ndarray], more: Mapping[str, np.ndarray],
              ) -> dict[str, np.ndarray]:
    """What the rows and columns of the stored matrices are. rows, more: as `pack` takes them."""
    found = {f"{name}/{part}": channels for name, origin in placement.origins.items()
             for part, channels in (origin.outputs | {"inputs": origin.inputs}).items()}
    for name in placement.origins if rows else ():
        for side, own in placement.origins[name].outputs.items():
            found[f"{name}/{side}"] = np.where(own >= 0, rows[base_of(name)][own], -1).astype("<i4")
    return found | dict(more)


def _symbols(placement: Placement) -> dict[str, Symbol]:
    """Every tensor with a place of its own, by its own name or by what it holds and its slice ("weights w2 E1")."""
    strides = placement.layout.strides
    shared = {id(t) for t, _ in placement.layout.shared}
    own = {id(t) for t in placement.tensors.values()}
    named = {name: t for name, t in placement.tensors.items() if id(t) not in shared}
    named |= {f"{t.name} {t.slice}": t for t in placement.layout.tensors if id(t) not in own}
    return {name: Symbol(t.slice, t.addr, t.size, strides[t.slice] if t.per_layer else 0)
            for name, t in sorted(named.items()) if t.size}  # a chip of a rack may have no heads


def _schedule_table(codes: Sequence[Code]) -> tuple[tuple[str, ...], np.ndarray]:
    """(texts, int32 [events, EVENT_COLUMNS]), ordered by bucket and first cycle."""
    texts: dict[str, int] = {}
    rows = []
    for number, code in enumerate(codes):
        own = []
        for segment, schedule in zip(code.bucket.segments, code.schedules, strict=True):
            for p in schedule.placed:
                names = (p.label, p.burst.queue.name, p.burst.engine, p.burst.op.name, segment.name)
                last = p.at + (p.burst.count - 1) * p.burst.interval
                numbers = [texts.setdefault(name, len(texts)) for name in names]
                own.append((number, *numbers, segment.start + p.at, segment.start + last))
        rows += sorted(own, key=lambda row: row[-2])
    return tuple(texts), np.array(rows, "<i4").reshape(-1, len(EVENT_COLUMNS))
