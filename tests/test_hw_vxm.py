"""The VXM against `hw.numerics`, cycle by cycle (bench_hw_vxm.py holds the vectors)."""

import dataclasses

import pytest

from hw.config import CONFIGS
from hw.isa import queues
from hw.vxm import Vxm
from sim.cocotb_runner import run_cocotb


@pytest.mark.parametrize(("lanes", "fold"), [(16, 1), (4, 1), (8, 2), (4, 4)])
def test_vxm(lanes: int, fold: int):
    config = dataclasses.replace(CONFIGS["tiny"], lanes=lanes, vxm_fold=fold, debug=True)
    queue = next(queue for queue in queues(config) if queue.unit == "VXM")
    env = {"LANES": str(lanes), "FOLD": str(fold)}
    result = run_cocotb(Vxm(config=config, queue=queue), "bench_hw_vxm", toplevel_name="vxm", env=env)
    assert len(result.passed) == 7
