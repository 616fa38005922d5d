"""The protocol between host and board: frames to the board, replies from it, and the board's identity.

A frame is SYNC, HEADER and CRC. A write also has data::

    run          `count` words of `width` bytes for consecutive addresses, then the CRC of all of them
    fill         a run of width 0: `count` (at most FILL) words of 0, then the CRC of nothing
    scattered    `count` records: address (4 bytes), a word of `width` bytes, CRC of the record

A reply is SYNC, status, tag of the frame, tag of the next write that the board takes, the data of a read (`count` words
of `width` bytes), and the CRC of everything after SYNC. Numbers are little-endian. The CRC is zlib's CRC-32. For a
header it begins with HEADER_SEED, so a board that looks for a header never mistakes a record or run of the same size
for one. Bytes of a word that are not sent are 0.

The header of a run is checked before its data, and the data are written as they arrive. If they are damaged, the host
repeats the frame and they are written again. A word of a scattered frame is written after the CRC of its record was
checked. The board takes writes once and in the order of their tags. It refuses all others, without effect. A frame
with a damaged header gets no reply. The frame after a read may begin only after the reply.
"""

import enum
import struct
import zlib
from dataclasses import dataclass

from amaranth.hdl import Shape
from amaranth.lib.data import StructLayout

from arch.config import ChipConfig
from arch.identity import chip_digest
from base.errors import TspError

VERSION = 1
SYNC = 0xA5
HEADER = StructLayout({
    "space": 3, "read": 1, "scattered": 1, "reserved": 3, "tag": 8, "width": 8, "count": 16, "addr": 32,
})
HEADER_SEED = 1
HEADER_BYTES = Shape.cast(HEADER).width // 8
ADDR_BYTES, CRC_BYTES, WORD_BYTES = 4, 4, 16
PAGE = 1 << 16
"""Addresses of a page. A run stays within one page, because the board counts no further."""
FILL = 128
"""Most words of a fill. They are written while its CRC arrives."""
TAGS = 256
PAYLOAD = 2048
"""Most bytes of words or records in a frame."""
OVERHEAD = 1 + HEADER_BYTES + CRC_BYTES + CRC_BYTES
"""Bytes of a run on the line in addition to its words."""
IDENTITY = 7
"""A space in addition to `arch.host_map.Space`: the board itself. Reads of it give its identity."""


class Status(enum.IntEnum):
    """The result of a frame."""

    TAKEN = 1  #: a write is done
    REFUSED = 2  #: a write was not the next one; it had no effect
    DAMAGED = 3  #: a CRC behind the header was wrong; the write must be repeated
    DATA = 4  #: the answer to a read


def header(*, space: int, tag: int, width: int, count: int, addr: int, read: bool = False,
           scattered: bool = False) -> bytes:
    """SYNC, the header and its CRC. Raises ValueError if a value does not fit its field."""
    fields = {"space": space, "read": int(read), "scattered": int(scattered), "reserved": 0, "tag": tag, "width": width,
              "count": count, "addr": addr}
    bits = 0
    for name, field in HEADER:
        value, size = fields[str(name)], Shape.cast(field.shape).width
        if not 0 <= value < 1 << size:
            raise ValueError(f"{name} must be in 0..{(1 << size) - 1}, not {value!r}")
        bits |= value << field.offset
    return bytes([SYNC]) + with_crc(bits.to_bytes(HEADER_BYTES, "little"), HEADER_SEED)


def with_crc(data: bytes, seed: int = 0) -> bytes:
    """The data and their CRC."""
    return data + zlib.crc32(data, seed).to_bytes(CRC_BYTES, "little")


@dataclass(frozen=True)
class Reply:
    """A reply.

    expected: tag of the next write that the board takes. All writes before it are done.
    """

    status: Status
    tag: int
    expected: int
    data: bytes = b""


HEAD = 4
"""Bytes of a reply before its data."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The identity of a board.

    config: name of its chip.
    digest: `chip_digest` of the chip.
    clock_khz: the chip's clock.
    clock_link: 0 if the board has a clock of its own; n + 1 if it takes the clock that comes over link n.
    """

    config: str
    digest: str
    clock_khz: int
    clock_link: int = 0

    FORMAT = "<4sHBx8sI12s"
    MAGIC = b"MTSP"
    WORDS = struct.calcsize(FORMAT) // WORD_BYTES

    @staticmethod
    def of(config: ChipConfig, mhz: float, clock_link: int = 0) -> "Identity":
        """The identity of a board with this chip at this clock."""
        return Identity(config=config.name, digest=chip_digest(config), clock_khz=round(mhz * 1e3),
                        clock_link=clock_link)

    def pack(self) -> bytes:
        """WORDS words, as the board holds them. Raises ValueError if the name is too long."""
        name = self.config.encode()
        if len(name) > 12:
            raise ValueError(f"config must have a name of at most 12 bytes on a board, not {self.config!r}")
        return struct.pack(self.FORMAT, self.MAGIC, VERSION, self.clock_link, bytes.fromhex(self.digest),
                           self.clock_khz, name)

    @classmethod
    def unpack(cls, raw: bytes) -> "Identity":
        """The identity in WORDS words. Raises TspError if another device, or a board of another protocol, answers."""
        magic, version, clock_link, digest, clock_khz, name = struct.unpack(cls.FORMAT, raw)
        if magic != cls.MAGIC:
            raise TspError("the device that answers is not a Metronome board")
        if version != VERSION:
            raise TspError(f"the board speaks version {version} of the protocol, this tsp speaks version {VERSION}: "
                           "build its bitstream again")
        return cls(config=name.rstrip(b"\0").decode(errors="replace"), digest=digest.hex(), clock_khz=clock_khz,
                   clock_link=clock_link)
