"""The sampler in Python against the chip's operations, and its statistics."""

import numpy as np
import pytest
from vxm_operations import alu

from arch import tables
from arch.isa import Alu, Func
from program.sampler import GUMBEL_ONE, Sampler, seed_states, temperature_q


def test_sampler_is_the_chips_operations():
    sampler, state = Sampler(40, temperature_q(0.8), 7), seed_states(40, 7)
    logits = np.random.default_rng(0).integers(-3000, 3000, 40)
    for _ in range(5):
        for shift in ({"pre": -13}, {"pre": 17, "logical": 1}, {"pre": -5}):
            state, _ = alu(state, c=state, alu=Alu.XOR, **shift)
        bits = tables.TABLES[Func.LOG2].frac_bits
        noise, _ = alu(state, func=Func.LOG2, pre=8, logical=1, post=bits, alu=Alu.ADD)
        noise, _ = alu(noise, c=GUMBEL_ONE, alu=Alu.RSUB)
        noise, _ = alu(noise, func=Func.LOG2, post=bits, alu=Alu.ADD)
        noisy, _ = alu(noise, sampler.temperature_q, logits, func=Func.MUL, pre=5, post=15, alu=Alu.RSUB)
        assert sampler.choose(logits) == noisy.argmax()
        np.testing.assert_array_equal(sampler.state, state)


def test_sampler_follows_the_distribution():
    logits = np.array([0, 256, 512, -300])
    p = np.exp(logits / 256 / 0.7)
    p /= p.sum()
    sampler = Sampler(4, temperature_q(0.7), 1)
    counts = np.bincount([sampler.choose(logits) for _ in range(4000)], minlength=4)
    assert abs((counts - 4000 * p) / np.sqrt(4000 * p * (1 - p))).max() < 4.5


def test_temperature_zero_is_greedy_and_the_first_of_equals():
    sampler = Sampler(5, temperature_q(0.0), 1)
    assert [sampler.choose(np.array([3, 9, 9, 1, 9])) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"temperature must be in 0\.\.10, not 11"):
        temperature_q(11)


def test_seeds_give_nonzero_different_states():
    states = seed_states(512, 5)
    assert len(set(states.tolist())) == 512 and (states != 0).all() and abs(states).max() < 1 << 31
    assert (states != seed_states(512, 6)).all()
