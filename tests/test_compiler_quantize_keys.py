"""Static scales of keys: what they promise, and what the offsets of keys are good for."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config

from arch.numerics import SAT_LIMIT, Sat
from compiler.quantize.calibrate import Statistics, calibrate
from compiler.quantize.float_model import FloatModel, rope_tables
from compiler.quantize.keys import key_scales
from compiler.quantize.quantizer import evaluate, quantiser
from program.integer import KEY_SHIFT, KEYS, SCORE_FRACTION

CONTEXT = 48
CONFIG = small_config(seq_len=CONTEXT, rope_theta=10_000.0)
TEXTS = [[1, *np.random.default_rng(seed).integers(3, CONFIG.vocab_size, CONTEXT - 1).tolist()] for seed in range(3)]


def statistics() -> Statistics:
    return calibrate(FloatModel(random_checkpoint(CONFIG), np.float32), TEXTS)


def rotated_keys() -> np.ndarray:
    """Every calibrated key of layer 0, turned to every position [tokens, positions, K, hd / 2, 2]."""
    seen = []
    model = FloatModel(random_checkpoint(CONFIG))
    for text in TEXTS:
        model.sequence_logits(text, lambda site, x: seen.append(x) if site == "layers.0.k_proj" else None)
    keys = np.concatenate(seen).reshape(-1, 1, CONFIG.n_kv_heads, CONFIG.head_dim // 2, 2)
    cos, sin = (table[None, :, None] for table in rope_tables(CONFIG))
    return np.stack([keys[..., 0] * cos - keys[..., 1] * sin, keys[..., 0] * sin + keys[..., 1] * cos], axis=-1)


def test_query_and_key_make_the_score():
    found = key_scales(statistics(), CONFIG, CONTEXT)
    unit = (1 << SCORE_FRACTION) / np.log(2) / np.sqrt(CONFIG.head_dim) * 2.0**found.shift
    np.testing.assert_allclose(found.query * found.key, np.full_like(found.key, unit))


def test_keys_fit_at_every_position_wherever_they_were_seen():
    """16 bits before the offset is subtracted; behind it, most fit 8 bits, and few are clipped by much."""
    found = key_scales(statistics(), CONFIG, CONTEXT)
    scaled = (rotated_keys() * found.key[0][..., None]).reshape(-1, CONFIG.n_kv_heads, CONFIG.head_dim)
    assert np.abs(scaled * 2**KEY_SHIFT).max() <= SAT_LIMIT[Sat.S16]
    less = np.abs(scaled - found.offset[0])
    assert (less > 127.5).mean() < 0.01 and less.max() < 2 * 127


def test_one_vector_more_in_all_keys_costs_nothing():
    """Its pairs hardly turn, so all keys of a head are far from 0; with the offset they are as good as before."""
    checkpoint = random_checkpoint(replace(CONFIG, rope_theta=1e12))
    reference = FloatModel(checkpoint)
    losses = {}
    for dynamic in (frozenset[str](), frozenset({KEYS})):
        model = quantiser(checkpoint, context=CONTEXT, calibration_tokens=TEXTS)(dynamic)
        losses[dynamic] = evaluate(model, reference, *TEXTS).kl
        assert bool(model.key_offset.any()) == (not dynamic)
    assert losses[frozenset()] < 1.5 * losses[frozenset({KEYS})]


def test_a_constant_first_token_needs_dynamic_keys():
    with pytest.raises(ValueError, match="dynamic must have 'keys'"):
        quantiser(random_checkpoint(CONFIG), context=CONTEXT, calibration_tokens=TEXTS, first=1)(frozenset())
