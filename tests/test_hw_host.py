"""Host port and sequencer together: start pulses, periods and buckets in every cycle, and what the host reads."""

import random
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hw.config import CONFIGS
from hw.host import HostPort, Sequencer
from hw.isa import HOST_READ, Control, Space, Trap, icu_address, queues

CONFIG = replace(CONFIGS["tiny"], buckets=5)
NAMES = [queue.name for queue in queues(CONFIG)]


class Host(wiring.Component):
    """Host port and sequencer, with the queues' part played by the test."""

    idle: Any
    traps: Any
    start: Any

    def __init__(self):
        self.port: Any
        self.sequencer: Any
        self.port, self.sequencer = HostPort(config=CONFIG), Sequencer(config=CONFIG)
        super().__init__({"idle": In(1, init=1), "traps": In(len(Trap)), "start": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = self.port
        m.submodules.sequencer = sequencer = self.sequencer
        m.d.comb += [
            sequencer.wdata.eq(port.wdata), sequencer.bucket_we.eq(port.bucket_we),
            sequencer.bucket_addr.eq(port.small_addr), sequencer.control_we.eq(port.control_we),
            sequencer.idle.eq(self.idle), sequencer.traps.eq(self.traps), self.start.eq(sequencer.start),
            *(port.control[n].eq(value) for n, value in enumerate(sequencer.control)),
        ]
        return m


class Bench:
    """Host accesses, and a record of every start pulse."""

    def __init__(self, ctx, host):
        self.ctx, self.host, self.port = ctx, host, host.port
        self.cycle = 0
        self.starts = []

    async def tick(self, cycles=1):
        for _ in range(cycles):
            await self.ctx.tick()
            self.cycle += 1
            if self.ctx.get(self.host.start):
                self.starts.append((self.cycle, self.ctx.get(self.host.sequencer.bucket)))

    def access(self, space, addr, data=0):
        for port, value in ((self.port.host_space, space), (self.port.host_addr, addr), (self.port.host_wdata, data)):
            self.ctx.set(port, value)

    async def write(self, space, addr, data):
        self.access(space, addr, data)
        self.ctx.set(self.port.host_write, 1)
        await self.tick()
        self.ctx.set(self.port.host_write, 0)

    async def control(self, register):
        """The register's value; also checks that no other cycle shows data."""
        self.access(Space.CONTROL, register.value)
        self.ctx.set(self.port.host_read, 1)
        await self.tick()
        self.ctx.set(self.port.host_read, 0)
        seen = [self.ctx.get(self.port.host_rdata)]
        for _ in range(HOST_READ):
            await self.tick()
            seen.append(self.ctx.get(self.port.host_rdata))
        assert not any(seen[: HOST_READ - 1]) and not seen[HOST_READ]
        return seen[HOST_READ - 1]

    async def setup(self, table, position):
        for n, (period, limit) in enumerate(table):
            await self.write(Space.BUCKET, n, period | limit << 32)
        await self.write(Space.CONTROL, Control.POSITION.value, position)
        await self.write(Space.CONTROL, Control.ERRORS.value, 0)

    async def run(self, tokens):
        """Start pulses, and the cycle in which `running` falls."""
        self.starts.clear()
        await self.write(Space.CONTROL, Control.RUN.value, tokens)
        await self.tick()
        while self.ctx.get(self.host.sequencer.running):
            await self.tick()
        return list(self.starts), self.cycle


def simulate(test):
    """Runs `test(bench)`."""
    host = Host()

    async def bench(ctx):
        await test(Bench(ctx, host))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulator = Simulator(host)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()


def bucket_of(table, position):
    return next(n for n, (_, limit) in enumerate(table) if limit > position)


async def check_run(bench, table, position, tokens):
    await bench.setup(table, position)
    starts, end = await bench.run(tokens)
    buckets = [bucket_of(table, position + n) for n in range(tokens)]
    assert [bucket for _, bucket in starts] == buckets
    times = [cycle for cycle, _ in starts] + [end]
    assert [b - a for a, b in pairwise(times)] == [table[n][0] for n in buckets]
    assert await bench.control(Control.POSITION) == position + tokens
    assert await bench.control(Control.TOKEN_CYCLES) == table[buckets[-1]][0]
    assert await bench.control(Control.RUN) == 0
    assert await bench.control(Control.ERRORS) == 0


def test_periods_and_buckets():
    rng = random.Random(1)
    shortest = 3 + 2 * CONFIG.buckets

    async def test(bench):
        for _ in range(25):
            limits = [*sorted(rng.randrange(12) for _ in range(CONFIG.buckets - 1)), 100]
            table = [(rng.randrange(shortest, shortest + 20), limit) for limit in limits]
            await check_run(bench, table, rng.randrange(12), rng.randrange(1, 9))

    simulate(test)


def test_shortest_period_over_empty_buckets():
    shortest = 3 + 2 * CONFIG.buckets

    async def test(bench):
        await check_run(bench, [(shortest, 3), *[(99, 3)] * (CONFIG.buckets - 2), (shortest, 1 << 31)], 0, 6)

    simulate(test)


def test_no_token_and_a_position_beyond_all_buckets():
    async def test(bench):
        await bench.setup([(30, 2)] + [(31, 0)] * (CONFIG.buckets - 1), 0)
        assert (await bench.run(0))[0] == []
        starts, end = await bench.run(4)
        assert len(starts) == 2 and end == starts[1][0] + 30
        assert await bench.control(Control.ERRORS) == 1 << Trap.ADDRESS.value
        assert await bench.control(Control.RUN) == 0

    simulate(test)


@pytest.mark.parametrize("late", [0, 1])
def test_not_parked_is_seen_in_the_cycle_of_the_next_start(late):
    async def test(bench):
        await bench.setup([(30, 100)] * CONFIG.buckets, 0)
        await bench.write(Space.CONTROL, Control.RUN.value, 1)
        while not bench.starts:
            await bench.tick()
        bench.ctx.set(bench.host.idle, 0)
        await bench.tick(30 + late)
        bench.ctx.set(bench.host.idle, 1)
        await bench.tick(2)
        assert await bench.control(Control.ERRORS) == late << Trap.NOT_PARKED.value

    simulate(test)


def test_errors_stick_until_written():
    async def test(bench):
        bench.ctx.set(bench.host.traps, 1 << Trap.COLLISION.value)
        await bench.tick()
        bench.ctx.set(bench.host.traps, 1 << Trap.DRY.value)
        await bench.tick()
        bench.ctx.set(bench.host.traps, 0)
        await bench.tick(5)
        assert await bench.control(Control.ERRORS) == 1 << Trap.COLLISION.value | 1 << Trap.DRY.value
        await bench.write(Space.CONTROL, Control.ERRORS.value, 0)
        assert await bench.control(Control.ERRORS) == 0

    simulate(test)


def test_identity_and_counter():
    async def test(bench):
        assert await bench.control(Control.IDENTITY) == int(CONFIG.digest(), 16)
        first = await bench.control(Control.CYCLES)
        await bench.tick(50)
        assert await bench.control(Control.CYCLES) - first == 50 + HOST_READ + 1

    simulate(test)


def strobes(bench):
    names = ("mem_we", "mem_re", "icu_we", "table_we", "bucket_we", "map_we", "control_we")
    values = {name: bench.ctx.get(getattr(bench.port, name)) for name in names}
    return {name: value for name, value in values.items() if value}


def test_strobes():
    async def test(bench):
        get = bench.ctx.get
        for n in range(4):
            await bench.write(Space.MEM, n << 22 | 200 << 2 | 3, 7)
            assert strobes(bench) == {"mem_we": 1 << n}
            assert (get(bench.port.mem_addr), get(bench.port.mem_planes), get(bench.port.wdata)) == (200, 8, 7)
        for n in range(len(NAMES)):
            await bench.write(Space.ICU, icu_address(n, 300, 77, 1), 0xABC)
            assert strobes(bench) == {}
            await bench.write(Space.ICU, icu_address(n, 300, 77, 0), 0x123)
            assert strobes(bench) == {"icu_we": 1 << n}
            assert (get(bench.port.icu_addr), get(bench.port.icu_number)) == (300, 77)
            assert get(bench.port.icu_data) == 0xABC << 128 | 0x123
            await bench.write(Space.START, n << 8 | 3, 99)
            assert strobes(bench) == {"table_we": 1 << n} and get(bench.port.table_addr) == 3
        await bench.write(Space.MAP, 5, 1)
        assert strobes(bench) == {"map_we": 1} and get(bench.port.small_addr) == 5
        await bench.write(Space.BUCKET, 2, 1)
        assert strobes(bench) == {"bucket_we": 1} and get(bench.port.small_addr) == 2
        await bench.write(Space.MEM, 4 << 22, 1)
        assert strobes(bench) == {}

    simulate(test)
