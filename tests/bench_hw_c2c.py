"""cocotb tests of a C2C in a debug build; started by test_hw_c2c.py."""

import os

import cocotb
import numpy as np
from unit_bench import LANES, Checked, UnitBench, elements, log, traps_of

from arch.config import PLANES
from arch.host_map import Trap
from arch.isa import C2C_RECEIVE, C2C_SEND, AnyOp, Instr, LinkOp, Op, encode

OUT = "EW".index(os.environ["SIDE"])
IN = 1 - OUT
PORTS = int(os.environ["PORTS"])


def send(**fields) -> Instr:
    return Instr(LinkOp.SEND, fields=fields)


def receive(**fields) -> Instr:
    return Instr(LinkOp.RECEIVE, fields=fields)


def plane_of(lanes: np.ndarray, plane: int) -> int:
    """The flit of a byte plane of int32 lanes."""
    return int.from_bytes((lanes >> 8 * plane & 255).astype(np.uint8).tobytes(), "little")


class C2cBench(Checked):
    """A C2C with what it should send and drive; a random flit arrives at every port in every cycle."""

    def __init__(self, dut, seed: int = 0):
        super().__init__(dut, seed)
        self.sends: dict[int, tuple[int, int]] = {}
        self.takes: dict[int, tuple[int, int]] = {}
        self.flits: list[int] = [0] * PORTS
        self.free: dict[AnyOp, int] = {LinkOp.SEND: 0, LinkOp.RECEIVE: 0}
        self.sent = self.taken = 0

    async def reset(self) -> None:
        self.set(flits=0, begins=1, arrived=(1 << PORTS) - 1)
        await super().reset()

    async def step(self, instr: Instr | None = None, streams=None, word=None) -> None:
        self.flits = [int.from_bytes(self.rng.bytes(LANES), "little") for _ in range(PORTS)]
        self.set(flits=sum(flit << 8 * LANES * n for n, flit in enumerate(self.flits)))
        if instr:
            cycles = elements(self.now, instr)
            self.free[instr.op] = cycles[-1]
            wanted = (instr.plane, instr.ports) if instr.op is LinkOp.SEND else (instr.port, instr.planes)
            table = self.sends if instr.op is LinkOp.SEND else self.takes
            table |= dict.fromkeys(cycles, wanted)
        await super().step(instr, streams, word)

    def observe(self) -> None:
        plane, ports = self.sends.pop(self.now - C2C_SEND, (0, 0))
        assert self.get("send") == ports, f"cycle {self.now}"
        if ports:
            assert self.get("data") == plane_of(self.streams[self.now][OUT], plane)
            self.sent += 1
        port, planes = self.takes.pop(self.now - C2C_RECEIVE, (0, 0))
        assert self.get("take") == (1 << port if planes else 0), f"cycle {self.now}"
        data = sum(self.flits[port] << 8 * LANES * plane for plane in range(PLANES) if planes >> plane & 1)
        assert self.seen[IN] == (data, planes) and self.seen[OUT] == (0, 0), f"cycle {self.now}"
        self.taken += planes > 0


@cocotb.test()
async def random_bursts(dut):
    bench = C2cBench(dut)
    await bench.reset()
    for _ in range(800):
        rng = bench.rng
        burst = {"count": int(rng.integers(1, 12)), "interval": int(rng.choice([1, 2, 4, 5]))}
        instr = (send(**burst, plane=int(rng.integers(PLANES)), ports=int(rng.integers(1, 1 << PORTS)))
                 if rng.random() < 0.5 else
                 receive(**burst, port=int(rng.integers(PORTS)), planes=int(rng.integers(1, 1 << PLANES))))
        while bench.now < bench.free[instr.op]:
            await bench.step()
        await bench.step(instr)
    for _ in range(80):
        await bench.step()
    assert not bench.traps, bench.traps
    log(f"{bench.now} cycles, {bench.sent} flits sent, {bench.taken} taken")
    assert bench.sent > 1500 and bench.taken > 1500


@cocotb.test()
async def illegal_programs_trap(dut):
    bench = UnitBench(dut)
    bench.set(flits=0, begins=1, arrived=(1 << PORTS) - 1)
    await bench.reset()
    for instr in (send(), receive()):
        assert await traps_of(bench, instr) == set()
    for instr in (send(count=3), receive(count=3)):
        assert await traps_of(bench, instr, instr) == {Trap.ENGINE_BUSY}
    assert await traps_of(bench, send(count=3), receive(count=3)) == set()
    assert await traps_of(bench, encode(Instr(Op.LOAD))) == {Trap.OPCODE}
    if PORTS < 4:
        assert await traps_of(bench, send(ports=1 << PORTS)) == {Trap.ADDRESS}
        assert Trap.ADDRESS in await traps_of(bench, receive(port=PORTS))
    bench.set(begins=0)
    assert await traps_of(bench, send()) == {Trap.COLLISION}
    bench.set(begins=1, arrived=0)
    assert await traps_of(bench, receive()) == {Trap.EMPTY_READ}
    bench.set(arrived=(1 << PORTS) - 1)
    bench.set(**{"ew"[OUT] + "_driven": 0b1101})
    assert await traps_of(bench, send(plane=1)) == {Trap.EMPTY_READ}
    assert await traps_of(bench, send(plane=2)) == set()
