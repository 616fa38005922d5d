"""compiler.quantize.quantizer, compiler.quantize.calibrate, compiler.quantize.rounding."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checkpoints import REPOSITORY, SHARED_MODELS, random_checkpoint, small_config

from arch.numerics import bit_length, shift_right
from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.frontend.load import load_checkpoint
from compiler.place.geometry import native_head_size
from compiler.quantize.calibrate import MADE_BY, calibrate, cut, sample_sequences, text_length
from compiler.quantize.float_model import FloatModel, layer_site, site_names
from compiler.quantize.quantizer import (
    BEHIND,
    F_SHIFT,
    MAX_POST,
    SCALED,
    check_shifts,
    evaluate,
    quantize,
)
from compiler.quantize.rounding import compensated, integer_scales, nearest, row_steps, searched_steps, total_shift
from program.integer import KEYS, MATRICES, SITES

# ---- the whole ----

CONFIGS = {
    "grouped, heads of 4 padded to 8": small_config(),
    "own classifier, heads of 12 padded to 16": small_config(shared_classifier=False, head_dim=12),
    "one native kv head, other constants": small_config(n_kv_heads=1, head_dim=16, rope_theta=500.0, norm_eps=0.01),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_random_model_stays_close(config):
    """Random weights know no text, so calibration on other sequences must carry over to these."""
    checkpoint = random_checkpoint(config, seed=1)
    quality = evaluate(
        quantize(checkpoint, context=32), FloatModel(checkpoint),
        *sample_sequences(FloatModel(checkpoint), 32, range(5, 7))
    )
    assert quality.ratio < 0.01 and quality.tokens == 64, str(quality)


@pytest.mark.parametrize("dynamic", [(), *itertools.combinations(SITES, 1), SITES], ids=" ".join)
def test_a_random_model_stays_close_with_either_scale(dynamic):
    checkpoint = random_checkpoint(seed=1)
    tokens = sample_sequences(FloatModel(checkpoint), 32, [5])[0]
    assert evaluate(quantize(checkpoint, context=32, dynamic=frozenset(dynamic)),
                    FloatModel(checkpoint), tokens).ratio < 0.01


def test_the_same_input_gives_the_same_model():
    first, second = (quantize(random_checkpoint(), context=16) for _ in range(2))
    assert first.shifts == second.shifts
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, name))


def test_types_sizes_and_ranges():
    model = quantize(random_checkpoint(), context=16, four_bit=frozenset({"w2", "wk"}))
    assert model.head_size == 8 and model.rope_cos.shape == (16, 4)
    assert model.embedding is model.classifier
    for name in MATRICES:
        limit = 7 if name in ("w2", "wk") else 127
        assert getattr(model, name).dtype == np.int8 and abs(getattr(model, name).astype(int)).max() <= limit, name
        scale = getattr(model, "m" + ("c" if name == "classifier" else name[1]))
        assert scale.dtype == np.int16 and scale.min() > 0
    assert not model.wq.reshape(2, 6, 8, 24)[:, :, 4:].any() and not model.wo.reshape(2, 24, 6, 8)[..., 4:].any()


@pytest.mark.parametrize("factor", [1e-3, 30.0])
def test_scale_of_the_residual_does_not_matter(factor):
    """Embedding and both blocks' outputs times a factor: the norms take it out again."""
    checkpoint = random_checkpoint(small_config(norm_eps=1e-12, shared_classifier=False))
    scaled: dict[str, Any] = {name: getattr(checkpoint, name) * np.float32(factor) for name in ("tok_emb", "wo", "w2")}
    model = Checkpoint(**vars(checkpoint) | scaled)
    tokens = sample_sequences(FloatModel(checkpoint), 32, [5])[0]
    assert evaluate(quantize(model, context=32), FloatModel(model), tokens).ratio < 0.01


def test_outlier_channels_are_folded_away():
    """A norm with channels x50, undone in the weights behind it, changes no logit: smoothing must find that."""
    checkpoint = random_checkpoint()
    gain = np.ones(24, np.float32)
    gain[[3, 11]] = 50
    changed: dict[str, Any] = {"att_norm": checkpoint.att_norm * gain, "ffn_norm": checkpoint.ffn_norm * gain}
    changed |= {name: getattr(checkpoint, name) / gain for name in ("wq", "wk", "wv", "w1", "w3")}
    model = Checkpoint(**vars(checkpoint) | changed)
    tokens = sample_sequences(FloatModel(checkpoint), 32, [5])[0]
    assert evaluate(quantize(model, context=32), FloatModel(model), tokens).ratio < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": 0}, r"context must be 1\.\.32"),
        ({"context": 33}, r"context must be 1\.\.32"),
        ({"context": 8, "four_bit": frozenset({"w9"})}, "four_bit must name some of wq, .*, not w9"),
        ({"context": 8, "dynamic": frozenset({"v"})}, "dynamic must name some of att_norm, .*, not v"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(TspError, match=message):
        quantize(random_checkpoint(), **arguments)


def test_shifts_out_of_range_are_named():
    shifts = quantize(random_checkpoint(), context=8, dynamic=frozenset(SITES)).shifts
    for change in ({"w2": 48}, {"w2": 16}, {"cls": 7}, {"norm_x": 32}, {"wo": -1}, {"sigmoid": 1}):
        with pytest.raises(TspError, match=f"shift {next(iter(change))} must be"):
            check_shifts(replace(shifts, **change), frozenset(SITES))
    check_shifts(replace(shifts, w2=47, cls=7), frozenset({KEYS}))
    for score in (-5, 13):
        with pytest.raises(TspError, match=rf"shift score must be -4\.\.12, not {score}"):
            check_shifts(replace(shifts, score=score), frozenset())


@pytest.mark.parametrize("site", BEHIND)
def test_an_exponent_above_its_post_shift_is_refused(site: str):
    """The least shift that is accepted is the least at which no exponent of the chip's own operations is clamped."""
    largest = (131071 * 32767 + (1 << F_SHIFT - 1)) >> F_SHIFT if site == "silu" else 32767
    most = int(bit_length(np.array(largest))) - 7
    shifts = quantize(random_checkpoint(), context=8, dynamic=frozenset({site})).shifts
    for name in BEHIND[site]:
        check_shifts(replace(shifts, **{name: most}), frozenset({site}))
        clamped = replace(shifts, **{name: most - 1})
        check_shifts(clamped, frozenset())
        with pytest.raises(TspError, match=rf"shift {name} must be {most}\.\.47, not {most - 1}"):
            check_shifts(clamped, frozenset({site}))


def test_a_shift_beyond_the_range_leaves_nothing_of_a_product_either():
    """Why exponents may be added to a post shift of MAX_POST: the clamped shift gives what the whole one would."""
    largest = np.array([131071 * -131071, 131071 * 131071, -(1 << 35), 1 << 35])
    for shift in range(MAX_POST, MAX_POST + 16):
        assert not shift_right(largest, shift, 1).any() and not shift_right(largest, MAX_POST, 1).any()


MATRICES_OF_LAYERS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("names", "factor", "message"),
    [
        (MATRICES_OF_LAYERS, 0, r"activations at layers.0.v are all 0 .* in 1e-18\.\.1e\+15: wv may be damaged"),
        (("att_norm",), 0, "activations at layers.0.att_norm are all 0 .*: att_norm may be"),
        (("final_norm",), 0, "activations at final_norm are all 0 .*: final_norm may be"),
        (("w1",), 0, "activations at layers.0.silu are all 0 .*: w1 and w3 may be"),
        (("w1",), 1e30, r"activations at layers.0.gate reach \d.*e\+30 .* in 0\.\.1e\+15: w1 may be"),
        (("tok_emb",), 1e20, r"activations at embedding reach \d.*e\+19 .* in 1e-18\.\.1e\+15: tok_emb may be"),
        (("tok_emb",), 1e-30, "activations at embedding reach .*e-31 .*: tok_emb may be"),
        (("tok_emb",), 1e-10, r"epsilon of the norms \(rms_norm_eps\) must be at most .*, not 1e-05: export the model"),
        (("wo",), 0, r"shift wo must be 0\.\.47, not 60: scales of wo differ .*; try other --scales, or export"),
        (("wk",), 1e10, r"shift score must be -4\.\.12, not -\d+: scales of wq and wk differ"),
    ],
)
def test_weights_that_cannot_be_quantised_are_named(names, factor, message):
    checkpoint = random_checkpoint(small_config(shared_classifier=False))
    changed: dict[str, Any] = {name: getattr(checkpoint, name) * np.float32(factor) for name in names}
    changed["source"] = "some.bin"
    with pytest.raises(TspError, match=f"^some.bin: (quantize: )?(the )?{message}"):
        quantize(Checkpoint(**vars(checkpoint) | changed), context=16)


def test_a_layer_of_zeros_is_named():
    checkpoint = random_checkpoint()
    changed: dict[str, Any] = {"w3": checkpoint.w3.copy()}
    changed["w3"][1] = 0
    with pytest.raises(TspError, match=r"activations at layers\.1\.up are all 0"):
        quantize(Checkpoint(**vars(checkpoint) | changed), context=16)


def test_errors_have_words_for_everything():
    assert MADE_BY.keys() == {name.rsplit(".", 1)[-1] for name in site_names(small_config())}
    assert SCALED.keys() == vars(quantize(random_checkpoint(), context=8).shifts).keys()


def test_native_head_sizes():
    sizes = 2, 4, 6, 8, 12, 16, 24, 48, 64
    assert [native_head_size(n, 16) for n in sizes] == [8, 8, 8, 8, 16, 16, 32, 48, 64]
    assert [native_head_size(n, 8) for n in sizes] == [4, 4, 8, 8, 16, 16, 24, 48, 64]
    assert [native_head_size(n, 4) for n in sizes] == [4, 4, 8, 8, 12, 16, 24, 48, 64]


# ---- quality of trained models ----


def assert_close(path, context):
    """Less than 1 % of the cross-entropy lost by static scales, on a text that they are not calibrated on."""
    checkpoint = load_checkpoint(path)
    unseen, *sequences = sample_sequences(FloatModel(checkpoint, np.float32), context, range(77, 86))
    quality = evaluate(quantize(checkpoint, context=context, calibration_tokens=sequences),
                       FloatModel(checkpoint), unseen)
    assert quality.ratio < 0.01, str(quality)


def test_the_shipped_model_at_full_context():
    assert_close(REPOSITORY / "models" / "stories263k.bin", 256)


if SHARED_MODELS.is_dir():  # an extra where the project's shared models lie beside the repository

    @pytest.mark.shared
    @pytest.mark.parametrize("context", [256, 512])
    def test_stories260k_at_full_context(context):
        assert_close(SHARED_MODELS / "stories260K.bin", context)


# ---- calibration ----


def test_a_short_context_is_calibrated_on_longer_texts():
    assert [text_length(*sizes) for sizes in ((1, 256), (64, 256), (100, 256), (3, 40))] == [64, 64, 100, 40]
    checkpoint = random_checkpoint(seed=1)
    assert quantize(checkpoint, context=1).shifts == quantize(checkpoint, context=2).shifts


def test_a_text_is_cut_into_sequences():
    assert cut([5, 6, 7, 8, 9], 3, bos=1) == [[1, 5, 6], [1, 7, 8], [1, 9]]
    assert cut([5, 6], 1, bos=1) == [[1], [1]]


def test_statistics_are_those_of_all_sequences():
    checkpoint = random_checkpoint()
    model, seen = FloatModel(checkpoint, np.float32), {}
    sequences = [[1, 2, 3, 4], [9, 8, 7]]
    for tokens in sequences:
        model.sequence_logits(tokens, lambda site, values: seen.setdefault(site, []).append(values))
    statistics = calibrate(model, sequences, {"wo"})
    assert statistics.moments.keys() == {layer_site(0, "att"), layer_site(1, "att")}
    for site, values in seen.items():
        rows = np.concatenate(values)
        np.testing.assert_array_equal(statistics.peaks[site], abs(rows).max(0))
        if site in statistics.moments:
            np.testing.assert_allclose(statistics.moments[site], rows.T @ rows, rtol=1e-4, atol=1e-4)


# ---- rounding ----


def test_integer_scales_are_exact_and_never_narrow():
    weights = np.random.default_rng(0).normal(size=(40, 30)) * np.geomspace(1, 300, 40)[:, None]
    weights[7] = 0
    wanted, gain = row_steps(weights, 127), np.full(40, 0.37)
    total = total_shift(wanted * gain)
    scale, steps = integer_scales(wanted, gain, total)
    assert scale.dtype == np.int16 and scale.min() >= 1 and 16384 <= scale.max() <= 32767
    assert (steps >= wanted * (1 - 1e-9)).all()
    np.testing.assert_allclose(steps * gain * 2.0**total, scale, rtol=1e-14)
    assert (abs(nearest(weights, steps, 127) * steps[:, None] - weights).max(1) <= steps * 0.500001).all()


def test_four_bit_compensation_lowers_the_output_error():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 48)) @ rng.normal(size=(48, 48))
    weights, moments = rng.normal(size=(20, 48)), x.T @ x
    steps = searched_steps(weights, 7, np.diag(moments))

    def error(rounded):
        return float(((x @ (rounded * steps[:, None] - weights).T) ** 2).sum())

    plain, better = nearest(weights, steps, 7), compensated(weights, steps, 7, moments)
    assert abs(better).max() <= 7 and error(better) < 0.6 * error(plain)
    assert ((steps > 0) & (steps <= row_steps(weights, 7))).all()
