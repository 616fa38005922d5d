"""The reach of each burst's values, from the unit that drives them to the last unit that takes them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from arch import isa, row
from arch.config import PLANES, VXM, ChipConfig
from arch.isa import Dir, Instr, LinkOp, Op, Src
from arch.latencies import latencies
from program.program import Program

from . import issue

ALL = (1 << PLANES) - 1
NOWHERE = -1
STEP = {Dir.E: 1, Dir.W: -1}


@dataclass(frozen=True)
class Tap:
    """The planes of a stream group that an element of a burst drives or samples.

    planes: mask of the planes.
    latency: cycles after the execution of the element.
    once: only the last element counts.
    """

    dir: Dir
    group: int
    planes: int = ALL
    latency: int = 0
    once: bool = False


def drives(instr: Instr, queue: row.Queue, config: ChipConfig) -> list[Tap]:
    """The taps that an element of a burst drives."""
    inward, outward = (Dir.W, Dir.E) if queue.position > VXM else (Dir.E, Dir.W)
    late, times = isa.vxm_late(config), latencies(config)
    match instr.op:
        case Op.READ:
            way = (outward, instr.weights) if instr.weights else (instr.dir, 0)
            return [Tap(*way, instr.planes, times.mem_read)]
        case Op.DRAIN:
            return [Tap(inward, 0, ALL, times.mxm_drain)]
        case LinkOp.RECEIVE:
            return [Tap(inward, 0, instr.planes, isa.C2C_RECEIVE)]
        case Op.PERMUTE | Op.SHIFT | Op.REDUCE | Op.TRANSPOSE_OUT:
            return [Tap(inward, 0, ALL, times.sxm_drive)]
        case Op.ALU:
            found = [Tap(way, 0, ALL, times.vxm_drive + late)
                     for way, wanted in ((Dir.E, instr.dst_e), (Dir.W, instr.dst_w)) if wanted]
            reduces = instr.red is not isa.Red.NONE and instr.red_e
            return found + [Tap(Dir.E, 0, ALL, times.vxm_reduce_drive + late, once=True)] * bool(reduces)
    return []


def samples(instr: Instr, queue: row.Queue, config: ChipConfig) -> list[Tap]:
    """The taps that an element of a burst samples."""
    outward = Dir.E if queue.position > VXM else Dir.W
    match instr.op:
        case Op.WRITE:
            return [Tap(instr.dir, 0, instr.planes)]
        case Op.INDEX:
            return [Tap(instr.dir, 0)]
        case Op.LOAD | Op.TRANSPOSE_IN | LinkOp.SEND:
            return [Tap(outward, 0, 1 << instr.plane)]
        case Op.MAC:
            return [Tap(outward, group) for group in range(1, config.groups)]
        case Op.PERMUTE | Op.SHIFT | Op.REDUCE:
            return [Tap(outward, 0)]
        case Op.ALU:
            ways = {Src.E: Dir.E, Src.W: Dir.W}
            operands = ((getattr(instr, f"{name}_src"), getattr(instr, f"{name}_fmt")) for name in "abc")
            return [Tap(ways[src], 0, isa.FMT_PLANES[fmt]) for src, fmt in operands if src in ways]
    return []


def elements(instr: Instr) -> tuple[int, int]:
    """(elements, interval) of a burst."""
    if instr.op is Op.MAC:
        return instr.acts * instr.accs, 1
    return (instr.count, instr.interval) if "count" in isa.FIELDS[instr.op] else (1, 1)


def reaches(program: Program, number: int) -> dict[tuple[str, int], dict[Dir, int]]:
    """By (queue, pc) of every burst of a bucket that drives, the last position that takes its values, by direction.

    It is NOWHERE if no unit takes them: they leave the row, or are overwritten.
    """
    bursts = list(_bursts(program, number))
    drivers: dict[tuple, list[tuple[int, tuple[str, int]]]] = defaultdict(list)
    found: dict[tuple[str, int], dict[Dir, int]] = defaultdict(dict)
    for queue, pc, first, instr in bursts:
        for tap in drives(instr, queue, program.config):
            found[queue.name, pc].setdefault(tap.dir, NOWHERE)
            for cycle in _cycles(instr, first, tap):
                for slot in _slots(tap, queue.position, cycle):
                    drivers[slot].append((cycle, (queue.name, pc)))
    for times in drivers.values():
        times.sort()
    for queue, _, first, instr in bursts:
        for tap in samples(instr, queue, program.config):
            for cycle in _cycles(instr, first, tap):
                for slot in _slots(tap, queue.position, cycle):
                    source = next((key for time, key in reversed(drivers[slot]) if time < cycle), None)
                    if source is not None:
                        furthest = found[source][tap.dir]
                        beyond = furthest == NOWHERE or (queue.position - furthest) * STEP[tap.dir] > 0
                        found[source][tap.dir] = queue.position if beyond else furthest
    return found


@dataclass(frozen=True)
class Band:
    """The values that a burst drives in one direction.

    They leave the unit of `queue` in cycles first..last and move one position a cycle. The unit at `position` is the
    last one that takes them.

    start: cycle in which the burst begins.
    group: the stream group; 0 is the vector group.
    """

    queue: str
    start: int
    group: int
    first: int
    last: int
    position: int


def bands(program: Program, number: int) -> list[Band]:
    """The bands of all values in a bucket that a unit takes. Loops count in their first turn."""
    reach, found = reaches(program, number), []
    for queue, pc, first, instr in _bursts(program, number):
        for tap in drives(instr, queue, program.config):
            cycles, position = _cycles(instr, first, tap), reach[queue.name, pc][tap.dir]
            if position != NOWHERE:
                found.append(Band(queue.name, first, tap.group, cycles[0], cycles[-1], position))
    return found


def reach_table(program: Program) -> dict[str, np.ndarray]:
    """By queue, uint8 [instruction, 2]: 1 + the last position of its values eastward, and westward; 0 if none."""
    table = {name: np.zeros((len(words), 2), np.uint8) for name, words in program.queues.items()}
    for number in range(len(program.buckets)):
        for (queue, pc), ways in reaches(program, number).items():
            for way, position in ways.items():
                table[queue][pc, way.value] = position + 1
    return table


def _bursts(program: Program, number: int) -> Iterator[tuple[row.Queue, int, int, Instr]]:
    """(queue, pc, cycle of the first element, instruction) of a bucket's bursts. Loops count in their first turn."""
    for queue in row.queues(program.config):
        words = program.queues[queue.name]
        for pc, cycle in issue.dispatches(program.config, words, program.starts[queue.name][number], queue.unit):
            yield queue, pc, cycle + isa.ENGINE, isa.decode(words[pc], queue.unit)


def _cycles(instr: Instr, first: int, tap: Tap) -> range:
    count, interval = elements(instr)
    begin = first + (count - 1) * interval * tap.once
    return range(begin + tap.latency, first + (count - 1) * interval + tap.latency + 1, interval)


def _slots(tap: Tap, position: int, cycle: int) -> Iterator[tuple]:
    """Names of the values in the planes at a position in a cycle. A value keeps its name while it travels."""
    for plane in range(PLANES):
        if tap.planes >> plane & 1:
            yield tap.dir, tap.group, plane, cycle - STEP[tap.dir] * position
