"""The critical path through a rack: the operations and transfers that a token's period consists of.

It leads from the last burst of a segment back, each time to the burst that decides when it can begin (`depends`). All
cycles of the period belong to a step of the path. Those beyond what a dependency takes are *waiting*.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from arch.rack import Port
from program.program import Segment
from program.rack import AnyProgram, RackProgram

from . import breakdown
from .depends import Burst, bursts_of, linked


@dataclass(frozen=True, kw_only=True)
class Step:
    """Cycles of the path, first..end - 1, that belong to an operation of a chip, or to flits on a link.

    waiting: those of them that no dependency explains. link: the ports, of a transfer.
    """

    chip: int
    label: str
    first: int
    end: int
    waiting: int
    link: tuple[Port, Port] | None = None

    @property
    def cycles(self) -> int:
        return self.end - self.first

    @property
    def where(self) -> str:
        """The chip, or the link."""
        return f"{self.link[0]} to {self.link[1]}" if self.link else f"chip {self.chip}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A segment of the period, or cycles between segments, which have no steps. Cycles are those of the first turn."""

    segment: str
    start: int
    length: int
    turns: int
    steps: Sequence[Step] = ()


NOTE = ("A step is at work from its first cycle to the next step's. Waiting: cycles of it that no dependency explains; "
        "there streams or memories are taken, or the schedule is not the shortest.")


def summary(parts: Sequence[Part]) -> str:
    """What the period consists of, in a sentence."""
    period = sum(part.length * part.turns for part in parts)
    links = sum(step.cycles * part.turns for part in parts for step in part.steps if step.link)
    count = sum(part.turns for part in parts for step in part.steps if step.link)
    waiting = sum(step.waiting * part.turns for part in parts for step in part.steps)
    hops = f"{count:,} transfers with {links:,} cycles ({links / period:.1%}) on links" if count else "no transfer"
    return f"Of {period:,} cycles the critical path has {hops}, and waits {waiting:,} cycles ({waiting / period:.1%})"


def critical_path(program: AnyProgram, number: int) -> list[Part]:
    """The parts of a token's period of bucket `number`, in the order of their cycles: together, all of it."""
    chips = program.chips if isinstance(program, RackProgram) else (program,)
    stages: dict[tuple[int, int, int], list[tuple[int, Segment]]] = defaultdict(list)
    for chip, own in enumerate(chips):
        for segment in breakdown.get_bucket(own, number).segments:
            stages[segment.start, segment.length, segment.turns].append((chip, segment))
    parts: list[Part] = []
    end = program.buckets[number].period
    for start, length, turns in sorted(stages, key=lambda s: (s[0] + s[1] * s[2], s[1] * s[2]), reverse=True):
        until = start + length * turns
        if until > end:
            continue  # beside one that is on the path
        if until < end:
            parts.append(Part(segment=breakdown.BETWEEN, start=until, length=end - until, turns=1))
        members = stages[start, length, turns]
        bursts = linked(program, [burst for chip, segment in members
                                   for burst in bursts_of(chips[chip], number, chip, segment)])
        parts.append(Part(segment=members[0][1].name, start=start, length=length, turns=turns,
                          steps=_steps(bursts, start, start + length)))
        end = start
    if end:
        parts.append(Part(segment=breakdown.BETWEEN, start=0, length=end, turns=1))
    return parts[::-1]


def _steps(bursts: list[Burst], start: int, end: int) -> list[Step]:
    """The path back from the last burst, in the order of its cycles; all cycles start..end - 1."""
    if not bursts:
        return []
    burst = max(bursts, key=lambda each: each.last)
    found: list[Step] = []
    until, waiting = end, end - 1 - burst.last
    while True:
        found.append(_step(burst, burst.first, until, waiting, None))
        before = burst.before
        if before is None:
            break
        waiting = burst.first - before.first - burst.needs
        if burst.link:
            found.append(_step(before, before.first, burst.first, waiting, burst.link))
            burst, until, waiting = before, before.first, 0
            if (before := burst.before) is None:
                break
            waiting = burst.first - before.first - burst.needs
        until, burst = burst.first, before
    if burst.first > start:
        found.append(_step(burst, start, burst.first, burst.first - start, None))
    return _merged(found[::-1])


def _step(burst: Burst, first: int, end: int, waiting: int, link: tuple[Port, Port] | None) -> Step:
    label = burst.label.removesuffix(" send") if link else burst.label
    return Step(chip=burst.chip, label=label, first=first, end=end, waiting=waiting, link=link)


def _merged(steps: Sequence[Step]) -> list[Step]:
    """Steps in a row of one operation, or of one link, as one."""
    found: list[Step] = []
    for step in steps:
        if step.first == step.end:
            continue
        last = found[-1] if found else None
        if last and (last.chip, last.label, last.link) == (step.chip, step.label, step.link):
            step = Step(chip=step.chip, label=step.label, first=last.first, end=step.end,
                        waiting=last.waiting + step.waiting, link=step.link)
            found.pop()
        found.append(step)
    return found
