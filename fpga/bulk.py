"""Finds the frames that load a chip among the bytes for a board.

A frame of several writes of contents, with right CRCs, becomes a `Bulk`. All other bytes stay as they are: commands,
reads, small frames, and whatever is damaged.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Shape

from arch.host_map import Space
from fpga.protocol import (
    ADDR_BYTES,
    CRC_BYTES,
    FILL,
    HEADER,
    HEADER_BYTES,
    HEADER_SEED,
    PAGE,
    SYNC,
    TAGS,
    WORD_BYTES,
    Status,
    header,
    with_crc,
)
from program.image import accesses

CONTENTS = tuple(space.value for space in Space if space is not Space.CONTROL)
"""Spaces whose words have no effect before tokens run, so they may be written again."""
HEAD = 1 + HEADER_BYTES + CRC_BYTES
"""Bytes of a frame before its data."""
LONGEST = 1 << 13
"""Most bytes of a bulk frame's data. The host sends less (`fpga.protocol.PAYLOAD`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bulk:
    """A frame of several writes of contents.

    frame: its bytes.
    last: a frame of its last write alone, with the same tag. The board takes it if and only if it takes `frame`.
    taken: the board's reply if it takes either.
    writes: all writes, in order [image.ACCESS].
    """

    frame: bytes
    last: bytes
    taken: bytes
    writes: np.ndarray


class Splitter:
    """Divides the bytes for a board into frames, as the board's bridge does."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._plain = 0  # bytes that remain of a frame that is no bulk

    def feed(self, data: bytes) -> Iterator[bytes | Bulk]:
        """The pieces that these bytes complete. All bytes appear once, in order. At most one frame is held back."""
        self._bytes += data
        while self._bytes:
            begin = self._bytes.find(SYNC) if not self._plain else self._plain
            if begin:
                taken = self._take(begin if begin > 0 else len(self._bytes))
                self._plain = max(0, self._plain - len(taken))
                yield taken
                continue
            if len(self._bytes) < HEAD:
                return
            fields = _fields(self._bytes[1:HEAD])
            size = HEAD + (_data_bytes(fields) if fields else 0)
            if fields is None or not _may_be_bulk(fields):
                self._plain = size
                continue
            if len(self._bytes) < size:
                return
            frame = self._take(size)
            yield _bulk(fields, frame) or frame

    def _take(self, count: int) -> bytes:
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        return taken


def _fields(head: bytes | bytearray) -> dict[str, int] | None:
    """The fields of a header; None if its CRC is wrong."""
    raw, crc = head[:HEADER_BYTES], head[HEADER_BYTES:]
    if zlib.crc32(raw, HEADER_SEED) != int.from_bytes(crc, "little"):
        return None
    bits = int.from_bytes(raw, "little")
    return {str(name): bits >> field.offset & (1 << Shape.cast(field.shape).width) - 1 for name, field in HEADER}


def _data_bytes(fields: dict[str, int]) -> int:
    """Bytes after the header of a frame."""
    if fields["read"]:
        return 0
    if fields["scattered"]:
        return fields["count"] * (ADDR_BYTES + fields["width"] + CRC_BYTES)
    return fields["count"] * fields["width"] + CRC_BYTES


def _may_be_bulk(fields: dict[str, int]) -> bool:
    """Whether a frame has several writes of contents, and is one that the host may send."""
    count, width = fields["count"], fields["width"]
    if fields["read"] or fields["space"] not in CONTENTS or count < 2 or _data_bytes(fields) > LONGEST:
        return False
    in_page = fields["addr"] % PAGE + count <= PAGE and (width or count <= FILL)
    return width <= WORD_BYTES and bool(fields["scattered"] or in_page)


def _bulk(fields: dict[str, int], frame: bytes) -> Bulk | None:
    """The bulk of a whole frame; None if it is damaged."""
    count, width, tag, data = fields["count"], fields["width"], fields["tag"], frame[HEAD:]
    words = np.zeros((count, WORD_BYTES), np.uint8)
    if fields["scattered"]:
        size = ADDR_BYTES + width + CRC_BYTES
        records = [data[at : at + size] for at in range(0, len(data), size)]
        if not all(map(_whole, records)):
            return None
        rows = np.frombuffer(data, np.uint8).reshape(count, size)
        addrs = rows[:, :ADDR_BYTES].copy().view("<u4")[:, 0]
        words[:, :width] = rows[:, ADDR_BYTES:-CRC_BYTES]
        last = records[-1]
    else:
        if not _whole(data):
            return None
        addrs = fields["addr"] + np.arange(count)
        words[:, :width] = np.frombuffer(data[:-CRC_BYTES], np.uint8).reshape(count, width)
        last = with_crc(words[-1, :width].tobytes())
    head = header(space=fields["space"], tag=tag, width=width, count=1, addr=int(addrs[-1]),
                  scattered=bool(fields["scattered"]))
    return Bulk(frame=frame, last=head + last, writes=accesses(Space(fields["space"]), addrs, words.view("<u4")),
                taken=bytes([SYNC]) + with_crc(bytes([Status.TAKEN, tag, (tag + 1) % TAGS])))


def _whole(data: bytes) -> bool:
    """Whether data end with their CRC."""
    return zlib.crc32(data[:-CRC_BYTES]) == int.from_bytes(data[-CRC_BYTES:], "little")
