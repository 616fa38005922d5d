"""The SXM against `arch.numerics`, cycle by cycle (bench_hw_sxm.py holds the vectors)."""

import dataclasses

import pytest

from arch.config import CONFIGS, REGISTERS
from arch.row import queues
from hw.sxm import Sxm
from sim.check.cocotb_runner import run_cocotb


@pytest.mark.parametrize(("name", "side", "lanes"), [
    ("tiny", "E", 16), ("large", "W", 16), ("tiny", "E", 8), ("tiny", "E", 4)])
def test_sxm(name: str, side: str, lanes: int):
    bench(name, side, lanes)


@pytest.mark.nightly  # the lockstep test of a chip with all of them runs every time
def test_sxm_with_all_optional_registers():
    bench("tiny", "E", 4, tuple(REGISTERS))


def bench(name: str, side: str, lanes: int, registers: tuple[str, ...] = ()) -> None:
    """Run the bench; all its tests pass."""
    config = dataclasses.replace(CONFIGS[name], lanes=lanes, debug=True, registers=registers)
    queue = next(queue for queue in queues(config) if queue.name == f"SXM_{side}")
    env = {"CONFIG": name, "LANES": str(lanes), "OUTWARD": str("EW".index(side))}
    result = run_cocotb(Sxm(config=config, queue=queue), "bench_hw_sxm", toplevel_name="sxm", env=env)
    assert len(result.passed) == 5
