"""A rack as a device: the tokens and logits of the reference, chips that must agree, and lines with faults."""

import numpy as np
import pytest
from small_racks import PAIR, alone, in_line, shared, twins

from arch.config import CONFIGS
from arch.host_map import Trap
from arch.rack import RACKS, RackConfig
from base.errors import TspError
from run import devices
from run.devices import open_device
from run.sampling import Sampling
from run.session import BrokenPromise, ChipFault, Session, self_test
from sim.device.rack import RackDevice, Ran
from sim.lines import LineFaults
from sim.rack import ModelRack

PROMPT = [1, 30, 40, 50, 60]
WARM = Sampling(temperature=1.0, seed=5)
HOST = Sampling(temperature=1.0, seed=5, top_p=0.7, frequency_penalty=0.5)


def opened(name: str, faults: str = "") -> RackDevice:
    found = open_device(name, PAIR, faults=LineFaults.parse(faults) if faults else None)
    assert isinstance(found, RackDevice)
    return found


def told(session: Session, prompt: list[int], sampling: Sampling, tokens: int = 6) -> tuple[list[int], np.ndarray]:
    """Tokens after a prompt, each in the predicted cycles, and the logits of the last position."""
    cached = session.prompt(prompt, sampling)
    steps = session.run(len(prompt) - cached - 1 + tokens)
    assert all(step.measured in (None, step.predicted) for step in steps)
    return [step.token for step in steps[-tokens:]], session.logits()


def reference() -> Session:
    return Session(open_device("reference", PAIR), shared())


@pytest.mark.parametrize("sampling", [Sampling(), WARM, HOST], ids=["greedy", "chip", "host"])
def test_a_rack_tells_what_the_reference_tells(sampling: Sampling):
    check_stories(opened("rtl"), sampling)


def test_the_models_tell_it_too():
    check_stories(opened("model"), WARM)


def check_stories(device: RackDevice, sampling: Sampling) -> None:
    """Two stories with a common beginning, and the self-test."""
    session = Session(device, shared())
    self_test(session)
    for prompt in (PROMPT, [*PROMPT[:3], 41, 9]):
        tokens, logits = told(session, prompt, sampling, 4)
        expected, expected_logits = told(reference(), prompt, sampling, 4)
        assert tokens == expected and np.array_equal(logits, expected_logits)
    assert device.counters.cycles and device.link_errors == (0, 0)
    device.close()


def test_the_whole_context():
    device = opened("rtl")
    tokens, logits = told(Session(device, shared()), [1], WARM, shared().context)
    expected, expected_logits = told(reference(), [1], WARM, shared().context)
    assert tokens == expected and np.array_equal(logits, expected_logits)
    assert sum(shared().cycles(p) for p in range(shared().context)) == device.counters.cycles
    device.close()


@pytest.mark.parametrize("name", ["model", "rtl"])
def test_layers_on_one_chip_after_the_other(name: str):
    device = opened(name)
    tokens, logits = told(Session(device, in_line()), PROMPT, WARM, 3)
    expected, expected_logits = told(Session(open_device("reference", PAIR), in_line()), PROMPT, WARM, 3)
    assert tokens == expected and np.array_equal(logits, expected_logits)
    device.close()


def test_other_programs_are_refused():
    device = opened("model")
    with pytest.raises(TspError, match="is for one chip, config tiny_linked; device"):
        device.load(alone())
    with pytest.raises(TspError, match=r"is for rack twins \(\w+\), device model is rack pair"):
        RackDevice("model", ModelRack(RACKS["pair"])).load(twins())
    with pytest.raises(TspError, match="is for rack twins, but device model is one chip"):
        open_device("model", CONFIGS["tiny"]).load(twins())


# --- chips that do not agree -----------------------------------------------------------------------------------------


class Odd(ModelRack):
    """A rack one of whose chips does something else."""

    cycles = 0
    token = False

    def run(self, n_tokens: int, changes=None) -> Ran:
        ran = super().run(n_tokens, changes)
        ran.cycles[1][0] += self.cycles
        if self.token:
            symbol = twins().chips[1].symbols["tokens"]
            chip = self.chips[1]
            quads = chip.read_mem(f"MEM_{symbol.slice}", symbol.addr, 1)
            quads[:, 0] ^= 1
            chip.load_mem(f"MEM_{symbol.slice}", quads, symbol.addr)
        return ran


def test_chips_that_differ_break_the_promise():
    odd = Odd(PAIR)
    session = Session(RackDevice("model", odd), twins())
    session.prompt([1, 30, 40], Sampling())
    odd.cycles = 4
    period = twins().cycles(0)
    differs = f"for position 1, chip 0 took {period} cycles, chip 1 took {period + 4} cycles"
    with pytest.raises(BrokenPromise, match=differs):
        session.run(2)
    odd.cycles, odd.token = 0, True
    session.prompt([1, 30, 40], Sampling())
    with pytest.raises(BrokenPromise, match="for position 1, chip 0 chose token 30, chip 1 chose token 31"):
        session.run(2)


def test_an_error_of_one_chip_is_the_racks():
    device = RackDevice("model", ModelRack(PAIR))
    device.load(twins())
    device.chip.chips[1].time.errors |= 1 << Trap.NOT_PARKED.value  # type: ignore[attr-defined]
    assert device.errors == {Trap.NOT_PARKED}


# --- lines with faults -----------------------------------------------------------------------------------------------


def faulty(name: str, faults: str) -> tuple[list[int], np.ndarray, RackDevice]:
    """A story of the rack with faults: the tokens, each in the predicted cycles."""
    device = opened(name, faults)
    found = told(Session(device, shared()), PROMPT, WARM, 8)
    device.close()
    return *found, device


@pytest.mark.parametrize("name", [pytest.param("model", marks=pytest.mark.nightly), "rtl"])
def test_wrong_bits_change_no_token_and_no_cycle(name: str):
    expected, logits = told(reference(), PROMPT, WARM, 8)
    for rate, replays in ((1e-4, False), (1.3e-3, True)):
        tokens, found, device = faulty(name, f"errors={rate},seed=3")
        assert tokens == expected and np.array_equal(found, logits)
        assert device.link_errors[0] > 0 and (device.replays > 0) == replays, (device.link_errors, device.replays)


@pytest.mark.nightly
def test_model_and_rtl_see_the_same_errors():
    model, rtl = (faulty(name, "errors=1.3e-3,seed=4")[2] for name in ("model", "rtl"))
    assert model.link_errors == rtl.link_errors and model.replays == rtl.replays and model.link_errors[1]


@pytest.mark.parametrize(("name", "faults"), [
    ("model", "cut,at=6"), ("rtl", "cut,at=6"), ("rtl", "delay=1.5,link=0.E0,at=6"), ("rtl", "errors=0.1")])
def test_a_line_that_is_lost_is_an_error_and_never_a_wrong_token(name: str, faults: str):
    device = opened(name, faults)
    session = Session(device, shared())
    session.prompt(PROMPT, WARM)
    expected = reference()
    expected.prompt(PROMPT, WARM)
    seen: list[int] = []
    with pytest.raises(ChipFault, match=r"token at position \d+ is lost: link error \w+ at port [01]\.E0") as caught:
        while len(seen) < 12:
            seen += [step.token for step in session.run(1)]
    assert seen == [step.token for step in expected.run(len(seen))] and "\n" not in str(caught.value)
    assert (len(seen) == 6) == ("at=6" in faults)
    device.close()


def test_a_small_delay_is_taken_up():
    assert faulty("rtl", "delay=0.5")[2].link_errors == (0, 0)


@pytest.mark.parametrize(("name", "config", "words"), [
    ("reference", PAIR, "not device reference with twins"),
    ("model", CONFIGS["tiny"], "not device model with tiny"),
])
def test_faults_need_a_simulated_rack(name: str, config: RackConfig, words: str):
    with pytest.raises(TspError, match=words):
        open_device(name, config, faults=LineFaults())


def test_what_a_rack_is_not():
    with pytest.raises(TspError, match="rack twins has 2 chips, so --device must name as many serial ports"):
        open_device("/dev/ttyUSB0", PAIR)
    with pytest.raises(TspError, match="name one port, not /dev/ttyUSB0,/dev/ttyUSB1; for linked boards"):
        open_device("/dev/ttyUSB0,/dev/ttyUSB1", CONFIGS["tiny"])


def test_memory_is_counted_before_it_is_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "available_memory", lambda: 100 << 20)
    with pytest.raises(TspError, match=r"the 2 chips of rack twins take about 0\.1 GiB of memory, and 0\.1 GiB are"):
        open_device("model", PAIR)


