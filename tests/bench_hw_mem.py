"""cocotb bench of a MEM slice: random bursts, index registers, host accesses and traps, against a small reference."""

import os
from collections import defaultdict
from collections.abc import Sequence

import cocotb
import numpy as np
from unit_bench import LANES, WEIGHTS, UnitBench, pack, traps_of

from arch.config import PLANES
from arch.host_map import Trap
from arch.isa import HOST_READ, MEM_INDEX, MEM_READ, MEM_WRITE_TO_READ, AnyOp, Dir, Instr, Op
from arch.numerics import Index

DEPTH = int(os.environ["DEPTH"])
INDEX_BITS = int(os.environ["INDEX_BITS"])
WAYS = [Dir[way] for way in os.environ["WAYS"]]
"""Directions in which the slice drives the vector group."""
GROUPS = [int(group) for group in os.environ["GROUPS"]]
"""Weight groups that the slice drives."""
HOST_LATENCY = HOST_READ - 1
"""From host_re to host_rdata: the host port has one register more."""


def planes_of(lanes):
    """int32 [lane] as uint8 [plane, lane]."""
    return np.frombuffer(pack(lanes).to_bytes(PLANES * LANES, "little"), np.uint8).reshape(PLANES, LANES)


class Reference(UnitBench):
    """A MEM bench with the slice's contents, index registers and everything still to happen."""

    def __init__(self, dut, seed=0):
        super().__init__(dut, seed)
        self.mem = np.zeros((DEPTH, PLANES, LANES), np.uint8)
        self.index = [Index.everything(LANES)] * 8
        self.todo = defaultdict(list)
        self.driven = {}
        self.reads, self.commits = {}, {}
        self.rdata = {}
        self.free: dict[AnyOp, int] = {Op.READ: 0, Op.WRITE: 0}

    async def start(self):
        for name in ("host_addr", "host_planes", "host_we", "host_re", "host_wdata", "offsets__0", "offsets__1"):
            getattr(self.dut, name).value = 0
        await self.reset()

    async def host(self, quad, plane, data=None):
        """One cycle in which the host writes `data` (the streams are 0 then), or reads."""
        self.dut.host_addr.value, self.dut.host_planes.value = quad, 1 << plane
        self.dut.host_we.value, self.dut.host_re.value = int(data is not None), int(data is None)
        self.dut.host_wdata.value = int.from_bytes(data.tobytes(), "little") if data is not None else 0
        await self.step(streams=None if data is None else np.zeros((2, LANES), np.int64))
        self.dut.host_we.value = self.dut.host_re.value = self.dut.host_wdata.value = 0

    async def fill(self):
        self.mem[:] = self.rng.integers(0, 256, self.mem.shape, dtype=np.uint8)
        for quad in range(DEPTH):
            for plane in range(PLANES):
                await self.host(quad, plane, self.mem[quad, plane])

    def observe(self):
        self.rdata[self.now] = int(self.dut.host_rdata.value)
        wanted = dict.fromkeys(self.seen, (0, 0)) | self.driven.pop(self.now, {})
        assert self.seen == wanted, f"cycle {self.now}"

    def plan(self, instr, offsets):
        """Schedules an instruction dispatched now, or returns False where it would be illegal."""
        index = self.index[instr.index] if instr.op is not Op.INDEX else Index.everything(LANES)
        first = self.now + 1
        if instr.op is Op.INDEX:
            self.todo[first].append(lambda: self.load_index(instr))
            return True
        base = instr.addr + index.offset + sum(offset for k, offset in enumerate(offsets) if instr.rel >> k & 1)
        work = [(first + i * instr.interval, (base + i * instr.stride) % (1 << 20)) for i in range(instr.count)]
        if self.free[instr.op] >= first or not all(addr < DEPTH for _, addr in work):
            return False
        if instr.op is Op.READ:
            if instr.weights not in GROUPS if instr.weights else instr.dir not in WAYS:
                return False
            if any(self.commits.get(cycle) == addr for cycle, addr in work):
                return False
            self.reads.update(work)
        else:
            if any(self.reads.get(cycle + 1) == addr for cycle, addr in work):
                return False
            self.commits.update((cycle + 1, addr) for cycle, addr in work)
        for cycle, addr in work:
            self.todo[cycle].append(lambda addr=addr: self.element(instr, addr, index))
        self.free[instr.op] = work[-1][0]
        return True

    def element(self, instr, addr, index):
        planes = np.array([instr.planes >> p & 1 for p in range(PLANES)], bool)
        shown = np.array([index.planes >> p & 1 for p in range(PLANES)], bool)
        if instr.op is Op.READ:
            data = self.mem[addr] * (planes & shown)[:, None]
            way = WEIGHTS + instr.weights - 1 if instr.weights else instr.dir.value
            self.driven[self.now + MEM_READ] = {way: (int.from_bytes(data.tobytes(), "little"), instr.planes)}
            return None
        sample = planes_of(self.streams[self.now][instr.dir.value])
        lanes = np.array([index.lanes >> lane & 1 for lane in range(LANES)], bool)
        mask = (planes & shown)[:, None] & lanes

        def commit():
            self.mem[addr][mask] = sample[mask]

        self.todo[self.now + MEM_WRITE_TO_READ - 1].append(lambda: commit)
        return None

    def load_index(self, instr):
        lanes = self.streams[self.now][instr.dir.value]

        def commit():
            self.index[instr.index] = Index.of(lanes, INDEX_BITS)

        return commit

    async def pass_cycle(self, instr=None, offsets=(0, 0), streams=None):
        """A cycle of the bench, with the reference's: elements read first, then what they write is committed."""
        self.dut.offsets__0.value, self.dut.offsets__1.value = offsets
        now = self.now
        if streams is None:
            streams = self.rng.integers(-(1 << 31), 1 << 31, (2, LANES))
        self.streams[now] = streams
        commits = [action() for action in self.todo.pop(now, ())]
        await self.step(instr, streams)
        for commit in commits:
            if commit:
                commit()


def random_instr(rng):
    op = rng.choice([Op.READ, Op.READ, Op.WRITE, Op.WRITE, Op.INDEX])
    way = {"dir": Dir(int(rng.integers(2)))}
    if op is Op.INDEX:
        return Instr(op, fields={"index": int(rng.integers(1, 8)), **way})
    weights = {"weights": int(rng.choice([0, *GROUPS]))} if op is Op.READ else {}
    return Instr(op, fields={
        "count": int(rng.integers(1, 7)), "interval": int(rng.choice([1, 1, 2, 3])),
        "addr": int(rng.integers(DEPTH - 24, DEPTH)), "stride": int(rng.integers(-3, 4)), "rel": int(rng.integers(4)),
        "index": int(rng.integers(8)), "planes": int(rng.choice([15, 15, rng.integers(16)])), **way, **weights})


@cocotb.test()
async def random_bursts(dut):
    """Everything driven in every cycle, and the contents at the end."""
    bench = Reference(dut)
    await bench.start()
    await bench.fill()
    dispatched: dict[AnyOp, int] = {Op.READ: 0, Op.WRITE: 0, Op.INDEX: 0}
    offset = 1
    for _ in range(2500):
        streams = bench.rng.integers(-(1 << 31), 1 << 31, (2, LANES))
        if any(bench.todo.get(bench.now, ())):
            streams[:, 0] = bench.rng.integers(0, 8, 2) | streams[:, 0] & 0xFFFF0000
        instr = random_instr(bench.rng)
        offsets = (int(bench.rng.integers(4)), (1 << 20) - offset)
        offset = int(bench.rng.integers(1, 4))
        if bench.plan(instr, offsets):
            dispatched[instr.op] += 1
            await bench.pass_cycle(instr, offsets, streams)
        else:
            await bench.pass_cycle(streams=streams)
    for _ in range(30):
        await bench.pass_cycle()
    assert not bench.traps, bench.traps[:3]
    assert all(number > 200 for number in dispatched.values()), dispatched
    await compare(bench)


async def compare(bench, quads: Sequence[int] = range(DEPTH)):
    """Contents through the host port, one access a cycle."""
    begin = bench.now
    places = [(quad, plane) for quad in quads for plane in range(PLANES)]
    for place in places:
        await bench.host(*place)
    for _ in range(HOST_LATENCY):
        await bench.step()
    for cycle, place in enumerate(places, begin + HOST_LATENCY):
        assert bench.rdata[cycle] == int.from_bytes(bench.mem[place].tobytes(), "little")


@cocotb.test()
async def host_read_after_write(dut):
    """A read in the cycle behind a write of the same quad sees it; no other cycle shows data."""
    bench = Reference(dut, 1)
    await bench.start()
    for quad in (0, DEPTH - 17, DEPTH - 16, DEPTH - 1):
        data = bench.rng.integers(1, 256, LANES, dtype=np.uint8)
        await bench.host(quad, 2, data)
        issued = bench.now
        await bench.host(quad, 2)
        for _ in range(6):
            await bench.step()
        seen = [bench.rdata[issued + n] for n in range(6)]
        want = int.from_bytes(data.tobytes(), "little")
        assert seen == [want if n == HOST_LATENCY else 0 for n in range(6)]


@cocotb.test()
async def write_to_read_and_index_latencies(dut):
    """The earliest READ behind a WRITE, and the earliest use of an index register, exactly."""
    bench = Reference(dut, 2)
    await bench.start()
    await bench.fill()
    write = Instr(Op.WRITE, fields={"addr": 9, "planes": 15})
    for gap in range(1, 5):
        if gap == 1:
            continue  # forbidden: see `traps`
        assert bench.plan(write, (0, 0))
        await bench.pass_cycle(write)
        for _ in range(gap - 1):
            await bench.pass_cycle()
        read = Instr(Op.READ, fields={"addr": 9, "planes": 15, "dir": WAYS[0]})
        assert bench.plan(read, (0, 0))
        await bench.pass_cycle(read)
        for _ in range(5):
            await bench.pass_cycle()
    vector = np.zeros((2, LANES), np.int64)
    index = Instr(Op.INDEX, fields={"index": 1})
    for offset, planes in ((2, 15), (7, 5)):
        vector[:, :3] = offset, 0xFFFF, planes
        assert bench.plan(index, (0, 0))
        await bench.pass_cycle(index)
        for n in range(1, MEM_INDEX + 1):
            read = Instr(Op.READ, fields={"addr": 3, "index": int(n == 2 or offset == 7), "planes": 15,
                                          "weights": GROUPS[0]})
            assert bench.plan(read, (0, 0))
            await bench.pass_cycle(read, streams=vector if n == 1 else None)
        for _ in range(5):
            await bench.pass_cycle()
        assert bench.index[1] == Index(offset, (1 << LANES) - 1, planes)
    assert not bench.traps


@cocotb.test()
async def every_bit_of_an_offset(dut):
    """Quads whose numbers have one bit, each read and written through an index register that holds its number."""
    bench = Reference(dut, 5)
    await bench.start()
    quads = [1 << bit for bit in range((DEPTH - 1).bit_length())]
    for quad in quads:
        for plane in range(PLANES):
            bench.mem[quad, plane] = bench.rng.integers(0, 256, LANES, dtype=np.uint8)
            await bench.host(quad, plane, bench.mem[quad, plane])
    index = Instr(Op.INDEX, fields={"index": 1})
    move = {"addr": 0, "index": 1, "planes": 15}
    vector = np.zeros((2, LANES), np.int64)
    for quad in quads:
        vector[:, :3] = quad, -1, -1
        for instr, streams in ((index, None), (None, vector), (Instr(Op.READ, fields=move | {"dir": WAYS[0]}), None),
                               (Instr(Op.WRITE, fields=move), None), *[(None, None)] * 5):
            assert instr is None or bench.plan(instr, (0, 0))
            await bench.pass_cycle(instr, streams=streams)
        assert bench.index[1].offset == quad
    assert not bench.traps
    await compare(bench, quads)


@cocotb.test()
async def traps(dut):
    """Each way to be illegal, and its nearest legal neighbour."""
    bench = Reference(dut, 3)
    bench.observe = lambda: None
    await bench.start()

    def read(**fields):
        return Instr(Op.READ, fields={"planes": 15, "dir": WAYS[0], **fields})

    def write(**fields):
        return Instr(Op.WRITE, fields={"planes": 15, **fields})

    assert await traps_of(bench, read(count=4), write(addr=20, count=4), read(addr=9)) == {Trap.ENGINE_BUSY}
    assert await traps_of(bench, read(count=2), None, read()) == set()
    assert await traps_of(bench, write(addr=5), read(addr=5)) == {Trap.BANK_CONFLICT}
    assert await traps_of(bench, write(addr=5, planes=0), read(addr=5)) == {Trap.BANK_CONFLICT}
    assert await traps_of(bench, write(addr=5), None, read(addr=5), write(addr=6), read(addr=5)) == set()
    assert await traps_of(bench, read(addr=DEPTH)) == {Trap.ADDRESS}
    assert await traps_of(bench, read(addr=DEPTH - 1, count=2, stride=1)) == {Trap.ADDRESS}
    assert await traps_of(bench, write(addr=0, count=2, stride=-1)) == {Trap.ADDRESS}
    assert await traps_of(bench, write(addr=DEPTH - 1, count=2, stride=-1)) == set()
    for way in Dir:
        assert await traps_of(bench, read(dir=way)) == (set() if way in WAYS else {Trap.ADDRESS})
        for group in range(1, 4):
            expected = set() if group in GROUPS else {Trap.ADDRESS}
            assert await traps_of(bench, read(dir=way, weights=group), write(dir=way)) == expected
    dut.e_driven.value = 7
    assert await traps_of(bench, write()) == {Trap.EMPTY_READ}
    assert await traps_of(bench, write(planes=7), write(dir=Dir.W)) == set()
    assert await traps_of(bench, Instr(Op.INDEX)) == {Trap.EMPTY_READ}
    assert await traps_of(bench, Instr(Op.INDEX, fields={"dir": Dir.W})) == set()


@cocotb.test()
async def busy(dut):
    """`busy` from the cycle behind the dispatch to the last element."""
    bench = Reference(dut, 4)
    seen = []
    bench.observe = lambda: seen.append(int(dut.busy.value))
    await bench.start()
    await bench.step(Instr(Op.READ, fields={"count": 3, "interval": 2}))
    for _ in range(9):
        await bench.step()
    assert seen == [0, 1, 1, 1, 1, 1, 0, 0, 0, 0]
