"""What the cocotb benches share: time in steps of a cycle; for units one dispatch a cycle, streams in, drives out."""

import os
from dataclasses import dataclass, field, replace

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from arch.config import CONFIGS, PLANES
from arch.host_map import Trap
from arch.isa import ENGINE, Instr, encode
from arch.latencies import latencies

CORNERS = (0, 1, -1, 2, 127, 128, -128, -129, 32767, 32768, -32768, -32769, 131071, 131072, -131072, -131073,
           8388607, -8388608, (1 << 31) - 1, -(1 << 31), -(1 << 31) + 1, 1 << 30)

CONFIG = CONFIGS[os.environ.get("CONFIG", "tiny")]
CONFIG = replace(CONFIG, lanes=int(os.environ.get("LANES", CONFIG.lanes)),
                 vxm_fold=int(os.environ.get("FOLD", CONFIG.vxm_fold)),
                 registers=tuple(os.environ.get("REGISTERS", "").split()))
TIMES = latencies(CONFIG)
LANES = CONFIG.lanes
ALL = (1 << PLANES) - 1


def random_lanes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """int64 lanes in the int32 range: all magnitudes are common, and so are corner values."""
    wide = rng.integers(-(1 << 31), 1 << 31, (*shape, LANES))
    scaled = wide >> rng.integers(0, 32, (*shape, LANES))
    corner = rng.choice(np.array(CORNERS), (*shape, LANES))
    return np.where(rng.random((*shape, LANES)) < 0.2, corner, scaled)


def pack(groups: np.ndarray) -> int:
    """int32 lanes [group, lane] (or one group) as the bits of the stream registers."""
    lanes = np.asarray(groups, np.int64).reshape(-1, LANES).astype(np.uint32)
    planes = lanes[..., None] >> (8 * np.arange(PLANES, dtype=np.uint32)) & 255
    return int.from_bytes(np.moveaxis(planes, -1, -2).astype(np.uint8).tobytes(), "little")


def unpack(bits: int, groups: int) -> np.ndarray:
    """The inverse of `pack`: int64 [group, lane]."""
    planes = np.frombuffer(bits.to_bytes(groups * PLANES * LANES, "little"), np.uint8).reshape(groups, PLANES, LANES)
    lanes = (planes.astype(np.uint32) << (8 * np.arange(PLANES, dtype=np.uint32))[:, None]).sum(1, dtype=np.uint32)
    return lanes.astype(np.int32).astype(np.int64)


def known(bits: str, planes: int) -> int:
    """The bits of a port as a number; an unknown one (X), which only a simulator of four states has, must not be in one
    of these byte planes, and counts as 0 elsewhere."""
    try:
        return int(bits, 2)
    except ValueError:
        size = 8 * LANES
        for p in range(len(bits) // size):
            plane = bits[len(bits) - size * (p + 1) : len(bits) - size * p]
            assert not planes >> p & 1 or set(plane) <= {"0", "1"}, f"plane {p} is driven and unknown: {plane}"
        return int("".join(bit if bit == "1" else "0" for bit in bits), 2)


E, W, WEIGHTS = range(3)
"""What a unit may drive: the vector group eastward and westward, and weight group 1 (group n: WEIGHTS + n - 1)."""


@dataclass
class Drives:
    """What a unit is expected to drive: (cycle, E, W or WEIGHTS) -> int32 lanes, on all planes."""

    expected: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def at(self, cycle: int, way: int) -> tuple[int, int]:
        """Bits of data and of drive of one way in one cycle."""
        lanes = self.expected.get((cycle, way))
        return (0, 0) if lanes is None else (pack(lanes), ALL)


class Bench:
    """Steps a component cycle by cycle; `now` is the cycle that the next step works in."""

    def __init__(self, dut):
        self.dut = dut
        self.now = 0

    def set(self, **inputs: int) -> None:
        """Inputs from the present cycle on."""
        for name, value in inputs.items():
            getattr(self.dut, name).value = value

    def get(self, name: str) -> int:
        """A port; to be called by `observe`, in the middle of a cycle."""
        return int(getattr(self.dut, name).value)

    async def restart(self, **inputs: int) -> None:
        """Starts the clock and resets the component."""
        Clock(self.dut.clk, 10, unit="ns").start()
        self.set(**inputs, rst=1)
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.set(rst=0)

    async def cycle(self, **inputs: int) -> None:
        """One cycle with these inputs, which are 0 behind it."""
        self.set(**inputs)
        await FallingEdge(self.dut.clk)
        self.observe()
        await RisingEdge(self.dut.clk)
        self.now += 1
        self.set(**dict.fromkeys(inputs, 0))

    def observe(self) -> None:
        """Called in the middle of every cycle."""


class UnitBench(Bench):
    """A bench of a unit's debug build.

    weight_groups: of an MXM, the weight groups that stream into it; they are random in every cycle.
    """

    def __init__(self, dut, seed: int = 0, weight_groups: int = 0):
        super().__init__(dut)
        self.rng = np.random.default_rng(seed)
        self.traps: list[tuple[int, int]] = []
        self.streams: dict[int, np.ndarray] = {}
        self.weights: dict[int, np.ndarray] = {}
        self.weight_groups = weight_groups
        self.seen: dict[int, tuple[int, int]] = {}

    async def reset(self) -> None:
        weights = {"weights": 0, "weights_driven": (1 << PLANES * self.weight_groups) - 1} if self.weight_groups else {}
        await self.restart(word=0, valid=0, e_in=0, w_in=0, e_driven=ALL, w_driven=ALL, **weights)

    async def step(
        self, instr: Instr | None = None, streams: np.ndarray | None = None, word: int | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        """One cycle: dispatch `instr` (or `word`), if any, with stream lanes [direction, lane] and weights
        [group, lane] (random if not given)."""
        dut = self.dut
        if streams is None:
            streams = random_lanes(self.rng, 2)
        self.streams[self.now] = streams
        if self.weight_groups:
            weights = random_lanes(self.rng, self.weight_groups) if weights is None else weights
            self.weights[self.now] = weights
            dut.weights.value = pack(weights)
        word = encode(instr) if instr else word
        dut.valid.value = int(word is not None)
        dut.word.value = word or 0
        dut.e_in.value, dut.w_in.value = pack(streams[E]), pack(streams[W])
        await FallingEdge(dut.clk)
        if traps := int(dut.traps.value):
            self.traps.append((self.now, traps))
        self.seen = self.drives()
        self.observe()
        await RisingEdge(dut.clk)
        self.now += 1

    def drives(self) -> dict[int, tuple[int, int]]:
        """What the unit drives in this cycle: by way (WEIGHTS + n for weight group n + 1), (data, drive); data is 0 on
        planes that it does not drive."""
        dut = self.dut
        ports = [(E, dut.e_data, dut.e_drive), (W, dut.w_data, dut.w_drive)]
        seen = {way: _driven(str(data.value), int(drive.value)) for way, data, drive in ports}
        if hasattr(dut, "weights_data"):
            data, drives = str(dut.weights_data.value), int(dut.weights_drive.value)
            groups = range(len(dut.weights_drive) // PLANES)
            seen |= {WEIGHTS + n: _driven(data, drives >> PLANES * n & ALL) for n in groups}
        return seen


def _driven(bits: str, drive: int) -> tuple[int, int]:
    data = known(bits, drive)
    plane = (1 << 8 * LANES) - 1
    mask = sum(plane << 8 * LANES * p for p in range(PLANES) if drive >> p & 1)
    return data & mask, drive


class Checked(UnitBench):
    """A bench that compares what is driven in every cycle with `expected`."""

    def __init__(self, dut, seed: int = 0, weight_groups: int = 0):
        super().__init__(dut, seed, weight_groups)
        self.expected = Drives()
        self.driven = 0

    def observe(self) -> None:
        for way, seen in self.seen.items():
            wanted = self.expected.at(self.now, way)
            assert seen == wanted, (
                f"cycle {self.now}, {('E', 'W', 'weights')[way]}: driven {seen[1]:b}, expected {wanted[1]:b}\n"
                f"{unpack(seen[0], 1)}\n{unpack(wanted[0], 1)}")
            self.driven += seen[1].bit_count()


def elements(dispatch: int, instr: Instr) -> list[int]:
    """The cycles in which the elements of a burst execute."""
    return [dispatch + ENGINE + i * instr.interval for i in range(instr.count)]


async def traps_of(bench: UnitBench, *instrs: Instr | int | None, after: int = 20) -> set[Trap]:
    """Dispatches words in successive cycles (None: nothing) and returns the traps they cause."""
    bench.traps.clear()
    for instr in (*instrs, *[None] * after):
        if isinstance(instr, int):
            await bench.step(word=instr)
        else:
            await bench.step(instr)
    return {trap for _, bits in bench.traps for trap in Trap if bits >> trap.value & 1}


def log(message: str) -> None:
    cocotb.log.info(message)
