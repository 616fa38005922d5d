"""Two boards that are joined at their pins, in Verilator, and the real host software on two terminals."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from board_racks import BOARDS, OTHER, OWN_CLOCKS, ROOT, shared
from checkpoints import REPOSITORY

from arch.rack import RACKS, RackConfig
from base.errors import TspError
from cli.link_test import ranges
from cli.main import app
from fpga.host.board import Link, open_line
from fpga.host.link_test import LinkTest, middle, widest
from fpga.host.links import number_of, parents
from fpga.host.rack import BoardChips, RackOfBoards, open_boards, open_rack
from fpga.simulate_rack import Cable, SimulatedRack, link_of
from hw.link.receive import Fault
from program.file import save
from run.devices import open_device
from run.programs import open_any
from sim.device.protocol import ChipFault

LINK = link_of(BOARDS.chips[0])
CABLE = Cable(delay=2000, skew=300, jitter=50, errors=2e-6, seed=4)
"""A bit lasts 10,000 ps on these boards."""


@pytest.fixture(scope="module")
def boards() -> Iterator[SimulatedRack]:
    with SimulatedRack(BOARDS, cable=CABLE) as simulated:
        yield simulated


@pytest.fixture(scope="module")
def device(boards: SimulatedRack) -> Iterator[RackOfBoards]:
    opened = open_rack(boards.paths, BOARDS)
    opened.load(shared())
    yield opened
    opened.close()


def alike(device: RackOfBoards, blocks: list[int]) -> None:
    """Tokens and logits of a sampled story are the reference's, cycles the predicted ones, in blocks of these
    lengths."""
    program = device._program
    reference = open_device("reference", program.rack)
    reference.load(program)
    position = 0
    for each in (device, reference):
        each.start([1, 5, 9], 1.0, 7)
    for block in blocks:
        mine, theirs = device.run(block), reference.run(block)
        assert [one.token for one in mine] == [one.token for one in theirs]
        assert [one.cycles for one in mine] == [program.cycles(position + n) for n in range(block)]
        assert np.array_equal(device.logits(), reference.logits())
        position += block
    assert not device.errors


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app(list(arguments)) == 2
    error = capfd.readouterr().err
    assert error.startswith("tsp: ") and error.count("\n") == 1
    return error


def test_what_is_no_rack_of_boards_is_refused(boards: SimulatedRack, tmp_path: Path,
                                              capfd: pytest.CaptureFixture[str]):
    root, other = boards.paths
    save(shared(), tmp_path / "shared.tsp")
    run = "run", str(tmp_path / "shared.tsp"), "--device"
    assert f"{other} is a board that takes its clock from a link, so it cannot be chip 0" in refused(
        capfd, *run, f"{other},{root}")
    assert "has 2 chips, so --device must name as many serial ports" in refused(capfd, *run, root)
    assert "must name each board's own port" in refused(capfd, *run, f"{root},{root}")
    assert "is a board with config small_linked" in refused(capfd, "link-test", f"{root},{other}")


def test_a_story_on_two_boards_with_wrong_bits(boards: SimulatedRack, device: RackOfBoards):
    """Each wrong bit is corrected, in the cycles that were predicted."""
    alike(device, [1, 2, 5])
    corrected, failed = device.link_errors
    wrong = sum(boards.bits(port)[1] for port in BOARDS.across)
    assert 0 < corrected <= wrong and failed == device.replays == 0


def test_the_eye_of_a_pin_is_as_wide_as_its_bit(device: RackOfBoards):
    """16 settings span 3 ns of a bit's 10: all are good but for those nearest to the bit's edge."""
    test = LinkTest(device._boards.links)
    eye = test._eye(device._boards.links.ends[OTHER], 3)
    assert widest(eye) >= 10 and all(eye[4:])
    test._restore(device._boards.links.ends[OTHER], 3, eye)
    device._boards.links.clear()
    assert device._boards.links.up()


# --- nightly -------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    rack = tmp_path / "twins_boards.json"
    rack.write_text(json.dumps(BOARDS.as_json()))
    save(shared(), tmp_path / "shared.tsp")
    with SimulatedRack(BOARDS) as boards:
        ports = ",".join(boards.paths)
        assert app(["link-test", ports, "--rack", str(rack), "--trainings", "2", "--seconds", "0.5"]) == 0
        out = capfd.readouterr().out
        assert "all links are good" in out and "data pin  4  " in out
        assert app(["run", str(tmp_path / "shared.tsp"), "--device", ports, "--tokens", "4", "--json"]) == 0
        told = json.loads(capfd.readouterr().out)
        assert told["device"] == ports and told["measured_cycles"] == told["predicted_cycles"]


@pytest.mark.nightly
def test_tokens_with_errors_beyond_correction_are_run_again():
    with SimulatedRack(BOARDS, cable=Cable(errors=1e-4, seed=1)) as boards:
        device = open_rack(boards.paths, BOARDS)
        device.load(shared())
        alike(device, [1] * 12)
        assert device.replays > 0 and device.link_errors[1] >= device.replays
        device.close()


@pytest.mark.nightly
@pytest.mark.parametrize("pin", [0, 4, LINK.pins - 1])
def test_a_dead_line_is_named(pin: int):
    with SimulatedRack(BOARDS) as boards:
        boards.lines(OTHER, delays=[1000] * (LINK.pins + 1), cut=1 << pin)
        with pytest.raises(TspError, match=f"the line of data pin {pin} from port 0.E0 to port 1.E0 does not train"):
            open_rack(boards.paths, BOARDS)


@pytest.mark.nightly
def test_without_the_clock_of_the_root_the_other_board_is_silent():
    with SimulatedRack(BOARDS) as boards:
        boards.pull(Cable())
        with pytest.raises(TspError, match=r"no board answers .* takes the clock of the link, the cable"):
            open_rack(boards.paths, BOARDS)


@pytest.mark.nightly
def test_a_cable_pulled_in_mid_run_is_an_error():
    with SimulatedRack(BOARDS) as boards:
        device = open_rack(boards.paths, BOARDS)
        device.load(shared())
        device.start([1, 5, 9], 1.0, 7)
        device.run(2)
        boards.pull(Cable())
        with pytest.raises((ChipFault, TspError)):
            device.run(4)
        boards.plug(Cable())
        device.close()
        again = open_rack(boards.paths, BOARDS)
        again.load(shared())
        alike(again, [3])
        again.close()


@pytest.mark.nightly
@pytest.mark.parametrize(("rack", "bit"), [(BOARDS, 10_000), (RACKS["pair"], 5_000)],
                         ids=["a beat a cycle", "two beats a cycle"])
def test_one_latency_at_all_phases(rack: RackConfig, bit: int):
    """The follower's clock, and the lines, at any time of a bit, which lasts `bit` ps."""
    rng = np.random.default_rng(0)
    for run in range(8):
        cable = Cable(delay=int(rng.integers(2 * bit)), skew=bit // 10, jitter=bit // 50, seed=run)
        with SimulatedRack(rack, cable=cable, phases=[0, int(rng.integers(20_000))]) as boards:
            lines, _ = open_boards(boards.paths, rack)
            chips = BoardChips(rack, lines)
            chips.links.bring_up()
            assert chips.links.up(), run
            chips.close()


@pytest.mark.nightly
def test_the_shipped_model_on_a_pair_of_boards():
    """As the Verilated rack runs it."""
    pair = RACKS["pair"]
    program = open_any(REPOSITORY / "models" / "stories263k.bin", rack="pair")
    with SimulatedRack(pair, cable=CABLE) as boards:
        device, rtl = open_rack(boards.paths, pair), open_device("rtl", pair)
        for each in (device, rtl):
            each.load(program)
            each.start([1, 5, 9], 1.0, 7)
        assert device.run(8) == rtl.run(8)
        assert np.array_equal(device.logits(), rtl.logits())
        for each in (device, rtl):
            each.close()


@pytest.mark.nightly
def test_clocks_of_their_own_run_apart_and_the_elastic_buffer_says_so():
    with SimulatedRack(BOARDS, ppm=[10.0, -10.0]) as boards:
        chips = BoardChips(BOARDS, [Link(open_line(path), path) for path in boards.paths])
        chips.links.bring_up()
        seen: set[Fault] = set()
        for _ in range(1000):
            if seen:
                break
            seen = {fault for end in chips.links.ends.values() for fault in end.status().faults}
        assert seen and seen <= {Fault.UNDERFLOW, Fault.OVERFLOW}
        chips.close()


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_a_story_on_boards_with_clocks_of_their_own(seed: int):
    """Each as far off as its oscillator may be, with jitter and wrong bits. The host takes its time between tokens."""
    cable = replace(CABLE, delay=2000 + 3000 * seed, seed=seed)
    with SimulatedRack(OWN_CLOCKS, cable=cable, ppm=[(-1) ** (seed + n) * 100.0 for n in range(2)]) as boards:
        device = open_rack(boards.paths, OWN_CLOCKS)
        device.load(shared(OWN_CLOCKS))
        alike(device, [1, 2, 9])
        assert device.link_errors[0] > 0 and device.link_errors[1] == device.replays == 0
        device.close()


@pytest.mark.nightly
def test_bitstreams_for_one_clock_are_refused_where_each_has_its_own():
    with (SimulatedRack(BOARDS, ppm=[100.0, -100.0]) as boards,
          pytest.raises(TspError, match=r"must have links with a slack of 2 cycles .* not with one clock")):
        open_rack(boards.paths, OWN_CLOCKS)


def test_numbers_in_ranges():
    assert ranges([10, 11, 12, 13, 15]) == "10..13, 15" and ranges([]) == ""


# --- without boards ------------------------------------------------------------------------------------------------


def test_numbers_and_parents():
    assert number_of(BOARDS, ROOT) == 0 and parents(BOARDS) == {1: OTHER}


def test_the_middle_of_an_eye():
    eye = [bool(int(bit)) for bit in "0110111100"]
    assert (widest(eye), middle(eye)) == (4, 6)
    assert (widest([False] * 4), middle([False] * 4)) == (0, 0)


@pytest.mark.parametrize(("text", "words"), [
    ("delay", "delay must be a number"), ("delay=1,delay=2", "delay must be given once"),
    ("length=3", "--cable must be of delay, skew, jitter, errors, seed"),
    ("skew=-1", r"skew must be in 0\.\.200000 ps"), ("errors=2", r"errors must be a probability in 0\.\.0\.5"),
    ("seed=-1", "seed must be 0 or more"),
])
def test_cables_that_are_refused(text: str, words: str):
    with pytest.raises(TspError, match=words):
        Cable.parse(text)


def test_a_cable_in_words():
    assert Cable.parse("") == Cable() and Cable.parse("delay=5,errors=1e-6") == Cable(delay=5, errors=1e-6)
