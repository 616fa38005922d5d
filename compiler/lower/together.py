"""The program of a period in which one chip advances several independent sequences by a token each.

Each sequence has a builder of its own, with its part of the registers and buffers, and copies of all that is written
in SRAM. So their operations depend on nothing of each other, and the scheduler fills the gaps of one with another.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from arch.isa import Red
from base.errors import TspError
from compiler.ir import BURST_SLOT, Block, Burst, Cell, Cluster, Read, Write
from compiler.place.placement import Placement

from .token import lower_token

Access = TypeVar("Access", Read, Write)
SLOTS = ((0, 1), (3,))
"""By sequence, the reduction slots of bursts that continue each other."""


def lower_together(placement: Placement, chunks: int) -> list[Block]:
    """The blocks of a period in a context bucket, see `Builder`. Sequences have positions of their own, so none of the
    `chunks` is known to be full.

    Raises TspError naming a resource that runs out.
    """
    found = []
    for sequence in range(placement.geometry.together):
        blocks = lower_token(placement.of(sequence), chunks)
        _choose_slots(blocks, SLOTS[sequence])
        for cluster in (cluster for block in blocks for cluster in block.clusters):
            cluster.sequence = sequence
        found.append(blocks)
    return [replace(same[0], clusters=[cluster for block in same for cluster in block.clusters])
            for same in zip(*found, strict=True)]


@dataclass
class _Run:
    """Bursts whose reductions continue each other: the first one and last one in program order, and all."""

    first: int
    last: int
    bursts: list[tuple[Cluster, Burst]] = field(default_factory=list)


def _choose_slots(blocks: Sequence[Block], slots: Sequence[int]) -> None:
    """Give reductions of one sequence the slots that are its own.

    A reduction of a single burst takes BURST_SLOT, which all sequences share without waiting: the VXM works on one
    burst after the other.
    """
    free = dict.fromkeys(slots, -1)
    for run in sorted(_runs(blocks), key=lambda run: run.first):
        slot = BURST_SLOT
        if len(run.bursts) > 1:
            slot = next((slot for slot in slots if free[slot] < run.first), -1)
            if slot < 0:
                raise TspError(f"{run.bursts[0][0].label}: the VXM's reduction slots are too few for several sequences")
            free[slot] = run.last
        for cluster, burst in run.bursts:
            _take_slot(cluster, burst, slot)


def _runs(blocks: Sequence[Block]) -> Iterator[_Run]:
    open_: dict[int, _Run] = {}
    bursts = [(cluster, burst) for block in blocks for cluster in block.clusters for burst in cluster.bursts
              if burst.fields.get("red", Red.NONE) is not Red.NONE and burst.queue.unit == "VXM"]
    for number, (cluster, burst) in enumerate(bursts):
        slot = burst.fields.get("red_slot", 0)
        if not burst.fields.get("red_keep"):
            if slot in open_:
                yield open_.pop(slot)
            open_[slot] = _Run(number, number)
        open_[slot].last = number
        open_[slot].bursts.append((cluster, burst))
    yield from open_.values()


def _take_slot(cluster: Cluster, burst: Burst, slot: int) -> None:
    """Let a burst reduce into a slot. With BURST_SLOT nothing waits for it."""
    old: Cell = ("red", burst.fields.get("red_slot", 0))
    burst.fields["red_slot"] = slot
    cluster.reads = [*_renamed(cluster.reads, old, slot)]
    cluster.writes = [*_renamed(cluster.writes, old, slot)]


def _renamed(accesses: Iterable[Access], old: Cell, slot: int) -> Iterator[Access]:
    for access in accesses:
        if access.cell != old:
            yield access
        elif slot != BURST_SLOT:
            yield replace(access, cell=("red", slot))
