"""The host's view of the chip: address spaces, control registers and traps of the host port."""

from amaranth.lib import enum

from .isa import width


class Space(enum.Enum, shape=3):
    """What a host access addresses. Words are 128 bits; unused upper bits read as 0."""

    MEM = 0  #: address = slice number (west slices first, then east) << 22 | quad << 2 | plane
    ICU = 1  #: address: see `icu_address`
    START = 2  #: address = queue number << 8 | bucket: start PC of the queue in that bucket
    BUCKET = 3  #: address = bucket: bits 0..31 period in cycles, bits 32..63 first position that is beyond it
    MAP = 4  #: address = permutation map: a nibble each lane, lane 0 lowest (see `routable`)
    CONTROL = 5  #: see `Control`


ICU_QUEUE, ICU_NUMBER = 26, 14
"""Where queue number and word number begin in an ICU address."""


def icu_address(queue: int, instruction: int, number: int, part: int) -> int:
    """Address of a 128-bit part of an instruction; part 0 is written last.

    `number` is that of the word among the queue's distinct words (`arch.queue_store`), whose own number 0 is "no word".
    """
    return queue << ICU_QUEUE | number << ICU_NUMBER | instruction << 2 | part


class Control(enum.Enum, shape=4):
    """Registers of the CONTROL space."""

    RUN = 0  #: write n: run n tokens from the present position, ignored while tokens run; read: tokens still to run
    POSITION = 1  #: position of the next token (written by the host to rewind, advanced by the chip); it starts none
    CYCLES = 2  #: free-running cycle counter, 64 bits
    TOKEN_CYCLES = 3  #: cycles of the last finished token, from its start pulse to the next
    ERRORS = 4  #: sticky `Trap` bits; writing clears them
    IDENTITY = 5  #: low 64 bits: the digest of config and instruction set (`arch.identity`)


class Trap(enum.Enum, shape=4):
    """Error bits (bit number = value). The first is checked in every build, the others in debug builds."""

    NOT_PARKED = 0  #: a queue had not reached SYNC, or an engine was busy, when its token's period ended
    EMPTY_READ = 1  #: a stream slot was consumed that nobody had driven
    COLLISION = 2  #: two producers drove one stream slot at the same position in the same cycle
    ENGINE_BUSY = 3  #: an instruction started an engine that had not finished its burst
    BANK_CONFLICT = 4  #: a quad was read in the cycle of its own write's commit
    ADDRESS = 5  #: an address, entry or register beyond the configured depth
    OPCODE = 6  #: an operation that is not the unit's, or fields that are illegal together (see `fault`)
    DRY = 7  #: a queue ran past its last instruction


WORD = 128
"""Bits of a host word."""
COUNTER = 64
"""Bits of the widest CONTROL register."""
PARTS = -(-max(width(unit) for unit in ("MEM", "MXM", "VXM", "SXM")) // WORD)
"""Host words of the widest instruction."""
ISA = ("Control", "ICU_NUMBER", "ICU_QUEUE", "Space", "Trap")
"""What counts in the identity of a chip: a program is written into it by these."""
