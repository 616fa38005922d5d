"""The registers of links: what the host writes and reads in the CONTROL space of a chip that has links.

They lie beyond the registers of `arch.host_map.Control`. A chip without links has none of them: what it reads there
is 0. Links are numbered from the western end's first port to the eastern end's last.
"""

from collections.abc import Mapping
from types import MappingProxyType

from amaranth.lib import enum

RACK = 0x80
"""Address of the register of the rack's counter. Fields written: RACK_SETUP; read: RACK_STATUS."""
LINKS = 0x100
"""Address of the first link's registers; those of the next one are LINK_SPAN further on."""
LINK_SPAN = 0x10


class LinkRegister(enum.Enum, shape=4):
    """Registers of a link, at `link_address`. The first two are written, the third is read."""

    SETUP = 0  #: fields SETUP; kept until written again
    COMMAND = 1  #: fields COMMAND; each bit acts once
    STATUS = 2  #: fields STATUS


class LinkTrap(enum.Enum, shape=4):
    """Bits of the register ERRORS, above those of `arch.host_map.Trap`. Writing to ERRORS clears them, too."""

    LINK = 8  #: some link has an error: its STATUS says which
    START = 9  #: the slot in which a token should begin came, but the chip was not ready


Fields = Mapping[str, int]
"""Bits of the fields of a register, lowest field first."""

RACK_SETUP: Fields = MappingProxyType({"root": 1, "reserved": 7, "ahead": 8})
"""root: the chip's counter is the rack's; else it follows the parent's link from the next frame on.
ahead: slots from a RUN to its first token; the START must reach all chips in this time."""
RACK_STATUS: Fields = MappingProxyType({"counted": 8, "slot": 16, "slack": 8})
"""counted: the counter is the rack's. slot: its number of the present slot. slack: of the links of a chip that has a
clock of its own, in cycles; 0 of one whose clock is the root's."""
SETUP: Fields = MappingProxyType({"latency": 6, "enabled": 1, "parent": 1})
"""latency: cycles from a slot's begin to the arrival of its flit. enabled: the link is used. parent: the chip's counter
and its tokens follow this link."""
COMMAND: Fields = MappingProxyType({"retrain": 8, "step": 24, "load": 24})
"""retrain: train anew. step, load: a bit each pin: lengthen its input delay by one step; make it 0."""
STATUS: Fields = MappingProxyType({
    "state": 8, "lane": 8, "up": 8, "errors": 8, "corrected": 16, "least": 8, "greatest": 8,
    "first": 8, "slot": 16, "syndrome": 16,
})
"""state, lane: of training. up: flits can be relied on. errors: sticky. corrected: single errors put right.
least, greatest: level of the elastic buffer. first, slot, syndrome: what the first error was, the slot in which it was
seen, and its codeword's syndrome. ERRORS, written, clears all from errors on."""


def link_address(link: int, register: LinkRegister) -> int:
    """The address of a link's register in the CONTROL space."""
    return LINKS + LINK_SPAN * link + register.value


def offset(fields: Fields, name: str) -> int:
    """Lowest bit of a field."""
    names = list(fields)
    return sum(fields[before] for before in names[: names.index(name)])


def pack(fields: Fields, **values: int) -> int:
    """A word with these values; fields that are not given are 0. Raises ValueError where one does not fit."""
    for name, value in values.items():
        if value >> fields[name]:
            raise ValueError(f"{name} must be in 0..{(1 << fields[name]) - 1}, not {value!r}")
    return sum(value << offset(fields, name) for name, value in values.items())


def unpack(fields: Fields, word: int) -> dict[str, int]:
    """The values of a word's fields."""
    return {name: word >> offset(fields, name) & (1 << bits) - 1 for name, bits in fields.items()}
