"""A MEM slice against a reference, cycle by cycle (bench_hw_mem.py), and the banks of a memory of any depth."""

from dataclasses import replace

import pytest

from hw.config import CONFIGS
from hw.isa import queues
from hw.mem import Mem, banks
from sim.cocotb_runner import run_cocotb

CONFIG = replace(CONFIGS["tiny"], mem_depths=(256, 80), debug=True)


@pytest.mark.parametrize("deep", [4096, 8], ids=["memory", "ram.v"])
def test_mem(deep: int, monkeypatch: pytest.MonkeyPatch):
    """With Amaranth's memories as banks, and with the module that stands for the banks of the largest chip."""
    monkeypatch.setattr("hw.mem.DEEP", deep)
    queue = next(queue for queue in queues(CONFIG) if queue.name == "MEM_E1")
    result = run_cocotb(Mem(config=CONFIG, queue=queue), "bench_hw_mem", toplevel_name="mem")
    assert len(result.passed) == 5


@pytest.mark.parametrize(("depth", "expected"), [(256, [256]), (2560, [2048, 512]), (80, [64, 16]), (17, [16, 1])])
def test_banks(depth, expected):
    assert banks(depth) == expected
