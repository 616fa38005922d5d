"""What travels in a slot: a flit that an instruction has sent, or else a control frame.

Nothing in a frame says which of the two it is: the receiver's schedule does. A slot whose flit no instruction takes
must hold a control frame with the right counter and the right CRC, or the link has an error.

A control frame is laid on the bits of a codeword (`Secded.places`) like this: `HEAD_BITS` of its head first, the
starting slot's number last, and between them, cycle by cycle, what the CRC of all that the link has carried so far is
in that cycle. The CRC goes over control frames, too, so an idle link carries a pseudo-random sequence.
"""

from amaranth.hdl import Cat, Value
from amaranth.lib import data

from .crc import WIDTH
from .parameters import SLOT_BITS, LinkParameters

HEAD = data.StructLayout({"slot": SLOT_BITS, "counted": 1, "start": 1})
"""slot: low bits of the slot's number by the sender's counter. counted: this counter is the rack's. start: a START: all
chips start their token in the slot whose number the frame's end gives."""
HEAD_BITS = SLOT_BITS + 2
SYNC_BITS = 4
"""The CRC begins anew behind each control frame whose slot's number has so many zeros at its end."""


FIRST = 12
"""The bit of the CRC that the first bit of a cycle holds; the next holds the next one. So chosen that the frames of
`crc_frames` show every wrong CRC."""
COMPARED = 12
"""Most bits of a cycle that are compared: few, since three control frames follow a token's last flit before the next
token's first one."""


def crc_bits(link: LinkParameters, crc: Value) -> Value:
    """The CRC as the bits of a cycle hold it."""
    return Cat(crc[(FIRST + n) % WIDTH] for n in range(link.cycle_bits))


def fill_bits(link: LinkParameters, cycle: int) -> range:
    """The bits of a cycle of a control frame that hold the CRC."""
    begin, end = cycle * link.cycle_bits, link.code.bits - link.code.check_bits - SLOT_BITS
    return range(HEAD_BITS if cycle == 0 else 0, max(min(end - begin, link.cycle_bits), 0))


def compared(link: LinkParameters) -> tuple[list[int], int]:
    """The cycles of a control frame in which a receiver compares the CRC, and how many bits, from the first one on."""
    whole = [cycle for cycle in range(1, link.slot) if len(fill_bits(link, cycle)) == link.cycle_bits]
    cycles = whole or [1]
    return cycles, min(len(fill_bits(link, cycles[0])), COMPARED)


def crc_frames(link: LinkParameters) -> int:
    """Control frames in a row that show a wrong CRC, whatever bits of it are wrong."""
    cycles, bits = compared(link)
    return -(-WIDTH // (bits * len(cycles)))
