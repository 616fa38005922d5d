"""The words of one queue, unrolled in time: every dispatch of a token and its cycle."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from arch import isa
from arch.config import ChipConfig
from arch.host_map import Trap
from arch.isa import ENGINE, Instr, Op
from arch.latencies import latencies
from arch.legal import IllegalProgram, instruction
from arch.row import Queue


@dataclass(frozen=True, eq=False)
class Word:
    """A unit's instruction and all its dispatches in a token.

    queue: its queue.
    number: its index among the queue's words.
    instr: the instruction.
    cycles: cycles of its dispatches [turns].
    offsets: address offsets of loop levels 0 and 1 [turns, 2].
    """

    queue: Queue
    number: int
    instr: Instr
    cycles: np.ndarray
    offsets: np.ndarray

    @property
    def label(self) -> str:
        """Its name in errors about other words."""
        return f"{self.queue.name} word {self.number} ({self.instr.op.name})"

    @property
    def burst(self) -> tuple[int, int]:
        """(elements, interval)."""
        match self.instr.op:
            case Op.MAC:
                return self.instr.acts * self.instr.accs, 1
            case Op.INDEX:
                return 1, 1
        return self.instr.count, self.instr.interval

    @property
    def first(self) -> np.ndarray:
        """Cycle of the first element [turns]."""
        return self.cycles + ENGINE

    @property
    def last(self) -> np.ndarray:
        """Cycle of the last element [turns]."""
        count, interval = self.burst
        return self.first + (count - 1) * interval

    @cached_property
    def elements(self) -> np.ndarray:
        """Cycle of every element [turns, count]. Check `last` first, because there may be very many elements."""
        count, interval = self.burst
        return self.first[:, None] + np.arange(count) * interval

    def error(self, rule: Trap, cycle: int, what: str) -> IllegalProgram:
        """The error for an offence of this word."""
        return IllegalProgram(rule, self.queue.name, self.number, int(cycle), f"{self.instr.op.name}: {what}")


def unroll(config: ChipConfig, queue: Queue, words: Sequence[int], period: int) -> list[Word]:
    """The unit's words of a queue, with their dispatches. The last word must be a SYNC before `period` ends."""
    instrs = [instruction(config, queue, number, word) for number, word in enumerate(words)]
    dispatches: list[list[tuple[int, int, int]]] = [[] for _ in words]
    levels: list[list[int]] = []  # first word of the body, finished turns, turns in all, stride
    pc, cycle = 0, latencies(config).start
    while True:
        number = pc
        if number >= len(words):
            raise IllegalProgram(Trap.DRY, queue.name, number, cycle, "the queue ends without SYNC")
        instr, pc = instrs[number], pc + 1
        if cycle >= period:
            raise IllegalProgram(Trap.NOT_PARKED, queue.name, number, cycle, f"dispatched after the period of {period}")
        match instr.op:
            case Op.SYNC:
                break
            case Op.LOOP:
                if len(levels) == isa.LOOP_LEVELS:
                    raise IllegalProgram(Trap.OPCODE, queue.name, number, cycle, "LOOP is nested too deeply")
                levels.append([pc, 0, instr.count, instr.stride])
            case Op.END_LOOP:
                pc = _next_turn(queue, number, cycle, levels) or pc
            case Op.NOP:
                pass
            case _:
                passed = [level[1] * level[3] for level in levels] + [0, 0]
                dispatches[number].append((cycle, passed[0], passed[1]))
        cycle += instr.delay
    if levels:
        raise IllegalProgram(Trap.OPCODE, queue.name, number, cycle, "SYNC stands within a loop")
    if pc < len(words):
        raise IllegalProgram(Trap.OPCODE, queue.name, pc, -1, "words follow SYNC")
    found = [(number, np.array(times, np.int64)) for number, times in enumerate(dispatches) if times]
    return [Word(queue, number, instrs[number], times[:, 0], times[:, 1:]) for number, times in found]


def _next_turn(queue: Queue, number: int, cycle: int, levels: list[list[int]]) -> int:
    """END_LOOP: the first word of the body if a turn is left, else 0."""
    if not levels:
        raise IllegalProgram(Trap.OPCODE, queue.name, number, cycle, "END_LOOP has no LOOP")
    level = levels[-1]
    level[1] += 1
    if level[1] < level[2]:
        return level[0]
    levels.pop()
    return 0

