"""compiler.quantize.float_model and compiler.quantize.distance: against plain loops, against itself, and against what
run.c prints."""

import math
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import SHARED_MODELS, SMALL, random_checkpoint, small_config

from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.frontend.load import load_checkpoint
from compiler.frontend.vocabulary import load_tokenizer
from compiler.quantize.distance import kl_top1, log_softmax
from compiler.quantize.float_model import FloatModel, rope_tables, site_names
from program.quality import LEAST_ENTROPY

TOKENS = [1, 17, 300, 5, 5, 511, 0, 42, 99, 7]


# ---- a second implementation, in plain loops ----


def dot(row, x):
    return sum(float(a) * b for a, b in zip(row, x, strict=True))


def matvec(matrix, x):
    return [dot(row, x) for row in matrix]


def rmsnorm(x, weight, eps):
    scale = 1 / math.sqrt(sum(v * v for v in x) / len(x) + eps)
    return [float(w) * (scale * v) for w, v in zip(weight, x, strict=True)]


def rotated(x, pos, head_dim, theta):
    out = list(x)
    for i in range(0, len(x), 2):
        angle = pos * theta ** (-(i % head_dim) / head_dim)
        turn = complex(x[i], x[i + 1]) * complex(math.cos(angle), math.sin(angle))
        out[i], out[i + 1] = turn.real, turn.imag
    return out


def attend(q, keys, values):
    """One head: q [hd], keys and values [positions][hd]."""
    scores = [dot(k, q) / math.sqrt(len(q)) for k in keys]
    weights = [math.exp(s - max(scores)) for s in scores]
    return [sum(w * v[i] for w, v in zip(weights, values, strict=True)) / sum(weights) for i in range(len(q))]


def naive_logits(checkpoint: Checkpoint, tokens: list[int]) -> list[list[float]]:
    c, w = checkpoint.config, checkpoint
    keys, values = ([[] for _ in range(c.n_layers)] for _ in range(2))
    logits = []
    for pos, token in enumerate(tokens):
        x = [float(v) for v in w.tok_emb[token]]
        for layer in range(c.n_layers):
            h = rmsnorm(x, w.att_norm[layer], c.norm_eps)
            q = rotated(matvec(w.wq[layer], h), pos, c.head_dim, c.rope_theta)
            keys[layer].append(rotated(matvec(w.wk[layer], h), pos, c.head_dim, c.rope_theta))
            values[layer].append(matvec(w.wv[layer], h))
            att = []
            for head in range(c.n_heads):
                kv = slice(head // c.group_size * c.head_dim, (head // c.group_size + 1) * c.head_dim)
                own = slice(head * c.head_dim, (head + 1) * c.head_dim)
                att += attend(q[own], [k[kv] for k in keys[layer]], [v[kv] for v in values[layer]])
            x = [a + b for a, b in zip(x, matvec(w.wo[layer], att), strict=True)]
            h = rmsnorm(x, w.ffn_norm[layer], c.norm_eps)
            gate, up = matvec(w.w1[layer], h), matvec(w.w3[layer], h)
            product = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up, strict=True)]
            x = [a + b for a, b in zip(x, matvec(w.w2[layer], product), strict=True)]
        logits.append(matvec(w.classifier, rmsnorm(x, w.final_norm, c.norm_eps)))
    return logits


CONFIGS = {
    "grouped": SMALL,
    "own classifier": small_config(shared_classifier=False),
    "every head its own": small_config(n_kv_heads=6),
    "one kv head, wide heads, other constants": small_config(n_kv_heads=1, head_dim=8, rope_theta=500.0, norm_eps=0.01),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_equals_the_naive_model(config):
    checkpoint = random_checkpoint(config)
    expected = np.array(naive_logits(checkpoint, TOKENS))
    model = FloatModel(checkpoint)
    np.testing.assert_allclose(model.sequence_logits(TOKENS), expected, rtol=1e-10, atol=1e-12)
    stepped = [model.step(token, pos) for pos, token in enumerate(TOKENS)]
    np.testing.assert_allclose(stepped, expected, rtol=1e-10, atol=1e-12)


def test_float32_stays_float32_and_close():
    model = FloatModel(random_checkpoint(), np.float32)
    seen = {}
    logits = model.sequence_logits(TOKENS, lambda site, values: seen.update({site: values}))
    assert all(values.dtype == np.float32 for values in seen.values())
    assert model.step(1, 0).dtype == np.float32
    np.testing.assert_allclose(logits, FloatModel(random_checkpoint()).sequence_logits(TOKENS), atol=1e-4)


def test_observe_sees_every_site_once_in_order_and_changes_nothing():
    checkpoint = random_checkpoint()
    model, seen = FloatModel(checkpoint), []
    logits = model.sequence_logits(TOKENS, lambda site, values: seen.append((site, values.copy())))
    assert [site for site, _ in seen] == site_names(SMALL)
    sites = dict(seen)
    np.testing.assert_array_equal(sites["logits"], logits)
    np.testing.assert_array_equal(sites["embedding"], checkpoint.tok_emb[TOKENS])
    np.testing.assert_array_equal(logits, model.sequence_logits(TOKENS))
    widths = {"q": 24, "k": 12, "v": 12, "att": 24, "gate": 20, "up": 20, "silu": 20, "w2": 24, "x_ffn": 24}
    assert all(sites[f"layers.1.{site}"].shape == (len(TOKENS), width) for site, width in widths.items())
    # each site is what its name says: recompute the residual chain from the parts
    for layer in range(2):
        x, nxt = sites[f"layers.{layer}.x_att"], sites.get(f"layers.{layer + 1}.x_att", sites["x_final"])
        np.testing.assert_allclose(x + sites[f"layers.{layer}.wo"], sites[f"layers.{layer}.x_ffn"], rtol=1e-12)
        np.testing.assert_allclose(sites[f"layers.{layer}.x_ffn"] + sites[f"layers.{layer}.w2"], nxt, rtol=1e-12)
    np.testing.assert_allclose(sites["layers.0.silu"] @ checkpoint.w2[0].T, sites["layers.0.w2"], rtol=1e-9, atol=1e-12)


def test_the_sequence_pass_leaves_the_cache_alone():
    model = FloatModel(random_checkpoint())
    model.step(1, 0)
    model.sequence_logits([9, 9, 9])
    np.testing.assert_allclose(model.step(17, 1), model.sequence_logits([1, 17])[1], atol=1e-12)


def test_large_gates_do_not_overflow():
    checkpoint = random_checkpoint()
    big = replace(checkpoint, w1=checkpoint.w1 * np.float32(1e5))
    assert np.isfinite(FloatModel(big, np.float32).sequence_logits(TOKENS)).all()


def test_generate_greedy_and_sampled():
    model = FloatModel(random_checkpoint())
    greedy = model.generate([1, 5], 8)
    logits = model.sequence_logits([1, 5, *greedy])
    assert greedy == logits[1:-1].argmax(axis=-1).tolist()
    assert model.generate([1, 5], 8, stop={greedy[3]}) == greedy[: greedy.index(greedy[3])]
    sampled = [model.generate([1, 5], 8, temperature=1.0, seed=seed) for seed in (3, 3, 4)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert model.generate([1, 5], 8, temperature=1e-9) == greedy
    assert model.generate([1], 0) == []


@pytest.mark.parametrize("n", [0, 1, 32])
def test_texts_written_together_are_those_written_one_by_one(n):
    model = FloatModel(random_checkpoint())
    texts = [model.generate([1], n, temperature=1.0, seed=seed) for seed in (3, 8, 5)]
    assert model.generate_together(1, n, [3, 8, 5]) == texts
    assert n < 32 or len({tuple(text) for text in texts}) == 3


def test_sampling_follows_the_distribution():
    model = FloatModel(random_checkpoint())
    p = np.exp(log_softmax(model.step(1, 0) / 0.25))
    tokens = [model.generate([1], 1, temperature=0.25, seed=seed)[0] for seed in range(3000)]
    counts = np.bincount(tokens, minlength=512)
    error = (counts - 3000 * p)[p > 0.005] / np.sqrt(3000 * p[p > 0.005])
    assert len(error) > 5 and abs(error).max() < 5


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m: m.step(512, 0), "tokens must lie in 0..511"),
        (lambda m: m.step(-1, 0), "tokens must lie in 0..511"),
        (lambda m: m.step(0, 32), "positions must lie in 0..31"),
        (lambda m: m.step(0, -1), "positions must lie in 0..31"),
        (lambda m: m.sequence_logits([]), "positions must lie in 0..31"),
        (lambda m: m.sequence_logits([1] * 33), "positions must lie in 0..31"),
        (lambda m: m.generate([1, 2], 32), "2 prompt tokens and 32 new ones need 33 positions, the model has 32"),
    ],
)
def test_limits(call, expected):
    with pytest.raises(TspError, match=expected):
        call(FloatModel(random_checkpoint()))


def test_generate_to_the_end_of_the_context():
    assert len(FloatModel(random_checkpoint()).generate([1, 2], 31)) == 31


@pytest.mark.parametrize(("prompt", "temperature"), [([], 0.0), ([1], -1.0)])
def test_generate_wrong_arguments(prompt, temperature):
    with pytest.raises(ValueError, match="prompt must hold a token"):
        FloatModel(random_checkpoint()).generate(prompt, 1, temperature)


def test_rope_tables():
    cos, sin = rope_tables(small_config(head_dim=4, rope_theta=100.0))
    assert cos.shape == sin.shape == (32, 2)
    assert (cos[3, 0], sin[5, 1]) == (pytest.approx(math.cos(3)), pytest.approx(math.sin(0.5)))


# ---- quality ----


def test_quality_of_equal_and_of_known_logits():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    same = kl_top1(logits, logits + 7.0)
    assert same.kl == pytest.approx(0, abs=1e-12) and same.top1 == 1.0 and same.tokens == 2
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]]))
    quality = kl_top1(logits, other)
    assert quality.kl == pytest.approx(0.25 * math.log(2) / 2)
    entropy = (1.5 * math.log(2) - 0.2 * math.log(0.1) - 0.8 * math.log(0.8)) / 2
    assert quality.cross_entropy == pytest.approx(entropy) and quality.ratio == pytest.approx(quality.kl / entropy)
    assert quality.top1 == 0.5 and "top-1 agreement 50.0 % over 2 tokens" in str(quality)


def test_quality_survives_large_logits_and_refuses_other_shapes():
    certain = kl_top1(np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]]))
    assert np.isfinite(certain.kl) and certain.ratio == pytest.approx(certain.kl / LEAST_ENTROPY)
    for a, b in (((2, 3), (2, 4)), ((3,), (3,)), ((0, 3), (0, 3))):
        with pytest.raises(ValueError, match="both logits must have"):
            kl_top1(np.zeros(a), np.zeros(b))


if SHARED_MODELS.is_dir():  # an extra where the project's shared models lie beside the repository
    # llama2.c's own test_all.py expects this of run.c at temperature 0, 200 steps.
    RUN_C_TEXT = """\
Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, \
red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with \
your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she"""
    # run.c -t 0 -i "Zoo" -n 60, from the documentation of ytmytm/llama2.c64
    RUN_C_ZOO = (
        "Zoo was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
        " She wanted to play with it, but she didn't want to play with"
    )

    @pytest.mark.shared
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize(("prompt", "steps", "text"), [("", 200, RUN_C_TEXT), ("Zoo", 60, RUN_C_ZOO)])
    def test_run_c_s_text(prompt, steps, text, dtype):
        model = FloatModel(load_checkpoint(SHARED_MODELS / "stories260K.bin"), dtype)
        tokenizer = load_tokenizer(SHARED_MODELS / "tok512.bin", 512)
        tokens = tokenizer.encode(prompt)
        tokens += model.generate(tokens, steps + 1 - len(tokens), stop=(tokenizer.bos,))
        assert tokenizer.decode(tokens) == text

    @pytest.mark.shared
    def test_stepping_equals_the_sequence_pass_at_full_context():
        model = FloatModel(load_checkpoint(SHARED_MODELS / "stories260K.bin"))
        tokens = [1, *model.generate([1], 511, temperature=1.0, seed=1)]
        stepped = [model.step(token, pos) for pos, token in enumerate(tokens)]
        np.testing.assert_allclose(stepped, model.sequence_logits(tokens), rtol=1e-9, atol=1e-9)
