"""Campaigns of the simulators: a few cases of each kind, what is known, what differs, and what is refused."""

import re
from functools import partial
from pathlib import Path

import pytest
from small_racks import shared, twins

from base.errors import TspError
from program.file import save
from run import campaign
from sim.check.lockstep import Mismatch


@pytest.fixture
def program(tmp_path: Path) -> Path:
    save(shared(), tmp_path / "shared.tsp")
    return tmp_path / "shared.tsp"


def run(kind: str, cases: str, folder: Path, **options) -> None:
    defaults = {"config": None, "rack": None, "program": None, "errors": 1e-4, "device": "model", "tokens": 4,
                "jobs": 1, "part": "1/1"}
    campaign.main(kind, cases, results=folder, **(defaults | options))


def test_random_programs_of_a_chip(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run("programs", "0:2", tmp_path, config="tiny")
    out = capsys.readouterr().out
    assert "case 1: 1 tokens" in out and "2 of 2 cases are known: 5 tokens; 0 differ" in out


def test_random_programs_of_a_rack():
    found = campaign.random_rack_program(twins().rack, 2)
    assert found["flits"] and not found.get(campaign.DIFFERS)


def test_stories_over_lines_with_errors(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for part in ("1/2", "2/2"):
        run("faults", "0:2", tmp_path / "found", program=program, part=part)
    last = capsys.readouterr().out.splitlines()[-1]
    corrected = re.fullmatch(r"2 of 2 cases are known: 8 tokens, (\d+) corrected.*; 0 differ", last)
    assert corrected and int(corrected[1]) > 3


def test_what_differs_is_told_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]):
    def lockstep(*_: object) -> None:
        raise Mismatch(7, "MEM_E0", 1, 2)

    monkeypatch.setattr(campaign, "lockstep", lockstep)
    for _ in range(2):
        with pytest.raises(SystemExit, match="1"):
            run("programs", "3:4", tmp_path, config="tiny")
        out = capsys.readouterr().out
        assert "case 3: DIFFERS: cycle 7: MEM_E0" in out and "1 of 1 cases are known; 1 differ" in out
        monkeypatch.undo()  # the second time it is known


@pytest.mark.parametrize(("kind", "options", "words"), [
    ("nothing", {}, "the kind of campaign must be programs or faults, not 'nothing'"),
    ("programs", {}, "programs need a chip or a rack"),
    ("programs", {"config": "tiny", "rack": "pair"}, "programs need a chip or a rack"),
    ("faults", {}, "faults need a program"),
    ("programs", {"config": "tiny", "part": "3/2"}, "part must be a number"),
])
def test_what_is_refused(kind: str, options: dict, words: str, tmp_path: Path):
    with pytest.raises(TspError, match=words):
        run(kind, "0:1", tmp_path, **options)


def test_a_device_without_lines_is_refused(program: Path, tmp_path: Path):
    with pytest.raises(TspError, match="device must be rtl or model, not 'reference'"):
        run("faults", "0:1", tmp_path, program=program, device="reference")


def test_work_can_be_sent_to_another_process():
    import pickle

    assert pickle.loads(pickle.dumps(partial(campaign.random_rack_program, twins().rack)))


def test_stories_of_no_token_are_refused(program: Path, tmp_path: Path):
    with pytest.raises(TspError, match="--tokens must be at least 1, not 0"):
        run("faults", "0:1", tmp_path, program=program, tokens=0)
