"""The context that fits a chip, and what limits it. Only the model's shapes count, not its weights."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from arch.config import CONFIGS, ChipConfig
from arch.vectors import ceil_div
from base.errors import TspError
from compiler.place.geometry import DRAIN_BURST, native_head_size
from compiler.place.lifetimes import check_lifetimes
from compiler.quantize.quantizer import ROBUST_RECIPE
from compiler.quantize.scales import ROBUST, SCALES
from program import integer
from program.integer import MATRICES, IntegerModel, Shifts
from program.program import TOGETHER
from program.shape import ModelConfig

from .place.hollow import zeros
from .place.placement import Placement, place
from .schedule.buckets import check_queues, lower

INT4_MATRICES = frozenset(MATRICES) - {"classifier"}
"""Matrices held in four bits with weights="int4". The classifier is also the embedding and keeps eight bits."""
WEIGHTS = {"int8": frozenset[str](), "int4": INT4_MATRICES}
MANY_CHUNKS = 32
"""Vectors of positions. A shortened context of this length or more consists of whole bursts."""


def four_bit_matrices(weights: str) -> frozenset[str]:
    """The matrices that a key of `WEIGHTS` holds in four bits. Raises TspError that names the keys."""
    if weights not in WEIGHTS:
        raise TspError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    return WEIGHTS[weights]


def choose_context(model: ModelConfig, config: ChipConfig, wanted: int | None, four_bit: frozenset[str],
                   sequences: int = 1) -> int:
    """The context `wanted`, if it fits. By default, as much of the model's context as fits.

    sequences: in one program; the context is that of each.

    Raises TspError that names what does not fit, and the context or the chips that would fit.
    """
    served, problem = fitting_context(model, config, wanted, four_bit, sequences)
    if not served:
        raise TspError(f"{problem}; {_fitting(model, four_bit, sequences)}")
    if wanted is not None and served < wanted:
        raise TspError(f"a context of {wanted} does not fit: {problem} or --context {served}")
    return served


def fitting_context(model: ModelConfig, config: ChipConfig, wanted: int | None, four_bit: frozenset[str],
                    sequences: int = 1, scales: str = "static") -> tuple[int, str]:
    """(positions that fit, of each sequence, what limits them).

    The positions are at most `wanted`, or the model's context. If fewer fit, they are whole vectors. A long context is
    whole bursts of vectors, because a partial burst leaves room for fewer buckets in the queues. The positions are 0 if
    not even one vector fits. The limit is "" if there is none.

    scales: see `dynamic_inputs`.

    Raises TspError if `wanted` is out of range, a program does not serve so many sequences, or scales are unknown.
    """
    check_wanted(model, wanted)
    check_sequences(sequences)
    dynamic_inputs(scales)
    return longest_context(model, wanted, config.lanes,
                           functools.partial(_problem, model, config, four_bit, sequences, scales, False),
                           functools.partial(_problem, model, config, four_bit, sequences, scales, True))


def check_sequences(sequences: int) -> None:
    """Raises TspError unless a program of one chip serves so many sequences."""
    if sequences not in (1, TOGETHER):
        raise TspError(f"sequences on one chip must be 1 or {TOGETHER}, not {sequences}: give --rack for one on each "
                       "of its chips")


def check_wanted(model: ModelConfig, wanted: int | None) -> None:
    """Raises TspError if a context that is wanted is out of range."""
    if wanted is not None and not 1 <= wanted <= model.seq_len:
        raise TspError(f"context must be in 1..{model.seq_len} (the model's context), not {wanted}")


def longest_context(model: ModelConfig, wanted: int | None, lanes: int, *checks: Callable[[int], str],
                    ) -> tuple[int, str]:
    """`fitting_context` of a machine. checks: what does not fit it, each more than the one before. Scheduling is slow,
    so it comes last and seldom runs twice."""
    served, limit = wanted or model.seq_len, ""
    for check in checks:
        if served:
            served, problem = _longest(served, lanes, check)
            limit = problem or limit
    return served, limit


def _longest(full: int, lanes: int, problem_of: Callable[[int], str]) -> tuple[int, str]:
    """(greatest context without a problem, problem of longer ones).

    The context is `full`, or less in whole vectors, or 0. The problem is "" if `full` has none.
    """
    problem = problem_of(full)
    if not problem:
        return full, ""
    if least := problem_of(min(full, lanes)):
        return 0, least
    low, high = 1, ceil_div(full, lanes)
    while high - low > 1:
        middle = (low + high) // 2
        if problem_of(middle * lanes):
            high = middle
        else:
            low = middle
    return (low if low < MANY_CHUNKS else low - low % DRAIN_BURST) * lanes, problem


def _problem(model: ModelConfig, config: ChipConfig, four_bit: frozenset[str], sequences: int, scales: str,
             queues: bool, context: int) -> str:
    """What does not fit SRAM, registers and, if `queues`, the queues; "" if all fits."""
    try:
        placement = check_fit(model, config, context, four_bit, sequences, scales)
        if queues:
            check_queues(placement)
    except TspError as error:
        return str(error)
    return ""


def _fitting(model: ModelConfig, four_bit: frozenset[str], sequences: int) -> str:
    """The named chips that the model fits with at least one vector of positions, for messages."""
    found = [name for name, config in CONFIGS.items()
             if not _problem(model, config, four_bit, sequences, "static", True, min(model.seq_len, config.lanes))]
    return f"the model fits --config {' or '.join(found)}" if found else "the model fits no config"


def check_fit(model: ModelConfig, config: ChipConfig, context: int, four_bit: frozenset[str], sequences: int = 1,
              scales: str = "static") -> Placement:
    """Place and lower the model's shapes, without weights. Raises TspError that names what does not fit.

    sequences: in one program. scales: see `dynamic_inputs`.
    """
    if four_bit and not config.int4:
        why = (f"the {2 * config.rows} rows of a step exceed its {config.lanes} lanes" if config.int4_steps
               else "its matrix units have no INT4 steps")
        raise TspError(f"config {config.name} has no int4 weights, because {why}: use int8")
    for name, value in (("dim", model.dim), ("vocab_size", model.vocab_size)):
        if value <= config.lanes:
            raise TspError(f"{name} must be more than {config.lanes} (each hemisphere takes half), not {value}")
    sizes = hollow_model(model, config.lanes, context, four_bit, scales)
    needed = sum(getattr(sizes, name).size / (2 if name in four_bit else 1) for name in MATRICES)
    if needed > config.sram_bytes:
        raise TspError(f"the weight matrices take {needed / 1024:,.0f} KiB, config {config.name} has "
                       f"{config.sram_bytes / 1024:,.0f} KiB of SRAM: use a larger config")
    placement = place(config, sizes, rope_rate(model, sizes), together=sequences)
    check_lifetimes(config, lower(placement, 0, placement.geometry.chunks))
    return placement


def rope_rate(config: ModelConfig, model: IntegerModel) -> np.ndarray:
    """Radians a position for every RoPE pair of a head, as the chip stores it. Pairs of padding have 0."""
    rate = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    return np.pad(rate, (0, model.head_size // 2 - len(rate)))


def dynamic_inputs(scales: str) -> frozenset[str]:
    """The inputs whose scales are dynamic. scales: a key of `SCALES`, but "measured". Raises TspError."""
    if (dynamic := SCALES.get(scales)) is None:
        known = ", ".join(name for name, sites in SCALES.items() if sites is not None)
        raise TspError(f"scales must be one of {known}, not {scales!r}")
    return dynamic


def hollow_model(model: ModelConfig, lanes: int, context: int, four_bit: frozenset[str],
                 scales: str = "static") -> IntegerModel:
    """An integer model of the right shapes whose weights are all 0.

    Time and space depend only on the shapes and on which scales are dynamic. scales: see `dynamic_inputs`.
    """
    sizes = hollow_sizes(model, lanes, context) | {"eps": 0}
    kinds = {name: np.int8 if name in (*MATRICES, "embedding") else np.int16 for name in integer.array_shapes(sizes)}
    arrays: dict[str, Any] = {name: zeros(shape, kinds[name])
                              for name, shape in integer.array_shapes(sizes).items()}
    if model.shared_classifier:
        arrays["embedding"] = arrays["classifier"]
    shifts = Shifts(**dict.fromkeys(Shifts.__dataclass_fields__, 0))
    found = IntegerModel(**sizes, **arrays, shifts=shifts, four_bit=four_bit, dynamic=dynamic_inputs(scales))
    return _robust(found) if scales == "robust" else found


def hollow_sizes(model: ModelConfig, lanes: int, context: int) -> dict[str, int]:
    """The sizes of an integer model."""
    return {
        "dim": model.dim, "hidden": model.hidden_dim, "layers": model.n_layers, "heads": model.n_heads,
        "kv_heads": model.n_kv_heads, "head_size": native_head_size(model.head_dim, lanes),
        "vocab": model.vocab_size, "context": context, "lanes": lanes,
    }


def _robust(model: IntegerModel) -> IntegerModel:
    """A hollow model with what a robust model has: exponents, a constant first token, an embedding of its own."""
    shapes = integer.first_shapes(vars(model) | {"first": 1})
    first: dict[str, Any] = {name: np.zeros(shape, kind) for name, (shape, kind) in shapes.items()}
    return replace(model, dynamic=ROBUST, group=ROBUST_RECIPE.group, embedding=model.embedding[:], first=1, **first)
