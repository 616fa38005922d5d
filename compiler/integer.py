"""The integer model: what the chip computes for a token, as whole tensors and without time (docs/numerics.md).

`IntegerModel` is the contract between quantisation, compiler and chip: the compiled program, the cycle model and the
RTL give these logits, bit for bit. Every line is one VXM operation, matrix product or reduction of `hw.numerics`.
Shifts are the same for all layers because the layers share one loop body; what differs by layer is in arrays.
"""

import math
from dataclasses import dataclass

import numpy as np

from hw import numerics, tables
from hw.isa import Func

ROPE_FRACTION = 14
SCORE_FRACTION = 6
LOGIT_FRACTION = 8
GATE_FRACTION = 12
Q_SHIFT = 8
"""q is kept in 16 bits and given to the matrix unit in 8: the static scale of q is 127 * 2**Q_SHIFT / clip."""
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


def requantise(acc: np.ndarray, pre: int, scale: np.ndarray, post: int) -> np.ndarray:
    """REQ before its saturation: ((acc >> pre) * scale) >> post, both rounded, the product of 18 by 18 bits."""
    return rsr(clip(rsr(acc, pre), 18) * scale, post)


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """Shift amounts that are immediates of the program.

    emb: of embedding byte * row scale. norm_x: residual -> 18-bit norm operand. norm_sq: of its square.
    norm_g: of operand * gain. norm_h, norm_f: of gained operand * rsqrt, layers' and final norm (+ exponent).
    qk, v: after the QKV channel scale. score: after the score's K scale. av_pre, av: attention output.
    wo, gate, up, w2, cls: after their channel scale. f: of gate * up. *_pre: accumulator -> 18 bits.
    """

    emb: int
    norm_x: int
    norm_sq: int
    norm_g: int
    norm_h: int
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
    int16 gains of the norms: g_att, g_ffn [L, D], g_final [D]. eps: added to every square (int).
    rope_cos, rope_sin [context, hd/2] int16 Q2.14.
    four_bit: names of matrices whose weights lie in -7..7 and are streamed as int4.
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


def rope_tables(context: int, head_size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin) [context, head_size / 2], Q2.14, as the chip has them: rotations by 16 * high and by low, multiplied.

    The chip keeps 16 low and context/16 high rotations and multiplies them once a token, so that the table of a long
    context costs no SRAM: cos = RSR(ch*cl, 14) - RSR(sh*sl, 14), sin = RSR(sh*cl, 14) + RSR(ch*sl, 14).
    """
    rate = theta ** (-np.arange(0, head_size, 2) / head_size)
    low, high = rope_parts(context, rate)
    (cl, sl), (ch, sh) = low, high
    position = np.arange(context)
    cl, sl, ch, sh = cl[position % 16], sl[position % 16], ch[position // 16], sh[position // 16]
    one = ROPE_FRACTION
    return rsr(ch * cl, one) - rsr(sh * sl, one), rsr(sh * cl, one) + rsr(ch * sl, one)


def rope_parts(context: int, rate: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((cos, sin) of 0..15, (cos, sin) of 0, 16, 32..) as int64 Q2.14 arrays [positions, pairs]."""

    def table(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = positions[:, None] * rate
        one = 1 << ROPE_FRACTION
        return np.rint(np.cos(angle) * one).astype(np.int64), np.rint(np.sin(angle) * one).astype(np.int64)

    return table(np.arange(16)), table(16 * np.arange(math.ceil(context / 16)))


def _rsqrt(ss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mantissa Q15, k >> 1) of the reciprocal square root of a sum of squares [1]."""
    k, _ = numerics._mantissa(ss)
    product, base = numerics._table(Func.RSQRT, ss)
    return rsr(product, tables.TABLES[Func.RSQRT].frac_bits) + base, k >> 1


def _recip(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mantissa Q15, k) of 1 / a."""
    k, _ = numerics._mantissa(a)
    product, base = numerics._table(Func.RECIP, a)
    return rsr(product, tables.TABLES[Func.RECIP].frac_bits) + base, k


def _sigmoid(a: np.ndarray) -> np.ndarray:
    product, base = numerics._table(Func.SIGMOID, a)
    return rsr(product, tables.TABLES[Func.SIGMOID].frac_bits) + base


def _log2(a: np.ndarray) -> np.ndarray:
    product, base = numerics._table(Func.LOG2, a)
    return rsr(product, tables.TABLES[Func.LOG2].frac_bits) + base


class IntegerState:
    """One sequence on an IntegerModel: the K/V cache and the next position."""

    def __init__(self, model: IntegerModel) -> None:
        self.model = model
        shape = (model.layers, model.kv_heads, model.context, model.head_size)
        self.k = np.zeros(shape, dtype=np.float32)
        self.k_scale = np.zeros(shape[:3], dtype=np.int64)
        self.v = np.zeros(shape, dtype=np.float32)
        self.position = 0
        self._matrices = {
            name: np.ascontiguousarray(getattr(model, name).astype(np.float32))
            for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "classifier")
        }

    def _product(self, name: str, layer: int | None, act: np.ndarray) -> np.ndarray:
        """Exact int8 matrix-vector product: float32 holds every integer below 2**24, larger sums take float64."""
        weights = self._matrices[name] if layer is None else self._matrices[name][layer]
        if weights.shape[1] * 127 * 127 < 1 << 24:
            return (weights @ act.astype(np.float32)).astype(np.int64)
        halves = [weights[:, i : i + 1024] @ act[i : i + 1024].astype(np.float32) for i in range(0, len(act), 1024)]
        return sum(half.astype(np.int64) for half in halves)

    def _normed(self, x: np.ndarray, gain: np.ndarray, post: int, bits: int) -> np.ndarray:
        s, m = self.model.shifts, self.model
        xs = clip(rsr(x, s.norm_x), 18)
        ss = (rsr(xs * xs, s.norm_sq) + m.eps).sum()
        ss = ss + m.eps * (-m.dim % 16)
        r, k = _rsqrt(np.array([ss]))
        xg = clip(rsr(xs * gain, s.norm_g), 18)
        return clip(rsr(xg * r, int(post + k[0])), bits)

    def step(self, token: int) -> np.ndarray:
        """Logits [vocab] (LOGIT_FRACTION fraction bits) after `token` at the present position, which then advances."""
        m, s = self.model, self.model.shifts
        if self.position >= m.context:
            raise ValueError(f"position must be below the context of {m.context}, not {self.position}")
        x = clip(rsr(m.embedding[token].astype(np.int64) * m.emb_scale[token], s.emb), 32)
        for layer in range(m.layers):
            x = self._attention(layer, x)
            x = self._feed_forward(layer, x)
        h = self._normed(x, m.g_final, s.norm_f, 16)
        e = int(numerics.bit_length(np.abs(h).max())) - 7
        acc = self._product("classifier", None, clip(rsr(h, e), 8))
        self.position += 1
        return clip(requantise(acc, s.cls_pre, m.mc, max(s.cls - e, 0)), 24)

    def _attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        m, s, t = self.model, self.model.shifts, self.position
        h = self._normed(x, m.g_att[layer], s.norm_h, 8)
        q = clip(requantise(self._product("wq", layer, h), s.qkv_pre, m.mq[layer], s.qk), 16)
        k = clip(requantise(self._product("wk", layer, h), s.qkv_pre, m.mk[layer], s.qk), 16)
        v = clip(requantise(self._product("wv", layer, h), s.qkv_pre, m.mv[layer], s.v), 8)
        q = clip(rsr(self._rotate(q), Q_SHIFT), 8).reshape(m.kv_heads, -1, m.head_size)
        k = self._rotate(k).reshape(m.kv_heads, m.head_size)
        largest = np.abs(k).max(1)
        r, e = _recip(largest)
        self.k[layer, :, t] = clip(rsr(k * r[:, None], (8 + e)[:, None]), 8)
        self.k_scale[layer, :, t] = largest
        self.v[layer, :, t] = v.reshape(m.kv_heads, m.head_size)
        scores = q.astype(np.float32) @ self.k[layer, :, : t + 1].transpose(0, 2, 1)
        scores = clip(rsr(scores.astype(np.int64), s.score_pre), 18) * self.k_scale[layer, :, None, : t + 1]
        scores = clip(rsr(scores, s.score), 24)
        d = scores - scores.max(-1, keepdims=True)
        p = numerics._ROM[d & 63, 0]
        p = np.minimum(numerics.shift_right(p, np.minimum(7 - (d >> SCORE_FRACTION), 47), 1), 127)
        r, e = _recip(p.sum(-1))
        o = self._weighted(p, self.v[layer, :, : t + 1])
        o = clip(rsr(clip(rsr(o, s.av_pre), 18) * r[..., None], (s.av + e)[..., None]), 8)
        acc = self._product("wo", layer, o.reshape(-1))
        return clip(x + clip(requantise(acc, s.wo_pre, m.mo[layer], s.wo), 32), 32)

    def _weighted(self, p: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Sum over positions of p [.., T] * v [.., T, hd], exact like `_product`."""
        parts = range(0, p.shape[-1], 1024)
        return sum((p[..., i : i + 1024].astype(np.float32) @ v[:, i : i + 1024]).astype(np.int64) for i in parts)

    def _rotate(self, y: np.ndarray) -> np.ndarray:
        """RoPE of int16 [n * head_size] in interleaved pairs; each product is rounded, the sum saturates to 16 bits."""
        m = self.model
        cos = np.repeat(m.rope_cos[self.position], 2)
        sin = np.repeat(m.rope_sin[self.position], 2)
        sin[0::2] *= -1
        y = y.reshape(-1, m.head_size)
        swapped = y.reshape(-1, m.head_size // 2, 2)[..., ::-1].reshape(y.shape)
        return clip(rsr(y * cos, ROPE_FRACTION) + rsr(swapped * sin, ROPE_FRACTION), 16).reshape(-1)

    def _feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        m, s = self.model, self.model.shifts
        h = self._normed(x, m.g_ffn[layer], s.norm_h, 8)
        a = clip(requantise(self._product("w1", layer, h), s.ffn_pre, m.m1[layer], s.gate), 18)
        b = clip(requantise(self._product("w3", layer, h), s.ffn_pre, m.m3[layer], s.up), 16)
        g = clip(rsr(a * _sigmoid(a), 15), 18)
        f = clip(rsr(g * b, s.f), 32)
        e = int(numerics.bit_length(np.abs(f).max())) - 7
        acc = self._product("w2", layer, clip(rsr(f, e), 8))
        return clip(x + clip(requantise(acc, s.w2_pre, m.m2[layer], max(s.w2 - e, 0)), 32), 32)


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

    def choose(self, logits: np.ndarray) -> int:
        """The token id, the first one of equals."""
        noise = clip(rsr(self.noise(), 5), 18)
        return int(np.argmax(logits - rsr(noise * self.temperature_q, self.POST + 5)))


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
