"""The logic of a board behind its pins, in Verilator, and the real host software on the other end of a terminal."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import REPOSITORY
from fake_board import Noise, NoisyLine
from programs import small_program

from arch.config import CONFIGS
from arch.identity import chip_digest
from arch.row import queues
from cli.main import app
from fpga.boards import BOARDS
from fpga.gateware.uart import BITS, divisor_of
from fpga.host.board import Board, Link, open_board, open_line
from fpga.simulate import FAST, SimulatedBoard
from program.file import save
from run.devices import open_device
from run.programs import open_program
from sim.device.chip_device import ChipDevice
from sim.device.protocol import Device

SHIPPED = REPOSITORY / "models" / "stories263k.bin"


@pytest.fixture(scope="module")
def board() -> Iterator[SimulatedBoard]:
    with SimulatedBoard(CONFIGS["tiny"], mhz=62.5) as simulated:
        yield simulated


def alike(devices: tuple[Device, Device], blocks: list[int]) -> None:
    """Tokens, cycles and logits of a sampled story, in blocks of these lengths."""
    for device in devices:
        device.start([1, 5, 9], 1.0, 7)
    for block in blocks:
        assert devices[0].run(block) == devices[1].run(block)
        assert np.array_equal(devices[0].logits(), devices[1].logits())
    assert not devices[0].errors
    assert devices[0].counters == devices[1].counters


def test_a_story_on_the_board_is_that_of_the_rtl(board: SimulatedBoard):
    program = small_program()
    rtl, device = open_device("rtl", program.config), open_board(board.path, program.config)
    for each in (rtl, device):
        each.load(program)
    alike((device, rtl), [1, 2, 7, 30])
    for each in (rtl, device):
        each.close()


def test_a_story_on_the_board_of_four_lanes():
    """The chip of `ulx3s_45f`, a model of the size that it holds, and its board's clock."""
    program = small_program("small", hidden_dim=64, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=256)
    with SimulatedBoard(CONFIGS["small"], mhz=BOARDS["ulx3s_45f"].mhz) as simulated:
        rtl, device = open_device("rtl", program.config), open_board(simulated.path, program.config)
        for each in (rtl, device):
            each.load(program)
        alike((device, rtl), [1, 2, 12])
        for each in (rtl, device):
            each.close()


def test_a_program_loaded_by_the_back_door_is_the_same():
    """All memories and a story are those of the RTL. Loading takes a tenth of the line's time."""
    program = small_program()
    rtl = open_device("rtl", program.config)
    assert isinstance(rtl, ChipDevice)
    rtl.load(program)
    with SimulatedBoard(program.config, mhz=62.5, back_door=True) as simulated:
        device = open_board(simulated.path, program.config)
        began, sent = simulated.cycles, device.link.sent
        device.load(program)
        device.link.settle()
        assert simulated.cycles - began < (device.link.sent - sent) * BITS * FAST / 10
        same_memories(device, rtl)
        alike((device, rtl), [1, 2, 12])
        device.close()
    rtl.close()


@pytest.mark.nightly
def test_a_program_loaded_by_the_back_door_over_a_line_with_noise():
    """Small frames, two programs."""
    there, back = Noise(5, 3000, spared=3000), Noise(6, 1000, spared=100)
    with SimulatedBoard(CONFIGS["tiny"], mhz=62.5, back_door=True) as simulated:
        device = Board(Link(NoisyLine(open_line(simulated.path), there, back), "noisy", payload=128), "noisy",
                       CONFIGS["tiny"])
        rtl = open_device("rtl", CONFIGS["tiny"])
        assert isinstance(rtl, ChipDevice)
        for program in (small_program(), small_program(n_layers=1, vocab_size=50)):
            for each in (device, rtl):
                each.load(program)
            alike((device, rtl), [1, 2, 7])
        device.close()
        assert there.events > 10 and back.events > 3
        quiet = open_board(simulated.path, CONFIGS["tiny"])
        same_memories(quiet, rtl)
        for each in (quiet, rtl):
            each.close()


def same_memories(one: ChipDevice, other: ChipDevice) -> None:
    """Every word of every slice."""
    for queue in queues(one.chip.config):
        if queue.unit == "MEM":
            assert np.array_equal(one.chip.read_mem(queue.name), other.chip.read_mem(queue.name)), queue.name


def test_a_story_over_a_line_with_noise(board: SimulatedBoard):
    """Bytes are changed, dropped and inserted in both directions; small frames, so that tags wrap too."""
    program = small_program(n_layers=1, vocab_size=50)
    there, back = Noise(5, 3000, spared=3000), Noise(6, 1000, spared=100)
    device = Board(Link(NoisyLine(open_line(board.path), there, back), "noisy", payload=128), "noisy", program.config)
    rtl = open_device("rtl", program.config)
    for each in (rtl, device):
        each.load(program)
    alike((device, rtl), [1, 2, 7])
    assert there.events > 10 and back.events > 3
    for each in (rtl, device):
        each.close()


def test_the_command_runs_on_a_board(board: SimulatedBoard, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """The same object as of the RTL, but for the device's name and the board's clock."""
    save(small_program(n_layers=1, vocab_size=50), tmp_path / "good.tsp")
    told = []
    for device in (board.path, "rtl"):
        run = ["run", str(tmp_path / "good.tsp"), "--device", device, "--prompt", "ab", "--tokens", "8", "--seed", "3",
               "--temperature", "1"]
        assert app([*run, "--json"]) == 0
        told.append(json.loads(capfd.readouterr().out))
    mine, rtl = told
    assert (mine["device"], mine["clock_mhz"]) == (board.path, 62.5)
    assert mine["tokens_per_second"] == pytest.approx(rtl["tokens_per_second"] * 62.5 / rtl["clock_mhz"])
    changed = {"device", "clock_mhz", "tokens_per_second"}
    assert mine.keys() == rtl.keys()
    assert all(mine[key] == rtl[key] for key in mine.keys() - changed)
    assert mine["measured_cycles"] == mine["predicted_cycles"]


def test_a_board_with_another_chip_is_refused(board: SimulatedBoard, tmp_path: Path,
                                              capfd: pytest.CaptureFixture[str]):
    save(small_program("ulx3s"), tmp_path / "other.tsp")
    assert app(["run", str(tmp_path / "other.tsp"), "--device", board.path]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err == (f"tsp: {board.path} is a board with config tiny ({chip_digest(CONFIGS['tiny'])}), the "
                                 f"program is for config ulx3s ({chip_digest(CONFIGS['ulx3s'])}): compile with "
                                 "--config tiny, or load the other bitstream\n")


BAD = [(["--mhz", mhz], "--mhz must be in 0.01..10000, not ") for mhz in ("inf", "nan", "-50", "0", "1e30")]
BAD += [(["--baud", baud], "--baud must be in 300..12500000 at 50 MHz") for baud in ("-1", "299", "12500001")]

BAD += [(["--board", "ulx3s", *option], f"{option[0]} must not be given together with --board")
        for option in (["--mhz", "-5"], ["--mhz", "50"], ["--config", "tiny"])]


def test_the_simulated_board_is_a_command(board: SimulatedBoard, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    save(small_program(n_layers=1, vocab_size=50), tmp_path / "good.tsp")
    command = [sys.executable, "-m", "fpga.simulate", "--config", "tiny", "--mhz", "62.5"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "a board with config tiny at /dev/pts/" in line
        assert app(["run", str(tmp_path / "good.tsp"), "--device", line.split()[-1], "--tokens", "2"]) == 0
        process.terminate()
    out = capfd.readouterr().out
    assert "at 62.5 MHz" in out and "measured" in out
    for options, words in BAD:
        wrong = subprocess.run([*command[:3], *options], cwd=REPOSITORY, capture_output=True, text=True)
        assert wrong.returncode == 2 and wrong.stderr.startswith(f"fpga.simulate: {words}"), wrong.stderr
        assert wrong.stderr.count("\n") == 1
    wrong = subprocess.run([*command[:3], "--config", "huge"], cwd=REPOSITORY, capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("fpga.simulate: config must be one of")
    wrong = subprocess.run([*command[:3], "--board", "huge"], cwd=REPOSITORY, capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("fpga.simulate: board must be one of")


@pytest.mark.nightly
@pytest.mark.parametrize("back_door", [False, True], ids=["line", "back door"])
def test_the_shipped_model_on_a_board(back_door: bool):
    program = open_program(SHIPPED)
    with SimulatedBoard(program.config, back_door=back_door) as simulated:
        device, rtl = open_board(simulated.path, program.config), open_device("rtl", program.config)
        for each in (device, rtl):
            each.load(program)
        alike((device, rtl), [1, 31, 8])
        for each in (device, rtl):
            each.close()


@pytest.mark.nightly
@pytest.mark.parametrize("name", BOARDS)
def test_a_program_loads_in_the_time_of_its_bytes(name: str):
    """At the board's clock and baud rate."""
    mhz, baud = BOARDS[name].mhz, BOARDS[name].baud
    program = small_program()
    with SimulatedBoard(program.config, divisor=divisor_of(mhz, baud), mhz=mhz) as simulated:
        device = open_board(simulated.path, program.config)
        before, sent = simulated.cycles, device.link.sent
        device.load(program)
        device.link.settle()
        line = (device.link.sent - sent) * BITS / baud
        assert 0.999 * line < (simulated.cycles - before) / mhz / 1e6 < 1.01 * line
        device.close()
