"""A queue against a reference, cycle by cycle (bench_hw_icu.py holds the programs)."""

from dataclasses import replace

import pytest

from arch.config import CONFIGS
from arch.row import queues
from hw.icu import Icu
from sim.check.cocotb_runner import run_cocotb


@pytest.mark.parametrize("registers", [(), ("fetch",)], ids=["plain", "fetch"])
def test_icu(registers: tuple[str, ...]):
    config = replace(CONFIGS["tiny"], registers=registers, debug=True)
    queue = next(queue for queue in queues(config) if queue.name == "MEM_E1")
    result = run_cocotb(Icu(config=config, queue=queue), "bench_hw_icu", toplevel_name="icu",
                        env={"REGISTERS": " ".join(registers)})
    assert len(result.passed) == 6
