"""cocotb tests of the VXM in a debug build; started by test_hw_vxm.py."""

from collections import defaultdict

import cocotb
import numpy as np
from unit_bench import CONFIG, LANES, TIMES, Checked, E, UnitBench, W, elements, log, pack, traps_of, unpack

from arch import numerics
from arch.host_map import Trap
from arch.isa import (
    HALVES,
    Alu,
    ErUse,
    Fmt,
    Func,
    Instr,
    Op,
    Red,
    Rep,
    Sat,
    Src,
    encode,
    layout,
    vxm_late,
)

FOLD, LATE = CONFIG.vxm_fold, vxm_late(CONFIG)
VXM_DRIVE, VXM_RF, VXM_REDUCE_DRIVE = TIMES.vxm_drive, TIMES.vxm_rf, TIMES.vxm_reduce_drive


def alu(**fields) -> Instr:
    return Instr(Op.ALU, fields={"interval": FOLD, **fields})


class VxmBench(Checked):
    """The VXM with its golden functions: state changes of the end of a cycle are applied at the start of the next."""

    def __init__(self, dut, seed: int = 0):
        super().__init__(dut, seed)
        self.rf = np.zeros((CONFIG.rf_depth, LANES), np.int64)
        self.er = np.zeros((CONFIG.er_depth, LANES), np.int64)
        self.slots = np.zeros((4, LANES), np.int64)
        self.events = defaultdict(list)
        self.probes: dict[int, tuple] = {}

    async def step(self, instr: Instr | None = None, streams=None, word=None) -> None:
        if instr:
            for i, cycle in enumerate(elements(self.now, instr)):
                self.events[cycle].append((self.element, instr, i))
        await super().step(instr, streams, word)

    def observe(self) -> None:
        for event, *args in self.events.pop(self.now, ()):
            event(*args)
        super().observe()
        probe = int(self.dut.probe.value)
        wanted = self.probes.pop(self.now, (None, None))
        bits = CONFIG.group_bits
        rf = (probe >> 1 & 31, probe >> 6 & (1 << bits) - 1) if probe & 1 else None
        probe >>= 6 + bits
        er = (probe >> 1 & 15, probe >> 5) if probe & 1 else None
        assert (rf, er) == wanted, f"cycle {self.now}: writes {rf}, {er}, expected {wanted}"

    def operand(self, instr: Instr, name: str, i: int) -> np.ndarray:
        src, rf, inc, fmt = (getattr(instr, f"{name}_{field}") for field in ("src", "rf", "inc", "fmt"))
        match src:
            case Src.IMM:
                x = np.full(LANES, instr.imm)
            case Src.RF:
                x = self.rf[rf + inc * i]
            case Src.IOTA:
                x = np.arange(LANES) + LANES * i
            case _:
                x = self.streams[self.now][E if src is Src.E else W]
        return numerics.take(x, fmt)

    def element(self, instr: Instr, i: int) -> None:
        a, b, c = (self.operand(instr, name, i) for name in "abc")
        er = self.er[instr.er]
        y = numerics.vxm(instr, a, b, c, er)
        k = numerics.exponent(instr, a, y, er)
        done = self.now + VXM_DRIVE
        self.drive(done + LATE, instr.dst_e, instr.dst_w, numerics.lay(y, instr.rep))
        self.events[done].append((self.results, instr, i, y, k))

    def drive(self, cycle: int, e: int, w: int, lanes: np.ndarray) -> None:
        for way, enabled in ((E, e), (W, w)):
            if enabled:
                self.expected.expected[cycle, way] = lanes

    def results(self, instr: Instr, i: int, y: np.ndarray, k: np.ndarray) -> None:
        rf = self.write(self.rf, instr.rf + i * instr.rf_inc, y, VXM_RF - VXM_DRIVE) if instr.rf_we else None
        er = None
        if instr.er_we:
            self.write(self.er, instr.er_dst, k, VXM_RF - VXM_DRIVE)
            er = instr.er_dst, int.from_bytes(k.astype(np.uint8).tobytes(), "little")
        if rf or er:
            self.probes[self.now + LATE] = rf, er
        if instr.red is Red.NONE:
            return
        terms = numerics.reduce(instr.red, y[None], 0)
        if i or instr.red_keep:
            merge = Red.MAX if instr.red is Red.MAXABS else instr.red
            terms = numerics.reduce(merge, np.stack([self.slots[instr.red_slot], terms]), 0)
        self.slots[instr.red_slot] = terms
        if i == instr.count - 1:
            cycle = self.now + VXM_REDUCE_DRIVE - VXM_DRIVE
            self.drive(cycle + LATE, instr.red_e, 0, terms)

    def write(self, file: np.ndarray, index: int, lanes: np.ndarray, wait: int) -> tuple[int, int]:
        def commit() -> None:
            file[index] = lanes

        self.events[self.now + wait].insert(0, (commit,))
        return index, pack(lanes)

    async def run(self, *instrs: Instr, gap: int = 0) -> None:
        """Dispatches one instruction after the other, each as soon as the engine is free (plus a gap)."""
        for instr in instrs:
            await self.step(instr)
            last = self.now + (instr.count - 1) * instr.interval + FOLD - 1
            for _ in range(max(last - self.now, 1) + gap
                           + (instr.red is not Red.NONE) * (VXM_REDUCE_DRIVE - VXM_DRIVE)):
                await self.step()

    async def drain(self) -> None:
        for _ in range(VXM_REDUCE_DRIVE + LATE + 3):
            await self.step()
        assert not self.traps, self.traps


def random_instruction(rng: np.random.Generator, **fixed) -> Instr:
    """Any legal ALU instruction."""
    def one(kind):
        return list(kind)[rng.integers(len(kind))]

    count = int(rng.integers(1, 5))
    last = CONFIG.rf_depth - count
    fields = {
        "count": count, "interval": LATE + int(rng.choice([1, 1, 1, 2, 3])), "imm": int(rng.integers(-131072, 131072)),
        "func": one(Func), "pre": int(rng.integers(-32, 32) >> rng.integers(0, 5)), "er_use": one(ErUse),
        "er": int(rng.integers(CONFIG.er_depth)), "er_neg": int(rng.integers(2)),
        "post": int(rng.integers(0, 64) >> rng.integers(0, 4)), "round": int(rng.integers(2)),
        "logical": int(rng.random() < 0.2), "alu": one(Alu), "sat": one(Sat), "rep": one(Rep),
        "rf": int(rng.integers(last + 1)),
        "er_dst": int(rng.integers(CONFIG.er_depth)), "red": one(Red),
        "red_slot": int(rng.integers(4)),
    }
    flags = ("dst_e", "dst_w", "rf_we", "rf_inc", "er_we", "red_keep", "red_e")
    fields |= {name: int(rng.integers(2)) for name in flags}
    for name in "abc":
        fields |= {f"{name}_src": one(Src), f"{name}_rf": int(rng.integers(last + 1)),
                   f"{name}_inc": int(rng.integers(2)),
                   f"{name}_fmt": Fmt.I32 if rng.random() < 0.5 else one(Fmt if name == "a" else HALVES)}
    if fields["b_src"] is fields["c_src"] is Src.RF:
        fields |= {"c_rf": fields["b_rf"], "c_inc": fields["b_inc"]}
    fields |= fixed
    if fields["alu"] is Alu.INDEX:
        fields |= {"b_src": Src.IOTA, "b_fmt": Fmt.I32}
    return alu(**fields)


async def start(dut, seed: int = 0) -> VxmBench:
    """A bench whose register file, exponent file and reductions hold random vectors."""
    bench = VxmBench(dut, seed)
    await bench.reset()
    await bench.run(alu(count=CONFIG.rf_depth, a_src=Src.E, rf_we=1, rf_inc=1))
    for er in range(CONFIG.er_depth):
        await bench.run(alu(a_src=Src.E, er_we=1, er_dst=er, pre=int(bench.rng.integers(0, 4)), sat=Sat.S8))
    for slot in range(4):
        await bench.run(alu(a_src=Src.E, red=Red.MAX, red_slot=slot))
    return bench


@cocotb.test()
async def random_bursts(dut):
    bench = await start(dut)
    for _ in range(1500):
        await bench.run(random_instruction(bench.rng), gap=int(bench.rng.choice([0, 0, 0, 1, 5])))
    await bench.drain()
    log(f"{bench.now} cycles, {bench.driven} stream slots driven")
    assert bench.driven > 5000


@cocotb.test()
async def every_function_with_every_alu(dut):
    bench = await start(dut, 1)
    for func in Func:
        for one in Alu:
            await bench.run(random_instruction(bench.rng, func=func, alu=one, a_src=Src.E, a_fmt=Fmt.I32, er_we=1))
    await bench.drain()


@cocotb.test()
async def tables_over_all_segments(dut):
    bench = await start(dut, 2)
    within = np.arange(1024).reshape(-1, LANES)
    spread = within * 64 - 32768
    octaves = 1 << 15 | within << 5
    for func, operands, post in ((Func.SIGMOID, spread, 10), (Func.EXP2, -within, 7),
                                 (Func.RECIP, octaves, 10), (Func.RSQRT, octaves, 11), (Func.LOG2, octaves, 10),
                                 (Func.RSQRT, octaves << 1, 11), (Func.RECIP, octaves >> 15, 10)):
        burst = alu(count=len(within), func=func, a_src=Src.E, post=post, round=1, dst_e=1, er_we=1,
                    alu=Alu.Q if func is Func.EXP2 else Alu.ADD)
        await bench.step(burst)
        for lanes in operands:
            await bench.step(streams=np.broadcast_to(lanes, (2, LANES)))
            for _ in range(LATE):
                await bench.step()
    await bench.drain()


@cocotb.test()
async def every_pre_shift(dut):
    bench = await start(dut, 3)
    for pre in range(-32, 32):
        for rounding, logical in ((0, 0), (1, 0), (0, 1), (1, 1)):
            await bench.run(alu(a_src=Src.W, pre=pre, round=rounding, logical=logical, dst_w=1))
    await bench.drain()


@cocotb.test()
async def every_post_shift(dut):
    bench = await start(dut, 4)
    for post in range(64):
        for func in (Func.MUL, Func.SQUARE, Func.PASS):
            await bench.run(alu(func=func, a_src=Src.W, b_src=Src.E, post=post, round=post & 1 ^ 1, dst_w=1))
    await bench.drain()


@cocotb.test()
async def latencies(dut):
    """Each latency as the RTL has it: by when a value appears, not by the golden functions."""
    bench = UnitBench(dut)
    await bench.reset()
    zero = np.zeros((2, LANES))

    async def idle(cycles: int) -> None:
        for _ in range(cycles):
            await bench.step(None, zero)

    async def measure(instr: Instr, side: int, value: int) -> int:
        """Cycles from the first sampling to the first drive of `value` in every lane."""
        await bench.step(instr, zero)
        sampled = bench.now
        for _ in range(40):
            await bench.step(None, zero)
            data, drive = bench.seen[side]
            if drive and (unpack(data, 1) == value).all():
                cycles = bench.now - 1 - sampled
                await idle(VXM_REDUCE_DRIVE)
                return cycles
        return -1

    async def visible(writer, reader: Instr, number) -> int:
        """Least distance in which `reader` finds what `writer(value)` writes, a different value each time."""
        for value in range(FOLD, 20):
            await bench.step(writer(value), zero)
            await idle(value - 1)
            if await measure(reader, 0, number(value)) == VXM_DRIVE + LATE:
                return value
        raise AssertionError("nothing is visible")

    last = 2 * FOLD
    burst = alu(count=3, imm=5, dst_w=1, red=Red.SUM, red_e=1)
    assert await measure(burst, 1, 5) == VXM_DRIVE + LATE
    assert await measure(burst, 0, 15) == last + VXM_REDUCE_DRIVE + LATE
    assert await visible(lambda value: alu(imm=value, rf_we=1, rf=1), alu(a_src=Src.RF, a_rf=1, dst_e=1),
                         lambda value: value) == VXM_RF
    reader = alu(imm=1, er_use=ErUse.PRE, er=1, er_neg=1, dst_e=1)
    assert await visible(lambda value: alu(imm=value, er_we=1, er_dst=1), reader, lambda value: 1 << value) == VXM_RF


@cocotb.test()
async def illegal_programs_trap(dut):
    bench = UnitBench(dut)
    await bench.reset()
    drive = {"dst_e": 1}
    assert await traps_of(bench, alu(a_src=Src.E, **drive)) == set()
    assert await traps_of(bench, alu(count=9), alu()) == {Trap.ENGINE_BUSY}
    free = 2 * FOLD - 1
    assert await traps_of(bench, alu(count=2), *[None] * free, alu()) == set()
    assert await traps_of(bench, alu(count=2), *[None] * (free - 1), alu()) == {Trap.ENGINE_BUSY}
    assert await traps_of(bench, alu(interval=1)) == set()
    assert await traps_of(bench, encode(Instr(Op.LOAD))) == {Trap.OPCODE}
    assert await traps_of(bench, encode(alu(func=Func.LOG2)) | 15 << bit_of("func")) == {Trap.OPCODE}
    same = encode(alu(b_src=Src.RF, c_src=Src.RF))
    assert await traps_of(bench, same) == set()
    for name in ("b_rf", "b_inc", "c_rf", "c_inc"):
        assert await traps_of(bench, same ^ 1 << bit_of(name)) == {Trap.OPCODE}
    index = encode(alu(alu=Alu.INDEX, b_src=Src.IOTA))
    assert await traps_of(bench, index) == set()
    for name in ("b_src", "b_fmt"):
        assert await traps_of(bench, index ^ 1 << bit_of(name)) == {Trap.OPCODE}
    for name in ("b_fmt", "c_fmt"):
        assert await traps_of(bench, same ^ Fmt.B0.value << bit_of(name)) == {Trap.OPCODE}
    # Folded, the next element is no earlier than behind the reduction.
    pause = [None] * (FOLD - 1 + VXM_REDUCE_DRIVE - VXM_DRIVE - 1)
    total, collision = [alu(red=Red.SUM, red_e=1), *pause], {Trap.COLLISION} if FOLD == 1 else set()
    assert await traps_of(bench, *total, alu(**drive)) == collision
    assert await traps_of(bench, *total, alu(dst_w=1, rf_we=1)) == set()
    assert await traps_of(bench, alu(a_src=Src.RF, a_rf=CONFIG.rf_depth - 1, a_inc=1, count=2)) == {Trap.ADDRESS}
    dut.e_driven.value = 0b1101
    assert await traps_of(bench, alu(b_src=Src.E)) == {Trap.EMPTY_READ}
    assert await traps_of(bench, alu(b_src=Src.E, b_fmt=Fmt.HI16)) == set()
    assert await traps_of(bench, alu(a_src=Src.E, a_fmt=Fmt.B1)) == {Trap.EMPTY_READ}
    assert await traps_of(bench, alu(b_src=Src.W)) == set()
    if FOLD > 1:
        assert await traps_of(bench, alu(count=2, interval=FOLD - 1)) == {Trap.ENGINE_BUSY}


def bit_of(name: str) -> int:
    """Where a field begins in the word."""
    return layout(Op.ALU)[name].offset
