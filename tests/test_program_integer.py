"""program.integer: bit for bit what `arch.numerics` says of the same operations taken one by one."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checkpoints import SMALL, random_checkpoint, small_config
from vxm_operations import alu, table

from arch import numerics
from arch.isa import Alu, ErUse, Func, Red, Sat, Wfmt
from base.errors import TspError
from compiler.quantize.quantizer import Recipe, quantize
from compiler.quantize.rotate import rotated
from program.arithmetic import ROPE_FRACTION, rope_parts, rope_tables
from program.integer import (
    KEY_SHIFT,
    KEYS,
    NORM_OPERAND_BITS,
    Q_SHIFT,
    RESIDUAL,
    SITES,
    IntegerModel,
    Shifts,
    from_arrays,
    groups,
    to_arrays,
)
from program.reference import EXACT_COLUMNS, IntegerState

TOKENS = [1, 17, 300, 5, 5, 511, 0, 42, 99, 7, 250, 251]


def product(weights, act):
    """Matrix-vector product by MXM steps of 16 columns."""
    act = np.pad(act, (0, -len(act) % 16))
    weights = np.pad(weights, ((0, 0), (0, len(act) - weights.shape[1])))
    steps = range(0, len(act), 16)
    return sum(numerics.dot(weights[:, i : i + 16], act[i : i + 16], Wfmt.INT8) for i in steps)


def requantised(acc, pre, scale, post, sat, er: Any = 0, **fields):
    return alu(acc, scale, func=Func.MUL, pre=pre, post=post, sat=sat, er=er, er_use=ErUse.POST, er_neg=1, **fields)[0]


class Literal:
    """IntegerState.step, operation by operation."""

    def __init__(self, model: IntegerModel):
        self.m, self.s = model, model.shifts
        shape = (model.layers, model.context, model.kv_heads)
        self.k, self.v = (np.zeros((*shape, model.head_size), dtype=np.int64) for _ in range(2))
        self.largest = np.zeros(shape, dtype=np.int64)
        self.position = 0
        if model.first >= 0:
            assert model.first_k is not None and model.first_v is not None and model.first_m is not None
            self.k[:, 0], self.v[:, 0], self.largest[:, 0] = model.first_k, model.first_v, model.first_m

    def step(self, token):
        m, s = self.m, self.s
        x, _ = alu(m.embedding[token], m.emb_scale[token], func=Func.MUL, post=s.emb)
        for layer in range(m.layers):
            x = self.attention(layer, x)
            x = self.feed_forward(layer, x)
        h, e = self.input("final_norm", x, m.g_final, s.norm_f)
        self.position += 1
        return requantised(product(m.classifier, h), s.cls_pre, m.mc, s.cls, Sat.S24, e)

    def input(self, site, x, gain, post):
        if site in self.m.dynamic:
            return self.dynamic(self.normed(x, gain, post, Sat.S16))
        return self.normed(x, gain, post, Sat.S8), 0

    def normed(self, x, gain, post, sat):
        m, s = self.m, self.s
        if RESIDUAL in m.dynamic:
            _, e = alu(numerics.reduce(Red.MAXABS, x, 0), c=NORM_OPERAND_BITS, func=Func.BITLEN, alu=Alu.SUB)
            padded = np.concatenate([x, np.full(16, m.eps)])
            squares, _ = alu(padded, er=e, er_use=ErUse.PRE, func=Func.SQUARE, post=s.norm_sq)
            xs, _ = alu(x, er=e, er_use=ErUse.PRE, sat=Sat.S18)
        else:
            xs, _ = alu(x, pre=s.norm_x, sat=Sat.S18)
            padded = np.pad(xs, (0, -m.dim % 16))
            squares, _ = alu(padded, c=m.eps, func=Func.SQUARE, post=s.norm_sq, alu=Alu.ADD)
        r, k = table(Func.RSQRT, numerics.reduce(Red.SUM, squares, 0))
        xg, _ = alu(xs, gain, func=Func.MUL, post=s.norm_g, sat=Sat.S18)
        return alu(xg, r, er=k, func=Func.MUL, post=post, er_use=ErUse.POST, sat=sat)[0]

    def dynamic(self, x):
        _, e = alu(numerics.reduce(Red.MAXABS, x, 0), c=7, func=Func.BITLEN, alu=Alu.SUB)
        return alu(x, er=e, er_use=ErUse.PRE, sat=Sat.S8)[0], e

    def rotate(self, y):
        m = self.m
        cos, sin = (np.repeat(t[self.position], 2) for t in (m.rope_cos, m.rope_sin))
        sin = np.where(np.arange(len(sin)) % 2, sin, -sin)
        y = y.reshape(-1, m.head_size)
        other, _ = alu(y[:, np.arange(m.head_size) ^ 1], sin, func=Func.MUL, post=ROPE_FRACTION)
        return alu(y, cos, c=other, func=Func.MUL, post=ROPE_FRACTION, alu=Alu.ADD, sat=Sat.S16)[0]

    def attention(self, layer, x):
        m, s, t = self.m, self.s, self.position
        h, e = self.input("att_norm", x, m.g_att[layer], s.norm_att)
        q = requantised(product(m.wq[layer], h), s.qkv_pre, m.mq[layer], s.qk, Sat.S16, e)
        k = requantised(product(m.wk[layer], h), s.qkv_pre, m.mk[layer], s.qk, Sat.S16, e)
        v = requantised(product(m.wv[layer], h), s.qkv_pre, m.mv[layer], s.v, Sat.S8, e)
        q8, _ = alu(self.rotate(q), pre=Q_SHIFT, sat=Sat.S8)
        if t or m.first < 0:
            self.remember(layer, t, k, v)
        o = [self.head(layer, q8[i], i * m.kv_heads // m.heads) for i in range(m.heads)]
        acc = product(m.wo[layer], np.concatenate(o))
        return requantised(acc, s.wo_pre, m.mo[layer], s.wo, Sat.S32, c=x, alu=Alu.ADD)

    def remember(self, layer, t, k, v):
        self.v[layer, t] = v.reshape(self.m.kv_heads, -1)
        k = self.rotate(k)
        if KEYS not in self.m.dynamic:
            offset = self.m.key_offset[layer].reshape(k.shape)
            self.k[layer, t] = alu(k, c=offset, pre=KEY_SHIFT, alu=Alu.SUB, sat=Sat.S8)[0]
            return
        largest = numerics.reduce(Red.MAXABS, k, 1)
        self.largest[layer, t] = largest
        r, e = (z[:, None] for z in table(Func.RECIP, largest))
        self.k[layer, t] = alu(k, r, er=e, func=Func.MUL, post=8, er_use=ErUse.POST, sat=Sat.S8)[0]

    def head(self, layer, q8, kv):
        s, end = self.s, self.position + 1
        scores = self.k[layer, :end, kv] @ q8
        shift = {}
        if KEYS in self.m.dynamic:
            factor = self.largest[layer, :end, kv]
            scores, _ = alu(scores, factor, func=Func.MUL, pre=s.score_pre, post=s.score, sat=Sat.S24)
        else:
            shift = {"pre": s.score}
        greatest, _ = alu(numerics.reduce(Red.MAX, scores, 0), **shift)
        p, _ = alu(scores, c=greatest, func=Func.EXP2, post=7, sat=Sat.S8, **shift)
        r, e = table(Func.RECIP, numerics.reduce(Red.SUM, p, 0))
        o = p @ self.v[layer, :end, kv]
        return alu(o, r, er=e, func=Func.MUL, pre=s.av_pre, post=s.av, er_use=ErUse.POST, sat=Sat.S8)[0]

    def feed_forward(self, layer, x):
        m, s = self.m, self.s
        h, e = self.input("ffn_norm", x, m.g_ffn[layer], s.norm_ffn)
        a = requantised(product(m.w1[layer], h), s.ffn_pre, m.m1[layer], s.gate, Sat.S18, e)
        b = requantised(product(m.w3[layer], h), s.ffn_pre, m.m3[layer], s.up, Sat.S16, e)
        sigmoid, _ = table(Func.SIGMOID, a, pre=s.sigmoid)
        g, _ = alu(a, sigmoid, func=Func.MUL, post=15, sat=Sat.S18)
        dynamic = "silu" in m.dynamic
        f, _ = alu(g, b, func=Func.MUL, post=s.f, sat=Sat.S32 if dynamic else Sat.S8)
        for part in groups(m.hidden, m.group) if dynamic else [slice(m.hidden)]:
            f8, e = self.dynamic(f[part]) if dynamic else (f[part], 0)
            acc = product(m.w2[layer][:, part], f8)
            x = requantised(acc, s.w2_pre, m.m2[layer], s.w2, Sat.S32, e, c=x, alu=Alu.ADD)
        return x


def assert_equal_to_literal(model, tokens):
    """Token by token, and several at a time."""
    fast, together, slow = IntegerState(model), IntegerState(model), Literal(model)
    found = [slow.step(token) for token in tokens]
    np.testing.assert_array_equal([fast.step(token) for token in tokens], found)
    cut = len(tokens) // 3
    parts = [together.advance(tokens[:cut]), together.advance(tokens[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), found)


CONFIGS = {
    "grouped, padded heads": SMALL,
    "own classifier, native heads": small_config(shared_classifier=False, head_dim=16, n_heads=4, n_kv_heads=2),
    "every head its own": small_config(n_kv_heads=6),
    "one kv head, dim of whole vectors": small_config(n_kv_heads=1, dim=32, head_dim=8, norm_eps=0.01),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_step_is_the_chips_operations(config):
    model = quantize(random_checkpoint(config, seed=3), context=32)
    assert_equal_to_literal(model, TOKENS)


@pytest.mark.parametrize("dynamic", [(), *itertools.combinations(SITES, 1), SITES], ids=" ".join)
def test_scales_may_be_static_or_dynamic(dynamic):
    model = quantize(random_checkpoint(seed=3), context=32, dynamic=frozenset(dynamic))
    assert model.dynamic == {*dynamic}
    assert_equal_to_literal(model, TOKENS)


@pytest.mark.parametrize("dynamic", [frozenset(), frozenset({RESIDUAL, "silu"})], ids=["static", "dynamic"])
@pytest.mark.parametrize("group", [5, 8])
def test_a_robust_model_is_the_chips_operations(dynamic, group):
    """Rotated, with a constant first token, small groups and exponents of the norms' operands."""
    checkpoint = rotated(random_checkpoint(seed=3))
    model = quantize(checkpoint, context=32, dynamic=dynamic | {KEYS}, first=1, recipe=Recipe(group=group))
    assert model.first == 1 and model.first_k is not None and model.first_k.any()
    assert model.embedding is not model.classifier
    assert_equal_to_literal(model, TOKENS)


@pytest.mark.parametrize("seed", range(8))
def test_step_saturates_where_the_chip_does(seed):
    """Random weights, scales and shifts: most of what can saturate does."""
    assert_equal_to_literal(random_model(np.random.default_rng(seed)), TOKENS[:8])


def random_model(rng) -> IntegerModel:
    small = {
        "emb": 3,
        "norm_x": 3,
        "norm_sq": 9,
        "norm_g": 14,
        "norm_att": 9,
        "norm_ffn": 9,
        "norm_f": 4,
        "qkv_pre": 1,
        "qk": 9,
        "v": 13,
    }
    small |= {
        "score_pre": 0,
        "score": 14,
        "av_pre": 2,
        "av": 9,
        "wo_pre": 1,
        "wo": 6,
        "ffn_pre": 1,
        "gate": 9,
        "up": 10,
    }
    small |= {"f": 8, "sigmoid": 0, "w2_pre": 1, "w2": 12, "cls_pre": 1, "cls": 16}
    shifts = {name: max(0, n + int(rng.integers(-2, 3))) for name, n in small.items()}
    shifts |= {"norm_sq": small["norm_sq"], "sigmoid": -int(rng.integers(3))}
    dynamic = frozenset(name for name in (*SITES, RESIDUAL) if rng.integers(2))
    if KEYS not in dynamic:
        shifts["score"] = int(rng.choice([-4, -1, 0, 3, 6, 12]))
    shifts = Shifts(**shifts)  # less, and the sum of squares would wrap
    layers, dim, hidden, heads, kv_heads, size, vocab = 2, 40, 200, 4, 2, 8, 512

    def bytes_(*shape):
        return rng.integers(-127, 128, shape).astype(np.int8)

    def scales(*shape):
        return rng.integers(1, 32768, shape).astype(np.int16)

    q, kv = heads * size, kv_heads * size
    cos, sin = (t.astype(np.int16) for t in rope_tables(16, size, 100.0))
    return IntegerModel(
        dim=dim, hidden=hidden, layers=layers, heads=heads, kv_heads=kv_heads, head_size=size, vocab=vocab, context=16,
        shifts=shifts, eps=int(rng.integers(0, 3)), embedding=bytes_(vocab, dim), emb_scale=scales(vocab),
        wq=bytes_(layers, q, dim), wk=bytes_(layers, kv, dim), wv=bytes_(layers, kv, dim), wo=bytes_(layers, dim, q),
        w1=bytes_(layers, hidden, dim), w3=bytes_(layers, hidden, dim), w2=bytes_(layers, dim, hidden),
        classifier=bytes_(vocab, dim), mq=scales(layers, q), mk=scales(layers, kv), mv=scales(layers, kv),
        mo=scales(layers, dim), m1=scales(layers, hidden), m3=scales(layers, hidden), m2=scales(layers, dim),
        mc=scales(vocab), g_att=scales(layers, dim), g_ffn=-scales(layers, dim), g_final=scales(dim),
        rope_cos=cos, rope_sin=sin, dynamic=dynamic, key_offset=rng.integers(-300, 301, (layers, kv)).astype(np.int16),
        group=int(rng.choice([0, 24, 50])),
    )  # fmt: skip


def test_groups_are_the_last_two_and_the_rest():
    assert groups(64) == [slice(0, 64)]
    assert groups(65) == [slice(0, 64), slice(64, 65)]
    assert groups(172) == [slice(0, 64), slice(64, 128), slice(128, 172)]
    assert groups(768) == [slice(0, 640), slice(640, 704), slice(704, 768)]


def test_wide_products_and_long_contexts_are_exact():
    """More columns and positions than float32 sums exactly."""
    config = small_config(dim=16, hidden_dim=EXACT_COLUMNS + 200, n_heads=2, n_kv_heads=1, head_dim=8, n_layers=1)
    model = quantize(random_checkpoint(config), context=32)
    extreme = np.full_like(model.w2, 127)
    assert_equal_to_literal(replace(model, w2=extreme, m2=np.full_like(model.m2, 3)), TOKENS)

    state = IntegerState(model)
    p, v = np.full((1, 2, 3000), 127.0, np.float32), np.full((1, 3000, 8), 127.0, np.float32)
    v[0, 0] = 126
    assert (state._weighted(p, v) == 127 * 127 * 3000 - 127).all()


def test_the_context_ends():
    state = IntegerState(quantize(random_checkpoint(), context=2))
    state.step(1)
    state.step(1)
    with pytest.raises(ValueError, match="position must be below the context of 2, not 2"):
        state.step(1)


def test_rope_tables_follow_from_their_parts_and_are_close():
    cos, sin = rope_tables(100, 16, 10000.0)
    angle = np.arange(100)[:, None] * 10000.0 ** (-np.arange(0, 16, 2) / 16)
    assert abs(cos - np.cos(angle) * 2**14).max() < 3 and abs(sin - np.sin(angle) * 2**14).max() < 3
    (low_cos, low_sin), (high_cos, high_sin) = rope_parts(100, 10000.0 ** (-np.arange(0, 16, 2) / 16))
    for table_, low, high in ((cos, low_cos, high_cos), (sin, low_sin, high_sin)):
        np.testing.assert_array_equal(table_[:16], low)
        np.testing.assert_array_equal(table_[::16], high)


# ---- arrays ----


@pytest.mark.parametrize("shared", [True, False])
def test_arrays_hold_the_model(shared):
    model = quantize(random_checkpoint(small_config(shared_classifier=shared)), context=16,
                     dynamic=frozenset({"silu", "att_norm"}))
    arrays = to_arrays(replace(model, four_bit=frozenset({"w2"})))
    again = from_arrays({name: array.copy() for name, array in arrays.items()})
    assert (again.embedding is again.classifier) == shared and again.four_bit == {"w2"}
    assert again.dynamic == {"silu", "att_norm"}
    assert again.shifts == model.shifts and again.eps == model.eps
    np.testing.assert_array_equal(IntegerState(again).step(3), IntegerState(model).step(3))


def test_damaged_arrays_are_named():
    arrays = to_arrays(quantize(random_checkpoint(), context=16))
    with pytest.raises(TspError, match="array mo is missing"):
        from_arrays({name: array for name, array in arrays.items() if name != "mo"})
    with pytest.raises(TspError, match=r"array w1 must be int8 \(2, 20, 24\), not int16"):
        from_arrays(arrays | {"w1": arrays["w1"].astype(np.int16)})
