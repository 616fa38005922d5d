"""Sequences of one device, a rack or a chip, as devices: sessions in threads, each with the tokens of one alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from flights import ALONE, PAIR, SMALL, in_flight, one, together

from arch.config import CONFIGS
from program.rack import AnyProgram
from run.devices import open_device, open_in_flight
from run.lanes import Lanes
from run.sampling import Sampling
from run.session import Session, Step
from sim.device.in_flight import Flights

QUESTIONS = {  # prompt, sampling
    "greedy": ([1, 5, 7], Sampling()),
    "on the chip": ([1], Sampling(temperature=0.8, seed=3)),
    "by the host": ([1, 9], Sampling(temperature=0.8, seed=5, top_k=4, repetition_penalty=1.2)),
}


def ask(session: Session, prompt: list[int], sampling: Sampling, tokens: int) -> list[Step]:
    session.prompt(prompt, sampling)
    return [step for _ in range(tokens) for step in session.run()]


@pytest.fixture(scope="module", params=["rack", "chip"])
def program(request: pytest.FixtureRequest) -> AnyProgram:
    return in_flight(PAIR, buckets=2, **SMALL) if request.param == "rack" else together(CONFIGS["ulx3s"], **ALONE)


def test_sessions_in_threads(program: AnyProgram):
    """One sequence is asked again and again, the other only now and then."""
    lanes = Lanes(open_in_flight("model", program.config), program)
    busy, other = (Session(lane, program) for lane in lanes.lanes)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: [ask(busy, *question, 12) for question in QUESTIONS.values()])
        second = pool.submit(lambda: [ask(other, *question, 5) for question in reversed(QUESTIONS.values())])
        told, short = first.result(), second.result()
    lanes.close()
    for found, order, count in ((told, QUESTIONS.values(), 12), (short, reversed(QUESTIONS.values()), 5)):
        for steps, question in zip(found, order, strict=True):
            first = steps[0].position  # behind what the cache had of the question before
            wanted = ask(Session(open_device("reference", PAIR), one(program)), *question, first + count)
            assert [(step.position, step.token) for step in steps] == [(step.position, step.token)
                                                                       for step in wanted[first:]]
            assert all(step.measured == step.predicted for step in steps)


def test_what_goes_wrong_is_told_to_whoever_waits(program: AnyProgram, monkeypatch: pytest.MonkeyPatch):
    def broken(self: Flights, periods: int) -> None:
        raise RuntimeError("no power")

    lanes = Lanes(open_in_flight("model", program.config), program)
    monkeypatch.setattr(Flights, "run", broken)
    with pytest.raises(RuntimeError, match="no power"):
        ask(Session(lanes.lanes[1], program), [1], Sampling(), 1)
    lanes.close()
