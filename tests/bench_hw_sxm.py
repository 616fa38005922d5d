"""cocotb tests of an SXM in a debug build; started by test_hw_sxm.py."""

import os
from collections import defaultdict

import cocotb
import numpy as np
from unit_bench import CONFIG, LANES, Checked, UnitBench, elements, log, traps_of

from arch import numerics
from arch.config import PLANES
from arch.host_map import Trap
from arch.isa import SXM_DRIVE, SXM_TRANSPOSE, AnyOp, Instr, Op, Red, encode
from sim.check.random_programs import random_map

OUT = int(os.environ["OUTWARD"])
IN = 1 - OUT
REDUCTIONS = (Red.SUM, Red.MAX, Red.MIN)
SEGMENTS = CONFIG.lane_bits + 1


def sxm(op: Op, **fields) -> Instr:
    return Instr(op, fields=fields)


def engine_of(op: AnyOp) -> str:
    return op.name if op in (Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT) else "LANES"


class SxmBench(Checked):
    """An SXM with its golden functions; `free` is when each engine can be started again."""

    def __init__(self, dut, seed: int = 0):
        super().__init__(dut, seed)
        self.maps = np.array([random_map(self.rng, LANES) for _ in range(CONFIG.sxm_maps)])
        self.rows = np.zeros((LANES, LANES), np.int64)
        self.samples = defaultdict(list)
        self.commits = defaultdict(list)
        self.free: dict[str, int] = {}

    async def reset(self) -> None:
        dut = self.dut
        dut.map_we.value = 0
        await super().reset()
        for index, lanes in enumerate(self.maps):
            dut.map_we.value, dut.map_index.value = 1, index
            dut.map_data.value = sum(int(lane) << 4 * n for n, lane in enumerate(lanes))
            await self.step()
        dut.map_we.value = 0

    async def step(self, instr: Instr | None = None, streams=None, word=None) -> None:
        if instr:
            cycles = elements(self.now, instr)
            for i, cycle in enumerate(cycles):
                self.samples[cycle].append((instr, i))
            self.free[engine_of(instr.op)] = cycles[-1]
        await super().step(instr, streams, word)

    def observe(self) -> None:
        for row, values in self.commits.pop(self.now, ()):
            self.rows[row] = values
        for instr, i in self.samples.pop(self.now, ()):
            self.element(instr, i)
        super().observe()

    def element(self, instr: Instr, i: int) -> None:
        if instr.op is Op.TRANSPOSE_OUT:
            self.drive(numerics.wrap32(self.rows[:, i] * 0x1010101))
            return
        x = self.streams[self.now][OUT]
        match instr.op:
            case Op.TRANSPOSE_IN:
                self.commits[self.now + SXM_TRANSPOSE].append((i, x >> 8 * instr.plane & 255))
                return
            case Op.PERMUTE:
                y = x[self.maps[instr.map]]
            case Op.SHIFT:
                base = np.zeros(LANES, int) if instr.distribute else np.arange(LANES)
                y = x[(base + instr.lane + i * instr.lane_inc) % LANES]
            case Op.REDUCE:
                y = numerics.lane_reduce(instr.red, instr.segment, x)
        self.drive(y)

    def drive(self, lanes: np.ndarray) -> None:
        slot = self.now + SXM_DRIVE, IN
        assert slot not in self.expected.expected, "the bench makes no collisions"
        self.expected.expected[slot] = lanes

    def collides(self, instr: Instr) -> bool:
        """Whether the instruction, dispatched now, would drive in a cycle in which an earlier one drives."""
        if instr.op is Op.TRANSPOSE_IN:
            return False
        taken = {cycle for cycle, items in self.samples.items()
                 for other, _ in items if other.op is not Op.TRANSPOSE_IN}
        return not taken.isdisjoint(elements(self.now, instr))

    async def issue(self, instr: Instr) -> None:
        """Dispatches the instruction as soon as it may be."""
        while self.now < self.free.get(engine_of(instr.op), 0) or self.collides(instr):
            await self.step()
        await self.step(instr)

    async def finish(self) -> None:
        for _ in range(40):
            await self.step()
        assert not self.traps, self.traps


def random_instruction(rng: np.random.Generator) -> Instr:
    op = [Op.PERMUTE, Op.SHIFT, Op.REDUCE, Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT][rng.integers(5)]
    burst = {"count": int(rng.integers(1, 17)), "interval": int(rng.choice([1, 1, 1, 2, 3]))}
    if op in (Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT):
        burst["count"] = min(burst["count"], LANES)
    match op:
        case Op.TRANSPOSE_IN:
            return sxm(op, **burst, plane=int(rng.integers(PLANES)))
        case Op.TRANSPOSE_OUT:
            return sxm(op, **burst)
        case Op.PERMUTE:
            own = {"map": int(rng.integers(CONFIG.sxm_maps))}
        case Op.SHIFT:
            own = {"lane": int(rng.integers(16)), "lane_inc": int(rng.integers(16)), "distribute": int(rng.integers(2))}
        case Op.REDUCE:
            own = {"red": REDUCTIONS[rng.integers(3)], "segment": int(rng.integers(SEGMENTS))}
    return sxm(op, **burst, **own)


@cocotb.test()
async def random_bursts(dut):
    bench = SxmBench(dut)
    await bench.reset()
    for row in range(LANES):  # the transpose buffer has no reset
        bench.rows[row] = 0
    await bench.issue(sxm(Op.TRANSPOSE_IN, count=LANES))
    for _ in range(LANES + 2):
        await bench.step()
    for _ in range(1200):
        await bench.issue(random_instruction(bench.rng))
        if bench.rng.random() < 0.5:
            await bench.step()
    await bench.finish()
    log(f"{bench.now} cycles, {bench.driven} stream slots driven")
    assert bench.driven > 10000


@cocotb.test()
async def every_shift_and_reduction(dut):
    bench = SxmBench(dut, 1)
    await bench.reset()
    for lane in range(LANES):
        for distribute in range(2):
            await bench.issue(sxm(Op.SHIFT, lane=lane, distribute=distribute, count=2, lane_inc=1))
    for red in REDUCTIONS:
        for segment in range(SEGMENTS):
            await bench.issue(sxm(Op.REDUCE, red=red, segment=segment, count=8))
    for lanes in (-(1 << 31), (1 << 31) - 1, -1):
        for red in REDUCTIONS:
            await bench.issue(sxm(Op.REDUCE, red=red, segment=SEGMENTS - 1))
            await bench.step(streams=np.full((2, LANES), lanes))
    await bench.finish()


@cocotb.test()
async def transpositions_overlap(dut):
    """Matrices follow each other without a gap: columns of one leave while rows of the next arrive behind them."""
    bench = SxmBench(dut, 2)
    await bench.reset()
    await bench.issue(sxm(Op.TRANSPOSE_IN, count=LANES))
    for _ in range(8):
        while bench.now < bench.free["TRANSPOSE_IN"] + SXM_TRANSPOSE - 1:
            await bench.step()
        await bench.issue(sxm(Op.TRANSPOSE_OUT, count=LANES))
        for _ in range(LANES - 2):
            await bench.step()
        await bench.issue(sxm(Op.TRANSPOSE_IN, count=LANES, plane=2))
    await bench.finish()
    assert bench.driven >= 8 * LANES * PLANES


@cocotb.test()
async def latencies(dut):
    """Each latency as the RTL has it: by when a value appears, not by the golden functions."""
    bench = UnitBench(dut)
    dut.map_we.value = 0
    await bench.reset()
    zero = np.zeros((2, LANES))
    for instr in (sxm(Op.PERMUTE), sxm(Op.SHIFT), sxm(Op.REDUCE, red=Red.SUM), sxm(Op.TRANSPOSE_OUT)):
        await bench.step(instr, zero)
        sampled = bench.now
        while not bench.seen[IN][1]:
            await bench.step(streams=zero)
        assert bench.now - 1 - sampled == SXM_DRIVE, instr.op
    for _ in range(4):
        await bench.step(streams=zero)
    await bench.step(sxm(Op.TRANSPOSE_IN), zero)
    await bench.step(streams=zero)
    # Columns 0 in successive cycles around a row of 5s: which is the first that has it?
    await bench.step(sxm(Op.TRANSPOSE_IN), zero)
    sampled = bench.now
    await bench.step(sxm(Op.TRANSPOSE_OUT), 5 * (zero + 1))
    seen = []
    for _ in range(6):
        await bench.step(sxm(Op.TRANSPOSE_OUT), zero)
        seen += [bench.now - 1 - SXM_DRIVE - sampled] if bench.seen[IN][1] and bench.seen[IN][0] & 255 == 5 else []
    assert seen[0] == SXM_TRANSPOSE


@cocotb.test()
async def illegal_programs_trap(dut):
    bench = UnitBench(dut)
    dut.map_we.value = 0
    await bench.reset()
    legal = (sxm(Op.PERMUTE), sxm(Op.SHIFT), sxm(Op.REDUCE, red=Red.MAX), sxm(Op.TRANSPOSE_IN), sxm(Op.TRANSPOSE_OUT))
    for instr in legal:
        assert await traps_of(bench, instr) == set()
    for op in (Op.SHIFT, Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT):
        assert await traps_of(bench, sxm(op, count=4), sxm(op)) == {Trap.ENGINE_BUSY}
    assert await traps_of(bench, sxm(Op.SHIFT, count=4), sxm(Op.PERMUTE)) == {Trap.ENGINE_BUSY}
    assert await traps_of(bench, sxm(Op.SHIFT, count=4), sxm(Op.TRANSPOSE_IN)) == set()
    assert await traps_of(bench, sxm(Op.SHIFT, count=4), sxm(Op.TRANSPOSE_OUT)) == {Trap.COLLISION}
    assert await traps_of(bench, encode(Instr(Op.LOAD))) == {Trap.OPCODE}
    assert await traps_of(bench, sxm(Op.REDUCE, red=Red.MAXABS)) == {Trap.OPCODE}
    assert await traps_of(bench, sxm(Op.REDUCE, red=Red.SUM, segment=SEGMENTS)) == {Trap.ADDRESS}
    assert await traps_of(bench, sxm(Op.TRANSPOSE_IN, count=LANES + 1)) == {Trap.ADDRESS}
    assert await traps_of(bench, sxm(Op.TRANSPOSE_OUT, count=LANES + 1)) == {Trap.ADDRESS}
    if CONFIG.sxm_maps < 32:
        assert await traps_of(bench, sxm(Op.PERMUTE, map=CONFIG.sxm_maps)) == {Trap.ADDRESS}
    outward = dut.w_driven if OUT else dut.e_driven
    outward.value = 0xD
    assert await traps_of(bench, sxm(Op.SHIFT)) == {Trap.EMPTY_READ}
    assert await traps_of(bench, sxm(Op.TRANSPOSE_IN, plane=1)) == {Trap.EMPTY_READ}
    assert await traps_of(bench, sxm(Op.TRANSPOSE_IN, plane=0), sxm(Op.TRANSPOSE_OUT)) == set()
