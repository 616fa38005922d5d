"""compiler.quantize.scales: a static scale where it costs little, an exponent of each token where it does not."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer

from arch.config import CONFIGS
from base.errors import TspError
from compiler.compile import compile_checkpoint
from compiler.quantize.float_model import FloatModel
from compiler.quantize.quantizer import evaluate, quantiser
from compiler.quantize.scales import choose
from program.file import from_bytes, to_bytes
from program.integer import SITES
from program.quality import TOLERANCE

TOKENS = [1, 17, 300, 5, 5, 511, 0, 42, 99, 7, 250, 251, 8, 9, 10, 11]


def test_what_is_chosen_is_what_was_measured():
    checkpoint = random_checkpoint(seed=2)
    make = quantiser(checkpoint, context=32)
    model, trials = choose(make, FloatModel(checkpoint), TOKENS)
    (trial,) = trials
    assert trial.sites == SITES and trial.takes_static and not model.dynamic
    assert trial.dynamic == evaluate(make(frozenset(SITES)), FloatModel(checkpoint), TOKENS).ratio
    assert trial.static == evaluate(model, FloatModel(checkpoint), TOKENS).ratio


def test_a_site_that_static_scales_spoil_stays_dynamic():
    """A site whose static scale is made too coarse."""
    checkpoint = random_checkpoint(seed=2)
    good = quantiser(checkpoint, context=32)

    def spoilt(dynamic):
        model = good(dynamic)
        return model if "silu" in dynamic else replace(model, shifts=replace(model.shifts, f=model.shifts.f + 5))

    model, (together, *each) = choose(spoilt, FloatModel(checkpoint), TOKENS)
    assert together.sites == SITES and together.static > together.dynamic + TOLERANCE * len(SITES)
    assert [trial.sites for trial in each] == [(site,) for site in SITES]
    assert model.dynamic == {"silu"} == {site for trial in each if not trial.takes_static for site in trial.sites}
    assert each[0].dynamic == together.dynamic
    assert each[-1].static == evaluate(model, FloatModel(checkpoint), TOKENS).ratio


@pytest.mark.parametrize("refused", [("silu",), ("att_norm", "final_norm"), SITES])
def test_a_site_without_room_for_exponents_is_static(refused: tuple[str, ...]):
    checkpoint = random_checkpoint(seed=2)
    good = quantiser(checkpoint, context=32)

    def without_room(dynamic):
        if wrong := dynamic.intersection(refused):
            raise TspError(f"no room for {min(wrong)}")
        return good(dynamic)

    model, trials = choose(without_room, FloatModel(checkpoint), TOKENS)
    assert [(trial.sites, trial.refused) for trial in trials if trial.refused] == [
        ((site,), f"no room for {site}") for site in SITES if site in refused]
    assert not model.dynamic.intersection(refused)
    told = f"{refused[0]} -> static, because dynamic scales are impossible (no room for {refused[0]})"
    assert told in map(str, trials)
    if measured := [trial for trial in trials if not trial.refused]:
        assert set(measured[0].sites) == set(SITES) - set(refused)


def test_a_model_that_only_static_scales_suit_compiles():
    """A residual so large that a norm of 16 bits would need a left shift: that site is static, and it says so."""
    ordinary = random_checkpoint(small_config(**TINY))
    large = ordinary.tok_emb * np.float32(10)
    checkpoint = replace(ordinary, tok_emb=large, classifier=large)
    arguments = {"config": CONFIGS["tiny"], "measure": False}
    tokenizer = random_tokenizer(TINY["vocab_size"])
    with pytest.raises(TspError, match=r"shift norm_ffn must be .*, not -"):
        compile_checkpoint(checkpoint, tokenizer, scales="dynamic", **arguments)
    program = compile_checkpoint(checkpoint, tokenizer, **arguments)
    assert str(program.trials[0]).startswith("ffn_norm -> static, because dynamic scales are impossible (the "
                                             "checkpoint: ")
    assert from_bytes(to_bytes(program)).trials == program.trials


def test_a_model_that_no_scales_suit_is_refused():
    def never(dynamic):
        raise TspError(f"wrong with {len(dynamic)}")

    with pytest.raises(TspError, match="wrong with 0"):
        choose(never, FloatModel(random_checkpoint()), TOKENS)


@pytest.mark.parametrize("scales", ["static", "dynamic"])
def test_scales_may_be_given(scales):
    checkpoint, tokenizer = random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"])
    program = compile_checkpoint(checkpoint, tokenizer, config=CONFIGS["tiny"], scales=scales, measure=False)
    assert program.integer_model().dynamic == ({*SITES} if scales == "dynamic" else set())
    assert program.trials == ()


def test_trials_are_kept_and_dynamic_scales_cost_cycles():
    checkpoint, tokenizer = random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"])
    program, static, dynamic = (
        compile_checkpoint(checkpoint, tokenizer, config=CONFIGS["tiny"], scales=scales, measure=False)
        for scales in ("measured", "static", "dynamic"))
    assert from_bytes(to_bytes(program)).trials == program.trials != ()
    assert static.mean_cycles <= program.mean_cycles <= dynamic.mean_cycles
    assert static.mean_cycles < dynamic.mean_cycles


def test_an_unknown_choice_is_refused():
    with pytest.raises(TspError, match="scales must be one of measured, static, dynamic, robust, not 'some'"):
        compile_checkpoint(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]),
                           config=CONFIGS["tiny"], scales="some")
