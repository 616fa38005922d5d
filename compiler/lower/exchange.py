"""Transfers between the chips of a rack: their ways over the links, and the parts that each chip has in them.

All chips write the same transfers in the same order. A transfer is a cluster of parts on several chips
(`compiler.ir.Part`): the scheduler ties the SEND of one chip to the RECEIVEs of others by the latency of the links.
What is made of transfers is in `collectives`.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

from arch import isa, row
from arch.config import PLANES
from arch.rack import MAX_CHIPS, Port, RackConfig
from arch.vectors import SIDES, ceil_div
from compiler.ir import Act, Part

from .builder import Builder


@dataclass(frozen=True, kw_only=True)
class Hop:
    """A SEND of a chip to all chips that get these flits from it.

    chip: the sender. side: end of its row. ports: mask of its ports. takers: ports that take the flits, and cycles from
    the SEND to each RECEIVE.
    """

    chip: int
    side: str
    ports: int
    takers: tuple[tuple[Port, int], ...]

    @property
    def chips(self) -> frozenset[int]:
        """All chips of the hop."""
        return frozenset({self.chip} | {port.chip for port, _ in self.takers})


def route(rack: RackConfig, sources: Iterable[int], among: Collection[int] = range(MAX_CHIPS)) -> list[Hop]:
    """The hops that bring flits, which some chips have, to all others among some that can be reached, each by the least
    number of links."""
    edge, hops = [*sources], list[Hop]()
    reached = {*edge}
    while edge:
        near = edge.pop(0)
        for side in SIDES:
            ports, takers = 0, list[tuple[Port, int]]()
            for number in range(rack.chips[near].ports_of(side)):
                far, latency = rack.across.get(Port(near, side, number), (Port(near, side, number), 0))
                if far.chip in among and far.chip not in reached:
                    reached.add(far.chip)
                    edge.append(far.chip)
                    ports |= 1 << number
                    takers.append((far, isa.C2C_SEND + latency))
            if takers:
                hops.append(Hop(chip=near, side=side, ports=ports, takers=tuple(takers)))
    return hops


def ways(rack: RackConfig, hops: Sequence[Hop], targets: Iterable[int]) -> list[Hop]:
    """The hops of a route by which flits get to some chips, without the takers beside the ways."""
    found, wanted = list[Hop](), {*targets}
    for hop in reversed(hops):
        if takers := [(port, late) for port, late in hop.takers if port.chip in wanted]:
            found.insert(0, replace(hop, ports=mask(rack, takers), takers=tuple(takers)))
            wanted.add(hop.chip)
    return found


def mask(rack: RackConfig, takers: Iterable[tuple[Port, int]]) -> int:
    """The sender's ports from which these take flits."""
    return sum(1 << rack.across[port][0].number for port, _ in takers)


class Exchange:
    """The transfers that a chip takes part in among the chips of a rack, or of a group of them.

    rack: these chips and their links. chip: its number among them. first: number of the first of them in the whole
    rack. between: the transfers among all chips of the rack, if these are a group.
    """

    def __init__(self, rack: RackConfig, chip: int, first: int = 0, between: "Exchange | None" = None) -> None:
        self.rack, self.chip, self.first, self.between = rack, chip, first, between
        self._transfers = 0

    @cached_property
    def routes(self) -> list[list[Hop]]:
        """By source, the hops to all other chips."""
        return [route(self.rack, [chip]) for chip in range(len(self.rack.chips))]

    @cached_property
    def order(self) -> list[int]:
        """All chips in the order in which they send, the same on all chips. Where all are linked with each other, flits
        of low and of high numbers come at different ends of the row, so these take turns."""
        chips = range(len(self.rack.chips))
        if not self.rack.meshed:
            return list(chips)
        middle = ceil_div(len(chips), 2)
        return [chip for pair in zip_longest(chips[:middle], chips[middle:]) for chip in pair if chip is not None]

    @cached_property
    def ends(self) -> dict[int, str]:
        """By chip that this one is linked with, the end of the row at which its flits come in."""
        return {far.chip: near.side for near, (far, _) in self.rack.across.items() if near.chip == self.chip}

    def number(self) -> int:
        """A new number, equal on all chips, for they take the same numbers in the same order."""
        self._transfers += 1
        return self._transfers


def exchanges(rack: RackConfig, groups: Sequence[range]) -> list[Exchange]:
    """Of each chip of a rack, the transfers in its group."""
    racks = [rack.part(group) for group in groups]
    return [Exchange(own, chip - group.start, group.start, Exchange(rack, chip) if len(groups) > 1 else None)
            for own, group in zip(racks, groups, strict=True) for chip in group]


def direct(exchange: Exchange, source: int, targets: Sequence[int]) -> list[Hop]:
    """The hops from a chip to those among `targets` that are others, each linked with it."""
    found = list[Hop]()
    for hop in exchange.routes[source]:
        takers = [(port, late) for port, late in hop.takers if port.chip in targets and hop.chip == source]
        if takers:
            found.append(replace(hop, ports=mask(exchange.rack, takers), takers=tuple(takers)))
    return found


def arrivals(name: str, side: str) -> str:
    """The tensor that a port's flits of a tensor go to, if they are loaded into the matrix units. Those of both ends
    are in slices of their own, where all chips are linked with each other."""
    return f"{name} {side}"


def pass_by(b: Builder, exchange: Exchange, key: Hashable, hop: Hop, name: str, quads: range, sent: int, taken: int,
          acts: Mapping[str, Act]) -> None:
    """This chip's parts of a hop. exchange: counts the chips as the hop does. sent, taken: the plane's number at the
    sender and at the takers."""
    if hop.chip == exchange.chip:
        send(b, exchange, key, hop, name, quads, sent)
    for port, late in hop.takers:
        if port.chip == exchange.chip:
            take(b, exchange, key, hop.chips, name, quads, taken, port, late, acts)


def sent_interval(b: Builder, count: int) -> int:
    """Cycles between flits: one a slot."""
    return b.config.slot if count > 1 else 1


def part_of(b: Builder, exchange: Exchange, label: str, key: Hashable, chips: frozenset[int], late: int = 0) -> Part:
    """A part of a transfer. chips: as `exchange` counts them."""
    first = exchange.first
    part = Part(label, b.config, key=(first, key), chips=frozenset(first + chip for chip in chips), late=late)
    b.blocks[-1].clusters.append(part)
    return part


def send(b: Builder, exchange: Exchange, key: Hashable, hop: Hop, name: str, quads: range, plane: int) -> None:
    part, mem = part_of(b, exchange, name, key, hop.chips), b.tensor(name, quads.start, len(quads))
    stream = part.read(replace(mem, planes=1 << plane), row.C2C[hop.side], interval=sent_interval(b, len(quads)))
    part.send(stream, hop.side, hop.ports, plane)


def take(b: Builder, exchange: Exchange, key: Hashable, chips: frozenset[int], name: str, quads: range, plane: int,
          port: Port, late: int, acts: Mapping[str, Act]) -> None:
    """Into SRAM, and into the matrix unit at the other end of the row. The unit at this end, which what comes runs
    away from, reads it from SRAM. The write has the cells of all planes: no plane of a quad may be read, to be sent on,
    while another one is written."""
    part = part_of(b, exchange, name, key, chips, late)
    mem = b.tensor(arrivals(name, port.side) if acts else name, quads.start, len(quads))
    stream = part.receive(port.side, port.number, 1 << plane, len(quads), sent_interval(b, len(quads)))
    part.write(stream, replace(mem, planes=1 << plane))
    part.writes = [replace(write, cell=("mem", mem.slice, addr, each)) for write, addr in
                   zip(part.writes, range(mem.addr, mem.addr + len(quads)), strict=True) for each in range(PLANES)]
    for side, act in acts.items():
        if side != port.side:
            part.load(stream, act)
        else:
            cluster = b.cluster(f"{name} load")
            cluster.load(cluster.read(replace(mem, planes=1), row.MXM[side]), act)
