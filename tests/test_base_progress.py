"""base.progress: what takes long says so, with an estimate; what is quick says nothing."""

import threading
import time

import pytest
from programs import small_program

from base.progress import progress
from run.devices import open_device
from run.sampling import Sampling
from run.session import Session
from sim.cycle.chip import ModelChip

EVERY = 0.01


def wait_for(capfd: pytest.CaptureFixture[str], words: str) -> str:
    """Standard error up to a line with these words."""
    text, end = "", time.monotonic() + 20
    while words not in text:
        assert time.monotonic() < end, text
        time.sleep(EVERY)
        text += capfd.readouterr().err
    return text


def test_quick_work_says_nothing(capfd: pytest.CaptureFixture[str]):
    with progress("work", 100, every=60):
        pass
    assert capfd.readouterr() == ("", "")


def test_a_line_each_time_with_an_estimate(capfd: pytest.CaptureFixture[str]):
    with progress("work", every=EVERY) as tell:
        assert "left" not in wait_for(capfd, "work: 0 s\n")
        tell(0.5)
        wait_for(capfd, ", 50%, about 0 s left\n")
    with progress("work", 100, every=EVERY):
        wait_for(capfd, "work: 0 s of about 100 s\n")
    with progress("work", 1e-9, every=EVERY):
        wait_for(capfd, "longer than expected\n")
    with progress("work", done=lambda: 0.25, every=EVERY):
        wait_for(capfd, ", 25%")


def test_nothing_goes_on_behind_the_work():
    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"), progress("work", every=EVERY):
        raise ValueError("mine")
    assert threading.active_count() == before


def test_loading_and_running_a_slow_device_tells_how_far_it_is(capfd: pytest.CaptureFixture[str],
                                                              monkeypatch: pytest.MonkeyPatch):
    """The part that is done grows from line to line, up to the end of the token.

    The device rests every 300 cycles, so that the thread that writes lines gets its turn on a busy machine.
    """
    step = ModelChip.step

    def slow(chip: ModelChip) -> None:
        if chip.now % 300 == 0:
            time.sleep(10 * EVERY)
        step(chip)

    monkeypatch.setattr(ModelChip, "step", slow)
    monkeypatch.setattr("base.progress.EVERY", EVERY)
    monkeypatch.setattr(progress.__wrapped__, "__kwdefaults__", {"done": None, "every": EVERY})  # type: ignore[attr-defined]
    program = small_program()
    session = Session(open_device("model", program.config), program)
    session.prompt([1], Sampling())
    session.run(2)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("device model: position 0, ")]
    parts = [int(line.split("%")[0].split()[-1]) for line in lines if "%" in line]
    assert len(parts) > 2 and parts == sorted(parts) and 0 < parts[0] < parts[-1] <= 100
