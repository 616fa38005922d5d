"""The rules that scales follow, each by what it promises; golden text would only tell that a scale has changed."""

import math
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config

from arch.isa import Sat
from arch.numerics import INT32, SAT_LIMIT
from compiler.quantize.calibrate import CALIBRATION_SEEDS, calibrate, sample_sequences
from compiler.quantize.float_model import FINAL_NORM, X_FINAL, FloatModel
from compiler.quantize.quantizer import MARGIN, Recipe, _Quantiser, smooth
from program.integer import GATE_FRACTION, SITES, IntegerModel

CONTEXT = 32
NARROW = {"head_dim": 8, "n_heads": 4, "n_kv_heads": 2}
RNG = np.random.default_rng(3)


def quantised(four_bit: frozenset[str] = frozenset(), dynamic: frozenset[str] = frozenset(),
              even: str = "") -> tuple[_Quantiser, IntegerModel]:
    """A quantiser that has worked, and its model. even: a matrix of weights of one size: they sum up most."""
    checkpoint = random_checkpoint(small_config(**NARROW), seed=4)
    if even:
        weights = getattr(checkpoint, even)
        checkpoint = replace(checkpoint, **{even: np.where(weights < 0, np.float32(-0.1), np.float32(0.1))})
    model = FloatModel(checkpoint, np.float32)
    statistics = calibrate(model, sample_sequences(model, CONTEXT, CALIBRATION_SEEDS), four_bit)
    quantiser = _Quantiser(checkpoint, CONTEXT, statistics, four_bit, dynamic, Recipe(), 8)
    return quantiser, quantiser.build()


@pytest.mark.parametrize("limit", [127, 14_000.0])
@pytest.mark.parametrize("clip", [1.0, 0.8])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.75, 1.0])
def test_smoothing(share: float, clip: float, limit: float):
    """The largest activation over its scale is limit / clip; share 1 makes all channels alike, share 0 their scales."""
    act, weights = RNG.uniform(0.1, 50, 16), RNG.uniform(0.1, 5, 16)
    scale = smooth(act, weights, share, clip, limit)
    assert (act / scale).max() == pytest.approx(limit / clip)
    assert np.ptp(np.log(scale) - share * np.log(act) + (share > 0) * (1 - share) * np.log(weights)) < 1e-9


def test_the_residual_has_twenty_bits():
    """Of the largest that was calibrated, sign included, so that twelve are left: by the rows of the embedding."""
    quantiser, model = quantised()
    rows = model.embedding.astype(float) * model.emb_scale[:, None] * 0.5**model.shifts.emb
    fraction = math.log2(np.abs(rows).max() / np.abs(quantiser.weights["tok_emb"]).max())
    assert fraction == pytest.approx(quantiser.fraction, abs=0.01)
    largest = max(float(quantiser.peak[site].max()) for site in ("x_att", "x_ffn"))
    largest = max(largest, float(quantiser.statistics.peaks[X_FINAL].max()))
    assert 1 << 18 < largest * 2.0**fraction <= 1.01 * (1 << 19)


def test_operands_of_a_norm_fit_the_multiplier_and_its_sum_an_int32():
    quantiser, model = quantised()
    s, unit = model.shifts, 2.0 ** (quantiser.fraction - model.shifts.norm_x)
    peaks = {"g_att": quantiser.peak["x_att"], "g_ffn": quantiser.peak["x_ffn"],
             "g_final": quantiser.statistics.peaks[X_FINAL]}
    for peak in peaks.values():
        assert 2 * peak.max() * unit <= SAT_LIMIT[Sat.S18] + 1  # twice what was calibrated
    gained = max(float((peak * np.abs(getattr(model, name)).astype(float)).max()) for name, peak in peaks.items())
    assert 32_000 < gained * unit * 0.5**s.norm_g <= 65_536
    padded = -(-model.dim // model.lanes) * model.lanes
    assert padded * ((1 << 34) * 0.5**s.norm_sq + model.eps) <= INT32[1] * 1.01


@pytest.mark.parametrize("site", ["att_norm", "ffn_norm", "final_norm"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_largest_output_of_a_norm_fills_its_type(site: str, dynamic: bool):
    """8 bits with a static scale; 16 bits, less a bit and MARGIN, before an exponent."""
    quantiser, _ = quantised(dynamic=frozenset({site}) if dynamic else frozenset())
    if site == "final_norm":
        largest = quantiser.statistics.peaks[FINAL_NORM].max() / quantiser.final_scale
    else:
        scale = quantiser.att_scale if site == "att_norm" else quantiser.ffn_scale
        largest = (quantiser.peak[site] / scale).max()
    assert largest == pytest.approx(32767 / 2 / MARGIN if dynamic else 127)


@pytest.mark.parametrize(("matrices", "scale"), [({"wq"}, "att_scale"), ({"w1"}, "ffn_scale"), ({"w3"}, "ffn_scale")])
def test_nothing_is_smoothed_before_matrices_of_four_bits(matrices: set[str], scale: str):
    assert np.ptp(getattr(quantised()[0], scale), axis=-1).min() > 0
    assert np.ptp(getattr(quantised(four_bit=frozenset(matrices))[0], scale), axis=-1).max() < 1e-12


def test_pairs_of_q_and_k_are_balanced():
    """A pair's largest q and largest k stand in one ratio in all pairs of a head: neither loses bits to the other."""
    quantiser, _ = quantised()
    q_gain, k_gain, _ = quantiser._score_scales()
    assert 1.1 <= MARGIN <= 1.25
    c = quantiser.config
    pairs = c.n_layers, c.n_kv_heads, -1, c.head_dim // 2, 2
    q = q_gain.reshape(pairs)[:, :, 0, :, 0] * quantiser._pair_peak("q", "q_proj")
    k = k_gain.reshape(pairs)[:, :, 0, :, 0] * quantiser._pair_peak("k", "k_proj")
    assert np.ptp(np.log(q / k), axis=-1).max() < 1e-9
    assert q.max(-1) == pytest.approx(np.full(q.shape[:2], 127 * 256.0))
    assert 32767 / MARGIN / 2 <= k.max() <= 32767 / MARGIN


@pytest.mark.parametrize("factor", np.geomspace(1, 2, 9))
def test_a_key_has_sixteen_bits_with_a_margin(factor: float):
    """Wherever its range lies between two powers of two."""
    quantiser, _ = quantised()
    quantiser.peak["k_proj"] = quantiser.peak["k_proj"] * factor
    _, k_gain, _ = quantiser._score_scales()
    largest = float((k_gain.reshape(quantiser.peak["k_proj"].shape) * quantiser.peak["k_proj"]).max()) * MARGIN
    assert 32767 / 2.1 < largest <= 32767


@pytest.mark.parametrize("dynamic", [(), ("silu",)])
def test_up_has_sixteen_bits_with_a_margin(dynamic: tuple[str, ...]):
    quantiser, model = quantised(dynamic=frozenset(dynamic))
    gain, f = quantiser._up_gain(GATE_FRACTION)
    largest = (quantiser.peak["up"] * gain).max() * MARGIN
    assert f == model.shifts.f
    assert largest == pytest.approx(32767) if dynamic else 16_383 < largest <= 32_768


@pytest.mark.parametrize("factor", [1, 30, 300])
def test_a_gate_has_room_in_eighteen_bits(factor: int):
    """With all its fraction bits, or as many as its range leaves."""
    quantiser, _ = quantised()
    quantiser.peak["gate"] = quantiser.peak["gate"] / quantiser.peak["gate"].max() * factor
    fraction = quantiser._gate_fraction()
    assert factor * MARGIN * 2.0**fraction <= 1 << 17
    assert fraction == GATE_FRACTION or factor * MARGIN * 2.0 ** (fraction + 1) > 1 << 16


@pytest.mark.parametrize("even", ["", "wq", "wk", "wv", "w1", "w3"])
def test_sums_come_to_eighteen_bits_before_they_are_scaled(even: str):
    """The greatest sums that weights and int8 inputs can make, whichever matrix of an input makes them."""
    quantiser, model = quantised(dynamic=frozenset(SITES), even=even)
    s = model.shifts
    for shift, names in (("qkv_pre", ("wq", "wk", "wv")), ("wo_pre", ("wo",)), ("ffn_pre", ("w1", "w3")),
                         ("w2_pre", ("w2",)), ("cls_pre", ("classifier",))):
        greatest = max(int(np.abs(getattr(model, name).astype(np.int64)).sum(-1).max()) for name in names) * 127
        assert greatest >> getattr(s, shift) <= SAT_LIMIT[Sat.S18]
        assert not getattr(s, shift) or greatest >> getattr(s, shift) - 1 > SAT_LIMIT[Sat.S18] // 2
    assert model.head_size * 127 * 127 >> s.score_pre <= SAT_LIMIT[Sat.S18]
    assert CONTEXT * 127 * 127 >> s.av_pre <= SAT_LIMIT[Sat.S18]
    assert s.av + s.av_pre == 15 - quantiser.recipe.av_gain
