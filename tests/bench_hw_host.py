"""cocotb bench of host port and sequencer together: start pulses, periods and buckets in every cycle, and all strobes.

The bench plays the part of the queues, the units and the memories. Started by test_hw_host.py.
"""

import itertools
import random
from dataclasses import replace

import cocotb
from unit_bench import Bench

from arch.config import CONFIGS
from arch.host_map import WORD, Control, Space, Trap, address
from arch.identity import chip_digest
from arch.isa import ADDR_BITS, HOST_READ, least_period
from arch.row import queues

CONFIG = replace(CONFIGS["tiny"], buckets=5)
SHORTEST = least_period(CONFIG)
"""The shortest legal period."""
STROBES = ("mem_we", "mem_re", "icu_we", "table_we", "bucket_we", "map_we", "control_we")
BESIDE = ("mem_addr", "mem_planes", "wdata", "icu_addr", "icu_number", "icu_data", "table_addr", "small_addr")
"""What goes with them."""
WORDS = 0x89ABCDEF01234567_0F1E2D3C4B5A6978, ~0x89ABCDEF01234567_0F1E2D3C4B5A6978 & (1 << WORD) - 1
INPUTS = ("host_space", "host_addr", "host_wdata", "host_write", "host_read", "mem_rdata", "traps")


def bucket_of(table, position):
    """The first entry whose limit is beyond the position."""
    return next(n for n, (_, limit) in enumerate(table) if limit > position)


class HostBench(Bench):
    """Host accesses; every start pulse with its bucket, when `running` fell, and what the host read in each cycle.

    `seen` holds the strobes of the last cycle and what goes with them.
    """

    async def reset(self):
        self.starts, self.ended, self.running, self.rdata, self.seen = [], 0, 0, {}, {}
        await self.restart(**dict.fromkeys(INPUTS, 0), idle=1)

    def observe(self):
        if self.get("start"):
            self.starts.append((self.now, self.get("bucket")))
        before, self.running = self.running, self.get("running")
        if before and not self.running:
            self.ended = self.now
        self.rdata[self.now] = self.get("host_rdata")
        self.seen = {name: self.get(name) for name in (*STROBES, *BESIDE)}

    async def wait(self, cycles):
        for _ in range(cycles):
            await self.cycle()

    async def write(self, space, addr, data):
        await self.cycle(host_write=1, host_space=space.value, host_addr=addr, host_wdata=data)

    async def read(self, space, addr):
        """What the host sees; also checks that no other cycle shows data."""
        begin = self.now
        await self.cycle(host_read=1, host_space=space.value, host_addr=addr)
        await self.wait(HOST_READ + 1)
        seen = [self.rdata[begin + n] for n in range(HOST_READ + 2)]
        assert not any(seen[:HOST_READ]) and not seen[HOST_READ + 1]
        return seen[HOST_READ]

    async def control(self, register):
        return await self.read(Space.CONTROL, register.value)

    async def set_control(self, register, value):
        await self.write(Space.CONTROL, register.value, value)

    async def setup(self, table, position):
        for n, (period, limit) in enumerate(table):
            await self.write(Space.BUCKET, n, period | limit << 32)
        await self.set_control(Control.POSITION, position)
        await self.set_control(Control.ERRORS, 0)

    async def run(self, tokens):
        """Start pulses with their buckets, and the cycle in which `running` falls."""
        self.starts.clear()
        await self.set_control(Control.RUN, tokens)
        await self.wait(2)
        while self.running:
            await self.cycle()
        return list(self.starts), self.ended

    async def check_run(self, table, position, tokens):
        await self.setup(table, position)
        starts, end = await self.run(tokens)
        buckets = [bucket_of(table, position + n) for n in range(tokens)]
        assert [bucket for _, bucket in starts] == buckets
        times = [cycle for cycle, _ in starts] + [end]
        assert [b - a for a, b in itertools.pairwise(times)] == [table[n][0] for n in buckets]
        assert await self.control(Control.POSITION) == position + tokens
        assert await self.control(Control.TOKEN_CYCLES) == table[buckets[-1]][0]
        assert await self.control(Control.RUN) == 0
        assert await self.control(Control.ERRORS) == 0


@cocotb.test()
async def periods_and_buckets(dut):
    bench = HostBench(dut)
    await bench.reset()
    rng = random.Random(1)
    for _ in range(100):
        base = rng.choice([0, 0, rng.randrange(1 << 31)])
        limits = [*sorted(base + rng.randrange(12) for _ in range(CONFIG.buckets - 1)), base + 100]
        table = [(rng.randrange(SHORTEST, SHORTEST + 20), limit) for limit in limits]
        await bench.check_run(table, base + rng.randrange(12), rng.randrange(1, 9))


@cocotb.test()
async def shortest_period_over_empty_buckets(dut):
    bench = HostBench(dut)
    await bench.reset()
    await bench.check_run([(SHORTEST, 3), *[(99, 3)] * (CONFIG.buckets - 2), (SHORTEST, 1 << 31)], 0, 6)


@cocotb.test()
async def no_token_and_a_position_beyond_all_buckets(dut):
    bench = HostBench(dut)
    await bench.reset()
    await bench.setup([(30, 2)] + [(31, 0)] * (CONFIG.buckets - 1), 0)
    assert (await bench.run(0))[0] == []
    starts, end = await bench.run(4)
    assert len(starts) == 2 and end == starts[1][0] + 30
    assert await bench.control(Control.ERRORS) == 1 << Trap.ADDRESS.value
    assert await bench.control(Control.RUN) == 0


@cocotb.test()
async def run_while_tokens_run_starts_nothing(dut):
    """Written in each cycle of the second of three tokens: three start pulses, and none before its time.

    RUN also begins the look-up of the next bucket anew, so that one written late in a token delays the next one.
    """
    bench = HostBench(dut)
    await bench.reset()
    period = 3 * SHORTEST
    for phase in range(1, period):
        await bench.setup([(period, 1), (period, 100)] + [(period, 0)] * (CONFIG.buckets - 2), 0)
        bench.starts.clear()
        await bench.set_control(Control.RUN, 3)
        while len(bench.starts) < 2:
            await bench.cycle()
        await bench.wait(phase - 1)
        await bench.set_control(Control.RUN, 7)
        await bench.wait(1)
        while bench.running:
            await bench.cycle()
        await bench.wait(2 * period)
        (first, _), (second, _), (third, bucket) = bench.starts
        late = third - second - period
        assert second - first == bench.ended - third == period
        assert late == 0 if phase < period - SHORTEST else 0 <= late <= SHORTEST
        assert (bucket, await bench.control(Control.RUN), await bench.control(Control.POSITION)) == (1, 0, 3)
        assert await bench.control(Control.ERRORS) == 0


@cocotb.test()
async def a_position_written_after_a_lost_run_starts_nothing(dut):
    bench = HostBench(dut)
    await bench.reset()
    for position, tokens in ((5, 4), (0, 9)):  # lost at once, and after two tokens
        await bench.setup([(30, 2)] + [(30, 0)] * (CONFIG.buckets - 1), position)
        await bench.run(tokens)
        assert await bench.control(Control.ERRORS) == 1 << Trap.ADDRESS.value
        bench.starts.clear()
        await bench.set_control(Control.POSITION, 0)
        await bench.wait(100)
        assert not bench.starts and not bench.running
        assert await bench.control(Control.RUN) == 0
        await bench.set_control(Control.ERRORS, 0)
        starts, _ = await bench.run(1)
        assert len(starts) == 1 and await bench.control(Control.ERRORS) == 0


@cocotb.test()
async def not_parked_is_seen_in_the_cycle_of_the_next_start(dut):
    bench = HostBench(dut)
    for late in (0, 1):
        await bench.reset()
        await bench.setup([(30, 100)] * CONFIG.buckets, 0)
        await bench.set_control(Control.RUN, 1)
        while not bench.starts:
            await bench.cycle()
        bench.set(idle=0)
        await bench.wait(29 + late)
        bench.set(idle=1)
        await bench.wait(2)
        assert await bench.control(Control.ERRORS) == late << Trap.NOT_PARKED.value


@cocotb.test()
async def errors_stick_until_written(dut):
    bench = HostBench(dut)
    await bench.reset()
    wanted = 0
    for trap in Trap:
        await bench.cycle(traps=1 << trap.value)
        wanted |= 1 << trap.value
        await bench.wait(3)
        assert await bench.control(Control.ERRORS) == wanted
    await bench.set_control(Control.ERRORS, 0)
    assert await bench.control(Control.ERRORS) == 0


@cocotb.test()
async def identity_and_counter(dut):
    bench = HostBench(dut)
    await bench.reset()
    assert await bench.control(Control.IDENTITY) == int(chip_digest(CONFIG), 16)
    begin = bench.now
    first = await bench.control(Control.CYCLES)
    await bench.wait(300)
    again = bench.now
    assert await bench.control(Control.CYCLES) - first == again - begin


@cocotb.test()
async def latencies(dut):
    """From a read to its data, as the RTL has it: of a register, and of a memory that answers as MEM does."""
    bench = HostBench(dut)
    await bench.reset()
    begin = bench.now
    await bench.cycle(host_read=1, host_space=Space.CONTROL.value, host_addr=Control.IDENTITY.value)
    await bench.wait(9)
    assert [cycle - begin for cycle in range(begin, bench.now) if bench.rdata[cycle]] == [HOST_READ]
    data = (0xA5 << WORD - 8) + 1
    begin = bench.now
    await bench.cycle(host_read=1, host_space=Space.MEM.value, host_addr=1 << 22)
    for cycle in range(begin + 1, begin + 9):
        await bench.cycle(mem_rdata=data if cycle == begin + HOST_READ else 0)
    assert [(cycle - begin, bench.rdata[cycle]) for cycle in range(begin, bench.now) if bench.rdata[cycle]] == [
        (HOST_READ, data)]


@cocotb.test()
async def spaces_that_cannot_be_read_are_0(dut):
    bench = HostBench(dut)
    await bench.reset()
    for space in (Space.ICU, Space.START, Space.BUCKET, Space.MAP):
        assert await bench.read(space, Control.IDENTITY.value) == 0
    assert await bench.control(Control.IDENTITY)
    assert await bench.read(Space.CONTROL, len(Control)) == 0


def strobes(bench):
    """Those of the last cycle."""
    return {name: bench.seen[name] for name in STROBES if bench.seen[name]}


async def behind(bench, space, addr, data=None):
    """An access, a read unless there is data: the strobes of the cycle behind it. There are none in its own cycle."""
    if data is None:
        await bench.cycle(host_read=1, host_space=space.value, host_addr=addr)
    else:
        await bench.write(space, addr, data)
    assert not strobes(bench)
    await bench.cycle()
    return strobes(bench)


@cocotb.test()
async def strobes_of_memories(dut):
    bench = HostBench(dut)
    await bench.reset()
    slices = 2 * len(CONFIG.mem_depths)
    for n, plane, quad in itertools.product(range(slices), range(4), (0, 200, (1 << ADDR_BITS) - 1)):
        addr = n << ADDR_BITS + 2 | quad << 2 | plane
        assert await behind(bench, Space.MEM, addr, WORDS[n % 2]) == {"mem_we": 1 << n}
        assert (bench.seen["mem_addr"], bench.seen["mem_planes"]) == (quad, 1 << plane)
        assert bench.seen["wdata"] == WORDS[n % 2]
        assert await behind(bench, Space.MEM, addr) == {"mem_re": 1 << n}
        assert (bench.seen["mem_addr"], bench.seen["mem_planes"]) == (quad, 1 << plane)
    assert await behind(bench, Space.MEM, slices << ADDR_BITS + 2, 1) == {}


@cocotb.test()
async def strobes_of_queues(dut):
    """A word is written with its part 0, and the upper one is kept until then."""
    bench = HostBench(dut)
    await bench.reset()
    for n in range(len(queues(CONFIG))):
        low, high = WORDS[n % 2], WORDS[1 - n % 2]
        upper = address(Space.ICU, queue=n, instruction=300, number=77, part=1)
        assert await behind(bench, Space.ICU, upper, high) == {}
        lower = address(Space.ICU, queue=n, instruction=300 + n, number=77 + n)
        assert await behind(bench, Space.ICU, lower, low) == {"icu_we": 1 << n}
        assert (bench.seen["icu_addr"], bench.seen["icu_number"]) == (300 + n, 77 + n)
        assert bench.seen["icu_data"] == high << WORD | low
        assert await behind(bench, Space.START, n << 8 | 3, 99) == {"table_we": 1 << n}
        assert (bench.seen["table_addr"], bench.seen["wdata"]) == (3, 99)


@cocotb.test()
async def strobes_of_tables_and_registers(dut):
    bench = HostBench(dut)
    await bench.reset()
    for (space, name), addr in itertools.product(((Space.MAP, "map_we"), (Space.BUCKET, "bucket_we")), (0, 5, 255)):
        assert await behind(bench, space, addr, 1) == {name: 1}
        assert bench.seen["small_addr"] == addr
    for register in Control:
        assert await behind(bench, Space.CONTROL, register.value, 0) == {"control_we": 1 << register.value}
    assert await behind(bench, Space.CONTROL, len(Control), 0) == {}
