"""cocotb bench of the stream registers: random drives in every cycle, against packets that are shifted by hand.

Started by test_hw_stream.py.
"""

import cocotb
import numpy as np
from unit_bench import Bench

from hw.config import CONFIGS, POSITIONS
from hw.isa import queues
from hw.slice import PLANE_BITS

CONFIG = CONFIGS["tiny"]
PLACES = tuple(queue.position for queue in queues(CONFIG))
BYTES = PLANE_BITS // 8
ROWS = {"e": 1, "w": -1}
"""Directions, and the position to which a packet moves in a cycle."""


def shifted(values, driven, drives, step):
    """One cycle of one direction: values uint8 [position, stream, 16], driven bool [position, stream]."""
    values, driven = values.copy(), driven.copy()
    for position, (data, drive) in zip(PLACES, drives, strict=True):
        values[position][drive] = data[drive]
        driven[position] |= drive
    after, after_driven = np.zeros_like(values), np.zeros_like(driven)
    if step > 0:
        after[1:], after_driven[1:] = values[:-1], driven[:-1]
    else:
        after[:-1], after_driven[:-1] = values[1:], driven[1:]
    return after, after_driven


def random_drives(rng, may_meet):
    """(data, drive) of every unit, and whether two meet: at one position in one stream, only if they may."""
    taken = {position: np.zeros(CONFIG.streams, bool) for position in PLACES}
    drives, meet = [], False
    for position in PLACES:
        drive = rng.random(CONFIG.streams) < 0.2
        meet |= bool((drive & taken[position]).any())
        if not may_meet:
            drive &= ~taken[position]
        taken[position] |= drive
        data = rng.integers(0, 256, (CONFIG.streams, BYTES), dtype=np.uint8)
        drives.append((data * drive[:, None], drive))
    return drives, meet and may_meet


def bits(array):
    return int.from_bytes(np.packbits(array, bitorder="little").tobytes() if array.dtype == bool else array.tobytes(),
                          "little")


class StreamBench(Bench):
    """The registers as they stand (after `reset`, undriven): by direction, values and driven bits."""

    def __init__(self, dut, seed=0):
        super().__init__(dut)
        self.rng = np.random.default_rng(seed)
        self.state = {name: (np.zeros((POSITIONS, CONFIG.streams, BYTES), np.uint8),
                             np.zeros((POSITIONS, CONFIG.streams), bool)) for name in ROWS}
        self.seen = {}
        self.collision = 0

    async def reset(self):
        """Also until the registers, which have no reset, are empty."""
        await self.restart(**{f"{row}_{kind}__{n}": 0 for row in ROWS for kind in ("data", "drive")
                              for n in range(len(PLACES))})
        for _ in range(POSITIONS):
            await self.cycle()

    def observe(self):
        self.collision = self.get("collision")
        self.seen = {row: [(self.get(f"{row}__{p}"), self.get(f"{row}_driven__{p}")) for p in range(POSITIONS)]
                     for row in ROWS}

    async def drive(self, drives):
        """One cycle in which the units drive; by direction, (data, drive) of each."""
        await self.cycle(**{f"{row}_{kind}__{n}": bits(value) for row, units in drives.items()
                            for n, unit in enumerate(units) for kind, value in zip(("data", "drive"), unit, strict=True)
                            })
        for row, units in drives.items():
            self.state[row] = shifted(*self.state[row], units, ROWS[row])

    def check(self, state):
        for row, (values, driven) in state.items():
            wanted = [(bits(values[p]), bits(driven[p])) for p in range(POSITIONS)]
            assert self.seen[row] == wanted, f"cycle {self.now - 1}, {row}"


@cocotb.test()
async def every_register_in_every_cycle(dut):
    bench = StreamBench(dut)
    await bench.reset()
    for _ in range(300):
        state = dict(bench.state)
        await bench.drive({row: random_drives(bench.rng, may_meet=False)[0] for row in ROWS})
        bench.check(state)
        assert not bench.collision


@cocotb.test()
async def collisions(dut):
    """Seen in the very cycle."""
    bench = StreamBench(dut, 1)
    await bench.reset()
    found = 0
    for n in range(60):
        rows = {row: random_drives(bench.rng, may_meet=n % 3 > 0) for row in ROWS}
        await bench.drive({row: drives for row, (drives, _) in rows.items()})
        assert bench.collision == any(meet for _, meet in rows.values())
        found += bench.collision
    assert 10 < found <= 40


@cocotb.test()
async def one_position_a_cycle(dut):
    """From each unit to each position: as many cycles as there are hops, and nothing else anywhere."""
    bench = StreamBench(dut)
    await bench.reset()
    for n, place in enumerate(PLACES):
        for row, step in ROWS.items():
            await bench.cycle(**{f"{row}_data__{n}": 0xA5, f"{row}_drive__{n}": 1})
            for hops in range(1, POSITIONS + 1):
                await bench.cycle()
                seen = {(name, p): slot for name in ROWS for p, slot in enumerate(bench.seen[name]) if any(slot)}
                there = place + step * hops
                assert seen == ({(row, there): (0xA5, 1)} if 0 <= there < POSITIONS else {})
