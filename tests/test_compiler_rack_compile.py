"""Models on racks: every logit, token and cycle of the model's reference, however the model is divided."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer
from racks import ring

from arch.rack import RackConfig
from base.errors import TspError
from compiler.rack.compile import compile_rack
from program.image import image_of
from program.rack import RackProgram
from run.devices import open_device
from sim.check.racks import lockstep_of_rack
from sim.rtl.rack import RackSimulator

EVEN = {"dim": 32, "head_dim": 8, "n_heads": 4, "n_kv_heads": 2}
"""Four vectors of the residual, and a K/V head for each of two chips."""
UNEVEN = {"dim": 40, "hidden_dim": 56, "head_dim": 8, "n_heads": 3, "n_kv_heads": 3, "vocab_size": 108}
"""Odd numbers of vectors and K/V heads."""
CASES = {  # rack, scales, sizes
    "two chips": (ring(2), "static", EVEN),
    "uneven, exponents": (ring(2), "dynamic", UNEVEN),
}
NIGHTLY = {
    "uneven": (ring(2), "static", UNEVEN),
    "exponents": (ring(2), "dynamic", EVEN),
    "robust": (ring(2), "robust", EVEN),
    "three chips": (ring(3), "static", UNEVEN),
    "over two links": (ring(4), "static", {**EVEN, "n_heads": 8, "n_kv_heads": 4}),
}


@functools.cache
def program(rack: RackConfig, scales: str, **sizes: int) -> RackProgram:
    model = small_config(**(TINY | sizes))
    return compile_rack(random_checkpoint(model), random_tokenizer(model.vocab_size), rack=rack, scales=scales,
                        measure=False)


def check(compiled: RackProgram, tokens: int) -> None:
    """Two runs, greedy with a prompt and sampled, against the reference."""
    for prompt, temperature, seed in (([1, 5, 7], 0.0, 0), ([1], 0.8, 3)):
        device, reference = (open_device(name, compiled.rack) for name in ("model", "reference"))
        for each in (device, reference):
            each.load(compiled)
            each.start(prompt, temperature, seed)
        for position in range(tokens):
            (found,), (wanted,) = device.run(1), reference.run(1)
            assert (found.token, found.cycles) == (wanted.token, compiled.cycles(position))
            assert np.array_equal(device.logits(), reference.logits())
        assert not device.errors


@pytest.mark.parametrize("name", CASES)
def test_a_rack_gives_the_reference_s_logits_in_the_predicted_cycles(name: str):
    rack, scales, sizes = CASES[name]
    check(program(rack, scales, **sizes), 6)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*CASES, *NIGHTLY])
def test_racks_of_many_kinds_over_the_whole_context(name: str):
    rack, scales, sizes = (CASES | NIGHTLY)[name]
    compiled = program(rack, scales, **sizes)
    check(compiled, compiled.context)


def test_model_and_rtl_agree_in_every_cycle_of_a_compiled_token():
    compiled = program(*CASES["two chips"][:2], **EVEN)
    simulator = RackSimulator(compiled.rack)
    lockstep_of_rack(compiled.rack, [image_of(chip) for chip in compiled.chips], 1, simulator)
    simulator.close()


def test_the_model_is_put_together_from_all_chips():
    rack, scales, sizes = CASES["uneven, exponents"]
    compiled = program(rack, scales, **sizes)
    alone = program(replace(rack, chips=rack.chips[:1], links=()), scales, **sizes)
    whole, parts = alone.integer_model(), compiled.integer_model()
    assert all(np.array_equal(array, getattr(parts, name)) for name, array in vars(whole).items()
               if isinstance(array, np.ndarray))
    assert [len(np.unique(chip.channels["logits"])) for chip in compiled.chips] == [6 * 8, 8 * 8 - 4 + 1]


@pytest.mark.parametrize(("chips", "sizes", "what"), [
    (3, EVEN, "rack ring of 3: 2 K/V heads cannot be divided among 3 chips"),
    (2, {**EVEN, "hidden_dim": 8}, r"1 vectors of 8 inner channels \(hidden_dim\) cannot be divided among 2 chips"),
    (2, {**EVEN, "dim": 16, "vocab_size": 24}, r"3 vectors of 8 tokens \(vocab_size\) cannot be divided"),
])
def test_what_is_too_small_to_be_divided_is_named(chips: int, sizes: dict[str, int], what: str):
    with pytest.raises(TspError, match=what):
        program(ring(chips), "static", **sizes)


def test_a_partition_that_does_not_exist():
    model = small_config(**TINY)
    with pytest.raises(TspError, match="partition must be one of tensor.*, not 'rows'"):
        compile_rack(random_checkpoint(model), random_tokenizer(model.vocab_size), rack=ring(2), partition="rows")
