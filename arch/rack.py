"""Racks: chips, and the links between their ports.

All chips of a rack count cycles alike (`hw.link`): a flit that is sent in cycle c of one is there in cycle c + latency
of the other. A token starts on all of them in the same cycle of that count, and takes the same period.
"""

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from base.errors import TspError

from .config import CONFIGS, MAX_PORTS, ChipConfig
from .identity import chip_digest
from .vectors import SIDES, ceil_div

MAX_CHIPS = 64
LATENCIES = 1, 63
"""Least and greatest latency of a link, in cycles."""
LINKED = "_linked"
"""End of the name of a config with links."""
SLACKS = 1, 20
"""Least and greatest slack of links between clocks of their own, in cycles."""
MOST_PPM = 1000.0
"""Greatest inaccuracy of an oscillator. Those on boards have 20 to 100 ppm; one inside an FPGA has 50,000."""
WATCHED = 2500
"""Cycles around a token in which clocks run apart, too, and nothing is put right: from the slot in which the START
reaches a chip until the token begins, and behind the token until its CRC has come."""


@dataclass(frozen=True, order=True)
class Port:
    """A chip's port: number of the chip, end of its row ("W" or "E"), number at this end. Written "0.E0"."""

    chip: int
    side: str
    number: int

    def __str__(self) -> str:
        return f"{self.chip}.{self.side}{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Port":
        """The port of that name. Raises TspError."""
        found = re.fullmatch(r"(\d{1,4})\.([WE])(\d{1,4})", text, re.ASCII)
        if not found:
            raise TspError(f"a port must be written like 0.E0 (chip, end of its row, number), not {text[:40]!r}")
        chip, side, number = found.groups()
        return cls(int(chip), side, int(number))


@dataclass(frozen=True, kw_only=True)
class Link:
    """A link between two ports, both ways. latency: cycles from a slot's begin to the arrival of its flit."""

    ports: tuple[Port, Port]
    latency: int


@dataclass(frozen=True, kw_only=True)
class Oscillators:
    """The clocks of a rack each of whose chips has its own (plesiochronous; `hw.link.realign`).

    ppm: by how many parts in a million each may be faster or slower than it should be.
    slack: cycles by which two chips may run apart during a token. The links' elastic buffers take them up.
    """

    ppm: float
    slack: int

    def apart(self, period: int) -> int:
        """Cycles by which two chips run apart at most from a token's START to the end of a token of so many cycles,
        with one more for jitter and what is seen of it."""
        fast, slow = 1 + self.ppm * 1e-6, 1 - self.ppm * 1e-6
        return math.ceil((period + WATCHED) * (fast / slow - 1)) + 1


@dataclass(frozen=True, kw_only=True)
class RackConfig:
    """Chips and links. Chip 0 is the root: its counter is the rack's.

    oscillators: None where all chips have the root's clock, which is forwarded over the links (mesochronous).

    Raises TspError where a port is used twice or is not the chip's, where a link is between chips of different slots or
    vectors, or where a chip is not reached from the root.
    """

    name: str
    chips: tuple[ChipConfig, ...]
    links: tuple[Link, ...]
    oscillators: Oscillators | None = None

    def __post_init__(self) -> None:
        if own := self.oscillators:
            if not SLACKS[0] <= own.slack <= SLACKS[1]:
                raise self._wrong(f"the slack must be in {SLACKS[0]}..{SLACKS[1]} cycles, not {own.slack}")
            if not 0 < own.ppm <= MOST_PPM:
                raise self._wrong(f"the ppm of oscillators must be more than 0 and at most {MOST_PPM:g}, not "
                                  f"{own.ppm:g}")
        if not 1 <= len(self.chips) <= MAX_CHIPS:
            raise self._wrong(f"it must have 1..{MAX_CHIPS} chips, not {len(self.chips)}")
        used: set[Port] = set()
        for link in self.links:
            self._check_link(link, used)
        if missing := set(range(len(self.chips))) - self.depths.keys():
            raise self._wrong(f"chip {min(missing)} must be linked to chip 0, directly or through other chips")

    def _check_link(self, link: Link, used: set[Port]) -> None:
        for port in link.ports:
            if port.chip >= len(self.chips):
                raise self._wrong(f"port {port} must belong to one of the {len(self.chips)} chips")
            if port.number >= (count := self.chips[port.chip].ports_of(port.side)):
                raise self._wrong(f"port {port} must be one of the {count} ports at that end of the chip")
            if port in used:
                raise self._wrong(f"port {port} must be linked once, not twice")
            used.add(port)
        low, high = LATENCIES
        if not low <= link.latency <= high:
            raise self._wrong(f"the latency of {link.ports[0]} must be in {low}..{high} cycles, not {link.latency}")
        one, other = (self.chips[port.chip] for port in link.ports)
        for what in ("lanes", "slot"):
            if getattr(one, what) != getattr(other, what):
                raise self._wrong(f"{link.ports[0]} and {link.ports[1]} must connect chips with the same {what}, "
                                  f"not {getattr(one, what)} and {getattr(other, what)}")

    def _wrong(self, what: str) -> TspError:
        return TspError(f"rack {self.name}: {what}")

    @property
    def slack(self) -> int:
        """Cycles by which two chips may run apart during a token; 0 if they have one clock."""
        return self.oscillators.slack if self.oscillators else 0

    @property
    def meshed(self) -> bool:
        """Whether each chip is linked with each other one."""
        return len({(near.chip, far.chip) for near, (far, _) in self.across.items()}) == len(self.chips) * (
            len(self.chips) - 1)

    def part(self, chips: range) -> "RackConfig":
        """A rack of neighbouring chips of this one, numbered from 0 on, and the links between them. Raises TspError if
        these do not connect them."""
        if chips == range(len(self.chips)):
            return self
        links = tuple(Link(ports=(one, other), latency=link.latency) for link in self.links
                      if all(port.chip in chips for port in link.ports)
                      for one, other in [[replace(port, chip=port.chip - chips.start) for port in link.ports]])
        try:
            return RackConfig(name=self.name, chips=self.chips[chips.start : chips.stop], links=links)
        except TspError:
            raise self._wrong(f"chips {chips.start} to {chips.stop - 1} must be linked with each other, directly or "
                              "through one another, to be a group") from None

    @cached_property
    def across(self) -> Mapping[Port, tuple[Port, int]]:
        """What is at the other end of a port's link, and its latency."""
        return {near: (far, link.latency) for link in self.links
                for near, far in (link.ports, link.ports[::-1])}

    @cached_property
    def depths(self) -> Mapping[int, int]:
        """Links between the root and each chip that is reached from it, by the shortest way."""
        found, edge = {0: 0}, [0]
        while edge:
            near = edge.pop(0)
            for port, (far, _) in self.across.items():
                if port.chip == near and far.chip not in found:
                    found[far.chip] = found[near] + 1
                    edge.append(far.chip)
        return found

    @property
    def macs(self) -> int:
        """int8 multiply-accumulates a cycle of all chips."""
        return sum(chip.macs for chip in self.chips)

    @property
    def sram_bytes(self) -> int:
        """Bytes in the SRAM of all chips."""
        return sum(chip.sram_bytes for chip in self.chips)

    def as_json(self) -> dict[str, Any]:
        """What a rack's file holds; `arch.rack_file` reads it."""
        own = {"oscillators": asdict(self.oscillators)} if self.oscillators else {}
        return {"chips": [{"config": chip.name.removesuffix(LINKED), "ports": list(chip.ports), "slot": chip.slot}
                          for chip in self.chips],
                "links": [{"ports": [str(port) for port in link.ports], "latency": link.latency}
                          for link in self.links], **own}

    def digest(self) -> str:
        """Hex digest, 64 bits, of everything that a rack's program depends on."""
        own = [[self.oscillators.ppm, self.oscillators.slack]] if self.oscillators else []
        text = json.dumps([[chip_digest(chip) for chip in self.chips],
                           sorted([*sorted(map(str, link.ports)), link.latency] for link in self.links), *own])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def linked(name: str, ports: tuple[int, int], slot: int) -> ChipConfig:
    """A named config with links."""
    return replace(CONFIGS[name], name=name + LINKED, ports=ports, slot=slot)


def mesh(name: str, config: str, chips: int, *, slot: int = 2, latency: int = 12) -> RackConfig:
    """Chips of a named config, each linked with each other one. Raises TspError beyond 2 * MAX_PORTS + 1 chips.

    latency: of all links. Slots of 2 cycles take 11; links between chips that follow a third one take one more.
    """
    if not 1 <= chips <= 2 * MAX_PORTS + 1:
        raise TspError(f"rack {name}: a chip has at most {2 * MAX_PORTS} ports, so 1..{2 * MAX_PORTS + 1} chips may "
                       f"all be linked with each other, not {chips}")
    east = min(chips - 1, MAX_PORTS)
    chip = linked(config, (chips - 1 - east, east), slot)

    def port(near: int, far: int) -> Port:
        number = far - (far > near)
        return Port(near, "E", number) if number < MAX_PORTS else Port(near, "W", number - MAX_PORTS)

    links = tuple(Link(ports=(port(one, other), port(other, one)), latency=latency)
                  for one in range(chips) for other in range(one + 1, chips))
    return RackConfig(name=name, chips=(chip,) * chips, links=links)


def row(name: str, config: str, chips: int, *, slot: int = 2, latency: int = 12) -> RackConfig:
    """Chips of a named config, each linked with the next one. Raises TspError beyond MAX_CHIPS."""
    links = tuple(Link(ports=(Port(chip, "E", 0), Port(chip + 1, "W", 0)), latency=latency)
                  for chip in range(chips - 1))
    return RackConfig(name=name, chips=(linked(config, (1, 1), slot),) * chips, links=links)


def shelves(name: str, config: str, count: int, size: int, *, slot: int = 2, latency: int = 12) -> RackConfig:
    """Chips of a named config on some shelves, an even number on each.

    Chips of a shelf are linked with each other, and with the chip of the same place on each other shelf. Ports that are
    left link the last chips of a shelf with the first ones of the next, the very last with the first, and so on inward:
    then cards of two chips, or three, are linked in the order of their numbers, around all shelves.

    Raises TspError if a chip has too few ports.
    """
    chips, links, used = range(count * size), list[Link](), Counter[tuple[int, str]]()

    def port(near: int, far: int) -> Port:
        """The next free port of a chip. Those of a shelf come at both ends of the row, low and high numbers apart."""
        sides = sorted(SIDES, key=lambda side: used[near, side])
        if near // size == far // size:
            sides = ["E", "W"] if far % size < ceil_div(size, 2) else ["W", "E"]
        side = sides[used[near, sides[0]] == MAX_PORTS]
        used[near, side] += 1
        return Port(near, side, used[near, side] - 1)

    def join(one: int, other: int) -> None:
        links.append(Link(ports=(port(one, other), port(other, one)), latency=latency))

    for one, other in itertools.combinations(chips, 2):
        if one // size == other // size or one % size == other % size:
            join(one, other)
    left = 2 * MAX_PORTS - (size - 1) - (count - 1)
    if left < 0:
        raise TspError(f"rack {name}: a chip has at most {2 * MAX_PORTS} ports, and {2 * MAX_PORTS - left} are needed")
    for place in range(size // 2 if left and count > 1 else 0):
        for shelf in range(count):
            join(shelf * size + size - 1 - place, (shelf + 1) % count * size + place)
    west, east = (max(used[chip, side] for chip in chips) for side in SIDES)
    return RackConfig(name=name, chips=(linked(config, (west, east), slot),) * len(chips), links=tuple(links))


RACKS = {rack.name: rack for rack in (mesh("pair", "ulx3s", 2, latency=11), mesh("card", "sram28", 2),
                                       mesh("node", "sram28", 8), shelves("rack", "sram28", 3, 6))}
"""The named racks: two boards, and two, eight and eighteen chips that exist in simulation only."""
