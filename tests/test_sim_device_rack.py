"""A rack as a device: the same tokens as one chip, chips that must agree, and lines with faults."""

from collections.abc import Iterator

import numpy as np
import pytest
from twins import PAIR, twins

from run.devices import open_device
from run.sampling import Sampling
from run.session import Session
from sim.device.rack import RackDevice

PROMPT = [1, 30, 40, 50, 60]
WARM = Sampling(temperature=1.0, seed=5)


@pytest.fixture(scope="module", params=["model"])
def device(request: pytest.FixtureRequest) -> Iterator[RackDevice]:
    found = open_device(request.param, PAIR)
    assert isinstance(found, RackDevice)
    yield found
    found.close()


def told(session: Session, prompt: list[int], sampling: Sampling, tokens: int = 6) -> tuple[list[int], np.ndarray]:
    cached = session.prompt(prompt, sampling)
    steps = session.run(len(prompt) - cached - 1 + tokens)
    assert all(step.measured in (None, step.predicted) for step in steps)
    return [step.token for step in steps[-tokens:]], session.logits()


def test_a_rack_tells_what_the_reference_tells(device: RackDevice):
    session, reference = Session(device, twins()), Session(open_device("reference", PAIR), twins())
    for prompt in (PROMPT, [1, 30, 41, 9]):
        tokens, logits = told(session, prompt, WARM, 4)
        expected, expected_logits = told(reference, prompt, WARM, 4)
        assert tokens == expected and np.array_equal(logits, expected_logits)
    assert device.counters.tokens and device.counters.cycles
