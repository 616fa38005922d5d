"""Small programs as images: helpers, and the illegal ones with the trap that each must raise."""

from collections.abc import Mapping, Sequence

import numpy as np

from arch import isa, row
from arch.config import CONFIGS, ChipConfig
from arch.host_map import Trap
from arch.isa import Dir, Instr, Op, Red, Src
from program.image import Image

FIRST = isa.START
"""Cycle of the first dispatch; the start pulse is in cycle 0."""


def op(op: Op, delay: int = 2, **fields) -> Instr:
    return Instr(op, delay, fields)


def wait(cycles: int) -> Instr:
    return op(Op.NOP, cycles)


def image_of(programs: Mapping[str, Sequence[Instr]], period: int = 200, config: ChipConfig = CONFIGS["tiny"]) -> Image:
    """Queues as given (SYNC added), and MEM quads of random bytes."""
    rng = np.random.default_rng(1)
    queues = row.queues(config)
    return Image(
        config=config, starts={queue.name: [0] for queue in queues}, buckets=[(period, 1 << 20)],
        queues={queue.name: [isa.encode(instr) for instr in [*programs.get(queue.name, []), op(Op.SYNC)]]
                for queue in queues},
        mems={queue.name: rng.integers(0, 256, (min(config.mem_depths[queue.slice], 256), 4, 16), dtype=np.uint8)
              for queue in queues if queue.unit == "MEM"})


def read(addr: int, direction: Dir = Dir.E, delay: int = 2, **fields) -> Instr:
    return op(Op.READ, delay, **{"addr": addr, "dir": direction, "planes": 15} | fields)


def write(addr: int, direction: Dir = Dir.E, delay: int = 2, **fields) -> Instr:
    return op(Op.WRITE, delay, **{"addr": addr, "dir": direction, "planes": 15} | fields)


ILLEGAL: dict[str, tuple[Trap, int, str, dict[str, list[Instr]], int]] = {
    "queue not parked": (Trap.NOT_PARKED, 20, "VXM", {"VXM": [wait(17)]}, 20),
    "engine busy at the end": (Trap.NOT_PARKED, 20, "MEM_E0", {"MEM_E0": [read(0, count=17)]}, 20),
    "empty write": (Trap.EMPTY_READ, FIRST + 1, "MEM_E0", {"MEM_E0": [write(0)]}, 50),
    "empty operand": (Trap.EMPTY_READ, FIRST + 1, "VXM", {"VXM": [op(Op.ALU, a_src=Src.W)]}, 50),
    "one plane missing": (Trap.EMPTY_READ, FIRST + 4, "VXM",
                          {"MEM_W0": [read(0, planes=7)], "VXM": [wait(3), op(Op.ALU, a_src=Src.E)]}, 50),
    "empty weights": (Trap.EMPTY_READ, FIRST + 1, "MXM_E", {"MXM_E": [op(Op.MAC)]}, 50),
    "empty load": (Trap.EMPTY_READ, FIRST + 1, "MXM_W", {"MXM_W": [op(Op.LOAD)]}, 50),
    "empty index": (Trap.EMPTY_READ, FIRST + 1, "MEM_W1", {"MEM_W1": [op(Op.INDEX)]}, 50),
    "empty permute": (Trap.EMPTY_READ, FIRST + 1, "SXM_E", {"SXM_E": [op(Op.PERMUTE)]}, 50),
    "two slices, one slot": (Trap.COLLISION, FIRST + 3, "MEM_E1",
                             {"MEM_E0": [read(0, Dir.W)], "MEM_E1": [read(0, Dir.W, planes=1)]}, 50),
    "result and reduction in a slot": (
        Trap.COLLISION, FIRST + 3 + isa.VXM_DRIVE, "VXM",
        {"VXM": [op(Op.ALU, red=Red.SUM, red_e=1, count=2), op(Op.ALU, dst_e=1)]}, 50),
    "engine busy": (Trap.ENGINE_BUSY, FIRST + 2, "MEM_E0", {"MEM_E0": [read(0, count=3), read(0)]}, 50),
    "address": (Trap.ADDRESS, FIRST + 2, "MEM_E0", {"MEM_E0": [read(255, count=2, stride=1)]}, 50),
    "negative address": (Trap.ADDRESS, FIRST + 2, "MEM_E0", {"MEM_E0": [read(0, count=2, stride=-1)]}, 50),
    "outward": (Trap.ADDRESS, FIRST, "MEM_E1", {"MEM_E1": [read(0)]}, 50),
    "opcode": (Trap.OPCODE, FIRST, "VXM", {"VXM": [read(0)]}, 50),
    "jump too soon": (Trap.OPCODE, FIRST + 2, "VXM", {"VXM": [op(Op.LOOP, count=2), op(Op.END_LOOP, 2)]}, 50),
}
"""By name: the trap, its cycle and queue in the model, the program, the token's period."""
