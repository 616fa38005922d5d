"""The way to a simulated board with a back door, with the bridge in Python in place of the simulator."""

import ctypes
import os
import threading
import tty
from collections.abc import Iterator

import numpy as np
import pytest
from fake_board import FakeBoard, Memory

from arch.host_map import Control, Space
from fpga.back_door import BackDoorLine
from fpga.host.frames import Read, writes
from program.image import each

RUN = [(Space.MEM, 0x400 + n, (n + 1) * 0x0123456789ABCDEF) for n in range(100)]


class Simulator(ctypes.CDLL):
    """The functions of the harness. `line` holds the bytes that crossed the serial line."""

    def __init__(self) -> None:
        self.memory, self.line, self.running, self.bulks = Memory(), bytearray(), False, 0
        self._bridge = FakeBoard(self.memory)

    def board_running(self, _: ctypes.c_void_p) -> int:
        return self.running

    def board_run(self, _: ctypes.c_void_p, source: int, to: int, cycles: int) -> int:
        try:
            data = os.read(source, cycles)
        except BlockingIOError:
            return not self.running
        self.line += data
        for byte in data:
            if reply := self._bridge.feed(byte):
                os.write(to, reply)
        return 0

    def board_write(self, _: ctypes.c_void_p, found: np.ndarray, count: int) -> None:
        assert len(found) == count and not self.running
        self.bulks += 1
        for access in each(found):
            self.memory.host_write(*access)


class Rig:
    """A simulator behind a terminal."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        os.set_blocking(self.slave, False)
        tty.setraw(self.slave)
        self.simulator = Simulator()
        self._line = BackDoorLine(self.simulator, ctypes.c_void_p(), self.master, threading.Event())

    def send(self, data: bytes) -> bytes:
        """Send bytes of the host, and pass on until nothing is left. Returns the replies."""
        os.write(self.slave, data)
        for _ in range(10):
            self._line.step()
        try:
            return os.read(self.slave, 1 << 12)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self._line.close()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def reply_of(data: bytes) -> bytes:
    """The replies of a board without a back door."""
    board = FakeBoard(Memory())
    return b"".join(board.feed(byte) for byte in data)


def test_a_frame_takes_a_fraction_of_the_line(rig: Rig):
    """The chip's words, the reply, and the words that a read gives afterwards."""
    data = next(writes(RUN)).frame(0)
    assert rig.send(data) == reply_of(data)
    assert len(rig.simulator.line) < 50 and rig.simulator.bulks == 1
    assert dict(rig.simulator.memory) == {(space, addr): word for space, addr, word in RUN}
    words = rig.send(Read(Space.MEM.value, RUN[0][1], 100).frame(1))[4:-4]
    assert words == b"".join(word.to_bytes(16, "little") for _, _, word in RUN)


def test_frames_go_over_the_line_while_tokens_run(rig: Rig):
    data = next(writes(RUN)).frame(0)
    rig.simulator.running = True
    assert rig.send(data) == reply_of(data)
    assert rig.simulator.line == data and not rig.simulator.bulks
    assert dict(rig.simulator.memory) == {(space, addr): word for space, addr, word in RUN}


def test_what_the_board_refuses_is_not_written(rig: Rig):
    """A frame that comes again after it was taken. Commands and frames of one write are not touched."""
    first, again, other = next(writes(RUN)).frame(0), next(writes(RUN[:8])).frame(0), next(writes(RUN[:1])).frame(1)
    command = next(writes([(Space.CONTROL, Control.POSITION.value, 5)])).frame(2)
    expected = reply_of(first + again + other + command)
    assert rig.send(first) == expected[:8]
    rig.simulator.memory.clear()
    assert rig.send(again) == expected[8:16] and not rig.simulator.memory
    rig.simulator.line.clear()
    assert rig.send(other + command) == expected[16:]
    assert rig.simulator.line == other + command
    assert rig.simulator.memory.commands == [(Control.POSITION.value, 5)]


def test_a_damaged_frame_goes_over_the_line(rig: Rig):
    data = bytearray(next(writes(RUN)).frame(0))
    data[40] ^= 1
    assert rig.send(bytes(data)) == reply_of(bytes(data))
    assert rig.simulator.line == data and not rig.simulator.bulks
