"""The C2C, cycle by cycle: what it sends, takes and drives (bench_hw_c2c.py)."""

import dataclasses

import pytest

from arch import row
from arch.config import CONFIGS
from hw.c2c import C2c
from sim.check.cocotb_runner import run_cocotb


@pytest.mark.parametrize(("side", "lanes", "ports"), [("E", 8, 1), ("W", 16, 3)])
def test_c2c(side: str, lanes: int, ports: int):
    config = dataclasses.replace(CONFIGS["tiny"], lanes=lanes, debug=True, ports=(ports, ports))
    env = {"CONFIG": "tiny", "LANES": str(lanes), "SIDE": side, "PORTS": str(ports)}
    result = run_cocotb(C2c(config=config, queue=row.C2C[side]), "bench_hw_c2c", toplevel_name="c2c", env=env)
    assert len(result.passed) == 2
