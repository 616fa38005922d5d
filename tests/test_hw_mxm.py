"""The MXMs against `arch.numerics`, cycle by cycle (bench_hw_mxm.py holds the vectors)."""

import dataclasses

import pytest

from arch.config import CONFIGS, REGISTERS
from arch.row import queues
from hw.mxm import Mxm
from sim.check.cocotb_runner import run_cocotb


@pytest.mark.parametrize(("name", "side", "lanes"), [
    ("tiny", "E", 16), ("large", "W", 16), ("tiny", "E", 8), ("tiny", "E", 4), ("ulx3s", "W", 8), ("wide", "E", 16),
    ("mega", "E", 16)])
def test_mxm(name: str, side: str, lanes: int):
    bench(name, side, lanes)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "side", "lanes"), [("tiny", "E", 4), ("ulx3s", "W", 8)])
def test_mxm_of_four_states(name: str, side: str, lanes: int):
    """In Icarus Verilog: no driven plane has an unknown bit (X)."""
    bench(name, side, lanes, "icarus")


@pytest.mark.parametrize(("name", "side", "lanes"), [
    ("tiny", "E", 8), pytest.param("ulx3s", "W", 8, marks=pytest.mark.nightly)])
def test_mxm_with_all_optional_registers(name: str, side: str, lanes: int):
    bench(name, side, lanes, registers=tuple(REGISTERS))


def bench(name: str, side: str, lanes: int, simulator: str | None = None, registers: tuple[str, ...] = ()) -> None:
    """Run the bench; all its tests pass."""
    config = dataclasses.replace(CONFIGS[name], lanes=lanes, debug=True, registers=registers)
    queue = next(queue for queue in queues(config) if queue.name == f"MXM_{side}")
    env = {"CONFIG": name, "LANES": str(lanes), "OUTWARD": str("EW".index(side)),
           "REGISTERS": " ".join(registers)}
    result = run_cocotb(Mxm(config=config, queue=queue), "bench_hw_mxm", toplevel_name="mxm", env=env,
                        simulator=simulator)
    assert len(result.passed) == 4 + config.drain_max
