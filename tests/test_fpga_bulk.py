"""The pieces of a host's bytes: frames that load a chip, and all else, unchanged."""

import random

import numpy as np
import pytest
from fake_board import FakeBoard, Memory

from arch.host_map import Control, Space, address
from fpga.bulk import LONGEST, Bulk, Splitter
from fpga.host.frames import Read, writes
from fpga.protocol import FILL, PAGE, header, with_crc
from program.image import Access, each

RUN = [(Space.MEM, 0x400 + n, n * 0x0123456789ABCDEF % (1 << 128)) for n in range(300)]
ZEROS = [(Space.MEM, 0x4000 + n, 0) for n in range(200)]
INSTRUCTIONS = [(Space.ICU, address(Space.ICU, queue=63, instruction=n, number=n, part=part),
                 (n + 1) << 90 >> 60 * part) for n in range(60) for part in (1, 0)]
TABLES = [(Space.START, 0x100 + n, 5 * n) for n in range(4)] + [(Space.BUCKET, n, 77 | 9 << 32) for n in range(3)]
COMMAND = [(Space.CONTROL, Control.RUN.value, 3)]
contents = pytest.mark.parametrize("given", [RUN, ZEROS, INSTRUCTIONS, TABLES],
                                   ids=["run", "zeros", "instructions", "tables"])


def split(data: bytes, sizes: random.Random | None = None) -> list[bytes | Bulk]:
    """The pieces of bytes that arrive in parts."""
    splitter, pieces, at = Splitter(), list[bytes | Bulk](), 0
    while at < len(data):
        count = sizes.randrange(1, 40) if sizes else len(data)
        pieces += splitter.feed(data[at : at + count])
        at += count
    return pieces


def joined(pieces: list[bytes | Bulk]) -> bytes:
    return b"".join(piece.frame if isinstance(piece, Bulk) else piece for piece in pieces)


def answer(board: FakeBoard, data: bytes) -> bytes:
    return b"".join(board.feed(byte) for byte in data)


@contents
def test_the_back_door_leaves_the_same_words_and_replies(given: list[Access]):
    """The bridge in Python gets whole frames; another one gets short frames, and what it takes is written."""
    data = b"".join(frame.frame(n) for n, frame in enumerate(writes(given)))
    slow, quick = Memory(), Memory()
    board, replies, found = FakeBoard(quick), b"", 0
    pieces = split(data, random.Random(1))
    for piece in pieces:
        if isinstance(piece, Bulk):
            reply = answer(board, piece.last)
            assert reply == piece.taken
            for access in each(piece.writes):
                quick.host_write(*access)
            replies, found = replies + reply, found + 1
        else:
            replies += answer(board, piece)
    assert joined(pieces) == data and found
    assert replies == answer(FakeBoard(slow), data)
    assert dict(slow) == dict(quick) == {(space, addr): word for space, addr, word in given}


@contents
def test_a_board_refuses_the_short_frame_as_the_whole_one(given: list[Access]):
    """A frame with another tag than the next one's."""
    bulk = next(piece for piece in split(next(writes(given)).frame(9)) if isinstance(piece, Bulk))
    memory = Memory()
    replies = [answer(FakeBoard(memory), frame) for frame in (bulk.last, bulk.frame)]
    assert replies[0] == replies[1] != bulk.taken and not memory


def test_commands_reads_single_writes_and_noise_are_no_bulk():
    (command,), (single,), noise = writes(COMMAND), writes(RUN[:1]), bytes(range(256)) * 3
    data = command.frame(1) + single.frame(2) + bytes(50) + Read(Space.MEM.value, 0, 4).frame(3) + noise + bytes(50)
    pieces = split(data, random.Random(2))
    assert not any(isinstance(piece, Bulk) for piece in pieces)
    assert joined(pieces) == data


@pytest.mark.parametrize("at", [3, 12, 13, 40, -1])
def test_a_damaged_frame_is_no_bulk_and_the_next_one_is(at: int):
    """A bit is wrong in the header, the data or the CRC."""
    for given in (RUN[:8], INSTRUCTIONS[:8]):
        frame = next(writes(given)).frame(1)
        damaged = bytearray(frame)
        damaged[at] ^= 4
        data = bytes(damaged) + bytes(400) + frame
        pieces = split(data)
        assert [isinstance(piece, Bulk) for piece in pieces[-2:]] == [False, True]
        assert sum(isinstance(piece, Bulk) for piece in pieces) == 1 and joined(pieces) == data


def test_frames_that_the_host_never_sends_are_no_bulk():
    """No word, an unknown space, too many words, a width beyond a word, and a run beyond its page."""
    for space, width, count, addr in ((0, 4, 0, 0), (6, 1, 2, 0), (0, 8, LONGEST // 8 + 1, 0), (0, 17, 2, 0),
                                      (0, 1, 2, PAGE - 1), (0, 0, FILL + 1, 0)):
        data = header(tag=0, space=space, width=width, count=count, addr=addr) + with_crc(bytes(width * count))
        pieces = split(data)
        assert not any(isinstance(piece, Bulk) for piece in pieces) and joined(pieces) == data


def test_any_bytes_appear_once_and_in_order():
    """Frames with noise between and within them."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        parts = [next(writes(RUN[n : n + 20])).frame(n) for n in range(6)] + [rng.bytes(30) for _ in range(4)]
        data = bytearray(b"".join(parts[n] for n in rng.permutation(len(parts))))
        data[int(rng.integers(len(data)))] ^= 0xFF
        data += bytes(LONGEST)
        assert joined(split(bytes(data), random.Random(4))) == data
