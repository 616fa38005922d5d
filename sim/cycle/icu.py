"""Instruction queues of the cycle model: decode once, dispatch on time, loop, park."""

from dataclasses import dataclass
from typing import Any

from arch.host_map import Trap
from arch.isa import FIELDS, ICU_OPS, LOOP_LEVELS, MIN_DELAY, UNIT_OPS, EncodingError, Instr, Op, decode
from arch.row import Queue

from .core import Timeline, Unit

EMPTY = 0
"""A word that was never written. Its delay of 0 is illegal."""


@dataclass
class Level:
    """An open loop.

    body: first word of its body.
    finished: turns finished.
    count: turns in all.
    stride: quads that relative addresses advance with each turn.
    """

    body: int
    finished: int
    count: int
    stride: int


class IllegalWord(ValueError):
    """A word that cannot be issued. Decoding raises it; dispatch turns it into a trap."""


def instruction(word: int, unit: str, jump: int) -> Instr:
    """Decode a word for a queue of `unit`. All fields become plain attributes, because every element reads them.

    jump: least delay of END_LOOP.
    """
    try:
        instr = decode(word, unit)
    except (EncodingError, ValueError) as error:
        raise IllegalWord(str(error)) from None
    if instr.op not in ICU_OPS and instr.op not in UNIT_OPS[unit]:
        raise IllegalWord(f"{instr.op.name} is not an operation of {unit}")
    least = jump if instr.op is Op.END_LOOP else MIN_DELAY
    if instr.delay < least:
        raise IllegalWord(f"{instr.op.name}: delay must be at least {least}, not {instr.delay}")
    for name, spec in FIELDS[instr.op].items():
        value: Any = instr.fields[name]
        if spec.low and value < spec.low:
            raise IllegalWord(f"{instr.op.name}: {name} must be at least {spec.low}, not {value}")
        object.__setattr__(instr, name, value)
    return instr


class IcuModel:
    """One instruction queue: words, program counter, loop levels, and the cycle of the next dispatch."""

    def __init__(self, queue: Queue, depth: int, time: Timeline, unit: Unit):
        self.queue = queue
        self.depth = depth
        self.time = time
        self.unit = unit
        self.words = [EMPTY] * depth
        self._decoded: list[Instr | IllegalWord | None] = [None] * depth
        self.starts: dict[int, int] = {}
        self.pc = 0
        self.parked = True
        self.next_dispatch = -1
        self.issued = -1  # cycle of the last dispatch to the unit
        self.levels: list[Level] = []

    def write(self, address: int, word: int) -> None:
        """Put a word into the queue and decode it."""
        self.words[address] = word
        try:
            self._decoded[address] = instruction(word, self.queue.unit, self.unit.latencies.min_delay_jump)
        except IllegalWord as error:
            self._decoded[address] = error

    def start(self, cycle: int, bucket: int) -> None:
        """Begin a token: dispatch the word at the bucket's start PC in `cycle`."""
        self.pc = self.starts.get(bucket, 0)
        self.parked = False
        self.levels.clear()
        self._next(cycle)

    def _next(self, cycle: int) -> None:
        self.next_dispatch = cycle
        self.time.read(cycle, self._dispatch)

    def _trap(self, trap: Trap, what: str) -> None:
        self.parked = True
        self.time.trap(trap, self.queue.name, what)

    def _fetch(self) -> Instr | None:
        if self.pc >= self.depth or self.words[self.pc] == EMPTY:
            self._trap(Trap.DRY, f"no instruction at {self.pc}")
            return None
        instr = self._decoded[self.pc]
        if not isinstance(instr, Instr):
            self._trap(Trap.OPCODE, f"at {self.pc}: {instr}")
            return None
        return instr

    def _dispatch(self) -> None:
        instr = self._fetch()
        if instr is None:
            return
        self.pc += 1
        op = instr.op
        if op is Op.SYNC:
            self.parked = True
            return
        if op is Op.LOOP:
            self._open(instr)
        elif op is Op.END_LOOP:
            self._close()
        elif op is not Op.NOP:
            self.issued = self.time.now
            self.unit.dispatch(instr, self.offsets)
        self._next(self.time.now + instr.delay)

    def _open(self, instr: Instr) -> None:
        if len(self.levels) == LOOP_LEVELS:
            self._trap(Trap.OPCODE, f"LOOP at {self.pc - 1} is nested more than {LOOP_LEVELS} deep")
            return
        self.levels.append(Level(self.pc, 0, instr.count, instr.stride))

    def _close(self) -> None:
        if not self.levels:
            self._trap(Trap.OPCODE, f"END_LOOP at {self.pc - 1} has no LOOP")
            return
        level = self.levels[-1]
        level.finished += 1
        if level.finished < level.count:
            self.pc = level.body
        else:
            self.levels.pop()

    @property
    def offsets(self) -> tuple[int, int]:
        """Quads that each loop level adds to relative addresses."""
        passed = [level.finished * level.stride for level in self.levels] + [0, 0]
        return passed[0], passed[1]
