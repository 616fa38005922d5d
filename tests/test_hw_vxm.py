"""The VXM against `hw.numerics`, cycle by cycle (bench_hw_vxm.py holds the vectors)."""

import dataclasses

from hw.config import CONFIGS
from hw.isa import queues
from hw.vxm import Vxm
from sim.cocotb_runner import run_cocotb

CONFIG = dataclasses.replace(CONFIGS["tiny"], debug=True)


def test_vxm():
    queue = next(queue for queue in queues(CONFIG) if queue.unit == "VXM")
    result = run_cocotb(Vxm(config=CONFIG, queue=queue), "bench_hw_vxm", toplevel_name="vxm")
    assert len(result.passed) == 7
