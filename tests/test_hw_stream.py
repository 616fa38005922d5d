"""The stream registers: random drives in every cycle, against packets that are shifted by hand."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from hw.config import CONFIGS, POSITIONS
from hw.isa import queues
from hw.slice import PLANE_BITS
from hw.stream import Streams

CONFIG = replace(CONFIGS["tiny"], debug=True)
PLACES = tuple(queue.position for queue in queues(CONFIG))
BYTES = PLANE_BITS // 8


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
    """(data, drive) of every unit; at one position no stream is driven twice, unless they may meet."""
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


def test_every_register_in_every_cycle():
    rng = np.random.default_rng(0)
    streams: Any = Streams(config=CONFIG, positions=PLACES)
    state = {name: (np.zeros((POSITIONS, CONFIG.streams, BYTES), np.uint8), np.zeros((POSITIONS, CONFIG.streams), bool))
             for name in "ew"}
    collisions = []

    async def cycle(ctx, may_meet):
        meets = []
        for name, step in (("e", 1), ("w", -1)):
            drives, meet = random_drives(rng, may_meet)
            meets.append(meet)
            for n, (data, drive) in enumerate(drives):
                ctx.set(getattr(streams, f"{name}_data")[n], bits(data))
                ctx.set(getattr(streams, f"{name}_drive")[n], bits(drive))
            state[name] = shifted(*state[name], drives, step)
        collisions.append((ctx.get(streams.collision), any(meets)))
        await ctx.tick()

    async def bench(ctx):
        for _ in range(60):
            await cycle(ctx, may_meet=False)
            for name, (values, driven) in state.items():
                for p in range(POSITIONS):
                    assert ctx.get(getattr(streams, name)[p]) == bits(values[p])
                    assert ctx.get(getattr(streams, f"{name}_driven")[p]) == bits(driven[p])
        for _ in range(20):
            await cycle(ctx, may_meet=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulator = Simulator(streams)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
    assert all(seen == wanted for seen, wanted in collisions)
    assert not any(seen for seen, _ in collisions[:60])
    assert any(seen for seen, _ in collisions[60:])
