"""The VXM against `arch.numerics`, cycle by cycle (bench_hw_vxm.py holds the vectors)."""

import dataclasses
import re

import pytest

from arch.config import CONFIGS, REGISTERS
from arch.row import queues
from hw.verilog import convert
from hw.vxm.unit import Vxm
from sim.check.cocotb_runner import run_cocotb


def vxm(lanes: int, fold: int, debug: bool, registers: tuple[str, ...] = ()) -> Vxm:
    config = dataclasses.replace(CONFIGS["tiny"], lanes=lanes, vxm_fold=fold, debug=debug, registers=registers)
    return Vxm(config=config, queue=next(queue for queue in queues(config) if queue.unit == "VXM"))


@pytest.mark.parametrize(("lanes", "fold"), [(16, 1), (8, 1), (4, 1), (8, 2), (4, 4)])
def test_vxm(lanes: int, fold: int):
    bench(lanes, fold)


@pytest.mark.nightly  # the lockstep test of a chip with all of them runs every time
@pytest.mark.parametrize("fold", [1, 4])
def test_vxm_with_all_optional_registers(fold: int):
    bench(4, fold, tuple(REGISTERS))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["control", "multiply", "reduce"])
def test_vxm_with_an_optional_register(name: str):
    bench(4, 1, (name,))


def bench(lanes: int, fold: int, registers: tuple[str, ...] = ()) -> None:
    """Run the bench; all its tests pass."""
    env = {"LANES": str(lanes), "FOLD": str(fold), "REGISTERS": " ".join(registers)}
    result = run_cocotb(vxm(lanes, fold, True, registers), "bench_hw_vxm", toplevel_name="vxm", env=env)
    assert len(result.passed) == 7


@pytest.mark.parametrize(("lanes", "fold", "made"), [(4, 1, 4), (4, 4, 1), (8, 2, 4)])
def test_lanes_that_are_made(lanes: int, fold: int, made: int):
    text = convert(vxm(lanes, fold, debug=False), "vxm")
    assert len(re.findall(r"^  \\vxm\.lane\d+ ", text, re.MULTILINE)) == made
