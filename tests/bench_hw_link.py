"""cocotb tests of two ends of a link with lines between them; started by test_hw_link.py."""

import os

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from link_rig import BEAT, LINE_BITS, SIDES, UNIT_INTERVAL

from hw.link.parameters import LinkParameters
from hw.link.receive import Fault
from hw.link.train import State

LINK = LinkParameters(lanes=int(os.environ["LANES"]), pins=int(os.environ["PINS"]), ratio=int(os.environ["RATIO"]),
                      taps=int(os.environ["TAPS"]))
LATENCY = int(os.environ["LATENCY"])
CORE = BEAT * LINK.ratio
SLOT = CORE * LINK.slot
RUNS = int(os.environ.get("RUNS", "4"))
SHIFT = UNIT_INTERVAL // 2 if LINK.taps == 1 else 0
"""With a fixed input delay the clock is sent in the middle of a bit, else training finds the middle."""


class LinkBench:
    """Both ends; time in ticks."""

    def __init__(self, dut, seed: int = 0):
        self.dut, self.rng = dut, np.random.default_rng(seed)

    def set(self, **inputs: int) -> None:
        for name, value in inputs.items():
            getattr(self.dut, name).value = value

    def get(self, name: str) -> int:
        return int(getattr(self.dut, name).value)

    def both(self, name: str) -> list[int]:
        return [self.get(f"{side}_{name}") for side in SIDES]

    async def wait(self, ticks: int) -> None:
        await ClockCycles(self.dut.clk, ticks)

    async def power_up(self, *, skews=None, phases=(0, 5), latency: int = LATENCY, **inputs: int) -> None:
        """All inputs to rest, the reset, and lines of these delays: of side a's pins and clock, of side b's."""
        skews = skews if skews is not None else [[10] * (LINK.pins + 1)] * 2
        rest = {"reset": 1, "rst": 0, "latency": latency, "clock_shift": SHIFT, "traffic": 0, "from_slot": 0,
                "to_slot": 0, "end_slot": 0, "go": 0}
        for side, skew, phase in zip(SIDES, skews, phases, strict=True):
            rest |= {f"{side}_{name}": 0 for name in ("off", "retrain", "clear", "flip", "cut", "retard")}
            rest |= {f"{side}_phase": phase,
                     f"{side}_skew": sum(ticks << LINE_BITS * n for n, ticks in enumerate(skew))}
        self.set(**(rest | inputs))
        await self.wait(4 * CORE)
        self.set(reset=0)

    async def train(self, most: int = 40_000) -> None:
        """Waits till both sides are up, in core cycles."""
        for _ in range(most // 64):
            await self.wait(64 * CORE)
            if all(self.both("up")):
                return
        raise AssertionError(f"states {self.both('state')}, lanes {self.both('lane')}, up {self.both('up')}, "
                             f"errors {self.both('errors')}")


async def started(dut, seed: int = 0) -> LinkBench:
    Clock(dut.clk, 2, unit="ns").start()
    return LinkBench(dut, seed)


@cocotb.test()
async def first(dut):
    bench = await started(dut)
    await bench.power_up()
    for _ in range(40):
        await bench.wait(500 * CORE)
        print([f"{n}:{bench.both(n)}" for n in ("state", "lane", "up", "errors", "counter", "least", "greatest")])
        if all(bench.both("up")): break
    print(bench.both("arrival"), bench.both("slot_tick"))
    await bench.wait(500*CORE)
    print([f"{n}:{bench.both(n)}" for n in ("state", "lane", "up", "errors", "counter", "least", "greatest")])
