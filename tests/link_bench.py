"""Two ends of a link in Verilator: clocks, lines, errors, and what both ends say."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from link_rig import BEAT, LINE_BITS, SIDES, UNIT_INTERVAL, Rig

from hw.link.parameters import LinkParameters
from hw.link.receive import Fault, record
from hw.link.train import State
from sim.rtl.ticked import Ticked

LATENCY = {(8, 9, 1): 15, (8, 9, 2): 11, (8, 5, 1): 21, (4, 5, 1): 15, (16, 18, 2): 11}
"""The latencies that the benches declare, by lanes, pins and ratio, of links without slack."""


@cache
def _model(link: LinkParameters) -> Ticked:
    return Ticked(Rig(link), "rig", held=True)


class Bench:
    """A rig behind its reset; times in ticks.

    skews: ticks of the lines from side a, and from side b: the data pins' and the clock's. phases: of the clocks.
    apart: core cycles by which side b's counter begins later than side a's. ppm: by which side b's clock is faster.
    """

    def __init__(self, link: LinkParameters, *, skews: Sequence[Sequence[int]] | None = None,
                 phases: Sequence[int] = (0, 5), latency: int | None = None, apart: int = 0, ppm: float = 0.0,
                 **inputs: int):
        self.link, self.model = link, _model(link)
        self.ppm, self._owed, self._phase = 0.0, 0.0, phases[1]
        self.core = BEAT * link.ratio
        self.slot = self.core * link.slot
        self.latency = LATENCY[link.lanes, link.pins, link.ratio] if latency is None else latency
        skews = [[10] * (link.pins + 1)] * 2 if skews is None else skews
        # With a fixed input delay the clock is sent in the middle of a bit; else training finds the middle.
        rest = {"reset": 1, "latency": self.latency, "clock_shift": UNIT_INTERVAL // 2 if link.taps == 1 else 0,
                "traffic": 0, "from_slot": 0, "to_slot": 0, "mark_slot": 0, "go": 0}
        for side, skew, phase in zip(SIDES, skews, phases, strict=True):
            rest |= {f"{side}_{name}": 0 for name in ("off", "retrain", "clear", "flip", "cut")}
            rest |= {f"{side}_phase": phase,
                     f"{side}_skew": sum(int(ticks) << LINE_BITS * n for n, ticks in enumerate(skew))}
        self.put(**(rest | inputs))
        self.run(4)
        self.put(reset=0, b_off=1)
        self.run(apart)
        self.put(b_off=inputs.get("b_off", 0))
        self.ppm = ppm

    def put(self, **inputs: int) -> None:
        for name, value in inputs.items():
            setattr(self.model, name, value)

    def get(self, name: str) -> int:
        return getattr(self.model, name)

    def both(self, name: str) -> list[int]:
        return [self.get(f"{side}_{name}") for side in SIDES]

    def run(self, cores: int) -> None:
        """Core cycles."""
        self.advance(cores * self.core)

    def advance(self, ticks: int) -> None:
        """Ticks, while side b's clock gains on the other's."""
        while ticks:
            some = min(ticks, max(1, int((1 - self._owed) / abs(self.ppm) * 1e6))) if self.ppm else ticks
            self.model.run(some)
            ticks -= some
            self._owed += some * abs(self.ppm) * 1e-6
            if self._owed >= 1:
                self._owed -= 1
                self.shift(-1 if self.ppm > 0 else 1)

    def shift(self, ticks: int) -> None:
        """Side b's clock comes later, from now on. A tick passes: put back by two at once it could have two edges."""
        self._phase = (self._phase + ticks) % 256
        self.put(b_phase=self._phase)
        self.model.run(1)

    def pulse(self, name: str) -> None:
        """One core cycle and a bit of an input."""
        self.put(**{name: 1})
        self.run(2)
        self.put(**{name: 0})
        self.run(2)

    def up(self, most: int = 60_000) -> bool:
        """Runs until both sides are up, or for so many cycles."""
        for _ in range(most // 64):
            self.run(64)
            if all(self.both("up")) or State.FAILED.value in self.both("state"):
                break
        return all(self.both("up"))

    def start(self, **inputs: int) -> None:
        """Waits until both sides are up, and forgets what was."""
        assert self.up(), self.status()
        for side in SIDES:
            self.pulse(f"{side}_clear")
        self.put(**inputs)

    def slot_of(self, side: str = "a") -> int:
        """The slot that the side is in."""
        return self.get(f"{side}_counter") >> self.link.phase_bits

    def traffic(self, kind: int, slots: int, ahead: int = 8) -> int:
        """Let both sides send by a rule for a number of slots. Returns the slot after the last."""
        first = self.slot_of() + ahead
        assert first + slots < 1 << 16
        self.put(traffic=kind, from_slot=first, to_slot=first + slots)
        return first + slots

    def until(self, slot: int) -> None:
        """Runs till side a is in a slot, which must be yet to come."""
        while (left := slot - self.slot_of()) > 0:
            self.advance((left - 1) * self.slot or self.core)

    def latencies(self) -> list[int]:
        """Ticks from the begin of a slot by a side's own counter to the arrival of the frame with its number. A tick
        that a clock has gained in between is no part of it: cycles count."""
        ticks = [arrival - begin for arrival, begin in zip(self.both("arrival"), self.both("slot_tick"), strict=True)]
        whole = [round(found / self.core) * self.core for found in ticks]
        return [near if self.ppm and abs(found - near) <= 1 else found
                for found, near in zip(ticks, whole, strict=True)]

    def faults(self, side: str) -> set[Fault]:
        """The sticky errors."""
        return {fault for fault in Fault if self.get(f"{side}_errors") >> fault.value & 1}

    def first(self, side: str) -> dict[str, int]:
        """The record of the first failure."""
        bits, found = self.get(f"{side}_first"), {}
        for name, field in record(self.link):
            found[name] = bits >> field.offset & (1 << field.width) - 1
        return found

    def status(self) -> str:
        return ", ".join(f"{name} {self.both(name)}" for name in (
            "state", "lane", "up", "errors", "counter", "counted", "least", "greatest", "corrected", "taken", "wrong"))


def random_lines(rng: np.random.Generator, link: LinkParameters, skew: int = 3) -> list[list[int]]:
    """Lines of any length up to 20 ticks, each pin up to `skew` ticks longer or shorter than the clock."""
    found = []
    for _ in SIDES:
        base = int(rng.integers(skew, 20 + skew))
        found.append([*(base + rng.integers(-skew, skew + 1, link.pins)).tolist(), base])
    return found
