"""Finds the writes to a simulated board that need not go over its line bit by bit.

A frame of writes with correct CRCs becomes a `Bulk`: all its writes, and a frame with only the last one and the same
tag. The board takes or refuses this short frame as it would the whole frame. If it takes it, the back door
(`fpga.gateware.top.Core`) makes all the writes, in order, one a cycle. The chip's contents are the same in the end,
because frames may be repeated. All other bytes go over the line unchanged: commands, reads, and damaged frames.
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
    HEADER,
    HEADER_BYTES,
    HEADER_SEED,
    SYNC,
    header,
    with_crc,
)
from program.image import accesses, host_words

BULK = (Space.MEM, Space.ICU, Space.START, Space.BUCKET, Space.MAP)
"""Spaces whose contents have no effect before tokens run."""
HEAD = 1 + HEADER_BYTES + CRC_BYTES
"""Bytes of a frame before its data."""


@dataclass(frozen=True, eq=False)
class Bulk:
    """The writes of a frame.

    tag: tag of the frame.
    last: a frame with only the last write.
    writes: all writes [`image.ACCESS`].
    """

    tag: int
    last: bytes
    writes: np.ndarray


class Splitter:
    """Divides the bytes for the board, as its bridge does, into frames and the bytes between them."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | Bulk]:
        """The frames and other bytes that are complete after these bytes, in order."""
        self._bytes += data
        while self._bytes:
            begin = self._bytes.find(SYNC)
            if begin:
                yield self._take(begin if begin > 0 else len(self._bytes))
                continue
            if len(self._bytes) < HEAD:
                return
            fields = _fields(self._bytes[1:HEAD])
            size = HEAD + (_data_bytes(fields) if fields else 0)
            if len(self._bytes) < size:
                return
            frame = self._take(size)
            yield (fields and _bulk(fields, frame[HEAD:])) or frame

    def _take(self, count: int) -> bytes:
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        return taken


def _fields(head: bytes | bytearray) -> dict[str, int] | None:
    """The fields of a header; None if its CRC is wrong."""
    raw = head[:HEADER_BYTES]
    if zlib.crc32(raw, HEADER_SEED) != int.from_bytes(head[HEADER_BYTES:], "little"):
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


def _bulk(fields: dict[str, int], data: bytes) -> Bulk | None:
    """The writes of a frame; None if it does not write contents, or is damaged."""
    if fields["read"] or not fields["count"] or fields["space"] not in [space.value for space in BULK]:
        return None
    records = _records(fields, data) if fields["scattered"] else _run(fields, data)
    if records is None:
        return None
    (addr, word), space, width = records[-1], fields["space"], fields["width"]
    last = header(space=space, tag=fields["tag"], width=width, count=1, addr=addr, scattered=bool(fields["scattered"]))
    raw = word.to_bytes(width, "little")
    last += with_crc(addr.to_bytes(ADDR_BYTES, "little") + raw if fields["scattered"] else raw)
    writes = accesses(Space(space), [addr for addr, _ in records], host_words([word for _, word in records]))
    return Bulk(fields["tag"], last, writes)


def _run(fields: dict[str, int], data: bytes) -> list[tuple[int, int]] | None:
    if not _whole(data):
        return None
    width, first = fields["width"], fields["addr"]
    return [(first + n, int.from_bytes(data[width * n : width * (n + 1)], "little")) for n in range(fields["count"])]


def _records(fields: dict[str, int], data: bytes) -> list[tuple[int, int]] | None:
    size = ADDR_BYTES + fields["width"] + CRC_BYTES
    records = [data[at : at + size] for at in range(0, len(data), size)]
    if not all(map(_whole, records)):
        return None
    return [(int.from_bytes(record[:ADDR_BYTES], "little"), int.from_bytes(record[ADDR_BYTES:-CRC_BYTES], "little"))
            for record in records]


def _whole(data: bytes) -> bool:
    """Whether the data end with their correct CRC."""
    return zlib.crc32(data[:-CRC_BYTES]) == int.from_bytes(data[-CRC_BYTES:], "little")
