"""Turns host accesses into frames with as few bytes as possible, and bytes of the line into replies."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from arch.host_map import Space, fields_of
from arch.link_map import RACK
from fpga.protocol import (
    ADDR_BYTES,
    CRC_BYTES,
    FILL,
    HEAD,
    OVERHEAD,
    PAGE,
    PAYLOAD,
    SYNC,
    WORD_BYTES,
    Reply,
    Status,
    header,
    with_crc,
)
from program.image import Access

SCATTERED = (Space.ICU, Space.CONTROL)
"""Spaces that scattered frames write. Each word is checked before it is written. Their addresses have gaps, or a wrong
word has an effect. A command has its own frame, so a repeated frame never contains a command that was executed."""
ZEROS = 8
"""Least words of 0 that get a frame of their own."""
REGISTER_BYTES = 8
"""Bytes of a CONTROL register. Those of links, from RACK on, have as many as a word."""


@dataclass(frozen=True)
class Write:
    """A frame's writes, in order: (address, word).

    width: bytes that the largest word needs.
    """

    space: Space
    width: int
    words: tuple[tuple[int, int], ...]

    def frame(self, tag: int) -> bytes:
        """All its bytes on the line."""
        scattered = self.space in SCATTERED
        head = header(space=self.space.value, tag=tag, width=self.width, count=len(self.words), addr=self.words[0][0],
                      scattered=scattered)
        if not scattered:
            return head + with_crc(b"".join(word.to_bytes(self.width, "little") for _, word in self.words))
        return head + b"".join(with_crc(addr.to_bytes(ADDR_BYTES, "little") + word.to_bytes(self.width, "little"))
                               for addr, word in self.words)


def writes(accesses: Iterable[Access], payload: int = PAYLOAD) -> Iterator[Write]:
    """The accesses, in order, in frames of at most `payload` bytes of words or records.

    Any frame may be repeated, also after it was executed in part. The state that it leaves does not depend on the state
    before it.
    """
    frame, upper = _Frame(payload), _UpperParts()
    for access in accesses:
        if not frame.takes(*access):
            yield frame.cut()
            frame = _Frame(payload)
            for kept in upper.before(access):
                frame.add(*kept)
        frame.add(*access)
        upper.note(access)
        if frame.zeros >= ZEROS and frame.width:
            rest = frame.without_zeros()
            yield frame.cut()
            frame = rest
    if frame.words:
        yield frame.cut()


class _UpperParts:
    """The upper parts of instructions that the chip keeps.

    If the first instruction of a frame relies on upper parts of the frame before, the frame sends them again. When the
    frame is repeated, the chip may keep upper parts from its end.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Access] = {}
        self._queue = 0

    def note(self, access: Access) -> None:
        """Note that an access was sent."""
        if access[0] is Space.ICU:
            at = fields_of(Space.ICU, access[1])
            if at["queue"] != self._queue:
                self._kept, self._queue = {}, at["queue"]
            if at["part"]:
                self._kept[at["part"]] = access

    def before(self, access: Access) -> list[Access]:
        """The accesses that must precede an access at the beginning of a frame."""
        if access[0] is not Space.ICU or fields_of(Space.ICU, access[1])["queue"] != self._queue:
            return []
        return list(self._kept.values())


class _Frame:
    """A frame that grows."""

    def __init__(self, payload: int) -> None:
        self.space, self.width, self.words = Space.MEM, 0, list[tuple[int, int]]()
        self.zeros = 0  # words of 0 at the end of a run
        self._payload = payload

    def takes(self, space: Space, addr: int, word: int) -> bool:
        """Whether the access may join this frame, and costs fewer bytes there than in a new frame."""
        if not self.words:
            return True
        count, size = len(self.words), _bytes(word)
        width, scattered = max(self.width, size), space in SCATTERED
        if space is not self.space or space is Space.CONTROL or (width - self.width) * count > OVERHEAD:
            return False
        record = width + (ADDR_BYTES + CRC_BYTES) * scattered
        if (count + 1) * record > self._payload or (not width and count == FILL):
            return False
        return scattered or (addr == self.words[-1][0] + 1 and addr % PAGE != 0)

    def add(self, space: Space, addr: int, word: int) -> None:
        self.space, self.width = space, max(self.width, _bytes(word))
        self.words.append((addr, word))
        self.zeros = 0 if word or space in SCATTERED else self.zeros + 1

    def without_zeros(self) -> "_Frame":
        """Move the words of 0 at the end to a new frame, and return it."""
        rest = _Frame(self._payload)
        for addr, word in self.words[-self.zeros :]:
            rest.add(self.space, addr, word)
        del self.words[-self.zeros :]
        return rest

    def cut(self) -> Write:
        """The writes of the finished frame."""
        return Write(self.space, self.width, tuple(self.words))


def _bytes(word: int) -> int:
    return (word.bit_length() + 7) // 8


@dataclass(frozen=True)
class Read:
    """A frame that reads `width` bytes of each of `count` words from an address on."""

    space: int
    addr: int
    count: int
    width: int = WORD_BYTES

    def frame(self, tag: int) -> bytes:
        """All its bytes on the line."""
        return header(space=self.space, tag=tag, width=self.width, count=self.count, addr=self.addr, read=True)

    @property
    def size(self) -> int:
        """Bytes of data in its reply."""
        return self.count * self.width

    def words(self, data: bytes) -> list[int]:
        """The words in the data of its reply."""
        return [int.from_bytes(data[n : n + self.width], "little") for n in range(0, self.size, self.width)]


def reads(space: Space, addrs: Sequence[int], payload: int = PAYLOAD) -> Iterator[Read]:
    """Frames that read these addresses in order."""
    begin = 0
    for n, addr in enumerate(addrs):
        count, width = n + 1 - begin, _width(space, addrs[begin])
        if (n + 1 == len(addrs) or addrs[n + 1] != addr + 1 or (addr + 1) % PAGE == 0
                or (count + 1) * width > payload):
            yield Read(space.value, addrs[begin], count, width)
            begin = n + 1


def _width(space: Space, addr: int) -> int:
    """Bytes of a word that are read."""
    return REGISTER_BYTES if space is Space.CONTROL and addr < RACK else WORD_BYTES


class Replies:
    """Finds the replies among the bytes from the board."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._sizes = [0] * 256  # by tag: data bytes of the last read with this tag

    def expect(self, tag: int, size: int) -> None:
        """Note that a read with this tag was sent. Its reply has `size` bytes of data."""
        self._sizes[tag] = size

    def clear(self) -> None:
        """Forget the beginning of a reply."""
        self._bytes.clear()

    def feed(self, data: bytes) -> None:
        """Take bytes from the line."""
        self._bytes += data

    def next(self) -> Reply | None:
        """The next whole reply; None if more bytes are needed."""
        while (begin := self._bytes.find(SYNC)) >= 0:
            del self._bytes[:begin]
            if len(self._bytes) < HEAD:
                return None
            status, tag, expected = self._bytes[1:HEAD]
            if status in list(Status):
                size = self._sizes[tag] if status == Status.DATA else 0
                end = HEAD + size + CRC_BYTES
                if len(self._bytes) < end:
                    return None
                body, crc = bytes(self._bytes[1 : HEAD + size]), self._bytes[HEAD + size : end]
                if zlib.crc32(body) == int.from_bytes(crc, "little"):
                    del self._bytes[:end]
                    return Reply(Status(status), tag, expected, body[HEAD - 1 :])
            del self._bytes[:1]
        self._bytes.clear()
        return None
