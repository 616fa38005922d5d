"""A model with massive activations: the compiler measures them, and what it makes of it is right on a chip.

The peculiarities are those of a trained model of 135 million weights: heads of 64, an odd number of K/V heads, a tied
vocabulary of more than 4,096 bytes and words, and a first token whose residual is a thousand times that of all others.
"""

import functools
from typing import Any

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer

from arch.config import CONFIGS
from base.errors import TspError
from compiler import compile as driver
from compiler.compile import compile_checkpoint
from compiler.frontend.checkpoint import Checkpoint
from program.integer import RESIDUAL
from program.program import Program
from run.devices import open_device

SIZES = {"dim": 48, "hidden_dim": 160, "n_layers": 3, "n_heads": 6, "n_kv_heads": 3, "head_dim": 64, "vocab_size": 4200,
         "seq_len": 64}
BOS = 1


def massive(seed: int = 0) -> Checkpoint:
    """Random weights; BOS excites one channel of the first inner layer, and that writes one channel of the residual."""
    config = small_config(**SIZES)
    rng = np.random.default_rng(seed)
    weights: dict[str, Any] = {name: np.ones(shape, np.float32) if "norm" in name
               else (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)
               for name, shape in config.shapes().items()}
    table = weights["tok_emb"] = (rng.standard_normal(config.shapes()["tok_emb"]) * 0.4).astype(np.float32)
    table[:, 0] = 0
    table[BOS] = 0
    table[BOS, 0] = 10
    for name in ("w1", "w3"):
        weights[name][:, 0] = 0
        weights[name][0, 0, 0] = 8
    weights["w2"][0, :, 0] = 0
    weights["w2"][0, 5, 0] = 10
    weights["classifier"] = table
    return Checkpoint(config=config, **weights)


@functools.cache
def program(scales: str = "measured") -> Program:
    return compile_checkpoint(massive(), random_tokenizer(SIZES["vocab_size"]), config=CONFIGS["large"], scales=scales)


def test_a_robust_model_is_chosen_where_scales_do_not_help():
    (trial,) = program().trials
    assert trial.sites == (RESIDUAL,) and not trial.takes_static
    assert trial.static > 5 * trial.dynamic
    model = program().integer_model()
    assert model.first == BOS and RESIDUAL in model.dynamic and model.group
    quality = program().quality
    assert quality and quality.ratio < 0.05 and quality.top1 > 0.9


@pytest.mark.parametrize("name", ["model", "rtl"])
def test_its_logits_tokens_and_cycles_are_foretold(name: str):
    prompt = [BOS, 4199, 4100, 17]
    devices = [open_device("reference", program().config), open_device(name, program().config)]
    for device in devices:
        device.load(program())
        device.start(prompt, temperature=0.7, seed=3)
    reference, device = devices
    for position in range(3 if name == "model" else 20):
        (expected,), (result,) = reference.run(1), device.run(1)
        assert np.array_equal(device.logits(), reference.logits()), f"logits at position {position}"
        assert (result.token, result.cycles) == (expected.token, program().cycles(position))
    assert not device.errors
    for each in devices:
        each.close()


def test_the_first_token_is_a_constant():
    """A second sequence on the same chip finds the same keys and values of position 0."""
    device = open_device("reference", program().config)
    device.load(program())
    stories = []
    for _ in range(2):
        device.start([BOS, 9, 9])
        stories.append([result.token for result in device.run(12)])
    assert stories[0] == stories[1]
    with pytest.raises(TspError, match="begin with token 1"):
        device.start([9, 9])


def test_a_program_of_no_use_is_refused():
    with pytest.raises(TspError, match=r"quantisation ruins this model: KL .*--scales robust.*--accept-quality"):
        program("static")


def test_a_program_of_no_use_may_be_wanted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(driver, "LEAST_TOP1", 1.1)
    arguments = random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"])
    with pytest.raises(TspError, match="quantisation ruins this model"):
        compile_checkpoint(*arguments, config=CONFIGS["tiny"])
    assert compile_checkpoint(*arguments, config=CONFIGS["tiny"], accept_quality=True).quality
