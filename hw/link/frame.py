"""What travels in a slot: a flit that an instruction has sent, or else a control frame.

Nothing in a frame says which of the two it is: the receiver's schedule does. A slot whose flit no instruction takes
must hold a control frame with the right counter, or the link has an error.
"""

from enum import IntEnum

from amaranth.lib import data

from .crc import WIDTH
from .parameters import COUNTER_BITS, LinkParameters

KIND_BITS = 7


class Kind(IntEnum):
    """Kinds of control frames. Others are errors."""

    IDLE = 0x35  #: argument: what of the pseudo-random sequence fits
    START = 0x5A  #: argument: low bits of the slot in which all chips start their token
    CRC = 0x6C  #: argument: the CRC of the last token's flits, or its next part, low part first


def layout(link: LinkParameters) -> data.StructLayout:
    """A control frame. counted: the sender's counter is the rack's."""
    return data.StructLayout({
        "kind": KIND_BITS, "counted": 1, "counter": COUNTER_BITS, "argument": link.argument_bits})


def start_bits(link: LinkParameters) -> int:
    """Bits of the starting slot's number that fit a START."""
    return min(COUNTER_BITS, link.argument_bits)


def crc_parts(link: LinkParameters) -> int:
    """Frames that a CRC takes."""
    return -(-WIDTH // link.argument_bits)


def quiet_slots(link: LinkParameters) -> int:
    """Slots at a token's begin that hold no flits: those of the last token's CRC, and one in which it is cleared."""
    return crc_parts(link) + 1


def crc_part_bits(link: LinkParameters) -> int:
    """Bits of the CRC in each of them."""
    return min(WIDTH, link.argument_bits)


def control(link: LinkParameters, kind: int, *, counter: int, argument: int = 0, counted: bool = True) -> int:
    """The bits of a control frame."""
    return layout(link).const({
        "kind": kind, "counted": int(counted), "counter": counter, "argument": argument}).as_value().value


class Prbs:
    """The sequence of x**31 + x**28 + 1, by steps of 16 bits; idle frames carry its state, so that an idle link is
    tested all the time by the code that protects it."""

    BITS, TAP, STEP = 31, 28, 16

    @classmethod
    def after(cls, state: int) -> int:
        """The state of the next frame."""
        for _ in range(cls.STEP):
            state = (state << 1 | (state >> cls.BITS - 1 ^ state >> cls.TAP - 1) & 1) & (1 << cls.BITS) - 1
        return state
