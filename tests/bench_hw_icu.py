"""cocotb bench of a queue: when it dispatches what, against a reference of a few lines; started by test_hw_icu.py."""

import os
import random
from dataclasses import replace

import cocotb
from unit_bench import Bench

from arch import isa, row
from arch.config import CONFIGS
from arch.host_map import Trap
from arch.isa import DELAY_BITS, HEADER, MIN_DELAY, Instr, Op, decode, encode
from arch.latencies import latencies as latencies_of
from arch.queue_store import Numbers

CONFIG = replace(CONFIGS["tiny"], registers=tuple(os.environ["REGISTERS"].split()))
START, MIN_DELAY_JUMP = latencies_of(CONFIG).start, latencies_of(CONFIG).min_delay_jump
QUEUE = next(queue for queue in row.queues(CONFIG) if queue.name == "MEM_E1")
INPUTS = ("start", "bucket", "load_we", "load_addr", "load_number", "load_data", "table_we", "table_addr", "table_data")
ADDRESSES = 1 << isa.ADDR_BITS
LONG = (1 << DELAY_BITS) - 1


def read(tag, delay=MIN_DELAY):
    return Instr(Op.READ, delay, {"addr": tag})


def nop(delay):
    return Instr(Op.NOP, delay)


def loop(count, stride=0, delay=MIN_DELAY):
    return Instr(Op.LOOP, delay, {"count": count, "stride": stride})


def end(delay=MIN_DELAY_JUMP):
    return Instr(Op.END_LOOP, delay)


def with_delay(instr, delay):
    """The word with any delay, legal or not."""
    at = HEADER["op"].bits
    return encode(instr) & ~(((1 << DELAY_BITS) - 1) << at) | delay << at


SYNC = Instr(Op.SYNC)


def expected(program, pc=0):
    """(dispatches of READs as (cycle after the start pulse, tag, offsets), cycle in which the queue is parked)."""
    cycle, levels, seen = START, [], []
    while True:
        instr = program[pc]
        pc += 1
        match instr.op:
            case Op.SYNC:
                return seen, cycle + 1
            case Op.READ:
                passed = [finished * stride for _, finished, _, stride in levels] + [0, 0]
                seen.append((cycle, instr.addr, tuple(offset % ADDRESSES for offset in passed[:2])))
            case Op.LOOP:
                levels.append([pc, 0, instr.count, instr.stride])
            case Op.END_LOOP:
                levels[-1][1] += 1
                if levels[-1][1] < levels[-1][2]:
                    pc = levels[-1][0]
                else:
                    levels.pop()
        cycle += instr.delay


class IcuBench(Bench):
    """A queue, what it dispatched since the start pulse, and the traps of the first cycle that had any."""

    async def reset(self):
        await self.restart(**dict.fromkeys(INPUTS, 0))
        self.begin()

    def begin(self):
        self.started, self.seen, self.parked, self.traps = self.now, [], 0, 0

    def observe(self):
        cycle = self.now - self.started
        self.traps = self.traps or self.get("traps")
        self.parked = self.get("parked") and cycle
        if cycle and self.get("valid"):  # a running program's last word may coincide with the start pulse
            offsets = (self.get("offsets__0"), self.get("offsets__1"))
            self.seen.append((cycle, decode(self.get("word")).addr, offsets))

    async def load(self, program):
        """Instructions or words, and an empty word behind them."""
        number = Numbers(CONFIG, QUEUE)
        words = [instr if isinstance(instr, int) else encode(instr) for instr in program] + [0]
        for addr, word in enumerate(words[: CONFIG.icu_depth]):
            await self.cycle(load_we=1, load_addr=addr, load_number=number(word), load_data=word)

    async def run(self, pc=0, bucket=0, cycles=20000):
        """From the start pulse until the queue is parked, at most so many cycles: (dispatches, cycles taken)."""
        await self.cycle(table_we=1, table_addr=bucket, table_data=pc)
        self.begin()
        await self.cycle(start=1, bucket=bucket)
        while not self.parked and self.now - self.started < cycles:
            await self.cycle()
        return self.seen, self.parked

    async def check(self, program, pc=0, bucket=0):
        assert await self.run(pc, bucket) == expected(program, pc), (pc, program)
        assert not self.traps


PROGRAMS = [
    [SYNC],
    [read(1), SYNC],
    *([read(1, delay), read(2), nop(delay), read(3), SYNC] for delay in (MIN_DELAY, 2, 3, 4, 17, LONG)),
    [loop(1, 5), read(1), end(), read(2), SYNC],
    [loop(4, 5), read(1), end(), read(2), SYNC],
    [loop(3, 100), read(1), loop(2, 7), read(2), end(), read(3), end(), read(4), SYNC],
    [loop(2, 3), loop(3, 4), read(1), end(), end(), read(2), SYNC],
    [loop(2, 3), loop(1, 4), read(1), end(9), loop(2, 1), read(2, 5), end(), end(), SYNC],
    [loop(2, ADDRESSES - 1), read(1), end(), SYNC],
    [loop(2), end(), read(1), SYNC],
    [loop(300, ADDRESSES // 3), read(ADDRESSES - 1), end(), SYNC],
]


@cocotb.test()
async def programs(dut):
    bench = IcuBench(dut)
    await bench.reset()
    for program in PROGRAMS:
        await bench.load(program)
        await bench.check(program)


@cocotb.test()
async def latencies(dut):
    """As the RTL has them: START, and the least delays that it keeps, by when words are dispatched."""
    bench = IcuBench(dut)
    await bench.reset()

    async def tags(program):
        await bench.load(program)
        return [(cycle, tag) for cycle, tag, _ in (await bench.run(cycles=60))[0]]

    (first, one), (second, two) = await tags([read(1), read(2), SYNC])
    assert (one, two) == (1, 2) and first == START and second - first == MIN_DELAY
    jumps = []
    for delay in range(1, 2 * MIN_DELAY_JUMP):
        seen = await tags([loop(2), read(1), with_delay(end(), delay), read(2), SYNC])
        if seen[:3] == [(n, tag) for n, tag in ((START + 1, 1), (START + 2 + delay, 1), (START + 3 + 2 * delay, 2))]:
            jumps.append(delay)
    assert jumps == list(range(MIN_DELAY_JUMP, 2 * MIN_DELAY_JUMP))


@cocotb.test()
async def buckets_begin_at_their_own_pc(dut):
    bench = IcuBench(dut)
    await bench.reset()
    program = [read(1), SYNC, loop(2, 1), read(2), end(), SYNC, read(3, 9), SYNC]
    await bench.load(program)
    for pc, bucket in ((0, 0), (2, 1), (6, 2), (2, 3), (0, 0), (6, 1)):
        await bench.check(program, pc, bucket)


@cocotb.test()
async def a_start_pulse_begins_afresh(dut):
    """Also in the middle of a loop: its offsets and levels are forgotten."""
    bench = IcuBench(dut)
    await bench.reset()
    program = [loop(9, 5), loop(9, 7), read(1), end(), end(), SYNC]
    await bench.load(program)
    for cycles in (7, 20, 60):
        await bench.run(cycles=cycles)
        bench.begin()
        await bench.check(program)


def random_program(rng):
    """A legal program with loops of two levels."""
    program, open_loops, tag = [], 0, 0
    for _ in range(rng.randrange(1, 14)):
        kind = rng.choice("rrnle")
        delay = rng.choice([1, 1, 1, 2, 3, 5])
        if kind == "l" and open_loops < 2:
            program.append(loop(rng.randrange(1, 4), rng.choice([1, 3, 49, rng.randrange(ADDRESSES)]), delay))
            open_loops += 1
        elif kind == "e" and open_loops:
            program.append(end(MIN_DELAY_JUMP + delay - 1))
            open_loops -= 1
        elif kind == "n":
            program.append(nop(delay))
        else:
            tag += 1
            program.append(read(tag, delay))
    return [*program, *[end()] * open_loops, SYNC]


@cocotb.test()
async def random_programs(dut):
    bench = IcuBench(dut)
    await bench.reset()
    rng = random.Random(1)
    for _ in range(150):
        program = random_program(rng)
        await bench.load(program)
        await bench.check(program, 0, rng.randrange(CONFIG.buckets))


FOREIGN = encode(Instr(Op.ALU)) & (1 << isa.width("MEM")) - 1
ILLEGAL = [
    ([read(1), nop(2)], 0, Trap.DRY),
    ([nop(2)] * (CONFIG.icu_depth - 1) + [read(1)], CONFIG.icu_depth - 2, Trap.DRY),
    ([FOREIGN], 0, Trap.OPCODE),
    ([end()], 0, Trap.OPCODE),
    ([loop(1), loop(1), loop(1)], 0, Trap.OPCODE),
    ([with_delay(read(1), 0)], 0, Trap.OPCODE),
    ([loop(2), with_delay(end(), MIN_DELAY_JUMP - 1), SYNC], 0, Trap.OPCODE),
]
"""(program, start PC, first trap)"""


@cocotb.test()
async def traps(dut):
    bench = IcuBench(dut)
    for program, pc, trap in ILLEGAL:
        await bench.reset()
        await bench.load(program)
        await bench.run(pc, cycles=20)
        assert bench.traps == 1 << trap.value, (trap, program[-3:])
