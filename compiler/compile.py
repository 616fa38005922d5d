"""The driver: a checkpoint becomes a program, pass by pass."""

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hw import isa, store
from hw.config import CONFIGS, ChipConfig

from . import assemble, integer, lower, place, quantize, schedule, verify
from .bounds import index_bounds, index_least
from .calibrate import CALIBRATION_SEEDS, cut, sample_sequences, text_length
from .checkpoint import Checkpoint, ModelConfig
from .errors import TspError
from .float_model import FloatModel
from .geometry import CHUNK, native_head_size
from .integer import MATRICES, IntegerModel, Shifts
from .layout import ceil_div
from .lifetimes import check_lifetimes
from .program import EVENT_COLUMNS, Bucket, Program, Segment, Symbol
from .quality import Quality
from .scales import SCALES, Trial, choose
from .tokenizer import Tokenizer

Progress = Callable[[str], None]
"""Called with the name of each pass as it begins."""

INT4_MATRICES = frozenset(MATRICES) - {"classifier"}
"""Held in four bits with weights="int4"; the classifier is also the embedding and stays at eight."""
WEIGHTS = {"int8": frozenset[str](), "int4": INT4_MATRICES}
TOLERANCE = 1.02
"""By how much foretold instructions may exceed a queue before the buckets are not even tried."""
QUALITY_TOKENS = 256
TRIAL_TOKENS = 128
MANY_PARAMETERS = 2_000_000
"""The reference device is slow with such a model: a quarter of the tokens has to do."""
MANY_CHUNKS = 32
"""Vectors of positions from which on a context is shortened to whole bursts."""
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
    four_bit = _four_bit(weights)
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
    make = quantize.quantiser(checkpoint, context=context, calibration_tokens=texts, four_bit=four_bit,
                              lanes=config.lanes)
    dynamic, trials = SCALES[scales], []
    if dynamic is None:
        progress("scales")
        model, trials = choose(make, checkpoint, _beginning(trial[:context], TRIAL_TOKENS, checkpoint))
    else:
        model = make(dynamic)
    progress("place")
    placement = place.place(config, model, rope_rate(own, model))
    progress("lower, schedule, assemble")
    built = build_buckets(placement, buckets)
    progress("verify")
    bounds = index_bounds(placement)
    for valid, bucket in zip([0, *(b.chunks for b in built)], built, strict=False):
        verify.verify_bucket(config, bucket.code.words, bucket.code.period, bounds, index_least(placement, valid))
    progress("quality")
    measured = _beginning(unseen[:context], QUALITY_TOKENS, checkpoint)
    quality = quantize.evaluate(model, checkpoint, measured) if measure else None
    progress("pack")
    return _pack(own, tokenizer, placement, built, trials, quality)


def _four_bit(weights: str) -> frozenset[str]:
    if weights not in WEIGHTS:
        raise TspError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    return WEIGHTS[weights]


def rope_rate(config: ModelConfig, model: IntegerModel) -> np.ndarray:
    """Radians a position of every RoPE pair of a head as the chip stores it; pairs of padding stand still."""
    rate = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    return np.pad(rate, (0, model.head_size // 2 - len(rate)))


# --- context -------------------------------------------------------------------------------------------------------


def choose_context(model: ModelConfig, config: ChipConfig, wanted: int | None, four_bit: frozenset[str]) -> int:
    """`wanted`, if it fits; by default the model's whole context, or the greatest number of whole vectors that fits. If
    they are many, it is whole bursts of them: for one that is only begun queues hold fewer buckets.

    Raises TspError naming what does not fit.
    """
    if wanted is not None and not 1 <= wanted <= model.seq_len:
        raise TspError(f"context must be in 1..{model.seq_len} (the model's context), not {wanted}")
    _check_formats(config, four_bit)
    full, lanes = wanted or model.seq_len, config.lanes
    try:
        check_fit(model, config, full, four_bit)
        return full
    except TspError as error:
        if wanted is not None:
            raise TspError(f"a context of {wanted} does not fit: {error}") from None
    try:
        check_fit(model, config, min(full, lanes), four_bit)
    except TspError as error:
        raise TspError(f"{error}; {_fitting(model, min(full, lanes), four_bit)}") from None
    low, high = 1, ceil_div(full, lanes)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            check_fit(model, config, middle * lanes, four_bit)
            low = middle
        except TspError:
            high = middle
    return (low if low < MANY_CHUNKS else low - low % CHUNK) * lanes


def _fitting(model: ModelConfig, context: int, four_bit: frozenset[str]) -> str:
    """Which named chips a model fits that does not fit the one asked for."""
    found = []
    for name, config in CONFIGS.items():
        with contextlib.suppress(TspError):
            check_fit(model, config, context, four_bit)
            found.append(name)
    return f"the model fits --config {' or '.join(found)}" if found else "the model fits no config"


def check_fit(model: ModelConfig, config: ChipConfig, context: int, four_bit: frozenset[str]) -> place.Placement:
    """Place and lower the model's shapes, without weights. Raises TspError naming what does not fit."""
    _check_formats(config, four_bit)
    for name, value in (("dim", model.dim), ("vocab_size", model.vocab_size)):
        if value <= config.lanes:
            raise TspError(f"{name} must be more than {config.lanes} (each hemisphere takes half), not {value}")
    sizes = hollow_model(model, config.lanes, context, four_bit)
    placement = place.place(config, sizes, rope_rate(model, sizes))
    check_lifetimes(config, lower.Lower(placement, placement.geometry.chunks).run())
    return placement


def _check_formats(config: ChipConfig, four_bit: frozenset[str]) -> None:
    if four_bit and not config.int4:
        raise TspError(f"config {config.name} has no int4 weights, for {2 * config.rows} rows of a step do not fit its "
                       f"{config.lanes} lanes: use int8")


def hollow_model(model: ModelConfig, lanes: int, context: int, four_bit: frozenset[str]) -> IntegerModel:
    """An integer model of the right shapes whose weights are all 0: time and space depend on nothing else but on which
    scales are dynamic, none of them here."""
    sizes = {
        "dim": model.dim, "hidden": model.hidden_dim, "layers": model.n_layers, "heads": model.n_heads,
        "kv_heads": model.n_kv_heads, "head_size": native_head_size(model.head_dim, lanes),
        "vocab": model.vocab_size, "context": context, "eps": 0, "lanes": lanes,
    }
    kinds = {name: np.int8 if name in (*MATRICES, "embedding") else np.int16 for name in integer.array_shapes(sizes)}
    arrays: dict[str, Any] = {name: np.broadcast_to(np.zeros((), kinds[name]), shape)
                              for name, shape in integer.array_shapes(sizes).items()}
    if model.shared_classifier:
        arrays["embedding"] = arrays["classifier"]
    shifts = Shifts(**dict.fromkeys(Shifts.__dataclass_fields__, 0))
    return IntegerModel(**sizes, **arrays, shifts=shifts, four_bit=four_bit, dynamic=frozenset())


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


# --- buckets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """A bucket's program: attention over `chunks` vectors of positions."""

    chunks: int
    segments: tuple[schedule.Segment, ...]
    code: assemble.Bucket


def build_buckets(placement: place.Placement, count: int | None = None) -> list[Built]:
    """Buckets of evenly spaced chunk counts: `count`, or as many as the table and the queues hold.

    Raises TspError naming the queue if even one bucket does not fit.
    """
    config, chunks = placement.geometry.config, placement.geometry.chunks
    lowered = functools.cache(lambda valid, size: lower.Lower(placement, size, valid).run())
    ready = functools.cache(lambda valid, size: build(config, lowered(valid, size), size))

    def built(number: int) -> list[Built]:
        return [ready(*border) for border in _even(chunks, number)]

    most = min(config.buckets, chunks)
    if count is not None:
        if not 1 <= count <= most:
            raise TspError(f"buckets must be in 1..{most}, not {count}")
        _check_queues(config, built(count))
        return built(count)
    hasty = build(config, lowered(0, chunks), chunks, effort=0)
    _check_queues(config, [hasty])
    likely = _Likely(config, lowered, hasty)
    numbers = (number for number in range(most, 1, -1) if likely.fits(_even(chunks, number)))
    return next((built(number) for number in numbers if not _overflow(config, built(number))), built(1))


def _even(chunks: int, number: int) -> list[tuple[int, int]]:
    """First chunk and end of `number` buckets, evenly spaced."""
    return list(itertools.pairwise(ceil_div(chunks * i, number) for i in range(number + 1)))


class _Likely:
    """Foretells whether buckets fit the queues, so that few are scheduled in vain.

    A queue's instructions are its bursts, known without scheduling, and a few that only wait: as many as in `full`.
    """

    def __init__(self, config: ChipConfig, lowered: Callable[[int, int], list[schedule.Segment]], full: Built) -> None:
        self._config = config
        self._bursts = functools.cache(lambda valid, chunks: _bursts(lowered(valid, chunks)))
        bursts = self._bursts(0, full.chunks)
        self._rest = Counter({name: len(words) - bursts[name] for name, words in full.code.words.items()})

    def fits(self, borders: list[tuple[int, int]]) -> bool:
        """Whether buckets of these borders should fit. Begins with the largest, for none is lowered in vain."""
        words = Counter[str]()
        for border in reversed(borders):
            words += self._bursts(*border) + self._rest
            if any(words[queue.name] > isa.queue_depth(self._config, queue) * TOLERANCE
                   for queue in isa.queues(self._config)):
                return False
        return True


def _bursts(segments: list[schedule.Segment]) -> Counter[str]:
    """Instructions by queue, without those that wait."""
    return Counter(b.queue for segment in segments for cluster in segment.clusters for b in cluster.bursts)


def build(config: ChipConfig, segments: list[schedule.Segment], chunks: int, effort: int = schedule.EFFORT) -> Built:
    """Schedule and assemble the segments of a bucket that ends at `chunks` vectors of positions."""
    check_lifetimes(config, segments)
    for segment in segments:
        schedule.Scheduler().run(segment, effort)
    schedule.overlap(segments)
    limit = chunks * config.lanes
    return Built(chunks, tuple(segments), assemble.assemble(config, segments, limit))


def _overflow(config: ChipConfig, built: list[Built]) -> str:
    """What does not fit the queues; nothing if all does."""
    return store.overflow(config, {queue.name: [word for b in built for word in b.code.words[queue.name]]
                                   for queue in isa.queues(config)})


def _check_queues(config: ChipConfig, built: list[Built]) -> None:
    if problem := _overflow(config, built):
        raise TspError(f"{problem}: use a larger config, a shorter --context or fewer buckets")


# --- pack ----------------------------------------------------------------------------------------------------------


def _pack(model: ModelConfig, tokenizer: Tokenizer, placement: place.Placement, built: list[Built],
          trials: list[Trial], quality: Quality | None) -> Program:
    config, integer_model = placement.geometry.config, placement.geometry.model
    queues: dict[str, tuple[int, ...]] = {}
    starts: dict[str, tuple[int, ...]] = {}
    for queue in isa.queues(config):
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


def _symbols(placement: place.Placement) -> dict[str, Symbol]:
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
