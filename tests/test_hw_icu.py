"""A queue against a reference, cycle by cycle (bench_hw_icu.py holds the programs)."""

from dataclasses import replace

import pytest

from arch.config import CONFIGS
from arch.row import queues
from hw.icu import Icu
from sim.check.cocotb_runner import run_cocotb


def test_icu():
    bench()


@pytest.mark.parametrize("registers", [("fetch",), ("control",), ("fetch", "control")], ids=" ".join)
def test_icu_with_optional_registers(registers: tuple[str, ...]):
    bench(*registers)


def bench(*registers: str) -> None:
    """Run the bench on a queue of a chip with these optional registers; all its tests pass."""
    config = replace(CONFIGS["tiny"], registers=registers, debug=True)
    queue = next(queue for queue in queues(config) if queue.name == "MEM_E1")
    result = run_cocotb(Icu(config=config, queue=queue), "bench_hw_icu", toplevel_name="icu",
                        env={"REGISTERS": " ".join(registers)})
    assert len(result.passed) == 6
