"""fpga.back_door: what is split off a board's bytes are its writes, and what is passed on is all else, unchanged."""

import random

import pytest

from arch.host_map import Control, Space
from fpga.back_door import Bulk, Splitter
from fpga.host.frames import Read, writes
from fpga.protocol import header, with_crc
from program.image import each

RUN = [(Space.MEM, 0x400 + n, n * 0x0123456789ABCDEF % (1 << 64)) for n in range(300)]
ZEROS = [(Space.MEM, 0x4000 + n, 0) for n in range(200)]
INSTRUCTIONS = [(Space.ICU, 7 << 26 | n << 14 | n << 2 | part, (n + 1) << 90 >> 60 * part)
                for n in range(60) for part in (1, 0)]
TABLES = [(Space.START, 0x100, 5), (Space.BUCKET, 0, 77 | 9 << 32), (Space.MAP, 3, 0x76543210)]
COMMAND = [(Space.CONTROL, Control.RUN.value, 3)]


def split(data: bytes, sizes: random.Random | None = None) -> list[bytes | Bulk]:
    """Pieces of bytes that come in parts."""
    splitter, pieces, at = Splitter(), list[bytes | Bulk](), 0
    while at < len(data):
        count = sizes.randrange(1, 40) if sizes else len(data)
        pieces += splitter.feed(data[at : at + count])
        at += count
    return pieces


@pytest.mark.parametrize("given", [RUN, ZEROS, INSTRUCTIONS, TABLES], ids=["run", "zeros", "instructions", "tables"])
def test_writes_of_contents_are_split_off(given):
    frames = list(writes(given))
    pieces = split(b"".join(frame.frame(n % 256) for n, frame in enumerate(frames)), random.Random(1))
    sent = [(frame.space, addr, word) for frame in frames for addr, word in frame.words]
    assert [access for piece in pieces if isinstance(piece, Bulk) for access in each(piece.writes)] == sent
    assert set(sent) == set(given)
    assert [piece.tag for piece in pieces if isinstance(piece, Bulk)] == list(range(len(frames)))


@pytest.mark.parametrize("given", [RUN, ZEROS, INSTRUCTIONS, TABLES], ids=["run", "zeros", "instructions", "tables"])
def test_the_short_frame_is_one_of_the_last_write(given):
    """Split in its turn, it is a frame with that write and tag."""
    (frame, *_) = writes(given)
    (bulk,) = split(frame.frame(9))
    assert isinstance(bulk, Bulk)
    (last,) = split(bulk.last)
    assert isinstance(last, Bulk) and last.tag == 9
    assert list(each(last.writes)) == [list(each(bulk.writes))[-1]]


def test_commands_reads_and_noise_are_passed_on():
    (command,), noise = writes(COMMAND), bytes(range(256)).replace(b"\xa5", b"") * 3
    data = command.frame(1) + noise + Read(Space.MEM.value, 0, 4).frame(2) + bytes(50)
    pieces = split(data, random.Random(2))
    assert all(isinstance(piece, bytes) for piece in pieces)
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == data


@pytest.mark.parametrize("at", [3, 12, 13, 40, -1])
def test_a_damaged_frame_is_passed_on_as_it_is(at: int):
    """In its header, its data and its CRC; what comes behind is found again."""
    frame, *_ = writes(RUN[:8])
    damaged = bytearray(frame.frame(1))
    damaged[at] ^= 4
    data = bytes(damaged) + bytes(40)
    pieces = split(data + frame.frame(1))
    assert isinstance(pieces[-1], Bulk)
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == data


def test_a_frame_of_no_word_and_one_of_another_space_are_passed_on():
    for data in (header(space=Space.MEM.value, tag=0, width=4, count=0, addr=0) + with_crc(b""),
                 header(space=6, tag=0, width=1, count=1, addr=0) + with_crc(b"x")):
        assert b"".join(piece for piece in split(data) if isinstance(piece, bytes)) == data
