"""Stories told at once: each as it is told alone, more of them than sequences, and every period as predicted."""

import json
from dataclasses import replace

import pytest
from flights import PAIR, SMALL, in_flight

from cli.main import app
from program.file import any_from_bytes, load_any, save, to_bytes
from program.rack import RackProgram
from run.devices import open_device, open_in_flight
from run.in_flight import Tales
from run.session import BrokenPromise, Session
from run.story import Plan, begin
from sim.device.in_flight import Period, RackInFlight

PLANS = [Plan([1, 5, 7], 12, 0.0, 0), Plan([1], 6, 0.8, 1), Plan([1, 9], 24, 0.8, 2)]


@pytest.fixture(scope="module")
def program() -> RackProgram:
    return in_flight(PAIR, buckets=2, **SMALL)


def test_more_stories_than_sequences(program: RackProgram):
    device = open_in_flight("model", PAIR)
    tales = Tales(device, program, PLANS, digests=True)
    told: dict[int, list[str]] = {}
    for number, text in tales.steps():
        told.setdefault(number, []).append(text)
    device.close()
    one = replace(program, chips=tuple(replace(chip, sequences=1) for chip in program.chips))
    for number, (tale, plan) in enumerate(zip(tales.tales, PLANS, strict=True)):
        alone = begin(Session(open_device("reference", PAIR), one), plan, digests=True)
        steps = list(alone.steps())
        assert tale.tokens == [step.token for step in steps]
        assert tale.digests == [step.digest for step in steps]
        assert tale.text == alone.text == "".join(told[number])
    assert tales.measured == tales.predicted > 0
    assert tales.tokens == sum(len(tale.tokens) for tale in tales.tales)
    assert [tale.sequence for tale in tales.tales] == [0, 1, 1]


def test_a_period_of_other_cycles_is_an_error(program: RackProgram, monkeypatch: pytest.MonkeyPatch):
    def late(self: RackInFlight, periods: int) -> list[Period]:
        return [Period(tokens=(), predicted=700, cycles=701)]

    monkeypatch.setattr(RackInFlight, "run", late)
    tales = Tales(open_in_flight("model", PAIR), program, PLANS)
    with pytest.raises(BrokenPromise, match="period 0 took 701 cycles, 700 were predicted"):
        list(tales.steps())


def test_the_command_tells_a_story_of_each_prompt(program: RackProgram, tmp_path, capfd: pytest.CaptureFixture[str]):
    save(program, tmp_path / "two.tsp")
    arguments = ["run", str(tmp_path / "two.tsp"), "--device", "model", "--tokens", "5"]
    assert app([*arguments, "--prompt", "a", "--prompt", "b", "--temperature", "0.7", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [story["seed"] for story in found["stories"]] == [0, 1]
    assert found["predicted_cycles"] == found["measured_cycles"]
    assert app(arguments) == 0
    out = capfd.readouterr().out
    assert "2 sequences in flight on pair, a token a period" in out and "[1, sequence 1, seed 1:" in out
    assert app([*arguments, "--sequences", "2"]) == 2
    assert "--sequences is for checkpoints only" in capfd.readouterr().err
    assert app(["chat", str(tmp_path / "two.tsp"), "--device", "reference"]) == 2


def test_a_file_keeps_the_number_of_sequences(program: RackProgram, tmp_path):
    save(program, tmp_path / "two.tsp")
    found = load_any(tmp_path / "two.tsp")
    assert found.sequences == 2
    assert to_bytes(any_from_bytes(to_bytes(found))) == to_bytes(program)


def test_seeds_that_are_not_there_for_each_story_are_refused(program: RackProgram, tmp_path,
                                                             capfd: pytest.CaptureFixture[str]):
    save(program, tmp_path / "flight.tsp")
    assert app(["run", str(tmp_path / "flight.tsp"), "--device", "reference", "--seed", str((1 << 64) - 1)]) == 2
    out, err = capfd.readouterr()
    assert not out and f"seed must be in 0..{(1 << 64) - program.sequences} for {program.sequences} stories" in err
