"""The flits between the chips of a rack: which burst sends them, over which link, and when they arrive."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from arch import isa, row
from arch.config import ChipConfig
from arch.isa import Instr, LinkOp
from arch.rack import Port
from program.program import Segment
from program.rack import RackProgram

from . import breakdown, issue


@dataclass(frozen=True, kw_only=True)
class Hop:
    """The flits that a SEND puts on one link.

    near, far: the ports that send and receive. label: the operation. segment: its name.
    first: cycle of the first flit's slot, in the first turn of its segment. arrival: cycle in which it arrives.
    count, interval: flits, and cycles from one to the next.
    """

    near: Port
    far: Port
    label: str
    segment: str
    first: int
    arrival: int
    count: int
    interval: int

    @property
    def last(self) -> int:
        """Cycle of the last flit's slot."""
        return self.first + (self.count - 1) * self.interval


def hops(program: RackProgram, number: int) -> list[Hop]:
    """All hops of a token of bucket `number`, in the order of their first cycles. Loops count in their first turn."""
    found = []
    for chip, own in enumerate(program.chips):
        events = {(event.queue, event.first): event for event in own.events(number)}
        for queue in row.queues(own.config):
            if queue.unit != "C2C":
                continue
            for cycle, instr in _sends(own.config, own.queues[queue.name], own.starts[queue.name][number], queue):
                event = events[queue.name, cycle]
                for port in range(own.config.ports_of(queue.side)):
                    near = Port(chip, queue.side, port)
                    if instr.ports >> port & 1 and near in program.rack.across:
                        far, latency = program.rack.across[near]
                        begin = cycle + isa.C2C_SEND
                        found.append(Hop(near=near, far=far, label=event.label, segment=event.segment, first=begin,
                                         arrival=begin + latency, count=instr.count, interval=instr.interval))
    return sorted(found, key=lambda hop: (hop.first, hop.near))


def _sends(config: ChipConfig, words: tuple[int, ...], start: int, queue: row.Queue) -> Iterator[tuple[int, Instr]]:
    """(cycle of the first element, instruction) of the SENDs of a bucket."""
    for pc, dispatched in issue.dispatches(config, words, start, queue.unit):
        instr = isa.decode(words[pc], queue.unit)
        if instr.op is LinkOp.SEND:
            yield dispatched + isa.ENGINE, instr


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one direction of a link carries in a token. flits: of all turns. slots: that a token has."""

    near: Port
    far: Port
    latency: int
    flits: int
    slots: int

    @property
    def share(self) -> float:
        """The part of its slots that hold a flit."""
        return self.flits / self.slots


def traffic(program: RackProgram, number: int) -> list[Traffic]:
    """Every direction of every link in a token of bucket `number`."""
    flits: dict[Port, int] = defaultdict(int)
    passes = {(chip, segment.name): segment.turns for chip, own in enumerate(program.chips)
              for segment in breakdown.get_bucket(own, number).segments}
    for hop in hops(program, number):
        flits[hop.near] += hop.count * passes[hop.near.chip, hop.segment]
    period = program.buckets[number].period
    return [Traffic(near=near, far=far, latency=latency, flits=flits[near],
                    slots=period // program.rack.chips[near.chip].slot)
            for near, (far, latency) in sorted(program.rack.across.items())]


@dataclass(frozen=True, kw_only=True)
class ChipFigures:
    """What a chip does in a token: cycles in which its units work, and how full its SRAM is.

    exposed: cycles in which none of its matrix units works. waiting: those of them that the label of a transfer is
    charged with.
    """

    chip: int
    period: int
    mxm: int
    vxm: int
    exposed: int
    waiting: int
    weight_bytes: int
    sram: float


def chip_figures(program: RackProgram, number: int) -> list[ChipFigures]:
    """The critical figures of bucket `number`, chip by chip."""
    labels = {hop.label for hop in hops(program, number)}
    found = []
    for chip, own in enumerate(program.chips):
        totals = breakdown.totals(own, number)
        mxm, vxm, exposed = (sum(getattr(t, name) * t.turns for t in totals) for name in ("mxm", "vxm", "exposed"))
        waiting = sum(o.exposed * o.turns for o in breakdown.operations(own, number) if o.label in labels)
        used, there = (sum(quads) for quads in zip(*own.sram_use().values(), strict=True))
        found.append(ChipFigures(chip=chip, period=own.buckets[number].period, mxm=mxm, vxm=vxm, exposed=exposed,
                                 waiting=waiting, weight_bytes=sum(t.weight_bytes for t in totals), sram=used / there))
    return found


def segment_named(program: RackProgram, number: int, name: str) -> Segment:
    """A segment of bucket `number` by its name, on the first chip that has it."""
    return next(segment for own in program.chips for segment in breakdown.get_bucket(own, number).segments
                if segment.name == name)
