"""The integer reference: an `IntegerModel` computed bit for bit, one token or a whole text at once. It has no time.

It computes with whole numbers in floating point. That is exact, because products of 18 by 18 bits fit the mantissa of
float64, and the sums of a matrix product fit that of float32. It is several times faster than numpy's integers.
tests/test_program_integer.py compares it, bit for bit, with single operations of `arch.numerics.vxm`.
"""

import functools
from collections.abc import Sequence

import numpy as np

from arch import numerics, tables
from arch.isa import Func

from .arithmetic import ROPE_FRACTION, clip, interpolate, rsr
from .int8_sums import EXACT_COLUMNS, int8_sums
from .integer import (
    GATE_FRACTION,
    KEY_SHIFT,
    KEYS,
    NORM_OPERAND_BITS,
    Q_SHIFT,
    SCORE_FRACTION,
    IntegerModel,
    greatest_sum,
    groups,
)

HALF = np.array([0.5])
EXP_RANGE = 1024
"""Scores that are this far below the largest, in units of 1 / 64, have weight 0."""
EXP_LAST = np.array([EXP_RANGE - 1.0])
MOST_ROWS = 128
"""Most tokens that are computed at once."""
SAT16_COUNT = 32768


Range = tuple[np.ndarray, np.ndarray]
"""Least and greatest value. They are arrays, because numpy converts Python numbers slowly."""


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


def _reciprocals(count: int) -> np.ndarray:
    """RECIP's mantissa / 2**exponent for 0..count-1."""
    a = np.arange(count)
    k, _ = numerics._mantissa(a)
    return interpolate(Func.RECIP, a) * 0.5**k


@functools.cache
def _exp_table() -> np.ndarray:
    """EXP2's 0..127 for score differences 0, -1, .. 1 - EXP_RANGE."""
    d = -np.arange(EXP_RANGE)
    p = numerics.shift_right(numerics._ROM[d & 63, 0], 7 - (d >> SCORE_FRACTION), 1)
    return np.minimum(p, 127).astype(np.float32)


@functools.cache
def _silu_table(fraction: int) -> np.ndarray:
    """RSR(a * SIGMOID(a), 15) for all 18-bit a of so many fraction bits, a = 0 at the middle."""
    a = np.arange(-131071, 131072)
    return clip(rsr(a * interpolate(Func.SIGMOID, a << GATE_FRACTION - fraction), 15), 18).astype(np.float32)


def exponents(largest: np.ndarray, bits: int) -> list[int]:
    """Right shifts that bring the greatest magnitudes to `bits` bits. A negative shift is to the left."""
    return [min(int(value), numerics.INT32[1]).bit_length() - bits for value in largest]


def _powers(shifts: Sequence[int]) -> np.ndarray:
    """2 ** shift of every row, as a factor of [rows, n]."""
    return SCALE[shifts[0]] if len(shifts) == 1 else np.ldexp(1.0, np.asarray(shifts))[:, None]


def _dynamic(x: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(int8 values, e of each row): x >> e, with e such that a row's largest magnitude has 7 bits."""
    e = exponents(np.maximum.reduce(np.abs(x), axis=1), 7)
    return _sat(_scaled(x, _powers([-n for n in e])), SAT8), e


class _Product:
    """A product of rows with a matrix and the requantisation of its sums: REQ with saturation, for every layer."""

    def __init__(self, weights: list[np.ndarray], scales: list[np.ndarray], pre: int, posts: list[int],
                 bits: list[int], columns: slice = slice(None)):
        """Matrices [L, out, in] that meet the same activation (some columns of them), with their channel scales, post
        shifts and widths."""
        self.weights = [w[:, :, columns] for w in weights]
        factors = [m * 0.5**post for m, post in zip(scales, posts, strict=True)]
        self.factors = np.concatenate(factors, axis=1)
        rows = [w.shape[1] for w in weights]
        low, high = (np.repeat([SAT[b][side][0] for b in bits], rows) for side in (0, 1))
        self.limits = low, high
        self.pre = pre
        self.posts = np.repeat(posts, rows)
        self.least_post = min(posts)
        bound = max(greatest_sum(layer) for w in self.weights for layer in w) * 127
        self.saturates = bool((bound >> pre) + 1 > SAT18[1])

    def __call__(self, layer: int, act: np.ndarray, e: Sequence[int] = ()) -> np.ndarray:
        """Requantised sums [rows, out] of `act` [rows, in]; e: what each row's post shifts are less, down to 0."""
        return self.requantised(layer, self._sums(layer, act), e)

    def requantised(self, layer: int, acc: np.ndarray, e: Sequence[int] = ()) -> np.ndarray:
        """REQ of sums [rows, out]."""
        if self.pre:
            acc = _scaled(acc, SCALE[-self.pre])
        if self.saturates:
            acc = acc.clip(*SAT18)
        y = acc * self.factors[layer]
        if e:
            y *= _powers(e) if max(e) <= self.least_post else 2.0 ** np.minimum(np.asarray(e)[:, None], self.posts)
        y += HALF
        np.floor(y, out=y)
        return _sat(y, self.limits)

    def _sums(self, layer: int, act: np.ndarray) -> np.ndarray:
        act = act.astype(np.int8)
        sums = [int8_sums(w[layer], act) for w in self.weights]
        return sums[0] if len(sums) == 1 else np.concatenate(sums, axis=1)


class Prepared:
    """The shared part of all sequences on an IntegerModel: its products with their factors, and tables."""

    def __init__(self, model: IntegerModel) -> None:
        self.model = m = model
        s = m.shifts
        self.qkv = _Product([m.wq, m.wk, m.wv], [m.mq, m.mk, m.mv], s.qkv_pre, [s.qk, s.qk, s.v], [16, 16, 8])
        self.wo = _Product([m.wo], [m.mo], s.wo_pre, [s.wo], [32])
        self.gate_up = _Product([m.w1, m.w3], [m.m1, m.m3], s.ffn_pre, [s.gate, s.up], [18, 16])
        self.groups = groups(m.hidden, m.group) if "silu" in m.dynamic else [slice(0, m.hidden)]
        self.w2 = [_Product([m.w2], [m.m2], s.w2_pre, [s.w2], [32], part) for part in self.groups]
        for product in self.w2:
            product.saturates = any(other.saturates for other in self.w2)
        self.classifier = _Product([m.classifier[None]], [m.mc[None]], s.cls_pre, [s.cls], [24])
        self.gain = {name: getattr(m, name) * 0.5**s.norm_g for name in ("g_att", "g_ffn", "g_final")}
        cos, sin = (table * 0.5**ROPE_FRACTION for table in (m.rope_cos, m.rope_sin))
        self.cos = np.repeat(cos, 2, axis=1)
        self.sin = np.stack([-sin, sin], axis=2).reshape(self.cos.shape)
        self.key_offset = m.key_offset.reshape(m.layers, m.kv_heads, m.head_size).astype(np.float64)
        self.recip_k = _reciprocals(SAT16_COUNT) * 0.5**8
        self.recip_z = _reciprocals(127 * m.context + 1) * 0.5**s.av
        self.score_saturates = m.head_size * 127 * 127 >> s.score_pre >= 131071
        self.av_saturates = 127 * 127 * m.context >> s.av_pre >= 131071


class IntegerState:
    """One sequence on an IntegerModel: the K/V cache and the next position.

    The entries of a constant first token are there from the beginning.

    k [L, K, hd, context], v [L, K, context, hd]: whole numbers as float32.
    k_factor [L, K, 1, context]: the scale of each key.
    """

    def __init__(self, model: IntegerModel | Prepared) -> None:
        self._p = model if isinstance(model, Prepared) else Prepared(model)
        self.model = m = self._p.model
        self.position = 0
        self.k = np.zeros((m.layers, m.kv_heads, m.head_size, m.context), dtype=np.float32)
        self.k_factor = np.zeros((m.layers, m.kv_heads, 1, m.context))
        self.v = np.zeros((m.layers, m.kv_heads, m.context, m.head_size), dtype=np.float32)
        if m.first >= 0:
            self.k[..., 0], self.k_factor[:, :, 0, 0] = m.first_k, m.first_m * SCALE[-m.shifts.score]
            self.v[:, :, 0] = m.first_v

    def step(self, token: int) -> np.ndarray:
        """Run `token` at the current position. Returns logits [vocab] with LOGIT_FRACTION fraction bits."""
        return self.advance([token])[0]

    def advance(self, tokens: Sequence[int], *, last: bool = False) -> np.ndarray:
        """Logits int64 [len(tokens), vocab] after each of some tokens at the next positions: those of `step`, which
        reads the weights once for each of them. last: only those of the last token, [1, vocab]."""
        m, s, end = self.model, self.model.shifts, self.position + len(tokens)
        if end > m.context:
            raise ValueError(f"position must be below the context of {m.context}, not {end - 1}")
        ids = np.asarray(tokens)
        scale = m.emb_scale[ids] * SCALE[-s.emb]
        x = _scaled(m.embedding[ids].astype(np.float64), scale[:, None])
        for layer in range(m.layers):
            x = self._attention(layer, x)
            x = self._feed_forward(layer, x)
        x = x[-1:] if last else x
        logits = self._p.classifier(0, *self._input("final_norm", x, self._p.gain["g_final"][None], 0, s.norm_f))
        self.position = end
        return logits.astype(np.int64)

    def _input(self, site: str, x: np.ndarray, gain: np.ndarray, layer: int,
               post: int) -> tuple[np.ndarray, Sequence[int]]:
        """A norm's output as the int8 input of a matrix, and its exponents; () if its scale is static."""
        if site in self.model.dynamic:
            return _dynamic(self._normed(x, gain, layer, post, SAT16))
        return self._normed(x, gain, layer, post, SAT8), ()

    def _normed(self, x: np.ndarray, gain: np.ndarray, layer: int, post: int, limits: Range) -> np.ndarray:
        s, m = self.model.shifts, self.model
        lanes = m.lanes
        if "residual" in m.dynamic:
            factor = _powers([-e for e in exponents(np.maximum.reduce(np.abs(x), axis=1), NORM_OPERAND_BITS)])
            xs = _sat(_scaled(x, factor), SAT18)
            eps = np.broadcast_to(_scaled(_sat(_scaled(m.eps * factor, SCALE[0]), SAT18) ** 2, SCALE[-s.norm_sq]),
                                  (len(x), 1))[:, 0] * lanes
        else:
            xs = _sat(_scaled(x, SCALE[-s.norm_x]), SAT18)
            eps = np.full(len(x), m.eps * (-(-m.dim // lanes) * lanes))
        sums = np.add.reduce(_scaled(xs * xs, SCALE[-s.norm_sq]), axis=1) + eps
        r = np.array([[_rsqrt(int(total))] for total in sums]) * 0.5**post
        xg = _sat(_scaled(xs, gain[layer]), SAT18)
        return _sat(_scaled(xg, r), limits)

    def _attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        m, s, start, rows = self.model, self.model.shifts, self.position, len(x)
        end = start + rows
        h = self._input("att_norm", x, self._p.gain["g_att"], layer, s.norm_att)
        qkv = self._p.qkv(layer, *h).reshape(rows, -1, m.head_size)
        rotated = self._rotate(qkv[:, : m.heads + m.kv_heads])
        self._remember(layer, rotated[:, m.heads :], qkv[:, m.heads + m.kv_heads :])
        q = _sat(_scaled(rotated[:, : m.heads], SCALE[-Q_SHIFT]), SAT8).astype(np.float32)
        q = q.reshape(rows, m.kv_heads, -1, m.head_size).transpose(1, 2, 0, 3)
        p = self._weights(q, layer, end)
        z = np.add.reduce(p, axis=-1, dtype=np.float64)
        o = self._weighted(p, self.v[layer, :, :end])
        if s.av_pre:
            o = _scaled(o, SCALE[-s.av_pre])
        if self._p.av_saturates:
            _sat(o, SAT18)
        o = _sat(_scaled(o, self._p.recip_z[z.astype(np.intp), None]), SAT8)
        o = o.reshape(m.kv_heads, -1, rows, m.head_size).transpose(2, 0, 1, 3)
        x += self._p.wo(layer, o.reshape(rows, -1))
        return _sat(x, SAT32)

    def _remember(self, layer: int, k: np.ndarray, v: np.ndarray) -> None:
        """Store keys and values [rows, K, hd] of the current positions. A constant first token keeps its own."""
        own = int(self.position == 0 and self.model.first >= 0)
        here = slice(self.position + own, self.position + len(k))
        self.v[layer, :, here] = v[own:].transpose(1, 0, 2)
        if KEYS not in self.model.dynamic:
            k8 = _sat(_scaled(k, SCALE[-KEY_SHIFT]) - self._p.key_offset[layer], SAT8)
            self.k[layer, :, :, here] = k8.transpose(1, 2, 0)
            return
        largest = np.maximum.reduce(np.abs(k), axis=2)[own:]
        k8 = _sat(_scaled(k[own:], self._p.recip_k[largest.astype(np.intp), None]), SAT8)
        self.k[layer, :, :, here] = k8.transpose(1, 2, 0)
        self.k_factor[layer, :, 0, here] = largest.T * SCALE[-self.model.shifts.score]

    def _weights(self, q: np.ndarray, layer: int, end: int) -> np.ndarray:
        """exp2 of (scores - their maximum), 0..127, float32 [K, query heads of a K/V head * rows, positions].

        q: [K, query heads of a K/V head, rows, hd].
        """
        s, m, rows = self.model.shifts, self.model, q.shape[2]
        scores = np.matmul(q.reshape(m.kv_heads, -1, m.head_size), self.k[layer, :, :, :end])
        if KEYS not in m.dynamic:
            scores = _scaled(scores.astype(np.float64), SCALE[-s.score])
        else:
            if s.score_pre:
                scores = _scaled(scores, SCALE[-s.score_pre])
            if self._p.score_saturates:
                _sat(scores, SAT18)
            scores = _sat(_scaled(scores, self.k_factor[layer, :, :, :end]), SAT24)
        if rows > 1:
            later = np.arange(end) > np.arange(end - rows, end)[:, None]
            scores.reshape(m.kv_heads, -1, rows, end)[:, :, later] = -np.inf
        below = np.maximum.reduce(scores, axis=-1, keepdims=True) - scores
        np.minimum(below, EXP_LAST, out=below)
        return _exp_table()[below.astype(np.intp)]

    def _weighted(self, p: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Sum over positions of p [.., T] * v [.., T, hd]. float32 sums EXACT_COLUMNS positions exactly."""
        if p.shape[-1] <= EXACT_COLUMNS:
            return np.matmul(p, v)
        parts = [slice(i, i + EXACT_COLUMNS) for i in range(0, p.shape[-1], EXACT_COLUMNS)]
        sums = [np.matmul(p[..., part], v[:, part]) for part in parts]
        return np.asarray(np.sum(sums, axis=0, dtype=np.float64))

    def _rotate(self, y: np.ndarray) -> np.ndarray:
        """RoPE of int16 [rows, n, head_size] in interleaved pairs. Each product is rounded, and the sum saturates to 16
        bits."""
        here = slice(self.position, self.position + len(y))
        swapped = y.reshape(*y.shape[:2], -1, 2)[..., ::-1].reshape(y.shape)
        turned = _scaled(y, self._p.cos[here, None])
        turned += _scaled(swapped, self._p.sin[here, None])
        return _sat(turned, SAT16)

    def _feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        m, s = self.model, self.model.shifts
        ab = self._p.gate_up(layer, *self._input("ffn_norm", x, self._p.gain["g_ffn"], layer, s.norm_ffn))
        g = _silu_table(GATE_FRACTION + s.sigmoid)[(ab[:, : m.hidden] + SAT18[1]).astype(np.intp)]
        dynamic = "silu" in m.dynamic
        f = _sat(_scaled(g * ab[:, m.hidden :], SCALE[-s.f]), SAT32 if dynamic else SAT8)
        if dynamic and m.group and m.hidden % m.group == 0:
            return _added(x, self._group_products(layer, f))
        for part, product in zip(self._p.groups, self._p.w2, strict=True):
            x += product(layer, *(_dynamic(f[:, part]) if dynamic else (f[:, part], ())))
            _sat(x, SAT32)
        return x

    def _group_products(self, layer: int, f: np.ndarray) -> np.ndarray:
        """W2 times each of the equal groups of f, requantised, [rows, groups, out]."""
        m, rows = self.model, len(f)
        f8, e = _dynamic(f.reshape(-1, m.group))
        f8 = f8.astype(np.int8).reshape(rows, -1, m.group)
        sums = np.stack([int8_sums(m.w2[layer][:, part], f8[:, n]) for n, part in enumerate(self._p.groups)], axis=1)
        return self._p.w2[0].requantised(layer, sums.reshape(-1, m.dim), e).reshape(rows, -1, m.dim)


def _added(x: np.ndarray, addends: np.ndarray) -> np.ndarray:
    """x [rows, out] plus each of addends [rows, n, out], one after the other. Each sum saturates to 32 bits."""
    if np.abs(x).max() + np.abs(addends).max() * addends.shape[1] <= SAT32[1]:
        x += addends.sum(1)
        return x
    for n in range(addends.shape[1]):
        x += addends[:, n]
        _sat(x, SAT32)
    return x


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
