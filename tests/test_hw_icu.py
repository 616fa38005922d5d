"""A queue against a reference, cycle by cycle (bench_hw_icu.py holds the programs)."""

from dataclasses import replace

from arch.config import CONFIGS
from arch.row import queues
from hw.icu import Icu
from sim.check.cocotb_runner import run_cocotb

CONFIG = replace(CONFIGS["tiny"], debug=True)


def test_icu():
    queue = next(queue for queue in queues(CONFIG) if queue.name == "MEM_E1")
    result = run_cocotb(Icu(config=CONFIG, queue=queue), "bench_hw_icu", toplevel_name="icu")
    assert len(result.passed) == 6
