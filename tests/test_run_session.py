"""A session: what is cached, what the host chooses, and what a broken promise is, on every device."""

from collections.abc import Iterator

import numpy as np
import pytest
from programs import small_program

from arch.host_map import Trap
from base.errors import TspError
from program.noise import advanced
from program.sampler import Sampler
from run.devices import open_device
from run.sampling import HostSampler, Sampling, logprobs
from run.session import BrokenPromise, ChipFault, Session, common, self_test
from sim.device.protocol import Device, TokenResult
from sim.device.reference_device import ReferenceDevice

PROMPT = [1, 30, 40, 50, 60]
WARM = Sampling(temperature=1.0, seed=5)
HOST = Sampling(temperature=1.0, seed=5, top_p=0.7, frequency_penalty=0.5, presence_penalty=0.5, logit_bias={7: 2.0})


@pytest.fixture(scope="module", params=["reference", "model", "rtl"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    found = open_device(request.param, small_program().config)
    yield found
    found.close()


def fresh() -> Session:
    return Session(ReferenceDevice(), small_program())


def told(session: Session, prompt: list[int], sampling: Sampling, tokens: int = 6) -> tuple[list[int], np.ndarray]:
    """Tokens after a prompt, and the logits of the last position."""
    cached = session.prompt(prompt, sampling)
    steps = session.run(len(prompt) - cached - 1 + tokens)
    return [step.token for step in steps[-tokens:]], session.logits()


@pytest.mark.parametrize("sampling", [Sampling(), WARM, HOST], ids=["greedy", "chip", "host"])
def test_a_cached_prompt_gives_what_a_run_from_the_start_gives(device: Device, sampling: Sampling):
    session = Session(device, small_program())
    other = [1, 30, 41]
    for prompt in (PROMPT, [*PROMPT, 70], other, PROMPT):
        tokens, logits = told(session, prompt, sampling, 3)
        expected, expected_logits = told(fresh(), prompt, sampling, 3)
        assert tokens == expected and np.array_equal(logits, expected_logits)


def test_an_answer_is_continued_from_the_cache(device: Device):
    session = Session(device, small_program())
    tokens, _ = told(session, PROMPT, WARM)
    longer = [*PROMPT, *tokens, 33]
    assert session.cached == longer[:-2], "the last token has not run"
    assert session.prompt(longer, WARM) == len(longer) - 2
    steps = session.run(5)
    assert steps[0].position == len(longer) - 2
    expected = fresh()
    expected.prompt(longer, WARM)
    assert [s.token for s in expected.run(len(longer) + 3)][-5:] == [s.token for s in steps]
    assert np.array_equal(session.logits(), expected.logits())


def test_cycles_are_those_of_the_position(device: Device):
    session = Session(device, small_program())
    told(session, PROMPT, WARM)
    session.prompt([*PROMPT[:3], 9, 9], WARM)
    [step] = session.run()
    assert (step.position, step.predicted) == (3, small_program().cycles(3))
    assert step.measured in (None, step.predicted)


def test_the_self_test_passes(device: Device):
    self_test(Session(device, small_program()))


def test_the_host_chooses_what_the_chip_chooses_where_it_adds_nothing():
    """A bias of nothing makes the host choose."""
    host = Sampling(temperature=1.0, seed=5, logit_bias={3: 0.0})
    assert not host.on_chip
    assert told(fresh(), PROMPT, host, 20)[0] == told(fresh(), PROMPT, WARM, 20)[0]


def test_a_run_to_the_end_of_the_context():
    context = small_program().context
    for sampling in (WARM, HOST):
        session = fresh()
        session.prompt(PROMPT, sampling)
        assert session.run(context)[-1].position == context - 1


def test_noise_jumps_as_far_as_it_walks():
    sampler = Sampler(100, 0, 9)
    first = sampler.state
    for tokens in range(70):
        assert np.array_equal(advanced(first, tokens), sampler.state)
        sampler.noise()


def chosen(sampling: Sampling, logits: list[float], count: int) -> np.ndarray:
    """How often each of the first tokens is chosen, of `count` times; the others have no chance."""
    row = np.full(small_program().model.vocab_size, -(1 << 20))
    row[: len(logits)] = np.round(np.array(logits) * 256)
    sampler = HostSampler(small_program(), sampling, 0)
    return np.bincount([sampler.choose(row) for _ in range(count)], minlength=len(logits))[: len(logits)] / count


def test_the_host_samples_the_distribution():
    logits = [2.0, 1.0, 0.0]
    wanted = np.exp(logits) / np.exp(logits).sum()
    found = chosen(Sampling(temperature=1.0, seed=1, logit_bias={9: 0.0}), logits, 4000)
    assert np.abs(found - wanted).max() < 0.03
    found = chosen(Sampling(temperature=1.0, seed=1, top_p=0.9), logits, 4000)
    assert found[2] == 0 and abs(found[0] - wanted[0] / wanted[:2].sum()) < 0.03
    assert chosen(Sampling(temperature=1.0, seed=1, top_p=0.0), logits, 50)[0] == 1
    assert chosen(Sampling(logit_bias={2: 2.5}), logits, 5)[2] == 1


def test_penalties_count_what_was_generated():
    found = chosen(Sampling(presence_penalty=1.5), [2.0, 1.0, 0.4], 3)
    assert found.tolist() == [2 / 3, 1 / 3, 0]  # 1.0 beats 0.5, then 0.5 beats 0.4 and -0.5
    found = chosen(Sampling(frequency_penalty=0.6), [2.0, 1.0], 4)
    assert found.tolist() == [0.75, 0.25]


def test_top_k_and_min_p_leave_the_likeliest():
    logits = [2.0, 1.0, 0.0]
    assert (chosen(Sampling(temperature=1.0, seed=1, top_k=2), logits, 2000) > 0).tolist() == [True, True, False]
    assert chosen(Sampling(temperature=1.0, seed=1, top_k=1), logits, 50)[0] == 1
    # e^-1 = 0.37 of the likeliest, e^-2 = 0.14
    assert (chosen(Sampling(temperature=1.0, seed=1, min_p=0.3), logits, 2000) > 0).tolist() == [True, True, False]
    assert chosen(Sampling(temperature=1.0, seed=1, min_p=1.0), logits, 50)[0] == 1


def test_a_repetition_penalty_counts_the_prompt():
    row = np.full(small_program().model.vocab_size, -(1 << 20))
    row[:2] = 256, 200
    sampler = HostSampler(small_program(), Sampling(repetition_penalty=2.0), 0, prompt=[0])
    assert [sampler.choose(row) for _ in range(2)] == [1, 0]  # 128 and 200, then 128 and 100


@pytest.mark.parametrize("wrong", [{"top_k": -1}, {"top_p": 1.5}, {"min_p": -0.1}, {"repetition_penalty": 0.0}])
def test_numbers_of_the_sampling_have_limits(wrong):
    with pytest.raises(TspError, match=next(iter(wrong))):
        HostSampler(small_program(), Sampling(**wrong), 0)


def test_logprobs_are_those_of_the_model():
    logits = np.array([512, 256, 0])
    assert np.exp(logprobs(logits)).sum() == pytest.approx(1)
    assert logprobs(logits)[0] - logprobs(logits)[1] == pytest.approx(1)


class Lying(ReferenceDevice):
    """Takes a cycle more, or reports an error, at the third position."""

    wrong = ""

    def run(self, n: int) -> list[TokenResult]:
        late = self.wrong == "cycles" and self._state.position == 2
        program = small_program()
        return [TokenResult(result.token, program.cycles(0) + late) for result in super().run(n)]

    @property
    def errors(self) -> set[Trap]:
        return {Trap.NOT_PARKED} if self.wrong == "error" and self._state.position > 2 else set()


def test_a_broken_promise_is_told():
    device = Lying()
    session = Session(device, small_program())
    device.wrong = "cycles"
    session.prompt(PROMPT, WARM)
    session.run(2)
    with pytest.raises(BrokenPromise, match=r"token 2 took \d+ cycles"):
        session.run()
    device.wrong = "error"
    session = Session(device, small_program())
    session.prompt(PROMPT, WARM)
    with pytest.raises(ChipFault, match="NOT_PARKED"):
        session.run(3)


def test_misuse():
    session = fresh()
    with pytest.raises(ValueError, match="prompt"):
        session.run()
    for cached in (-1, 5):
        with pytest.raises(ValueError, match="cached"):
            session.device.start(PROMPT, cached=cached)
    assert common([1, 2, 3], [1, 2, 4, 5]) == 2 and common([], [1]) == 0
