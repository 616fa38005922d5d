"""A server of sequences in flight: as many users at once, each with the answer that he gets alone."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from flights import PAIR, SMALL, in_flight
from serving import running

from program.rack import RackProgram
from program.tokenizer import Tokenizer
from run.answer import Answer, Question
from run.devices import open_device
from run.sampling import Sampling
from run.session import Session

PROMPTS = [[1, 5 + n] for n in range(5)]


@pytest.fixture(scope="module")
def program() -> RackProgram:
    return in_flight(PAIR, buckets=2, **SMALL)


def alone(program: RackProgram, prompt: list[int], sampling: Sampling) -> str:
    """The answer of one sequence by itself."""
    one = replace(program, chips=tuple(replace(chip, sequences=1) for chip in program.chips))
    session = Session(open_device("reference", PAIR), one)
    answer = Answer(session, Tokenizer.from_bytes(program.tokenizer), Question(prompt=prompt, tokens=8,
                                                                               sampling=sampling))
    list(answer.prefill())
    return "".join(piece.text for piece in answer.pieces())


def test_two_users_at_once(program: RackProgram, tmp_path: Path):
    with running(program=program, template=None, folder=tmp_path, devices=("model",)) as server:
        assert [handle.name for handle in server.engine.handles] == ["model, sequence 0", "model, sequence 1"]
        assert len({handle.pid for handle in server.engine.handles}) == 1
        with ThreadPoolExecutor(len(PROMPTS)) as pool:
            answers = list(pool.map(lambda prompt: server.complete(prompt, temperature=0.7, seed=prompt[1], top_p=1),
                                    PROMPTS))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.json["choices"][0]["text"] == alone(program, prompt, Sampling(temperature=0.7, seed=prompt[1]))


def test_a_process_that_is_lost_is_started_again_for_all_sequences(program: RackProgram, tmp_path: Path):
    with running(program=program, template=None, folder=tmp_path, devices=("reference",)) as server:
        first = server.engine.handles[0]
        first.kill()
        server.wait(lambda: not server.engine.alive)
        server.wait(lambda: server.engine.alive == 2)
        assert first.faults == server.engine.handles[1].faults == ["device_lost"]
        assert server.complete([1, 5], temperature=0).json["choices"][0]["text"] == alone(program, [1, 5], Sampling())
