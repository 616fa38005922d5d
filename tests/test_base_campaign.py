"""Campaigns: what is known is not run again, whoever found it; a stop loses nothing that was found."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from checkpoints import REPOSITORY

from base.campaign import Campaign, Part, Result, cases_of
from base.errors import TspError


def square(folder: Path, case: int) -> Result:
    """Leaves a file for each case that is run, and fails on case 7 as long as there is no file `cured`."""
    (folder / f"ran-{case}-{os.getpid()}").touch()
    if case == 7 and not (folder / "cured").exists():
        raise TspError("case 7 fails")
    time.sleep(0.05 * (case % 3))
    return {"square": case * case}


def ran(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("ran-*"))


@pytest.fixture
def work(tmp_path: Path):
    return functools.partial(square, tmp_path)


def campaign(folder: Path, **changed) -> Campaign:
    return Campaign(**({"folder": folder / "results", "key": "a"} | changed))


@pytest.mark.parametrize("jobs", [1, 2])
def test_all_cases_are_run_once(tmp_path: Path, work, jobs: int):
    said = []
    cases = range(5)
    for _ in range(2):
        found = campaign(tmp_path, jobs=jobs).run(cases, work, lambda case, result: said.append(case))
        assert found == {case: {"square": case * case} for case in cases}
    assert ran(tmp_path) == list(cases) and sorted(said) == sorted([*cases, *cases])
    processes = {path.name.split("-")[2] for path in tmp_path.glob("ran-*")}
    assert (str(os.getpid()) in processes) == (jobs == 1)


def test_a_campaign_that_stopped_goes_on(tmp_path: Path, work):
    with pytest.raises(TspError, match="case 7 fails"):
        campaign(tmp_path).run([1, 2, 7, 3], work)
    assert sorted(campaign(tmp_path).results()) == [1, 2]
    with open(next((tmp_path / "results").iterdir()), "a") as file:
        file.write('{"key": "a", "case": 3, "resu')  # it was stopped while it wrote
    (tmp_path / "cured").touch()
    assert sorted(campaign(tmp_path).run([1, 2, 7, 3], work)) == [1, 2, 3, 7]
    assert ran(tmp_path).count(1) == 1
    assert sorted(campaign(tmp_path).results()) == [1, 2, 3, 7]  # each has a line of its own


@pytest.mark.parametrize("damage", ['{"key": "a"}', '{"key": "a", "case": 1, "result": 5}', "[]", "\0\0",
                                    '{"key": "a", "case": [1], "result": {}}'])
def test_a_damaged_line_is_no_result(damage: str, tmp_path: Path, work):
    campaign(tmp_path).run([1], work)
    with open(next((tmp_path / "results").iterdir()), "a") as file:
        file.write(damage + "\n")
    assert campaign(tmp_path).results() == {1: {"square": 1}}


def test_machines_share_a_campaign_by_parts(tmp_path: Path, work):
    cases = range(10, 17)
    for n in (1, 2, 3):
        found = campaign(tmp_path, part=Part.parse(f"{n}/3")).run(cases, work)
    assert sorted(found) == ran(tmp_path) == list(cases)
    assert len(list((tmp_path / "results").iterdir())) == 3


def test_results_of_something_else_do_not_count(tmp_path: Path, work):
    campaign(tmp_path).run([1], work)
    assert not campaign(tmp_path, key="b").results()


def test_what_is_not_kept_is_tried_again(tmp_path: Path, work):
    for _ in range(2):
        assert campaign(tmp_path).run([1, 2], work, keep=lambda result: result["square"] != 4)[2] == {"square": 4}
    assert sorted(campaign(tmp_path).results()) == [1] and ran(tmp_path) == [1, 2]


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/", "-1/2"])
def test_a_part_that_is_none_is_refused(text: str):
    with pytest.raises(TspError, match="part must be a number and how many there are, such as 2/8"):
        Part.parse(text)


@pytest.mark.parametrize("text", ["", "5", "5:5", "a:b", "-1:3"])
def test_cases_that_are_none_are_refused(text: str):
    with pytest.raises(TspError, match="cases must be the first and the one behind the last"):
        cases_of(text)
    assert cases_of("3:6") == range(3, 6)


def test_a_folder_that_cannot_be_written_is_a_line(tmp_path: Path, work):
    (tmp_path / "results").touch()
    with pytest.raises(TspError, match="cannot write"):
        campaign(tmp_path).run([1], work)
    assert not ran(tmp_path)  # no work is done that could not be kept
    with pytest.raises(TspError, match="jobs must be at least 1"):
        campaign(tmp_path, jobs=0)


STOPPED = """
import sys
from functools import partial
from pathlib import Path

from base.campaign import Campaign
from base.child import run_group
from base.command import run


def work(folder: Path, case: int) -> dict:
    with open(folder / f"began-{case}", "w") as output:
        run_group(["sleep", "98.7654"], folder, output)
    return {}


def main(folder: Path) -> None:
    Campaign(folder=folder, key="a", jobs=2).run(range(4), partial(work, folder))


if __name__ == "__main__":
    run(main, "stopped")
"""


@pytest.mark.parametrize("of_all", [False, True], ids=["one", "group"])
def test_a_signal_ends_all_that_was_started(of_all: bool, tmp_path: Path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    campaign = subprocess.Popen([sys.executable, "stopped.py", "."], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                                start_new_session=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    while not (tmp_path / "began-1").exists():
        assert campaign.poll() is None
        time.sleep(0.05)
    started = psutil.Process(campaign.pid).children(recursive=True)
    (os.killpg if of_all else os.kill)(campaign.pid, signal.SIGTERM)
    _, said = campaign.communicate(timeout=60)
    assert campaign.returncode == 143 and "Traceback" not in said
    assert not psutil.wait_procs(started, timeout=30)[1]
