"""The host's end of the line: what it sends, how it repairs, and what it refuses, against a board in Python."""

import os
import pty
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import REPOSITORY
from fake_board import FakeBoard, FakeLine, Memory, Noise, NoisyLine
from programs import small_program

from arch import identity
from arch.config import CONFIGS
from arch.host_map import Control, Space, address
from arch.identity import chip_digest
from base.errors import TspError
from cli.main import app
from fpga.gateware.uart import BITS
from fpga.host import board as link
from fpga.host.board import RETRIES, WINDOW, Board, Link, open_board, open_line
from fpga.host.frames import ZEROS, Replies, reads, writes
from fpga.protocol import FILL, OVERHEAD, PAGE, PAYLOAD, SYNC, TAGS, Identity, with_crc
from program.file import save
from run.board_figures import load_seconds
from run.programs import open_program
from sim.cycle.chip import ModelChip
from sim.device.chip_device import ChipDevice
from sim.device.port_chip import PortChip
from sim.device.reference_device import ReferenceDevice


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch):
    """A fake line answers at once or never; ports that are silent are given up soon."""
    monkeypatch.setattr(link, "HELLO", (0.01, 0.02))


class ModelWords:
    """A cycle model behind a bridge, which runs between accesses."""

    def __init__(self, config) -> None:
        self.chip = ModelChip(config)
        self.started = 0

    def host_write(self, space: Space, addr: int, data: int) -> None:
        self.started += data * (space is Space.CONTROL and addr == Control.RUN.value)
        self.chip.host_write(space, addr, data)
        while self.chip.running:
            self.chip.step()
        self.chip.settle()
        self.chip.step()

    def host_read(self, space: Space, addr: int) -> int:
        return self.chip.host_read(space, addr)


def accesses(rng: random.Random, count: int) -> Iterator[tuple[Space, int, int]]:
    """Runs with and without zeros, words here and there, and commands."""
    spaces = [Space.MEM, Space.MEM, Space.ICU, Space.START, Space.CONTROL]
    for _ in range(count):
        space, addr = rng.choice(spaces), rng.choice([rng.randrange(1 << 30), PAGE - rng.randrange(9)])
        width = rng.choice([0, 1, 8, 64, 128])
        for n in range(rng.choice([1, 2, 40, 300])):
            yield space, addr % 16 if space is Space.CONTROL else addr + n, rng.getrandbits(width) if width else 0


def linked(memory: Memory, **options) -> tuple[Link, FakeLine]:
    line = FakeLine(FakeBoard(memory))
    return Link(line, "fake", **options), line


# ---- what is sent ----


@pytest.mark.parametrize("seed", range(5))
def test_all_writes_arrive_in_order(seed: int):
    wanted, memory = list(accesses(random.Random(seed), 60)), Memory()
    port, _ = linked(memory, payload=random.Random(seed).choice([64, 500, PAYLOAD]))
    port.write(iter(wanted))
    assert port.read(Space.MEM, [1]) == [memory.get((Space.MEM, 1), 0)]
    assert memory == {(space, addr): word for space, addr, word in wanted}
    assert memory.commands == [(addr, word) for space, addr, word in wanted if space is Space.CONTROL]


def test_frames_stay_within_bounds():
    for frame in writes(accesses(random.Random(3), 200)):
        addrs = [addr for addr, _ in frame.words]
        assert len(frame.frame(0)) <= PAYLOAD + OVERHEAD
        assert frame.width or frame.space is Space.ICU or len(addrs) <= FILL
        assert frame.space in (Space.ICU, Space.CONTROL) or len({addr // PAGE for addr in addrs}) == 1


def test_zeros_take_no_bytes():
    words = [3] * 10 + [0] * 1000 + [5] * 10 + [0] * (ZEROS - 1) + [7]
    frames = list(writes((Space.MEM, n, word) for n, word in enumerate(words)))
    assert [(frame.width, len(frame.words)) for frame in frames] == [
        (1, 10), *[(0, FILL)] * 7, (0, 1000 - 7 * FILL), (1, 10 + ZEROS)] or sum(
        len(frame.frame(0)) for frame in frames) < 12 * OVERHEAD


def test_reads_are_runs():
    rng = random.Random(1)
    addrs = [5, 6, 7, 9, *range(PAGE - 3, PAGE + 3), *range(0x400000, 0x400000 + 300), 1, 0]
    memory = Memory()
    memory.update({(Space.MEM, addr): rng.getrandbits(128) for addr in addrs})
    port, _ = linked(memory)
    assert port.read(Space.MEM, addrs) == [memory[Space.MEM, addr] for addr in addrs]
    assert len(list(reads(Space.MEM, addrs))) == 9
    memory[Space.CONTROL, 2] = 1 << 63
    assert port.read(Space.CONTROL, range(4)) == [0, 0, 1 << 63, 0]
    assert port.read(Space.MEM, []) == []


def test_frames_depend_on_no_other():
    """Each frame of instructions begins with the upper parts that its first one relies on; other queues need none."""
    first, other = address(Space.ICU, number=1), address(Space.ICU, queue=1, number=1)
    upper = (Space.ICU, first + 1, 77)
    wanted = [upper, *((Space.ICU, first + 4 * n, 5) for n in range(30)),
              *((Space.ICU, other + 4 * n, 5) for n in range(9))]
    frames = [frame.words for frame in writes(wanted, 64)]
    assert all(words[0] == upper[1:] for words in frames if words[-1][0] < other)
    assert sum(words.count(upper[1:]) for words in frames) < len(frames)
    assert [word for words in frames for word in words if word != upper[1:]] == [access[1:] for access in wanted[1:]]


def test_tags_wrap():
    memory = Memory()
    port, line = linked(memory)
    for n in range(2 * TAGS + 3):
        port.write([(Space.CONTROL, 1, n)])
    assert port.read(Space.CONTROL, [1]) == [2 * TAGS + 2]
    assert line.board.expected == 3 and len(memory.commands) == 2 * TAGS + 3


def test_the_shipped_program_loads_in_time():
    """Every byte on the line at 3 Mbaud; one of 300 KiB is to take 2 s at most, and this one is larger."""
    program = open_program(REPOSITORY / "models" / "stories263k.bin")
    image = sum(data.nbytes for data in program.image.values())
    memory = Memory()
    board = FakeBoard(memory, program.config)
    memory[Space.CONTROL, Control.IDENTITY.value] = int(chip_digest(program.config), 16)
    line = FakeLine(board)
    port = Link(line, "fake")
    device = Board(port, "fake", program.config)
    device.load(program)
    assert image > 300 << 10
    assert len(line.written) == port.sent
    seconds = port.sent * BITS / link.BAUD
    assert seconds < 1.4 and load_seconds(program) == pytest.approx(seconds, abs=0.001)


# ---- a device ----


def test_a_story_over_the_line():
    program = small_program(n_layers=1, vocab_size=50)
    chip = ModelWords(program.config)
    port = Link(FakeLine(FakeBoard(chip, program.config, 62.5)), "fake")
    board, reference = Board(port, "fake", program.config), ReferenceDevice()
    for device in (board, reference):
        device.load(program)
        device.start([1, 5, 9], 1.0, 7)
    results = board.run(3)
    assert [r.token for r in results] == [r.token for r in reference.run(3)]
    assert [r.cycles for r in results] == [program.cycles(p) for p in range(3)]
    assert np.array_equal(board.logits(), reference.logits())
    assert board.clock_mhz == 62.5 and not board.errors and chip.started == 3


def test_a_token_takes_one_write_and_one_read():
    program = small_program(n_layers=1, vocab_size=50)
    line = FakeLine(FakeBoard(ModelWords(program.config), program.config))
    device = ChipDevice("fake", PortChip(program.config, Link(line, "fake")))
    device.load(program)
    device.start([1])
    device.run(1)
    before = len(line.written)
    device.run(1)
    one = len(line.written) - before
    device.run(2)
    assert len(line.written) - before - 2 * one < OVERHEAD + 13 + 12


# ---- damage ----


@pytest.mark.parametrize("seed", range(12))
def test_what_is_damaged_is_repaired(seed: int):
    """Every word arrives, and every command once, whatever happens to the line."""
    wanted, memory = list(accesses(random.Random(seed), 25)), Memory()
    line = FakeLine(FakeBoard(memory))
    there, back = (Noise(seed + 100 * n, 400, spared=3000) for n in range(2))
    port = Link(NoisyLine(line, there, back), "noisy", payload=128)
    port.write(wanted)
    for space in (Space.MEM, Space.START):
        addrs = sorted({addr for each, addr, _ in wanted if each is space})[:200]
        assert port.read(space, addrs) == [memory[space, addr] for addr in addrs]
    assert memory == {(space, addr): word for space, addr, word in wanted}
    assert memory.commands == [(addr, word) for space, addr, word in wanted if space is Space.CONTROL]
    assert there.events > 10


@pytest.mark.parametrize("seed", range(4))
def test_a_story_over_a_noisy_line(seed: int):
    program = small_program(n_layers=1, vocab_size=50)
    chip = ModelWords(program.config)
    there, back = Noise(seed, 1000, spared=3000), Noise(seed + 9, 500, spared=100)
    line = NoisyLine(FakeLine(FakeBoard(chip, program.config)), there, back)
    board, reference = Board(Link(line, "noisy", payload=256), "noisy", program.config), ReferenceDevice()
    for device in (board, reference):
        device.load(program)
        device.start([1, 5, 9], 1.0, 7)
    assert [r.token for r in board.run(3)] == [r.token for r in reference.run(3)]
    assert np.array_equal(board.logits(), reference.logits())
    assert chip.started == 3 and there.events > 20 and back.events > 3


def test_a_board_in_the_middle_of_a_frame_is_found():
    """As after a host that was stopped."""
    memory = Memory()
    board = FakeBoard(memory)
    (frame,) = writes([(Space.MEM, n, 1 << 127) for n in range(PAYLOAD // 16)])
    for size in (1, 13, 14, 40, len(frame.frame(0)) - 1):
        for byte in frame.frame(board.expected)[:size]:
            board.feed(byte)
        port = Link(FakeLine(board), "fake")
        port.write([(Space.CONTROL, 0, size)])
        assert port.read(Space.CONTROL, [0]) == [size]
    assert [word for _, word in memory.commands] == [1, 13, 14, 40, len(frame.frame(0)) - 1]


def test_replies_are_found_between_garbage():
    replies = Replies()
    reply = bytes([SYNC]) + with_crc(bytes([1, 7, 8]))
    replies.feed(b"\x00" + reply[:5] + reply + bytes([SYNC, SYNC]) + reply[:3])
    found = replies.next()
    assert found is not None and (found.tag, found.expected) == (7, 8)
    assert replies.next() is None
    replies.feed(reply[3:])
    assert replies.next() == found and replies.next() is None


# ---- what is refused ----


class Dead(FakeLine):
    """Answers until it is told not to."""

    dead = False

    def write(self, data: bytes) -> int:
        return len(data) if self.dead else super().write(data)


def test_a_board_that_falls_silent():
    line = Dead(FakeBoard(Memory()))
    port = Link(line, "fake")
    line.dead = True
    with pytest.raises(TspError, match=f"fake: {RETRIES} tries in a row failed"):
        port.write((Space.CONTROL, 1, n) for n in range(WINDOW + 1))
    with pytest.raises(TspError, match="tries in a row failed"):
        port.read(Space.MEM, [0])
    with pytest.raises(TspError, match="tries in a row failed"):
        port.check()


def test_a_board_that_is_restarted():
    memory = Memory()
    line = FakeLine(FakeBoard(memory))
    port = Link(line, "fake")
    port.write((Space.CONTROL, 1, n) for n in range(20))
    port.read(Space.CONTROL, [1])
    port.check()
    line.board.expected = 0
    with pytest.raises(TspError, match="fake: the board was restarted"):
        port.check()
    with pytest.raises(TspError, match="fake: the board was restarted"):
        port.write((Space.CONTROL, 1, n) for n in range(WINDOW + 1))


def test_a_line_that_is_lost():
    class Gone(FakeLine):
        def write(self, data: bytes) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(TspError, match="fake: the line was lost: Input/output error"):
        Link(Gone(FakeBoard(Memory())), "fake")


def test_another_device_answers():
    board = FakeBoard(Memory())
    board.identity = bytes(32)
    with pytest.raises(TspError, match="fake: the device that answers is not a Metronome board"):
        Link(FakeLine(board), "fake")


def test_a_wrong_board_is_named(monkeypatch: pytest.MonkeyPatch):
    line = FakeLine(FakeBoard(Memory(), CONFIGS["tiny"]))
    monkeypatch.setattr(link, "open_line", lambda port: line)
    with pytest.raises(TspError) as raised:
        open_board("/dev/ttyUSB9", CONFIGS["ulx3s"])
    assert line.closed
    assert str(raised.value) == (f"/dev/ttyUSB9 is a board with config tiny ({chip_digest(CONFIGS['tiny'])}), the "
                                 f"program is for config ulx3s ({chip_digest(CONFIGS['ulx3s'])}): compile with "
                                 "--config tiny, or load the other bitstream")


def test_a_bitstream_of_an_earlier_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch):
    line = FakeLine(FakeBoard(Memory(), CONFIGS["tiny"]))
    monkeypatch.setattr(link, "open_line", lambda port: line)
    monkeypatch.setattr(identity, "isa_digest", lambda: "0" * 16)
    with pytest.raises(TspError, match=r"config tiny .* for config tiny .*: build its bitstream again"):
        open_board("/dev/ttyUSB9", CONFIGS["tiny"])


@pytest.fixture
def silent() -> Iterator[str]:
    """The path of a terminal whose other end is silent."""
    master, slave = pty.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(("name", "words"), [
    ("/dev/ttyUSB77", "/dev/ttyUSB77: no such port"), ("/dev/null", "not a serial port"),
    ("nothing://here", "cannot be opened"), ("silent", "no board answers at 3 Mbaud"),
])
def test_the_command_refuses_in_one_line(name: str, words: str, silent: str, tmp_path: Path,
                                         capfd: pytest.CaptureFixture[str]):
    save(small_program(), tmp_path / "good.tsp")
    assert app(["run", str(tmp_path / "good.tsp"), "--device", silent if name == "silent" else name]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("tsp: ") and err.count("\n") == 1 and words in err


def test_a_port_is_used_by_one_program(silent: str):
    line = open_line(silent)
    with pytest.raises(TspError, match="used by another program"):
        open_line(silent)
    line.close()


def test_a_port_that_is_not_permitted(monkeypatch: pytest.MonkeyPatch):
    import serial

    def refuse(*_, **__):
        raise serial.SerialException(13, "could not open port")

    monkeypatch.setattr(serial, "serial_for_url", refuse)
    with pytest.raises(TspError, match=r"/dev/ttyUSB0: not permitted: join the group .*dialout"):
        open_line("/dev/ttyUSB0")


def test_identity_is_read_by_the_loader():
    port, _ = linked(Memory())
    assert port.identity == Identity.of(CONFIGS["tiny"], 50.0)
