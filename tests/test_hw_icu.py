"""The instruction control unit: when it dispatches what, against a reference of a few lines."""

import random
import warnings
from dataclasses import replace
from typing import Any

import pytest
from amaranth.sim import Simulator

from hw import isa
from hw.config import CONFIGS
from hw.icu import Icu
from hw.isa import MIN_DELAY, MIN_DELAY_JUMP, START, Instr, Op, Trap
from hw.store import Numbers

CONFIG = replace(CONFIGS["tiny"], debug=True)
QUEUE = next(queue for queue in isa.queues(CONFIG) if queue.unit == "MEM")


def read(tag, delay=MIN_DELAY):
    return Instr(Op.READ, delay, {"addr": tag})


def nop(delay):
    return Instr(Op.NOP, delay)


def loop(count, stride=0, delay=MIN_DELAY):
    return Instr(Op.LOOP, delay, {"count": count, "stride": stride})


def end(delay=MIN_DELAY_JUMP):
    return Instr(Op.END_LOOP, delay)


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
                seen.append((cycle, instr.addr, tuple(offset % (1 << isa.ADDR_BITS) for offset in passed[:2])))
            case Op.LOOP:
                levels.append([pc, 0, instr.count, instr.stride])
            case Op.END_LOOP:
                levels[-1][1] += 1
                if levels[-1][1] < levels[-1][2]:
                    pc = levels[-1][0]
                else:
                    levels.pop()
        cycle += instr.delay


def rtl(runs, config=CONFIG, cycles=None):
    """Runs (program, start PC, bucket) in turn; for each, what `expected` returns, and the first traps seen."""
    icu: Any = Icu(config=config, queue=QUEUE)
    results = []

    async def write(ctx, kind, addr, data):
        for port, value in ((f"{kind}_addr", addr), (f"{kind}_data", data), (f"{kind}_we", 1)):
            ctx.set(getattr(icu, port), value)
        await ctx.tick()
        ctx.set(getattr(icu, f"{kind}_we"), 0)

    async def run(ctx, bucket):
        seen, traps, cycle = [], 0, 0
        ctx.set(icu.bucket, bucket)
        ctx.set(icu.start, 1)
        while cycle < (cycles or 20000):
            await ctx.tick()
            cycle += 1
            ctx.set(icu.start, 0)
            traps = traps or ctx.get(icu.traps)
            if ctx.get(icu.valid):
                instr = isa.decode(ctx.get(icu.word))
                seen.append((cycle, instr.addr, tuple(ctx.get(offset) for offset in icu.offsets)))
            if ctx.get(icu.parked):
                break
        return seen, cycle, traps

    async def bench(ctx):
        loaded = None
        for program, pc, bucket in runs:
            if program is not loaded:
                number = Numbers(config, QUEUE)
                for addr, instr in enumerate(program):
                    word = instr if isinstance(instr, int) else isa.encode(instr)
                    ctx.set(icu.load_number, number(word))
                    await write(ctx, "load", addr, word)
                loaded = program
            await write(ctx, "table", bucket, pc)
            results.append(await run(ctx, bucket))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulator = Simulator(icu)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
    return results


def check(runs):
    for (program, pc, _), (seen, cycle, traps) in zip(runs, rtl(runs), strict=True):
        assert (seen, cycle) == expected(program, pc)
        assert traps == 0


def test_first_dispatch_is_start_cycles_after_the_pulse():
    (seen, cycle, _), = rtl([([read(7), SYNC], 0, 0)])
    assert seen == [(isa.START, 7, (0, 0))]
    assert cycle == isa.START + MIN_DELAY + 1


@pytest.mark.parametrize("delay", [MIN_DELAY, 2, 3, 4, 17, (1 << isa.DELAY_BITS) - 1])
def test_next_dispatch_is_delay_cycles_later(delay):
    check([([read(1, delay), read(2), nop(delay), read(3), SYNC], 0, 0)])


@pytest.mark.parametrize("program", [
    [loop(1, 5), read(1), end(), read(2), SYNC],
    [loop(4, 5), read(1), end(), read(2), SYNC],
    [loop(3, 100), read(1), loop(2, 7), read(2), end(), read(3), end(), read(4), SYNC],
    [loop(2, 3), loop(3, 4), read(1), end(), end(), read(2), SYNC],
    [loop(2, 3), loop(1, 4), read(1), end(9), loop(2, 1), read(2, 5), end(), end(4), SYNC],
    [loop(2, (1 << isa.ADDR_BITS) - 1), read(1), end(), SYNC],
    [loop(2), end(), read(1), SYNC],
], ids=lambda program: "-".join(instr.op.name for instr in program))
def test_loops(program):
    check([(program, 0, 0)])


def test_buckets_restart_at_their_own_pc():
    program = [read(1), SYNC, loop(2, 1), read(2), end(), SYNC, read(3, 9), SYNC]
    check([(program, pc, bucket) for pc, bucket in ((0, 0), (2, 1), (6, 2), (2, 3), (0, 0), (6, 1))])


def random_program(rng):
    """A legal program with loops of two levels."""
    program, open_loops, tag = [], 0, 0
    for _ in range(rng.randrange(1, 14)):
        kind = rng.choice("rrnle")
        delay = rng.choice([1, 1, 1, 2, 3, 5])
        if kind == "l" and open_loops < 2:
            program.append(loop(rng.randrange(1, 4), rng.randrange(50), delay))
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


def test_random_programs():
    rng = random.Random(1)
    check([(random_program(rng), 0, rng.randrange(CONFIG.buckets)) for _ in range(150)])


@pytest.mark.parametrize(("program", "trap"), [
    ([read(1), nop(2)], Trap.DRY),
    ([Instr(Op.ALU)], Trap.OPCODE),
    ([end()], Trap.OPCODE),
    ([loop(1), loop(1), loop(1)], Trap.OPCODE),
    ([isa.encode(read(1)) & ~(((1 << isa.DELAY_BITS) - 1) << 4)], Trap.OPCODE),
], ids=["dry", "foreign", "end-without-loop", "three-levels", "short-delay"])
def test_traps(program, trap):
    program = [instr if isinstance(instr, int) else isa.encode(instr) & (1 << isa.width("MEM")) - 1
               for instr in program]
    (_, _, traps), = rtl([(program, 0, 0)], cycles=20)
    assert traps == 1 << trap.value


def test_running_past_the_end_of_the_queue_is_dry():
    program = [nop(2)] * (CONFIG.icu_depth - 1) + [read(1)]
    (_, _, traps), = rtl([(program, CONFIG.icu_depth - 2, 0)], cycles=20)
    assert traps == 1 << Trap.DRY.value
