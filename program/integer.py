"""The integer model: what the chip computes for a token, as whole tensors and without time.

The arithmetic, operation by operation: docs/reference/numerics.md.

`IntegerModel` is the contract between quantisation, compiler and chip: the compiled program, the cycle model and the
RTL give these logits, bit for bit. Every line is one VXM operation, matrix product or reduction of `arch.numerics`.
Shifts are the same for all layers because the layers share one loop body; what differs by layer is in arrays.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from arch.config import MAX_LANES
from base.errors import TspError

SCORE_FRACTION = 6
LOGIT_FRACTION = 8
GATE_FRACTION = 12
Q_SHIFT = 8
"""q is kept in 16 bits and enters the matrix unit in 8. Its static scale is 127 * 2**Q_SHIFT / clip."""
KEY_SHIFT = 6
"""The same of a key of a static scale, which has an offset subtracted behind the shift: it needs room for that."""
GROUP = 64
"""Channels of the feed-forward's inner layer that are multiplied by W2 together. See `groups`."""
NORM_OPERAND_BITS = 17
"""Bits of the greatest magnitude of a norm's operand, if the operand has an exponent for each token."""
KEYS = "keys"
SITES = ("att_norm", "ffn_norm", "silu", "final_norm", KEYS)
"""Inputs of matrices, with the names of `compiler.quantize.calibrate`, and the keys. Those in a model's `dynamic` get
an exponent for each token, keys a scale for each token and head. The scale of the others is static."""
RESIDUAL = "residual"
"""In a model's `dynamic`: the residual, which is the operand of every norm, gets an exponent for each token."""
MASKED = -(1 << 23)
"""Added to the scores of positions that do not exist yet, if keys are dynamic."""
MASKED_PRODUCT = -(1 << 26)
"""Added to the products of query and key of such positions, if keys are static."""
MOST_HEAD_SIZE = 1024
"""Of static keys: products are then below 2**24, exact in float32, and a masked one is the least by far."""
SCORE_SHIFTS = range(-4, 13)
"""Shifts from products to scores, with which masked ones have weight 0 and none exceeds 32 bits."""


def groups(hidden: int, size: int = 0) -> list[slice]:
    """Groups of the inner layer's channels.

    The chip computes W2's product with one group while it still computes the next group. Each group has its own dynamic
    exponent.

    size: channels of a group. If 0, there are at most three groups: the last two have up to GROUP channels each, and
    the first has the rest.
    """
    if size:
        return [slice(start, min(start + size, hidden)) for start in range(0, hidden, size)]
    starts = [0, *range(GROUP, hidden, GROUP)[-2:]]
    return [slice(start, stop) for start, stop in itertools.pairwise([*starts, hidden])]


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """Shift amounts that are immediates of the program.

    emb: of embedding byte * row scale.
    norm_x: from the residual to the 18-bit norm operand.
    norm_sq: of the operand's square.
    norm_g: of operand * gain.
    norm_att, norm_ffn, norm_f: of (operand * gain) * rsqrt (+ exponent), in the norm before attention, before
    feed-forward, and in the final norm.
    qk, v: after the QKV channel scale.
    score: after the score's K scale. If keys are static, from the product of query and key to the score: perhaps a left
    shift, and score_pre is 0.
    av_pre, av: of the attention output.
    wo, gate, up, w2, cls: after their channel scale.
    f: of gate * up.
    *_pre: from the accumulator to 18 bits.
    sigmoid: of the gate before its sigmoid, which takes GATE_FRACTION fraction bits. It is 0 or a left shift.
    """

    emb: int
    norm_x: int
    norm_sq: int
    norm_g: int
    norm_att: int
    norm_ffn: int
    norm_f: int
    qkv_pre: int
    qk: int
    v: int
    score_pre: int
    score: int
    av_pre: int
    av: int
    wo_pre: int
    wo: int
    ffn_pre: int
    gate: int
    up: int
    sigmoid: int
    f: int
    w2_pre: int
    w2: int
    cls_pre: int
    cls: int


@dataclass(frozen=True, kw_only=True)
class IntegerModel:
    """Quantised weights and scales.

    L layers, D dim, F hidden, H query heads, K key/value heads, hd head size (interleaved RoPE pairs), V vocabulary.

    int8 weights (out, in): wq [L, H*hd, D], wk, wv [L, K*hd, D], wo [L, D, H*hd], w1, w3 [L, F, D], w2 [L, D, F],
    classifier [V, D], embedding [V, D] (the same object as classifier when shared).
    int16 channel scales of their outputs: mq, mk, mv, mo, m1, m3, m2 [L, out], mc [V], emb_scale [V].
    int16 gains of the norms: g_att, g_ffn [L, D], g_final [D].
    key_offset: int16 [L, K*hd], subtracted from static keys; 0 if keys are dynamic.
    rope_cos, rope_sin: int16 Q2.14 [context, hd/2].
    eps: integer added to every square. Lanes beyond D in the last vector of a chip with `lanes` lanes count too. If the
    residual is in `dynamic`, a norm adds the square of eps once in each lane instead.
    four_bit: names of matrices with weights in -7..7, which are streamed as int4.
    dynamic: the `SITES` that get an exponent for each token, and perhaps `RESIDUAL`. The shifts belong to this choice.
    group: channels of a group of W2's input (see `groups`).
    first: the token that begins every sequence, or -1 if any token may.
    first_k, first_v: its keys and values, int8 [L, K, hd].
    first_m: scales of its keys, int16 [L, K]. Such a model's keys are dynamic.
    """

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    context: int
    shifts: Shifts
    eps: int
    embedding: np.ndarray
    emb_scale: np.ndarray
    wq: np.ndarray
    wk: np.ndarray
    wv: np.ndarray
    wo: np.ndarray
    w1: np.ndarray
    w2: np.ndarray
    w3: np.ndarray
    classifier: np.ndarray
    mq: np.ndarray
    mk: np.ndarray
    mv: np.ndarray
    mo: np.ndarray
    m1: np.ndarray
    m2: np.ndarray
    m3: np.ndarray
    mc: np.ndarray
    g_att: np.ndarray
    g_ffn: np.ndarray
    g_final: np.ndarray
    rope_cos: np.ndarray
    rope_sin: np.ndarray
    key_offset: np.ndarray
    four_bit: frozenset[str] = frozenset()
    dynamic: frozenset[str] = frozenset()
    lanes: int = MAX_LANES
    group: int = 0
    first: int = -1
    first_k: np.ndarray | None = None
    first_m: np.ndarray | None = None
    first_v: np.ndarray | None = None


SIZES = ("dim", "hidden", "layers", "heads", "kv_heads", "head_size", "vocab", "context", "eps", "lanes",
         "group", "first")
MATRICES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "classifier")
FLAGS = {"four_bit": MATRICES, "dynamic": (*SITES, RESIDUAL)}
"""Fields of an `IntegerModel` that are sets of these names."""


def array_shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of an `IntegerModel`'s arrays. `MATRICES` and the embedding are int8, all others int16."""
    n, d, f, v = (sizes[name] for name in ("layers", "dim", "hidden", "vocab"))
    q, kv = (sizes[name] * sizes["head_size"] for name in ("heads", "kv_heads"))
    rope = (sizes["context"], sizes["head_size"] // 2)
    outputs = {"wq": (q, d), "wk": (kv, d), "wv": (kv, d), "wo": (d, q), "w1": (f, d), "w2": (d, f), "w3": (f, d)}
    shapes: dict[str, tuple[int, ...]] = {"embedding": (v, d), "emb_scale": (v,), "classifier": (v, d), "mc": (v,)}
    for name, (rows, columns) in outputs.items():
        shapes |= {name: (n, rows, columns), "m" + name[1]: (n, rows)}
    return shapes | {"g_att": (n, d), "g_ffn": (n, d), "g_final": (d,), "rope_cos": rope, "rope_sin": rope,
                     "key_offset": (n, kv)}


def first_shapes(sizes: Mapping[str, int]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of a constant first token's arrays; {} if there is no such token."""
    if sizes["first"] < 0:
        return {}
    heads = (sizes["layers"], sizes["kv_heads"])
    rows = (*heads, sizes["head_size"])
    return {"first_k": (rows, "i1"), "first_m": (heads, "i2"), "first_v": (rows, "i1")}


def to_arrays(model: IntegerModel, *, weights: bool = True) -> dict[str, np.ndarray]:
    """The model as plain arrays by name. `from_arrays` makes the same model from them.

    weights: include the matrices.
    """
    names = array_shapes(vars(model))
    arrays = {name: getattr(model, name) for name in names if name != "embedding" and (weights or name not in MATRICES)}
    arrays |= {name: getattr(model, name) for name in first_shapes(vars(model))}
    if weights and model.embedding is not model.classifier:
        arrays["embedding"] = model.embedding
    arrays["sizes"] = np.array([getattr(model, name) for name in SIZES], dtype="<i8")
    arrays["shifts"] = np.array(list(vars(model.shifts).values()), dtype="<i8")
    arrays |= {field: np.array([name in getattr(model, field) for name in names], dtype="u1")
               for field, names in FLAGS.items()}
    return arrays


def model_sizes(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The sizes of the model of `to_arrays`. Raises TspError if they are missing."""
    _check_array(arrays, "sizes", np.dtype("i8"), (len(SIZES),))
    return {name: int(value) for name, value in zip(SIZES, arrays["sizes"], strict=True)}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> IntegerModel:
    """The model of `to_arrays`. Raises TspError that names an array that is missing or has a wrong type or shape."""
    sizes = model_sizes(arrays)
    _check_array(arrays, "shifts", np.dtype("i8"), (len(fields(Shifts)),))
    for name, names in FLAGS.items():
        _check_array(arrays, name, np.dtype("u1"), (len(names),))
    values: dict[str, Any] = {"embedding": arrays.get("embedding", arrays.get("classifier"))}
    for name, shape in array_shapes(sizes).items():
        if name != "embedding" or name in arrays:
            _check_array(arrays, name, np.dtype("i1" if name in (*MATRICES, "embedding") else "i2"), shape)
            values[name] = arrays[name]
    for name, (shape, kind) in first_shapes(sizes).items():
        _check_array(arrays, name, np.dtype(kind), shape)
        values[name] = arrays[name]
    shifts = Shifts(**dict(zip(_shift_names(), arrays["shifts"].tolist(), strict=True)))
    values |= {field: frozenset(name for name, flag in zip(names, arrays[field], strict=True) if flag)
               for field, names in FLAGS.items()}
    return IntegerModel(**sizes, **values, shifts=shifts)


def _shift_names() -> list[str]:
    return [field.name for field in fields(Shifts)]


def _check_array(arrays: Mapping[str, np.ndarray], name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if name not in arrays:
        raise TspError(f"integer model: array {name} is missing: the program file is damaged, compile it again")
    array = arrays[name]
    if array.dtype != dtype or array.shape != shape:
        raise TspError(f"integer model: array {name} must be {dtype} {shape}, not {array.dtype} {array.shape}")


def greatest_sum(weights: np.ndarray) -> int:
    """Greatest sum of magnitudes in a row of an int8 matrix [out, in]."""
    return int(np.abs(weights.astype(np.int16)).sum(-1, dtype=np.int64).max(initial=0))
