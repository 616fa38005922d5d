"""Which instruction words are legal on a chip."""

from base.errors import TspError

from . import isa
from .config import ChipConfig
from .host_map import Trap
from .isa import Instr, Op
from .latencies import latencies
from .row import Queue


class IllegalProgram(TspError):
    """A program that is not proven legal.

    rule: the trap that the program may raise.
    queue: name of the offending word's queue.
    number: number of the word, counted from the bucket's start PC, or -1.
    cycle: cycles after the token's start pulse, or -1.
    what: the offence.
    """

    def __init__(self, rule: Trap, queue: str, number: int, cycle: int, what: str) -> None:
        place = queue + (f" word {number}" if number >= 0 else "") + (f", cycle {cycle}" if cycle >= 0 else "")
        super().__init__(f"illegal program: {place}: {rule.name}: {what}")
        self.rule, self.queue, self.number, self.cycle, self.what = rule, queue, number, cycle, what


def instruction(config: ChipConfig, queue: Queue, number: int, word: int) -> Instr:
    """Decode a word. All fields become plain attributes, because they are read often. Raises IllegalProgram."""
    try:
        instr = isa.decode(word, queue.unit)
    except ValueError as error:
        raise IllegalProgram(Trap.OPCODE, queue.name, number, -1, str(error)) from None
    if instr.op not in isa.ICU_OPS and instr.op not in isa.UNIT_OPS[queue.unit]:
        raise IllegalProgram(Trap.OPCODE, queue.name, number, -1,
                             f"{instr.op.name} is not an operation of {queue.unit}")
    least = latencies(config).min_delay_jump if instr.op is Op.END_LOOP else isa.MIN_DELAY
    if instr.delay < least:
        raise IllegalProgram(Trap.OPCODE, queue.name, number, -1, f"delay must be at least {least}, not {instr.delay}")
    for name, spec in isa.FIELDS[instr.op].items():
        value = instr.fields[name]
        if spec.low and value < spec.low:
            raise IllegalProgram(Trap.OPCODE, queue.name, number, -1,
                                 f"{name} must be at least {spec.low}, not {value}")
        object.__setattr__(instr, name, value)
    return instr
