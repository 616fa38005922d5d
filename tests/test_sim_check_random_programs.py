"""Random programs are legal, deterministic, and use everything; looking at the model changes nothing."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from arch.config import CONFIGS, REGISTERS, ChipConfig
from arch.isa import FIELDS, AnyOp, Op, decode
from program.image import Image
from sim.check.random_programs import random_image
from sim.cycle.chip import ModelChip

QUICK = 30


def loaded(config: ChipConfig, image: Image) -> ModelChip:
    chip = ModelChip(config)
    chip.load(image)
    return chip


@pytest.mark.parametrize("seed", range(QUICK))
def test_random_programs_run_without_trap(seed):
    config = CONFIGS["tiny"]
    image, tokens = random_image(config, seed)
    periods = [period for period, _ in image.buckets]
    cycles = loaded(config, image).run(tokens)
    assert len(cycles) == tokens and set(cycles) == set(periods)


@pytest.mark.parametrize(("name", "attempts"), [
    ("micro", 200), ("small", 200), ("ulx3s", 200), ("wide", 100), ("mega", 100), ("large", 200)])
def test_random_programs_of_other_configs(name, attempts):
    for seed in range(3):
        image, tokens = random_image(CONFIGS[name], seed, attempts=attempts)
        loaded(CONFIGS[name], image).run(tokens)


def test_random_programs_with_all_optional_registers():
    config = replace(CONFIGS["tiny"], registers=tuple(REGISTERS))
    for seed in range(3):
        image, tokens = random_image(config, seed)
        loaded(config, image).run(tokens)


@pytest.mark.nightly
@pytest.mark.parametrize("name", CONFIGS)
def test_many_random_programs_run_without_trap(name):
    for seed in range(1000, 1300):
        image, tokens = random_image(CONFIGS[name], seed)
        loaded(CONFIGS[name], image).run(tokens)


def test_everything_occurs():
    """Every operation often, and every field with more than one value."""
    operations: Counter[AnyOp] = Counter()
    values: dict[tuple[AnyOp, str], set] = {}
    config = replace(CONFIGS["tiny"], drain_max=True)
    for seed in range(20):
        image, _ = random_image(config, seed)
        for instr in (decode(word) for words in image.queues.values() for word in words):
            operations[instr.op] += 1
            for name, value in instr.fields.items():
                values.setdefault((instr.op, name), set()).add(value)
    assert all(operations[op] >= 20 for op in Op)
    for op in Op:
        for name, spec in FIELDS[op].items():
            expected = len([*spec.kind]) if spec.kind else 2  # type: ignore[call-overload]
            if (op, name) in {(Op.REDUCE, "red"), (Op.ALU, "b_fmt"), (Op.ALU, "c_fmt")}:
                expected = 3
            if name.endswith("_src"):
                expected = 5
            assert len(values[op, name]) >= expected, (op, name, values[op, name])


def test_same_seed_same_image():
    first, second = (random_image(CONFIGS["tiny"], 7)[0] for _ in range(2))
    assert first.queues == second.queues and first.buckets == second.buckets
    assert all((first.mems[name] == second.mems[name]).all() for name in first.mems)


@pytest.mark.parametrize("seed", [1, 2])
def test_looking_every_cycle_changes_nothing(seed):
    """The model evaluates lazily; its state must not depend on when somebody looks."""
    config = CONFIGS["tiny"]
    image, tokens = random_image(config, seed)
    watched, unwatched = loaded(config, image), loaded(config, image)
    unwatched.run(tokens)
    step = watched.step

    def step_and_look() -> None:
        step()
        watched.state()

    watched.step = step_and_look
    watched.run(tokens)
    for name, value in unwatched.state().items():
        np.testing.assert_array_equal(value, watched.state()[name], name)
