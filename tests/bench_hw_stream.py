"""cocotb bench of the stream registers: random drives in every cycle, against packets that are shifted by hand.

Started by test_hw_stream.py.
"""

from collections import defaultdict
from dataclasses import dataclass

import cocotb
import numpy as np
from unit_bench import CONFIG, LANES, Bench, known

from arch.config import MEM_E, MEM_W, PLANES, POSITIONS
from arch.row import queues

QUEUES = queues(CONFIG)
ROWS = {"e": 1, "w": -1}
"""Directions, and the position to which a packet moves in a cycle."""


@dataclass(frozen=True)
class Source:
    """Ports through which a unit drives a group: <port>_data__<unit> and <port>_drive__<unit>."""

    port: str
    unit: int
    row: str
    position: int
    group: int

    @property
    def streams(self):
        """Its streams."""
        return slice(PLANES * self.group, PLANES * (self.group + 1))

    def ports(self, data, drive):
        """What it drives, as values of its ports; those of one unit are to be ORed."""
        at = PLANES * max(0, self.group - 1)
        return {f"{self.port}_data__{self.unit}": data, f"{self.port}_drive__{self.unit}": drive << at}


SOURCES = [Source(row, n, row, queue.position, 0) for n, queue in enumerate(QUEUES) for row in ROWS]
SOURCES += [Source("weights", n, {MEM_W: "w", MEM_E: "e"}[queue.position], queue.position, group)
            for n, queue in enumerate(QUEUES) if queue.unit == "MEM" for group in CONFIG.weight_groups_of(queue.slice)]


VECTOR = slice(PLANES)
"""Streams of the vector group."""


def shifted(state, drives, clear=False):
    """One cycle: by row, values uint8 [position, stream, lane] and driven bool [position, stream]."""
    after = {}
    for row, step in ROWS.items():
        values, driven = (array.copy() for array in state[row])
        for source, (data, drive) in drives.items():
            if source.row == row:
                values[source.position, source.streams][drive] = data[drive]
                driven[source.position, source.streams] |= drive
        moved = np.zeros_like(values), np.zeros_like(driven)
        for new, old in zip(moved, (values, driven), strict=True):
            if step > 0:
                new[1:] = old[:-1]
            else:
                new[:-1] = old[1:]
        if clear:
            moved[0][[MEM_W, MEM_E], VECTOR] = 0
        after[row] = moved
    return after


def random_drives(rng, may_meet):
    """(data, drive) by source, and whether two meet: at one position in one stream, only if they may."""
    taken, drives, data, meet = {}, {}, {}, False
    for source in SOURCES:
        slot = source.row, source.position, source.group
        drive, others = rng.random(PLANES) < 0.2, taken.get(slot, np.zeros(PLANES, bool))
        meet |= bool((drive & others).any())
        if not may_meet:
            drive &= ~others
        taken[slot] = drive | others
        values = data.setdefault((source.port, source.unit), rng.integers(0, 256, (PLANES, LANES), dtype=np.uint8))
        drives[source] = values, drive
    return drives, meet and may_meet


def bits(array):
    return int.from_bytes(np.packbits(array, bitorder="little").tobytes() if array.dtype == bool else array.tobytes(),
                          "little")


class StreamBench(Bench):
    """The registers as they stand (after `reset`, undriven): by direction, values and driven bits."""

    def __init__(self, dut, seed=0):
        super().__init__(dut)
        self.rng = np.random.default_rng(seed)
        self.state = {name: (np.zeros((POSITIONS, CONFIG.streams, LANES), np.uint8),
                             np.zeros((POSITIONS, CONFIG.streams), bool)) for name in ROWS}
        self.seen = {}
        self.collision = 0
        self.cleared = False

    async def reset(self):
        """Also until the registers, which have no reset, are empty."""
        await self.restart(**{f"{port}_{kind}__{n}": 0 for port in (*ROWS, "weights") for kind in ("data", "drive")
                              for n in range(len(QUEUES))}, clear=0)
        for _ in range(POSITIONS):
            await self.cycle()

    def observe(self):
        self.collision = self.get("collision")
        self.seen = {row: [(str(getattr(self.dut, f"{row}__{p}").value), self.get(f"{row}_driven__{p}"))
                           for p in range(POSITIONS)] for row in ROWS}

    async def drive(self, drives, clear=False):
        """One cycle in which the sources drive (data, drive), with `clear` or not."""
        values = defaultdict(int)
        for source, (data, drive) in drives.items():
            for port, value in source.ports(bits(data), bits(drive)).items():
                values[port] |= value
        await self.cycle(**values, clear=int(clear))
        self.state, self.cleared = shifted(self.state, drives, clear), clear

    def check(self, state, cleared=False):
        """What is driven, and what the driven slots hold; if cleared, the vector group at the MEM slices is 0, too."""
        for row, (values, driven) in state.items():
            for p, (text, drive) in enumerate(self.seen[row]):
                assert drive == bits(driven[p]), f"cycle {self.now - 1}, {row}{p} driven"
                empty = cleared and p in (MEM_W, MEM_E)
                value = known(text, drive | (1 << PLANES) - 1 if empty else drive)
                held = np.frombuffer(value.to_bytes(CONFIG.streams * LANES, "little"), np.uint8).reshape(-1, LANES)
                assert (held == values[p])[driven[p]].all(), f"cycle {self.now - 1}, {row}{p}"
                if empty:
                    assert not held[VECTOR].any(), f"cycle {self.now - 1}, {row}{p} cleared"


@cocotb.test()
async def every_register_in_every_cycle(dut):
    bench = StreamBench(dut)
    await bench.reset()
    for _ in range(300):
        state, cleared = bench.state, bench.cleared
        await bench.drive(random_drives(bench.rng, may_meet=False)[0], clear=bench.rng.random() < 0.3)
        bench.check(state, cleared)
        assert not bench.collision


@cocotb.test()
async def collisions(dut):
    """Seen in the very cycle."""
    bench = StreamBench(dut, 1)
    await bench.reset()
    found = 0
    for n in range(60):
        drives, meet = random_drives(bench.rng, may_meet=n % 3 > 0)
        await bench.drive(drives)
        assert bench.collision == meet
        found += bench.collision
    assert 10 < found <= 40


@cocotb.test()
async def one_position_a_cycle(dut):
    """From each source to each position beyond: as many cycles as there are hops, and nothing else anywhere."""
    bench = StreamBench(dut)
    await bench.reset()
    for source in SOURCES:
        await bench.cycle(**source.ports(0xA5, 1))
        for hops in range(1, POSITIONS + 1):
            await bench.cycle()
            seen = {(name, p): slot for name in ROWS for p, slot in enumerate(bench.seen[name]) if slot[1]}
            there, first = source.position + ROWS[source.row] * hops, PLANES * source.group
            text, drive = seen.pop((source.row, there)) if 0 <= there < POSITIONS else ("0", 0)
            assert not seen
            if drive:
                value = known(text, drive)
                assert (drive, value >> CONFIG.plane_bits * first & (1 << CONFIG.plane_bits) - 1) == (1 << first, 0xA5)
