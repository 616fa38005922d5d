"""A board in Python, byte by byte as the bridge does it, and lines that lose and damage bytes."""

import random
import zlib
from collections.abc import Callable
from typing import Protocol

from arch.config import CONFIGS, ChipConfig
from arch.host_map import Space
from fpga.protocol import (
    ADDR_BYTES,
    CRC_BYTES,
    HEADER_BYTES,
    HEADER_SEED,
    IDENTITY,
    PAGE,
    SYNC,
    TAGS,
    WORD_BYTES,
    Identity,
    Status,
    with_crc,
)


class Words(Protocol):
    """The chip side of the bridge."""

    def host_write(self, space: Space, addr: int, data: int) -> None: ...

    def host_read(self, space: Space, addr: int) -> int: ...


class Memory(dict):
    """Words that remember what was written, and how often each CONTROL register was."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[tuple[int, int]] = []

    def host_write(self, space: Space, addr: int, data: int) -> None:
        if space is Space.CONTROL:
            self.commands.append((addr, data))
        self[space, addr] = data

    def host_read(self, space: Space, addr: int) -> int:
        return self.get((space, addr), 0)


class FakeBoard:
    """The bridge of `fpga.gateware.bridge` without time: `feed` takes a byte, and gives the bytes of a reply."""

    def __init__(self, chip: Words, config: ChipConfig = CONFIGS["tiny"], mhz: float = 50.0) -> None:
        self.chip, self.identity = chip, Identity.of(config, mhz).pack()
        self.expected = 0
        self._state: Callable[[], bytes] = self._header
        self._got, self._want = bytearray(), 0

    def feed(self, byte: int) -> bytes:
        if not self._want:
            if byte == SYNC:
                self._listen(self._header, HEADER_BYTES + CRC_BYTES)
            return b""
        self._got.append(byte)
        if len(self._got) < self._want:
            self._early()
            return b""
        self._want = 0
        return self._state()

    def _listen(self, state: Callable[[], bytes], size: int) -> None:
        self._state, self._want = state, size
        self._got.clear()

    def _header(self) -> bytes:
        if not whole(self._got, HEADER_SEED):
            return b""
        first, self.tag, self.width = self._got[:3]
        self.space, self.scattered = first & 7, bool(first & 16)
        self.count, self.addr = (int.from_bytes(self._got[a:b], "little") for a, b in ((3, 5), (5, 9)))
        if first & 8:
            return self._data()
        self.right = self.tag == self.expected
        if self.scattered:
            self._record()
        else:
            self._listen(self._run, self.count * self.width + CRC_BYTES)
            self._done = 0
            if not self.width:
                self._words(bytes(self.count), 1)
        return b""

    def _data(self) -> bytes:
        raw = b"".join(self._read((self.addr & -PAGE) + (self.addr + n) % PAGE)[: self.width]
                       for n in range(self.count))
        return self._reply(Status.DATA, raw)

    def _read(self, addr: int) -> bytes:
        if self.space == IDENTITY:
            at = addr % Identity.WORDS * WORD_BYTES
            return self.identity[at : at + WORD_BYTES]
        return self.chip.host_read(Space(self.space), addr).to_bytes(WORD_BYTES, "little")

    def _early(self) -> None:
        """Words of a run are written as they come."""
        if self._state == self._run and self.width:
            size = min(len(self._got), self.count * self.width)
            while self._done + self.width <= size:
                self._words(bytes(self._got[self._done : self._done + self.width]), self.width)
                self._done += self.width

    def _words(self, raw: bytes, step: int) -> None:
        for n in range(0, len(raw), step):
            word = int.from_bytes(raw[n : n + step], "little")
            if self.right:
                self.chip.host_write(Space(self.space), self.addr, word)
            self.addr = (self.addr & -PAGE) + (self.addr + 1) % PAGE

    def _run(self) -> bytes:
        return self._end(zlib.crc32(self._got[:-CRC_BYTES]).to_bytes(CRC_BYTES, "little") == self._got[-CRC_BYTES:])

    def _record(self) -> bytes:
        self._listen(self._scattered, ADDR_BYTES + self.width + CRC_BYTES)
        return b""

    def _scattered(self) -> bytes:
        if not whole(self._got):
            return self._end(False)
        addr, word = self._got[:ADDR_BYTES], self._got[ADDR_BYTES:-CRC_BYTES]
        if self.right:
            self.chip.host_write(Space(self.space), *(int.from_bytes(part, "little") for part in (addr, word)))
        self.count -= 1
        return self._record() if self.count else self._end(True)

    def _end(self, good: bool) -> bytes:
        if not good:
            return self._reply(Status.DAMAGED)
        if not self.right:
            return self._reply(Status.REFUSED)
        self.expected = (self.expected + 1) % TAGS
        return self._reply(Status.TAKEN)

    def _reply(self, status: Status, data: bytes = b"") -> bytes:
        return bytes([SYNC]) + with_crc(bytes([status, self.tag, self.expected]) + data)


def whole(raw: bytes | bytearray, seed: int = 0) -> bool:
    """Whether bytes end with the CRC of those before."""
    return zlib.crc32(raw[:-CRC_BYTES], seed) == int.from_bytes(raw[-CRC_BYTES:], "little")


class FakeLine:
    """The line to a `FakeBoard`, as `fpga.host.board.Line`: answers are there at once, or never."""

    timeout: float | None = None

    def __init__(self, board: FakeBoard) -> None:
        self.board, self.closed = board, False
        self.written = bytearray()
        self._back = bytearray()

    @property
    def in_waiting(self) -> int:
        return len(self._back)

    def write(self, data: bytes) -> int:
        self.written += data
        for byte in data:
            self._back += self.board.feed(byte)
        return len(data)

    def read(self, size: int = 1) -> bytes:
        found = bytes(self._back[:size])
        del self._back[:size]
        return found

    def reset_input_buffer(self) -> None:
        self._back.clear()

    def close(self) -> None:
        self.closed = True


class Noise:
    """Damages a stream: of `one_in` bytes one is changed, dropped, followed by another, or put behind the next.

    spared: bytes at the beginning that stay as they are.
    """

    def __init__(self, seed: int, one_in: int, spared: int = 0) -> None:
        self._rng, self._one_in, self._spared = random.Random(seed), one_in, spared
        self.events = 0

    def __call__(self, data: bytes) -> bytes:
        out = bytearray()
        waiting = b""
        for byte in data:
            self._spared -= 1
            kind = self._rng.randrange(4 * self._one_in) if self._spared < 0 else -1
            self.events += 0 <= kind < 4
            match kind:
                case 0:
                    out.append(byte ^ 1 << self._rng.randrange(8))
                case 1:
                    pass
                case 2:
                    out += bytes([byte, self._rng.randrange(256)])
                case 3:
                    waiting += bytes([byte])
                    continue
                case _:
                    out.append(byte)
            out += waiting
            waiting = b""
        return bytes(out + waiting)


class NoisyLine:
    """Any line, with noise in both directions."""

    def __init__(self, line, there: Noise, back: Noise) -> None:
        self._line, self._there, self._back = line, there, back

    @property
    def timeout(self) -> float | None:
        return self._line.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._line.timeout = seconds

    @property
    def in_waiting(self) -> int:
        return self._line.in_waiting

    def write(self, data: bytes) -> int:
        self._line.write(self._there(data))
        return len(data)

    def read(self, size: int = 1) -> bytes:
        found = b""
        while not found and (raw := self._line.read(size)):
            found = self._back(raw)
        return found

    def reset_input_buffer(self) -> None:
        self._line.reset_input_buffer()

    def close(self) -> None:
        self._line.close()
