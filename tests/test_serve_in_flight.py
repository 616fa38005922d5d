"""A server of several sequences, on a rack or on one chip: as many users at once, each with the answer that he gets
alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flights import ALONE, PAIR, SMALL, in_flight, one, together
from serving import running

from arch.config import CONFIGS
from program.rack import AnyProgram
from program.tokenizer import Tokenizer
from run.answer import Answer, Question
from run.devices import open_device
from run.sampling import Sampling
from run.session import Session
from serve.handle import DeviceProcess, State, handles_of
from serve.worker import LOST

PROMPTS = [[1, 5 + n] for n in range(5)]


@pytest.fixture(scope="module", params=["rack", "chip"])
def program(request: pytest.FixtureRequest) -> AnyProgram:
    return in_flight(PAIR, buckets=2, **SMALL) if request.param == "rack" else together(CONFIGS["ulx3s"], **ALONE)


def alone(program: AnyProgram, prompt: list[int], sampling: Sampling) -> str:
    """The answer of one sequence by itself."""
    session = Session(open_device("reference", PAIR), one(program))
    answer = Answer(session, Tokenizer.from_bytes(program.tokenizer), Question(prompt=prompt, tokens=8,
                                                                               sampling=sampling))
    list(answer.prefill())
    return "".join(piece.text for piece in answer.pieces())


def test_two_users_at_once(program: AnyProgram, tmp_path: Path):
    with running(program=program, template=None, folder=tmp_path, devices=("model",)) as server:
        assert [handle.name for handle in server.engine.handles] == ["model, sequence 0", "model, sequence 1"]
        assert len({handle.pid for handle in server.engine.handles}) == 1
        with ThreadPoolExecutor(len(PROMPTS)) as pool:
            answers = list(pool.map(lambda prompt: server.complete(prompt, temperature=0.7, seed=prompt[1], top_p=1),
                                    PROMPTS))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.json["choices"][0]["text"] == alone(program, prompt, Sampling(temperature=0.7, seed=prompt[1]))


def test_a_process_that_is_lost_is_started_again_for_all_sequences(program: AnyProgram, tmp_path: Path):
    with running(program=program, template=None, folder=tmp_path, devices=("reference",)) as server:
        first = server.engine.handles[0]
        first.kill()
        server.wait(lambda: not server.engine.alive)
        server.wait(lambda: server.engine.alive == 2)
        assert first.faults == server.engine.handles[1].faults == ["device_lost"]
        assert server.complete([1, 5], temperature=0).json["choices"][0]["text"] == alone(program, [1, 5], Sampling())


def test_no_question_goes_to_another_sequence_of_a_lost_process():
    process, seen = DeviceProcess("reference", Path("none.tsp")), []
    handles = handles_of(process, 2, lambda _: seen.append([each.state for each in handles]), lambda *_: None)
    for handle in handles:
        handle.state = State.READY
    process._fail({"is": "fault", "kind": LOST, "message": "gone"})
    assert seen == [[State.LOST, State.LOST]] * 2
