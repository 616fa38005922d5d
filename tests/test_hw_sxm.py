"""The SXM against `hw.numerics`, cycle by cycle (bench_hw_sxm.py holds the vectors)."""

import dataclasses

from hw.config import CONFIGS
from hw.isa import queues
from hw.sxm import Sxm
from sim.cocotb_runner import run_cocotb

CONFIG = dataclasses.replace(CONFIGS["tiny"], debug=True)


def test_sxm():
    queue = next(queue for queue in queues(CONFIG) if queue.unit == "SXM")
    result = run_cocotb(Sxm(config=CONFIG, queue=queue), "bench_hw_sxm", toplevel_name="sxm")
    assert len(result.passed) == 5
