"""The integer model: what the chip computes for a token, as whole tensors and without time (docs/numerics.md).

`IntegerModel` is the contract between quantisation, compiler and chip: the compiled program, the cycle model and the
RTL give these logits, bit for bit. Every line is one VXM operation, matrix product or reduction of `arch.numerics`.
Shifts are the same for all layers because the layers share one loop body; what differs by layer is in arrays.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from arch import numerics, tables
from arch.config import MAX_LANES
from arch.isa import Func
from base.errors import TspError

ROPE_FRACTION = 14
ROPE_STEP = 16
"""Rotations are the product of two: by a multiple of so many positions, and by the rest."""
SCORE_FRACTION = 6
LOGIT_FRACTION = 8
GATE_FRACTION = 12
Q_SHIFT = 8
"""q is kept in 16 bits and given to the matrix unit in 8: the static scale of q is 127 * 2**Q_SHIFT / clip."""
GROUP = 64
"""Channels of the feed-forward's inner layer that meet W2 together, see `groups`."""
SITES = ("att_norm", "ffn_norm", "silu", "final_norm")
"""Inputs of matrices (named as in `compiler.quantize.calibrate`) whose scale is static or, in a model's `dynamic`, an
exponent of each token."""
MASKED = -(1 << 23)
"""Added to the scores of positions that do not exist yet."""
GUMBEL_ONE = 24 << 15
"""-log2 of the uniform variate's unit, Q15."""


def rsr(x: np.ndarray, s: np.ndarray | int) -> np.ndarray:
    """Right shift that rounds half up; s = 0 leaves x, negative s shifts left."""
    s = np.asarray(s)
    if s.ndim == 0:
        n = int(s)
        return (x + (1 << n - 1)) >> n if n > 0 else x << -n
    return np.where(s >= 0, numerics.shift_right(x, np.maximum(s, 0), 1), x << np.maximum(-s, 0))


def clip(x: np.ndarray, bits: int) -> np.ndarray:
    """SAT: clamp to +-(2**(bits-1) - 1), or to the int32 range for 32."""
    if bits == 32:
        return numerics.sat32(x)
    limit = (1 << bits - 1) - 1
    return np.minimum(np.maximum(x, -limit), limit)


def groups(hidden: int) -> list[slice]:
    """Groups of the inner layer's channels: the last two times GROUP, and the rest.

    The chip computes W2's product with one group while it still works on the next; a dynamic exponent is a group's.
    """
    starts = [0, *range(GROUP, hidden, GROUP)[-2:]]
    return [slice(start, stop) for start, stop in itertools.pairwise([*starts, hidden])]


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """Shift amounts that are immediates of the program.

    emb: of embedding byte * row scale. norm_x: residual -> 18-bit norm operand. norm_sq: of its square.
    norm_g: of operand * gain. norm_att, norm_ffn, norm_f: of gained operand * rsqrt (+ exponent), before
    attention and feed-forward, and of the final norm.
    qk, v: after the QKV channel scale. score: after the score's K scale. av_pre, av: attention output.
    wo, gate, up, w2, cls: after their channel scale. f: of gate * up. *_pre: accumulator -> 18 bits.
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
    int16 gains of the norms: g_att, g_ffn [L, D], g_final [D]. eps: added to every square (int), also
    to those of the lanes that the last vector of a chip of `lanes` lanes has beyond D.
    rope_cos, rope_sin [context, hd/2] int16 Q2.14.
    four_bit: names of matrices whose weights lie in -7..7 and are streamed as int4.
    dynamic: those of the `SITES` that get an exponent of each token; the shifts are those of this choice.
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
    four_bit: frozenset[str] = frozenset()
    dynamic: frozenset[str] = frozenset()
    lanes: int = MAX_LANES


SIZES = ("dim", "hidden", "layers", "heads", "kv_heads", "head_size", "vocab", "context", "eps", "lanes")
MATRICES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "classifier")
FLAGS = {"four_bit": MATRICES, "dynamic": SITES}
"""Fields of an `IntegerModel` that are sets of these names."""


def array_shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of an `IntegerModel`'s arrays: int8 for `MATRICES` and the embedding, int16 for all others."""
    n, d, f, v = (sizes[name] for name in ("layers", "dim", "hidden", "vocab"))
    q, kv = (sizes[name] * sizes["head_size"] for name in ("heads", "kv_heads"))
    rope = (sizes["context"], sizes["head_size"] // 2)
    outputs = {"wq": (q, d), "wk": (kv, d), "wv": (kv, d), "wo": (d, q), "w1": (f, d), "w2": (d, f), "w3": (f, d)}
    shapes: dict[str, tuple[int, ...]] = {"embedding": (v, d), "emb_scale": (v,), "classifier": (v, d), "mc": (v,)}
    for name, (rows, columns) in outputs.items():
        shapes |= {name: (n, rows, columns), "m" + name[1]: (n, rows)}
    return shapes | {"g_att": (n, d), "g_ffn": (n, d), "g_final": (d,), "rope_cos": rope, "rope_sin": rope}


def to_arrays(model: IntegerModel) -> dict[str, np.ndarray]:
    """The model as plain arrays by name; `from_arrays` makes the same model of them."""
    names = array_shapes(vars(model))
    arrays = {name: getattr(model, name) for name in names if name != "embedding"}
    if model.embedding is not model.classifier:
        arrays["embedding"] = model.embedding
    arrays["sizes"] = np.array([getattr(model, name) for name in SIZES], dtype="<i8")
    arrays["shifts"] = np.array(list(vars(model.shifts).values()), dtype="<i8")
    arrays |= {field: np.array([name in getattr(model, field) for name in names], dtype="u1")
               for field, names in FLAGS.items()}
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> IntegerModel:
    """The model of `to_arrays`. Raises TspError naming an array that is missing, of a wrong type or shape."""
    for name, length in {"sizes": len(SIZES), "shifts": len(fields(Shifts))}.items():
        _check_array(arrays, name, np.dtype("i8"), (length,))
    for name, names in FLAGS.items():
        _check_array(arrays, name, np.dtype("u1"), (len(names),))
    sizes: dict[str, Any] = {name: int(value) for name, value in zip(SIZES, arrays["sizes"], strict=True)}
    values: dict[str, Any] = {"embedding": arrays.get("embedding", arrays.get("classifier"))}
    for name, shape in array_shapes(sizes).items():
        if name != "embedding" or name in arrays:
            _check_array(arrays, name, np.dtype("i1" if name in (*MATRICES, "embedding") else "i2"), shape)
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


def rope_tables(context: int, head_size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin) [context, head_size / 2], Q2.14, as the chip has them: rotations by 16 * high and by low, multiplied.

    The chip keeps 16 low and context/16 high rotations and multiplies them once a token, so that the table of a long
    context costs no SRAM: cos = RSR(ch*cl, 14) - RSR(sh*sl, 14), sin = RSR(sh*cl, 14) + RSR(ch*sl, 14).
    """
    rate = theta ** (-np.arange(0, head_size, 2) / head_size)
    (cl, sl), (ch, sh) = rope_parts(context, rate)
    low, high = np.arange(context) % ROPE_STEP, np.arange(context) // ROPE_STEP
    cl, sl, ch, sh = cl[low], sl[low], ch[high], sh[high]
    one = ROPE_FRACTION
    return rsr(ch * cl, one) - rsr(sh * sl, one), rsr(sh * cl, one) + rsr(ch * sl, one)


def rope_parts(context: int, rate: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((cos, sin) of 0..15, (cos, sin) of 0, 16, 32..) as int64 Q2.14 arrays [positions, pairs]."""

    def table(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = positions[:, None] * rate
        one = 1 << ROPE_FRACTION
        return np.rint(np.cos(angle) * one).astype(np.int64), np.rint(np.sin(angle) * one).astype(np.int64)

    return table(np.arange(ROPE_STEP)), table(ROPE_STEP * np.arange(math.ceil(context / ROPE_STEP)))


# ---- the reference device ----
#
# The state below computes with whole numbers in floating point: exact, because 18 by 18 bits and 24-bit sums fit the
# mantissas of float64 and float32, and several times faster than numpy's integers. tests/test_program_integer.py
# compares it, bit for bit, with the same operations taken one by one from `arch.numerics.vxm`.

HALF = np.array([0.5])
EXP_RANGE = 1024
"""Scores this far (in 1 / 64) below the largest have weight 0."""
EXP_LAST = np.array([EXP_RANGE - 1.0])
EXACT_COLUMNS = 1024
"""Widest int8 product that float32 sums exactly."""


Range = tuple[np.ndarray, np.ndarray]
"""Least and greatest value, as arrays because numpy converts Python numbers slowly."""


def _range(bits: int) -> Range:
    limit = (1 << bits - 1) - 1
    return np.array([float(numerics.INT32[0] if bits == 32 else -limit)]), np.array([float(limit)])


SAT = {bits: _range(bits) for bits in (8, 16, 18, 24, 32)}
SAT8, SAT16, SAT18, SAT24, SAT32 = SAT.values()
SCALE = {n: np.array([2.0**n]) for n in range(-64, 64)}
"""Powers of two."""


def _scaled(x: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """RSR(x * M, n) with factor = M / 2**n."""
    y = x * factor
    y += HALF
    return np.floor(y, out=y)


def _sat(x: np.ndarray, limits: Range) -> np.ndarray:
    """Clamp in place."""
    return x.clip(*limits, out=x)


def _interpolate(func: Func, a: np.ndarray) -> np.ndarray:
    product, base = numerics._table(func, a)
    return rsr(product, tables.TABLES[func].frac_bits) + base


def _log2(a: np.ndarray) -> np.ndarray:
    return _interpolate(Func.LOG2, a)


def _reciprocals(count: int) -> np.ndarray:
    """RECIP's mantissa / 2**exponent for 0..count-1."""
    a = np.arange(count)
    k, _ = numerics._mantissa(a)
    return _interpolate(Func.RECIP, a) * 0.5**k


@functools.cache
def _exp_table() -> np.ndarray:
    """EXP2's 0..127 for score differences 0, -1, .. 1 - EXP_RANGE."""
    d = -np.arange(EXP_RANGE)
    p = numerics.shift_right(numerics._ROM[d & 63, 0], 7 - (d >> SCORE_FRACTION), 1)
    return np.minimum(p, 127).astype(np.float32)


@functools.cache
def _silu_table() -> np.ndarray:
    """RSR(a * SIGMOID(a), 15) for all 18-bit a, a = 0 at the middle."""
    a = np.arange(-131071, 131072)
    return clip(rsr(a * _interpolate(Func.SIGMOID, a), 15), 18).astype(np.float32)


class _Product:
    """A matrix-vector product and the requantisation of its sums: REQ with saturation, for every layer of a stack."""

    def __init__(
        self, weights: list[np.ndarray], scales: list[np.ndarray], pre: int, posts: list[int], bits: list[int]
    ):
        """Matrices [L, out, in] that meet the same activation, with their channel scales, post shifts and widths."""
        joined = np.concatenate(weights, axis=1)
        self.weights = joined.astype(np.float32)
        factors = [m * 0.5**post for m, post in zip(scales, posts, strict=True)]
        self.factors = np.concatenate(factors, axis=1)
        rows = [w.shape[1] for w in weights]
        low, high = (np.repeat([SAT[b][side][0] for b in bits], rows) for side in (0, 1))
        self.limits = low, high
        self.pre = pre
        self.posts = np.repeat(posts, rows)
        self.least_post = min(posts)
        bound = int(np.abs(joined.astype(np.int64)).sum(-1).max(initial=0)) * 127
        self.saturates = (bound >> pre) + 1 > SAT18[1]

    def __call__(self, layer: int, act: np.ndarray, exponent: int = 0) -> np.ndarray:
        """Requantised sums [out] of `act`; exponent: what the post shifts are less, down to 0."""
        acc = self._sums(self.weights[layer], act.astype(np.float32))
        if self.pre:
            acc = _scaled(acc, SCALE[-self.pre])
        if self.saturates:
            _sat(acc, SAT18)
        y = acc * self.factors[layer]
        if exponent:
            y *= SCALE[exponent] if exponent <= self.least_post else 2.0 ** np.minimum(exponent, self.posts)
        y += HALF
        np.floor(y, out=y)
        return _sat(y, self.limits)

    @staticmethod
    def _sums(weights: np.ndarray, act: np.ndarray) -> np.ndarray:
        if len(act) <= EXACT_COLUMNS:
            return weights.dot(act)
        parts = range(0, len(act), EXACT_COLUMNS)
        sums = [weights[:, i : i + EXACT_COLUMNS].dot(act[i : i + EXACT_COLUMNS]) for i in parts]
        return np.asarray(np.sum(sums, axis=0, dtype=np.float64))


class IntegerState:
    """One sequence on an IntegerModel: the K/V cache and the next position."""

    def __init__(self, model: IntegerModel) -> None:
        self.model = m = model
        s = m.shifts
        self.position = 0
        self.k = np.zeros((m.layers, m.kv_heads, m.head_size, m.context), dtype=np.float32)
        self.k_factor = np.zeros((m.layers, m.kv_heads, 1, m.context))
        self.v = np.zeros((m.layers, m.kv_heads, m.context, m.head_size), dtype=np.float32)
        self._qkv = _Product([m.wq, m.wk, m.wv], [m.mq, m.mk, m.mv], s.qkv_pre, [s.qk, s.qk, s.v], [16, 16, 8])
        self._wo = _Product([m.wo], [m.mo], s.wo_pre, [s.wo], [32])
        self._gate_up = _Product([m.w1, m.w3], [m.m1, m.m3], s.ffn_pre, [s.gate, s.up], [18, 16])
        self._groups = groups(m.hidden) if "silu" in m.dynamic else [slice(0, m.hidden)]
        self._w2 = [_Product([m.w2[:, :, part]], [m.m2], s.w2_pre, [s.w2], [32]) for part in self._groups]
        self._classifier = _Product([m.classifier[None]], [m.mc[None]], s.cls_pre, [s.cls], [24])
        self._gain = {name: getattr(m, name) * 0.5**s.norm_g for name in ("g_att", "g_ffn", "g_final")}
        cos, sin = (table * 0.5**ROPE_FRACTION for table in (m.rope_cos, m.rope_sin))
        self._cos = np.repeat(cos, 2, axis=1)
        self._sin = np.stack([-sin, sin], axis=2).reshape(self._cos.shape)
        self._recip_k = _reciprocals(SAT16_COUNT) * 0.5**8
        self._recip_z = _reciprocals(127 * m.context + 1) * 0.5**s.av
        self._score_saturates = m.head_size * 127 * 127 >> s.score_pre >= 131071
        self._av_saturates = 127 * 127 * m.context >> s.av_pre >= 131071

    def step(self, token: int) -> np.ndarray:
        """Logits [vocab] (LOGIT_FRACTION fraction bits) after `token` at the present position, which then advances."""
        m, s = self.model, self.model.shifts
        if self.position >= m.context:
            raise ValueError(f"position must be below the context of {m.context}, not {self.position}")
        x = _scaled(m.embedding[token].astype(np.float64), m.emb_scale[token] * SCALE[-s.emb])
        for layer in range(m.layers):
            x = self._attention(layer, x)
            x = self._feed_forward(layer, x)
        logits = self._classifier(0, *self._input("final_norm", x, self._gain["g_final"][None], 0, s.norm_f))
        self.position += 1
        return logits.astype(np.int64)

    def _input(self, site: str, x: np.ndarray, gain: np.ndarray, layer: int, post: int) -> tuple[np.ndarray, int]:
        """A norm's output as the int8 input of a matrix, and its exponent (0 if its scale is static)."""
        if site in self.model.dynamic:
            return _dynamic(self._normed(x, gain, layer, post, SAT16))
        return self._normed(x, gain, layer, post, SAT8), 0

    def _normed(self, x: np.ndarray, gain: np.ndarray, layer: int, post: int, limits: Range) -> np.ndarray:
        s, m = self.model.shifts, self.model
        xs = _sat(_scaled(x, SCALE[-s.norm_x]), SAT18)
        ss = int(np.add.reduce(_scaled(xs * xs, SCALE[-s.norm_sq]))) + m.eps * (-(-m.dim // m.lanes) * m.lanes)
        r = _rsqrt(ss) * 0.5**post
        xg = _sat(_scaled(xs, gain[layer]), SAT18)
        return _sat(_scaled(xg, np.array([r])), limits)

    def _attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        m, s, t = self.model, self.model.shifts, self.position
        h = self._input("att_norm", x, self._gain["g_att"], layer, s.norm_att)
        qkv = self._qkv(layer, *h).reshape(-1, m.head_size)
        rotated = self._rotate(qkv[: m.heads + m.kv_heads])
        q = _sat(_scaled(rotated[: m.heads], SCALE[-Q_SHIFT]), SAT8).astype(np.float32)
        k = rotated[m.heads :]
        largest = np.maximum.reduce(np.abs(k), axis=1)
        self.k[layer, :, :, t] = _sat(_scaled(k, self._recip_k[largest.astype(np.intp), None]), SAT8)
        self.k_factor[layer, :, 0, t] = largest * SCALE[-s.score]
        self.v[layer, :, t] = qkv[m.heads + m.kv_heads :]
        p = self._weights(q.reshape(m.kv_heads, -1, m.head_size), layer)
        z = np.add.reduce(p, axis=-1, dtype=np.float64)
        o = self._weighted(p, self.v[layer, :, : t + 1])
        if s.av_pre:
            o = _scaled(o, SCALE[-s.av_pre])
        if self._av_saturates:
            _sat(o, SAT18)
        o = _sat(_scaled(o, self._recip_z[z.astype(np.intp), None]), SAT8)
        x += self._wo(layer, o.reshape(-1))
        return _sat(x, SAT32)

    def _weights(self, q: np.ndarray, layer: int) -> np.ndarray:
        """exp2 of the scores less their maximum, 0..127 [K, query heads of one, positions], as float32."""
        s, end = self.model.shifts, self.position + 1
        scores = np.matmul(q, self.k[layer, :, :, :end])
        if s.score_pre:
            scores = _scaled(scores, SCALE[-s.score_pre])
        if self._score_saturates:
            _sat(scores, SAT18)
        scores = _sat(_scaled(scores, self.k_factor[layer, :, :, :end]), SAT24)
        below = np.maximum.reduce(scores, axis=-1, keepdims=True) - scores
        np.minimum(below, EXP_LAST, out=below)
        return _exp_table()[below.astype(np.intp)]

    def _weighted(self, p: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Sum over positions of p [.., T] * v [.., T, hd]; float32 sums EXACT_COLUMNS positions exactly."""
        if p.shape[-1] <= EXACT_COLUMNS:
            return np.matmul(p, v)
        parts = [slice(i, i + EXACT_COLUMNS) for i in range(0, p.shape[-1], EXACT_COLUMNS)]
        sums = [np.matmul(p[..., part], v[:, part]) for part in parts]
        return np.asarray(np.sum(sums, axis=0, dtype=np.float64))

    def _rotate(self, y: np.ndarray) -> np.ndarray:
        """RoPE of int16 [n, head_size] in interleaved pairs; each product is rounded, the sum saturates to 16 bits."""
        swapped = y.reshape(len(y), -1, 2)[..., ::-1].reshape(y.shape)
        turned = _scaled(y, self._cos[self.position])
        turned += _scaled(swapped, self._sin[self.position])
        return _sat(turned, SAT16)

    def _feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        m, s = self.model, self.model.shifts
        ab = self._gate_up(layer, *self._input("ffn_norm", x, self._gain["g_ffn"], layer, s.norm_ffn))
        g = _silu_table()[(ab[: m.hidden] + SAT18[1]).astype(np.intp)]
        dynamic = "silu" in m.dynamic
        f = _sat(_scaled(g * ab[m.hidden :], SCALE[-s.f]), SAT32 if dynamic else SAT8)
        for part, product in zip(self._groups, self._w2, strict=True):
            x += product(layer, *(_dynamic(f[part]) if dynamic else (f[part], 0)))
            _sat(x, SAT32)
        return x


SAT16_COUNT = 32768


def _dynamic(x: np.ndarray) -> tuple[np.ndarray, int]:
    """(int8 values, e): x >> e, with e such that the largest magnitude has 7 bits."""
    largest = min(int(np.maximum.reduce(np.abs(x))), numerics.INT32[1])
    e = largest.bit_length() - 7
    return _sat(_scaled(x, SCALE[-e]), SAT8), e


def _rsqrt(ss: int) -> float:
    """RSQRT's mantissa / 2**(k >> 1) of a sum of squares."""
    ss = max(ss, 1)
    k = ss.bit_length() - 1
    u = (ss >> k - 15 if k >= 15 else ss << 15 - k) - (1 << 15)
    table = tables.TABLES[Func.RSQRT]
    base, slope = _rom()[table.start + (u >> table.frac_bits) + 16 * (k & 1)]
    frac = u & (1 << table.frac_bits) - 1
    return (base + (slope * frac + (1 << table.frac_bits - 1) >> table.frac_bits)) * 0.5 ** (k >> 1)


@functools.cache
def _rom() -> list[tuple[int, int]]:
    return tables.rom()


class Sampler:
    """Token choice on the chip: argmax(logit + temperature * Gumbel noise), xorshift32 noise, one state a token id.

    temperature_q: round(temperature * ln 2 * 2**13); 0 is greedy. The noise runs on at every token, greedy or not.
    """

    POST = 10
    """Shift after the product: (log2 in Q10) * (temperature in Q13) -> 8 fraction bits is 15; 5 are taken before."""

    def __init__(self, vocab: int, temperature_q: int, seed: int) -> None:
        self.temperature_q = temperature_q
        self.state = seed_states(vocab, seed)

    def noise(self) -> np.ndarray:
        """Advance the generator; -log2 of the exponential variates, negated sense of Gumbel noise, Q15 [vocab]."""
        s = self.state
        s = s ^ numerics.wrap32(s << 13)
        s = s ^ ((s & 0xFFFFFFFF) >> 17)
        s = s ^ numerics.wrap32(s << 5)
        self.state = s
        return _log2(GUMBEL_ONE - _log2((s & 0xFFFFFFFF) >> 8))

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Advance the generator; logits + temperature * Gumbel noise [vocab], in units of the logits."""
        noise = clip(rsr(self.noise(), 5), 18)
        return logits - rsr(noise * self.temperature_q, self.POST + 5)

    def choose(self, logits: np.ndarray) -> int:
        """The token id of the greatest score, the first one of equals."""
        return int(np.argmax(self.scores(logits)))


def temperature_q(temperature: float) -> int:
    """The chip's temperature word. Raises ValueError outside 0..10."""
    if not 0 <= temperature <= 10:
        raise ValueError(f"temperature must be in 0..10, not {temperature!r}")
    return round(temperature * math.log(2) * (1 << 13))


def seed_states(vocab: int, seed: int) -> np.ndarray:
    """Initial xorshift32 states [vocab], int32 and never 0, by splitmix64 of seed and token id."""
    mask = (1 << 64) - 1
    states = np.empty(vocab, dtype=np.int64)
    z = seed & mask
    for i in range(vocab):
        z = (z + 0x9E3779B97F4A7C15) & mask
        y = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        y = ((y ^ y >> 27) * 0x94D049BB133111EB) & mask
        states[i] = (y ^ y >> 31) & 0xFFFFFFFF or 1
    return numerics.wrap32(states)
