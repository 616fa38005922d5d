"""The model's operation for which each instruction works. It is found by issuing the queues' words as the chip does."""

from collections.abc import Iterator, Sequence

import numpy as np

from arch import isa
from arch.config import ChipConfig
from arch.latencies import latencies
from program.program import Program

NONE = 0
"""The mark of an instruction without a burst: NOP, LOOP, END_LOOP, SYNC."""


def labels(program: Program) -> list[str]:
    """Names of operations in order of first appearance. An instruction's mark is 1 + the index of its operation."""
    events = (event for number in range(len(program.buckets)) for event in program.events(number))
    return list(dict.fromkeys(event.label for event in events))


def marks(program: Program) -> dict[str, np.ndarray]:
    """By queue, a mark for each of its instructions.

    Raises ValueError if a burst of the words is not in the program's schedule, or if there are too many operations.
    """
    known = {label: n for n, label in enumerate(labels(program), start=1)}
    if len(known) > 255:
        raise ValueError(f"a page has room for 255 operations, not {len(known)}")
    found = {name: np.full(len(words), NONE) for name, words in program.queues.items()}
    for number in range(len(program.buckets)):
        events = {(event.queue, event.first): event.label for event in program.events(number)}
        for queue, starts in program.starts.items():
            for pc, cycle in dispatches(program.config, program.queues[queue], starts[number],
                                        queue.partition("_")[0]):
                label = events.get((queue, cycle + isa.ENGINE))
                if label is None:
                    raise ValueError(f"instruction {pc} of queue {queue}, dispatched in cycle {cycle}, is not in the "
                                     f"schedule of bucket {number}")
                found[queue][pc] = known[label]
    return found


def dispatches(config: ChipConfig, words: Sequence[int], pc: int, unit: str) -> Iterator[tuple[int, int]]:
    """(pc, cycle after the start pulse) of the bursts from a start PC to SYNC. Loops count in their first turn.

    words: the queue's words.
    unit: kind of the queue's unit.
    """
    cycle = latencies(config).start
    loops: list[tuple[int, int]] = []  # turns, and the cycle of the body's first dispatch
    while True:
        instr = isa.decode(words[pc], unit)
        if instr.op is isa.Op.SYNC:
            return
        if instr.op not in isa.ICU_OPS:
            yield pc, cycle
        cycle += instr.delay
        if instr.op is isa.Op.LOOP:
            loops.append((instr.count, cycle))
        if instr.op is isa.Op.END_LOOP:
            turns, began = loops.pop()
            cycle += (turns - 1) * (cycle - began)
        pc += 1
