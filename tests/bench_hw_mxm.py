"""cocotb tests of an MXM in a debug build; started by test_hw_mxm.py."""

import os
from collections import defaultdict

import cocotb
import numpy as np
from unit_bench import CONFIG, LANES, TIMES, Checked, UnitBench, elements, log, traps_of, unpack

from arch import numerics
from arch.config import PLANES
from arch.host_map import Trap
from arch.isa import ENGINE, MXM_DRAIN, MXM_LOAD, MXM_MAX, AnyOp, DrainMax, Instr, Op, Order, Wfmt, encode

OUT = int(os.environ["OUTWARD"])
IN = 1 - OUT


def load(**fields) -> Instr:
    return Instr(Op.LOAD, fields=fields)


def mac(**fields) -> Instr:
    return Instr(Op.MAC, fields=fields)


def drain(**fields) -> Instr:
    return Instr(Op.DRAIN, fields=fields)


def steps(instr: Instr) -> list[tuple[int, int]]:
    """(activation, accumulator) indices of a MAC burst, in order of time."""
    if instr.order is Order.ROW:
        return [(act, acc) for acc in range(instr.accs) for act in range(instr.acts)]
    return [(act, acc) for act in range(instr.acts) for acc in range(instr.accs)]


def int8_planes(lanes: np.ndarray) -> np.ndarray:
    """int32 lanes [group, lane] as int8 [stream, lane]."""
    planes = lanes[:, None] >> 8 * np.arange(PLANES)[:, None] & 255
    return planes.reshape(-1, LANES).astype(np.uint8).view(np.int8)


class MxmBench(Checked):
    """An MXM with its golden functions; `free` is when each engine can be started again."""

    def __init__(self, dut, seed: int = 0):
        super().__init__(dut, seed, CONFIG.weight_groups)
        self.act = np.zeros((CONFIG.act_depth, LANES), np.int8)
        self.acc = np.zeros((CONFIG.acc_depth, LANES), np.int64)
        self.greatest = np.zeros(LANES, np.int64)
        self.events: defaultdict[int, list[tuple]] = defaultdict(list)
        self.free: dict[AnyOp, int] = {Op.LOAD: 0, Op.MAC: 0, Op.DRAIN: 0}

    async def step(self, instr: Instr | None = None, streams=None, word=None, weights=None) -> None:
        if instr:
            self.schedule(instr)
        await super().step(instr, streams, word, weights)

    def schedule(self, instr: Instr) -> None:
        if instr.op is Op.MAC:
            cycles = [self.now + ENGINE + i for i in range(instr.acts * instr.accs)]
            for cycle, (act, acc) in zip(cycles, steps(instr), strict=True):
                self.events[cycle].append((self.mac_step, instr, act, acc))
        else:
            cycles = elements(self.now, instr)
            work = self.load_element if instr.op is Op.LOAD else self.drain_element
            for i, cycle in enumerate(cycles):
                self.events[cycle].append((work, instr, i))
        self.free[instr.op] = cycles[-1]

    def observe(self) -> None:
        # Stable: what was scheduled for this cycle's start (commits) goes before what samples.
        for event, *args in sorted(self.events.pop(self.now, ()), key=lambda e: e[0].__name__ != "commit"):
            event(*args)
        super().observe()

    def load_element(self, instr: Instr, i: int) -> None:
        row = int8_planes(self.streams[self.now][OUT, None])[instr.plane]

        def commit() -> None:
            self.act[instr.act + i] = row

        self.events[self.now + MXM_LOAD].append((commit,))

    def mac_step(self, instr: Instr, act: int, acc: int) -> None:
        weights = int8_planes(self.weights[self.now])
        sums = numerics.dot(weights, self.act[instr.act + act], instr.wfmt)
        vector, part = divmod(instr.acc + acc, LANES // len(sums))
        lanes = self.acc[vector % CONFIG.acc_depth, part * len(sums) : (part + 1) * len(sums)]

        def commit() -> None:
            lanes[:] = sums if instr.clear and act == 0 else numerics.wrap32(lanes + sums)

        self.events[self.now + TIMES.mxm_acc].append((commit,))

    def drain_element(self, instr: Instr, i: int) -> None:
        vector = self.acc[(instr.acc + i) % CONFIG.acc_depth].copy()

        def commit() -> None:
            begins = instr.max is DrainMax.FIRST and i == 0
            self.greatest = vector if begins else np.maximum(self.greatest, vector)

        if instr.max is DrainMax.DRIVE:
            vector = self.greatest
        elif instr.max is not DrainMax.NONE:
            self.events[self.now + MXM_MAX].append((commit,))
        self.expected.expected[self.now + MXM_DRAIN, IN] = vector


def random_instruction(rng: np.random.Generator) -> Instr:
    count, interval = int(rng.integers(1, 5)), int(rng.choice([1, 1, 2, 3]))
    match rng.integers(4):
        case 0:
            return load(count=count, interval=interval, act=int(rng.integers(CONFIG.act_depth - count + 1)),
                        plane=int(rng.integers(PLANES)))
        case 1:
            return drain(count=count, interval=interval, acc=int(rng.integers(CONFIG.acc_depth)),
                         max=DrainMax(int(rng.integers(4)) * CONFIG.drain_max))
    acts, accs = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    return mac(act=int(rng.integers(CONFIG.act_depth - acts + 1)), acc=int(rng.integers(16)), acts=acts, accs=accs,
               order=Order(int(rng.integers(2))), wfmt=Wfmt(int(rng.integers(1 + CONFIG.int4))),
               clear=int(rng.random() < 0.3))


def extreme_weights(rng: np.random.Generator) -> np.ndarray:
    """Weights of which every third step is full of -128, 127, 0x88 or 0x77 bytes."""
    lanes = rng.integers(-(1 << 31), 1 << 31, (CONFIG.weight_groups, LANES))
    if rng.random() < 0.33:
        lanes[:] = numerics.wrap32(int(rng.choice([0x80, 0x7F, 0x88, 0x77, 0x78, 0x87])) * np.int64(0x1010101))
    return lanes


async def start(dut, seed: int = 0) -> MxmBench:
    """A bench whose buffers hold random values (accumulators: those of one clearing step)."""
    bench = MxmBench(dut, seed)
    await bench.reset()
    accs = CONFIG.acc_depth * (LANES // CONFIG.rows)
    for instr in (load(count=CONFIG.act_depth), mac(acts=1, accs=accs, clear=1)):
        await bench.step(instr)
        while bench.now < bench.free[instr.op]:
            await bench.step()
    return bench


@cocotb.test()
async def random_bursts(dut):
    bench = await start(dut)
    for _ in range(2500):
        instr = random_instruction(bench.rng)
        while bench.now < bench.free[instr.op]:
            await bench.step(weights=extreme_weights(bench.rng))
        await bench.step(instr, weights=extreme_weights(bench.rng))
        if bench.rng.random() < 0.7:  # nothing forbids an instruction a cycle here, the ICU does
            await bench.step(weights=extreme_weights(bench.rng))
    while bench.now < bench.free[Op.DRAIN]:
        await bench.step()
    await bench.step(drain(count=CONFIG.acc_depth))
    for _ in range(CONFIG.acc_depth + 10):
        await bench.step()
    assert not bench.traps, bench.traps
    log(f"{bench.now} cycles, {bench.driven} stream slots driven")
    assert bench.driven > 2000


@cocotb.test()
async def extremes(dut):
    """Every sum at its limits, in all formats; accumulators wrap."""
    bench = await start(dut, 1)
    for act in (-128, 127, -1, 0):
        await bench.step(load())
        await bench.step(streams=np.full((2, LANES), act & 255))
        for wfmt in list(Wfmt)[: 1 + CONFIG.int4]:
            for byte in (0x80, 0x7F, 0x88, 0x77, 0x78, 0x87, 0xFF, 0x0F, 0xF0, 0x08):
                weights = np.full((CONFIG.weight_groups, LANES), numerics.wrap32(byte * np.int64(0x1010101)))
                await bench.step(mac(acts=1, accs=1, wfmt=wfmt, clear=byte & 1), weights=weights)
                for _ in range(6):
                    await bench.step(weights=weights)
                await bench.step(drain())
    for _ in range(5):
        await bench.step()
    assert not bench.traps, bench.traps


@cocotb.test()
async def latencies(dut):
    """Each latency as the RTL has it: by when a value appears, not by the golden functions."""
    bench = UnitBench(dut, weight_groups=CONFIG.weight_groups)
    await bench.reset()
    ones = np.full((2, LANES), 0x1010101)
    steady = np.full((CONFIG.weight_groups, LANES), 0x1010101)

    async def idle(cycles: int) -> None:
        for _ in range(cycles):
            await bench.step(streams=ones, weights=steady)

    async def first_drain(value: int) -> int:
        """Cycles from now (the present cycle samples) to the first DRAIN element that reads the value in lane 0."""
        sampled = bench.now
        for _ in range(12):
            await bench.step(drain(), ones, weights=steady)
            data, drive = bench.seen[IN]
            if drive and data & 255 == value:
                return bench.now - 1 - MXM_DRAIN - sampled
        raise AssertionError("never drained")

    await bench.step(drain(), ones, weights=steady)
    sampled = bench.now
    while not bench.seen[IN][1]:
        await bench.step(streams=ones, weights=steady)
    assert bench.now - 1 - sampled == MXM_DRAIN
    await bench.step(load(), ones, weights=steady)
    await bench.step(streams=ones, weights=steady)
    await bench.step(mac(clear=1), ones, weights=steady)
    assert await first_drain(LANES) == TIMES.mxm_acc
    # Steps in four successive cycles on an entry that a LOAD overwrites in the second of them (in e).
    await bench.step(load(), ones, weights=steady)
    await bench.step(streams=ones, weights=steady)
    await bench.step(mac(accs=4, clear=1), ones, weights=steady)
    await bench.step(load(), ones, weights=steady)
    await bench.step(streams=3 * ones, weights=steady)
    await idle(8)
    await bench.step(drain(count=4), ones, weights=steady)
    sums = []
    for _ in range(5):
        await bench.step(streams=ones, weights=steady)
        data, drive = bench.seen[IN]
        sums += [int(lane) for lane in unpack(data, 1)[0]] if drive else []
    assert sums[: 4 * CONFIG.rows : CONFIG.rows] == [LANES if k < 1 + MXM_LOAD else 3 * LANES for k in range(4)]


if CONFIG.drain_max:

    @cocotb.test()
    async def greatest_values(dut):
        """A maximum of two bursts, which a FIRST forgets. It is driven MXM_MAX cycles after its last vector."""
        bench = UnitBench(dut, weight_groups=CONFIG.weight_groups)
        await bench.reset()
        weights = np.full((CONFIG.weight_groups, LANES), 0x1010101)
        steps = LANES // CONFIG.rows
        for vector, act in enumerate((-5, 7, -128, 3)):
            await bench.step(load())
            await bench.step(streams=np.full((2, LANES), act & 255))
            await bench.step(mac(acc=vector * steps, accs=steps, clear=1), weights=weights)
            for _ in range(steps + TIMES.mxm_acc):
                await bench.step(weights=weights)
        driven = []

        async def step(instr: Instr | None = None) -> None:
            await bench.step(instr, weights=weights)
            data, drive = bench.seen[IN]
            driven.extend([int(unpack(data, 1)[0][0]) // LANES] if drive else [])

        for instr in (drain(acc=2, max=DrainMax.FIRST), drain(acc=0, max=DrainMax.MORE), drain(max=DrainMax.DRIVE),
                      drain(acc=1, max=DrainMax.MORE), drain(acc=3), drain(max=DrainMax.DRIVE),
                      drain(acc=2, count=2, max=DrainMax.FIRST), None, drain(acc=0, max=DrainMax.MORE), None,
                      drain(max=DrainMax.DRIVE), None, None, None):
            await step(instr)
        assert driven == [-128, -5, -128, 7, 3, 7, -128, 3, -5, 3]


@cocotb.test()
async def illegal_programs_trap(dut):
    bench = UnitBench(dut, weight_groups=CONFIG.weight_groups)
    await bench.reset()
    assert await traps_of(bench, load(), mac(), drain()) == set()
    for first, second in ((load(count=4), load()), (mac(acts=3), mac()), (mac(accs=3), mac()),
                          (drain(count=2, interval=3), drain())):
        assert await traps_of(bench, first, second) == {Trap.ENGINE_BUSY}
        assert await traps_of(bench, first, None, None, None, second) == set()
    assert await traps_of(bench, encode(Instr(Op.ALU)) & (1 << 59) - 1) == {Trap.OPCODE}
    assert await traps_of(bench, load(act=CONFIG.act_depth - 1, count=2)) == {Trap.ADDRESS}
    assert await traps_of(bench, mac(act=CONFIG.act_depth - 1, acts=2)) == {Trap.ADDRESS}
    assert await traps_of(bench, mac(wfmt=Wfmt.INT4)) == (set() if CONFIG.int4 else {Trap.OPCODE})
    dut.weights_driven.value = (1 << CONFIG.rows) - 2
    assert await traps_of(bench, mac()) == {Trap.EMPTY_READ}
    outward = dut.w_driven if OUT else dut.e_driven
    outward.value = 0xD
    assert await traps_of(bench, load(plane=1)) == {Trap.EMPTY_READ}
    assert await traps_of(bench, load(plane=0)) == set()
