"""The host address map: every address that the host reads or writes through the host port, and its contents.

An access is a space, an address and a word of WORD bits. `FIELDS` gives the bits of an address. `address` and
`fields_of` convert both ways, for numbers and for arrays. `c_defines` gives the same constants to C++.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from amaranth.lib import enum

from .isa import ADDR_BITS, HOST_READ, PC_BITS, width


class Space(enum.Enum, shape=3):
    """What a host access addresses. Words are 128 bits; unused upper bits read as 0."""

    MEM = 0  #: address = slice number (west slices first, then east) << 22 | quad << 2 | plane
    ICU = 1  #: address = queue number << 26 | word number << 14 | instruction << 2 | part; part 0 is written last
    START = 2  #: address = queue number << 8 | bucket: start PC of the queue in that bucket
    BUCKET = 3  #: address = bucket: bits 0..31 period in cycles, bits 32..63 first position beyond the bucket
    MAP = 4  #: address = permutation map: one nibble per lane, lane 0 lowest (see `routable`)
    CONTROL = 5  #: see `Control`


FIELDS: Mapping[Space, Mapping[str, int]] = MappingProxyType({
    Space.MEM: {"plane": 2, "quad": ADDR_BITS, "slice": 10},
    Space.ICU: {"part": 2, "instruction": PC_BITS, "number": 12, "queue": 6},
    Space.START: {"bucket": 8, "queue": 24},
    Space.BUCKET: {"bucket": 32},
    Space.MAP: {"map": 32},
    Space.CONTROL: {"register": 32},
})
"""Bits of the fields of an address, lowest field first.

Slices and queues are numbered as in `row.queues`. An instruction has PARTS host words, with its low bits in part 0.
The write of part 0 completes the instruction. `number` is the word's number among the queue's distinct words
(`arch.queue_store`). Number 0 is "no word".
"""


def offset(space: Space, field: str) -> int:
    """Lowest bit of a field of an address."""
    names = list(FIELDS[space])
    return sum(FIELDS[space][name] for name in names[: names.index(field)])


def address(space: Space, **fields: Any) -> Any:
    """The address with these fields. Fields that are not given are 0. A field may be a numpy array."""
    return sum(value << offset(space, name) for name, value in fields.items())


def fields_of(space: Space, addr: Any) -> dict[str, Any]:
    """The fields of an address, or of an array of addresses."""
    return {name: addr >> offset(space, name) & (1 << bits) - 1 for name, bits in FIELDS[space].items()}


ICU_QUEUE, ICU_NUMBER = offset(Space.ICU, "queue"), offset(Space.ICU, "number")
"""Where queue number and word number begin in an ICU address."""
BUCKET_FIELD = 32
"""Bits of each of the two numbers of a bucket."""
MAP_FIELD = 4
"""Bits of a lane's number in a permutation map."""


def bucket_word(period: int, limit: int) -> int:
    """An entry of the bucket table: cycles of a token, and the first position beyond the bucket."""
    return limit << BUCKET_FIELD | period


def bucket_of(word: int) -> tuple[int, int]:
    """(period, limit) of `bucket_word`."""
    return word & (1 << BUCKET_FIELD) - 1, word >> BUCKET_FIELD & (1 << BUCKET_FIELD) - 1


def map_word(lanes: Sequence[int]) -> int:
    """A permutation map: output lane l takes input lane lanes[l]."""
    return sum(int(source) << MAP_FIELD * lane for lane, source in enumerate(lanes))


def lanes_of(word: int, lanes: int) -> list[int]:
    """The first `lanes` lanes of `map_word`."""
    return [word >> MAP_FIELD * lane & (1 << MAP_FIELD) - 1 for lane in range(lanes)]


class Control(enum.Enum, shape=4):
    """Registers of the CONTROL space."""

    RUN = 0  #: write n: run n tokens from the current position (ignored while tokens run); read: tokens still to run
    POSITION = 1  #: position of the next token; the chip advances it, a host write rewinds it and starts no token
    CYCLES = 2  #: free-running cycle counter, 64 bits
    TOKEN_CYCLES = 3  #: cycles of the last finished token, from its start pulse to the next
    ERRORS = 4  #: sticky `Trap` bits; writing clears them
    IDENTITY = 5  #: low 64 bits: the digest of config and instruction set (`arch.identity`)


class Trap(enum.Enum, shape=4):
    """Error bits (bit number = value). The first is checked in every build, the others in debug builds."""

    NOT_PARKED = 0  #: a queue had not reached SYNC, or an engine was busy, when its token's period ended
    EMPTY_READ = 1  #: a unit sampled a stream slot that held no value
    COLLISION = 2  #: two producers drove one stream slot at the same position in the same cycle
    ENGINE_BUSY = 3  #: an instruction started an engine whose burst was not finished
    BANK_CONFLICT = 4  #: a quad was read in the cycle in which a write to it was committed
    ADDRESS = 5  #: an address, entry or register was beyond the configured depth
    OPCODE = 6  #: an operation was not one of the unit's, or its fields were illegal together (see `fault`)
    DRY = 7  #: a queue ran past its last instruction


WORD = 128
"""Bits of a host word."""
COUNTER = 64
"""Bits of the widest CONTROL register."""
PARTS = -(-max(width(unit) for unit in ("MEM", "MXM", "VXM", "SXM")) // WORD)
"""Host words of the widest instruction."""
ISA = ("Control", "ICU_NUMBER", "ICU_QUEUE", "Space", "Trap")
"""The names here that a chip's identity includes: a host writes a program into a chip by them."""


def c_defines() -> str:
    """Spaces, control registers and the read latency as C++ macros: SPACE_MEM, CONTROL_RUN, HOST_READ."""
    numbers = {f"{kind.__name__.upper()}_{member.name}": member.value for kind in (Space, Control) for member in kind}
    return "".join(f"#define {name} {value}\n" for name, value in {**numbers, "HOST_READ": HOST_READ}.items())
