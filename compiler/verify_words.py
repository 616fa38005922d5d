"""The words of one queue unrolled in time: exactly what its ICU dispatches in a token, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hw import isa
from hw.isa import ENGINE, Instr, Op, Queue, Trap

from .errors import TspError


class VerifyError(TspError):
    """A program that is not proven legal.

    rule: the trap that it may raise. queue, number, cycle: the word (counted from the bucket's start PC) and the cycle
    after the token's start pulse; -1 where none applies. what: the offence.
    """

    def __init__(self, rule: Trap, queue: str, number: int, cycle: int, what: str) -> None:
        place = queue + (f" word {number}" if number >= 0 else "") + (f", cycle {cycle}" if cycle >= 0 else "")
        super().__init__(f"illegal program: {place}: {rule.name}: {what}")
        self.rule, self.queue, self.number, self.cycle, self.what = rule, queue, number, cycle, what


@dataclass(frozen=True, eq=False)
class Word:
    """A unit's instruction and all its dispatches in a token.

    number: its place in the queue. cycles: of dispatch, [passes]. offsets: of loop levels 0 and 1, [passes, 2].
    """

    queue: Queue
    number: int
    instr: Instr
    cycles: np.ndarray
    offsets: np.ndarray

    @property
    def label(self) -> str:
        """How errors about other words name it."""
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
        """Cycle of the first element [passes]."""
        return self.cycles + ENGINE

    @property
    def last(self) -> np.ndarray:
        """Cycle of the last element [passes]."""
        count, interval = self.burst
        return self.first + (count - 1) * interval

    @cached_property
    def elements(self) -> np.ndarray:
        """Cycle of every element [passes, count]; look at `last` first, for these may be many."""
        count, interval = self.burst
        return self.first[:, None] + np.arange(count) * interval

    def error(self, rule: Trap, cycle: int, what: str) -> VerifyError:
        """An offence of this word."""
        return VerifyError(rule, self.queue.name, self.number, int(cycle), f"{self.instr.op.name}: {what}")


def unroll(queue: Queue, words: Sequence[int], period: int) -> list[Word]:
    """The unit's words of a queue with their dispatches, up to the last word, a SYNC before `period` ends."""
    instrs = [instruction(queue, number, word) for number, word in enumerate(words)]
    dispatches: list[list[tuple[int, int, int]]] = [[] for _ in words]
    levels: list[list[int]] = []  # first word of the body, finished passes, passes in all, stride
    pc, cycle = 0, isa.START
    while True:
        number = pc
        if number >= len(words):
            raise VerifyError(Trap.DRY, queue.name, number, cycle, "the queue ends without SYNC")
        instr, pc = instrs[number], pc + 1
        if cycle >= period:
            raise VerifyError(Trap.NOT_PARKED, queue.name, number, cycle, f"dispatched after the period of {period}")
        match instr.op:
            case Op.SYNC:
                break
            case Op.LOOP:
                if len(levels) == isa.LOOP_LEVELS:
                    raise VerifyError(Trap.OPCODE, queue.name, number, cycle, "LOOP is nested too deep")
                levels.append([pc, 0, instr.count, instr.stride])
            case Op.END_LOOP:
                pc = _next_pass(queue, number, cycle, levels) or pc
            case Op.NOP:
                pass
            case _:
                passed = [level[1] * level[3] for level in levels] + [0, 0]
                dispatches[number].append((cycle, passed[0], passed[1]))
        cycle += instr.delay
    if levels:
        raise VerifyError(Trap.OPCODE, queue.name, number, cycle, "SYNC within a loop")
    if pc < len(words):
        raise VerifyError(Trap.OPCODE, queue.name, pc, -1, "words behind SYNC")
    found = [(number, np.array(times, np.int64)) for number, times in enumerate(dispatches) if times]
    return [Word(queue, number, instrs[number], times[:, 0], times[:, 1:]) for number, times in found]


def _next_pass(queue: Queue, number: int, cycle: int, levels: list[list[int]]) -> int:
    """END_LOOP: first word of the body if there is a further pass, else 0."""
    if not levels:
        raise VerifyError(Trap.OPCODE, queue.name, number, cycle, "END_LOOP without LOOP")
    level = levels[-1]
    level[1] += 1
    if level[1] < level[2]:
        return level[0]
    levels.pop()
    return 0


def instruction(queue: Queue, number: int, word: int) -> Instr:
    """Decoded and complete, with all its fields as plain attributes (they are read often). Raises VerifyError."""
    try:
        instr = isa.decode(word)
    except ValueError as error:
        raise VerifyError(Trap.OPCODE, queue.name, number, -1, str(error)) from None
    if instr.op not in isa.ICU_OPS and instr.op not in isa.UNIT_OPS[queue.unit]:
        raise VerifyError(Trap.OPCODE, queue.name, number, -1, f"{instr.op.name} is no operation of {queue.unit}")
    least = isa.MIN_DELAY_JUMP if instr.op is Op.END_LOOP else isa.MIN_DELAY
    if instr.delay < least:
        raise VerifyError(Trap.OPCODE, queue.name, number, -1, f"delay must be at least {least}, not {instr.delay}")
    for name, spec in isa.FIELDS[instr.op].items():
        value = instr.fields[name]
        if spec.low and value < spec.low:
            raise VerifyError(Trap.OPCODE, queue.name, number, -1, f"{name} must be at least {spec.low}, not {value}")
        object.__setattr__(instr, name, value)
    return instr
