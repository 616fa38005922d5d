"""Divides a model among the chips of a rack by the output rows of its matrices (tensor parallel)."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from arch.config import PLANES
from arch.isa import Sat
from arch.numerics import SAT_LIMIT
from arch.rack import RackConfig
from arch.vectors import ceil_div
from base.errors import TspError
from compiler.place.hollow import taken
from compiler.place.share import SUMS, Heads, Share
from compiler.quantize.quantizer import GREATEST_EXPONENT
from program.integer import IntegerModel, groups

ACT_LIMIT = SAT_LIMIT[Sat.S8]
"""Greatest magnitude of an activation."""
WEIGHT_LIMIT = 128
"""Greatest magnitude of a weight."""
FACTOR_LIMIT = SAT_LIMIT[Sat.S18]
"""Greatest magnitude of what the VXM multiplies."""


def shares(rack: RackConfig, model: IntegerModel, planes: Mapping[str, int], whole: frozenset[str] = frozenset(),
           scattered: bool = False, halve: bool = False, summed: bool = False) -> list[Share]:
    """What each chip of a rack, or of a group of its chips, holds: as equal parts as whole vectors, and whole heads,
    allow. planes, whole, scattered, summed: see `Share`. halve: see
    `heads_of`.

    Raises TspError that names what is too small to be divided.
    """
    chips, lanes = len(rack.chips), rack.chips[0].lanes
    parts: dict[str, Any] = {
        "heads": heads_of_all(rack, model, halve),
        "residual": parts_of(rack, f"vectors of {lanes} channels (dim)", ceil_div(model.dim, lanes), 1),
        "hidden": parts_of(rack, f"vectors of {lanes} inner channels (hidden_dim)", ceil_div(model.hidden, lanes), 1),
        "vocab": parts_of(rack, f"vectors of {lanes} tokens (vocab_size)", ceil_div(model.vocab, lanes), 2),
    }
    return [Share(chip=chip, tokens=model.vocab, whole=whole, scattered=scattered, summed=summed, planes=planes,
                  meshed=rack.meshed, **parts)
            for chip in range(chips)]


def parts_of(rack: RackConfig, what: str, count: int, least: int) -> tuple[range, ...]:
    """By chip, a part of `count` things. The parts differ by one at most. Raises TspError if one is below `least`."""
    chips = len(rack.chips)
    if count < least * chips:
        raise TspError(f"rack {rack.name}: {count} {what} cannot be divided among {chips} chips, each of which takes "
                       f"at least {least}: use fewer chips, or a smaller --tensor")
    return tuple(range(count * chip // chips, count * (chip + 1) // chips) for chip in range(chips))


def heads_of_all(rack: RackConfig, model: IntegerModel, halve: bool = False) -> tuple[Heads, ...]:
    """By chip, its heads. halve: see `heads_of`.

    Where several chips have copies of a K/V head, its keys and values are computed by one of them all, which sends them
    to those that need them: outputs of the projections are dealt so that the chip with the most has as few as possible.
    Heads that share a vector are not dealt, and all chips must be linked with each other.
    """
    chips = len(rack.chips)
    found = [heads_of(chips, model, chip, halve) for chip in range(chips)]
    if model.kv_heads >= chips or not rack.meshed or model.head_size < rack.chips[0].lanes:
        return tuple(found)
    outputs = [[list(heads.queries), [], []] for heads in found]
    for kv in range(model.kv_heads):
        for kind in (1, 2):
            chip = min(range(chips), key=lambda n: (sum(map(len, outputs[n])), kv not in found[n].kv, n))
            outputs[chip][kind].append(kv)
    return tuple(replace(heads, keys=tuple(keys), values=tuple(values))
                 for heads, (_, keys, values) in zip(found, outputs, strict=True))


def heads_of(chips: int, model: IntegerModel, chip: int, halve: bool = False) -> Heads:
    """The heads of a chip: K/V heads with all their query heads, if there are enough for all chips.

    Otherwise query heads are divided, and each chip that has some of a K/V head has a copy of it. A chip with several
    query heads of one K/V head alone has it once in each hemisphere, so that both compute; with `halve` it has it once,
    and each hemisphere has half of the positions. Chips beyond the last query head have none.
    """
    each = model.heads // model.kv_heads
    if model.kv_heads >= chips:
        kv = range(model.kv_heads * chip // chips, model.kv_heads * (chip + 1) // chips)
        return Heads(tuple(kv), tuple(range(kv.start * each, kv.stop * each)), tuple(kv), tuple(kv))
    queries = range(ceil_div(model.heads * chip, chips), ceil_div(model.heads * (chip + 1), chips))
    counts = Counter(query // each for query in queries)
    most = math.gcd(*counts.values())
    if len(counts) == 1 and most % 2 == 0 and not halve:
        most //= 2
    kv = tuple(head for head, count in counts.items() for _ in range(count // most))
    return Heads(kv, tuple(queries), kv, kv)


def uneven(share: Share) -> list[str]:
    """What does not divide evenly, and what the chip with the largest part does more than an even one."""
    found = []
    queries = [heads.queries for heads in share.heads]
    for what, parts in (("query heads", queries), ("vectors of inner channels", share.hidden),
                        ("vectors of tokens", share.vocab)):
        sizes = [len(part) for part in parts]
        if max(sizes) > min(sizes):
            found.append(f"{what}: {', '.join(map(str, sizes))} on the chips; the largest part is "
                         f"{max(sizes) * len(sizes) / sum(sizes) - 1:.0%} more than an even one")
    return found


def planes_of(model: IntegerModel) -> dict[str, int]:
    """`Share.planes` of a model."""
    return {"wo": addend_planes(model.wo, model.mo, model.shifts.wo_pre, model.shifts.wo),
            "w2": addend_planes(model.w2, model.m2, model.shifts.w2_pre, model.shifts.w2 - _gained(model)),
            SUMS: sum_planes(model)}


def addend_planes(weights: np.ndarray, scales: np.ndarray, pre: int, post: int) -> int:
    """Byte planes that hold every addend of the residual that a matrix of layers can make, for any input.

    A model without weights (`capacity.hollow_model`) stands for any: all planes.
    """
    if not scales.any():
        return PLANES
    sums = ACT_LIMIT * np.abs(weights.astype(np.int64)).sum(-1)
    factors = np.minimum((sums >> max(pre, 0)) + 1 << max(-pre, 0), FACTOR_LIMIT)
    most = int((factors * np.abs(scales.astype(np.int64))).max() >> max(post, 0)) + 1
    return next((planes for planes in range(1, PLANES) if most < 1 << 8 * planes - 1), PLANES)


def sum_planes(model: IntegerModel) -> int:
    """Byte planes that hold every sum of W2 that the chips add up, whatever its weights and inputs are: of all inner
    channels, or of those that have an exponent together."""
    parts = groups(model.hidden, model.group) if "silu" in model.dynamic else [slice(0, model.hidden)]
    most = max(part.stop - part.start for part in parts) * WEIGHT_LIMIT * ACT_LIMIT
    return next((planes for planes in range(1, PLANES) if most < 1 << 8 * planes - 1), PLANES)


def _gained(model: IntegerModel) -> int:
    """The greatest exponent of W2's input."""
    return GREATEST_EXPONENT["silu"] if "silu" in model.dynamic else 0


# --- parts of a model ----------------------------------------------------------------------------------------------


def own_model(model: IntegerModel, share: Share, lanes: int) -> IntegerModel:
    """The rows of a model that a chip holds. Its sizes are those of these rows, but for the residual."""
    rows = own_rows(model, share, lanes)
    heads, hidden, vocab = share.heads[share.chip], rows["w1"], rows["classifier"]
    found: dict[str, Any] = {
        "heads": len(heads.queries), "kv_heads": len(heads.kv), "hidden": len(hidden),
        "vocab": len(vocab), "classifier": taken(model.classifier, vocab, 0), "mc": model.mc[vocab],
    }
    for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3"):
        found |= {each: taken(getattr(model, each), rows[name], 1) for each in (name, "m" + name[1])}
    found["key_offset"] = model.key_offset[:, rows["wk"]]
    for name in ("first_k", "first_m", "first_v"):
        if (array := getattr(model, name)) is not None:
            found[name] = array[:, list(heads.kv)]
    return replace(model, **found)


def own_rows(model: IntegerModel, share: Share, lanes: int) -> dict[str, np.ndarray]:
    """The rows of each matrix that a chip holds, as the model counts them."""
    size, chip = model.head_size, share.chip
    heads = share.heads[chip]

    def channels(part: range, count: int) -> np.ndarray:
        return np.arange(part.start * lanes, min(part.stop * lanes, count))

    def of_heads(numbers: tuple[int, ...]) -> np.ndarray:
        return (size * np.array(numbers, int)[:, None] + np.arange(size)).ravel()

    inner = channels(share.hidden[chip], model.hidden)
    added = {name: channels(share.rows(name), model.dim) for name in ("wo", "w2")}
    return {"wq": of_heads(heads.queries), "wk": of_heads(heads.keys),
            "wv": of_heads(heads.values),
            "w1": inner, "w3": inner, **added, "classifier": channels(share.vocab[chip], model.vocab)}


def padded_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, and -1 up to `count`."""
    return np.pad(rows, (0, count - len(rows)), constant_values=-1).astype("<i4")


def joined_rows(model: IntegerModel, share: Share, lanes: int) -> dict[str, np.ndarray]:
    """The same rows as `program.weights.SOURCES` joins matrices: those of a joined matrix as it counts them."""
    rows = own_rows(model, share, lanes)
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    return {"qkv": np.concatenate([rows["wq"], queries + rows["wk"], queries + keys + rows["wv"]]),
            "w13": np.concatenate([rows["w1"], model.hidden + rows["w3"]]), "wo": rows["wo"], "w2": rows["w2"],
            "classifier": rows["classifier"], "embedding": np.arange(model.vocab)}
