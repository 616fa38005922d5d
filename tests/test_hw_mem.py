"""A MEM slice against a reference, cycle by cycle (bench_hw_mem.py), and the banks of a memory of any depth."""

from dataclasses import replace

import pytest

from arch.config import CONFIGS, REGISTERS, ChipConfig
from arch.row import queues
from hw.mem import Mem, banks
from sim.check.cocotb_runner import run_cocotb


@pytest.mark.parametrize(("name", "ways", "groups", "deep", "lanes"), [
    ("MEM_E0", "EW", "1", 4096, 16), ("MEM_W1", "E", "1", 4096, 16), ("MEM_E1", "W", "1", 8, 16),
    ("MEM_W1", "E", "1", 4096, 4), ("MEM_W0", "EW", "12", 4096, 8), ("MEM_E2", "W", "2", 4096, 8)],
    ids=["one bank", "two banks", "ram.v", "4 lanes", "two groups", "second group"])
def test_mem(name: str, ways: str, groups: str, deep: int, lanes: int, monkeypatch: pytest.MonkeyPatch):
    """With Amaranth's memories as banks, and with the module that stands for the banks of the largest chip."""
    monkeypatch.setattr("hw.mem.DEEP", deep)
    config = replace(CONFIGS["tiny"], lanes=lanes, mem_depths=(64, 80, 64)[: 1 + int(groups[-1])],
                     weight_groups=int(groups[-1]), debug=True)
    assert config.index_bits == 16
    assert len(bench(config, name, ways, groups)) == 6


@pytest.mark.nightly  # the lockstep test of a chip with all of them runs every time
def test_mem_with_all_optional_registers():
    config = replace(CONFIGS["tiny"], lanes=4, mem_depths=(64, 80), debug=True, registers=tuple(REGISTERS))
    assert len(bench(config, "MEM_W1", "E", "1")) == 6


def test_an_offset_of_more_than_16_bits():
    config = replace(CONFIGS["tiny"], lanes=4, mem_depths=(64, 70_000), debug=True)
    assert config.index_bits == 17
    assert bench(config, "MEM_E1", "W", "1", "every_bit_of_an_offset") == ("every_bit_of_an_offset",)


def bench(config: ChipConfig, name: str, ways: str, groups: str, testcase: str | None = None) -> tuple[str, ...]:
    """The tests of the bench, or one of them, that pass."""
    queue = next(queue for queue in queues(config) if queue.name == name)
    env = {"LANES": str(config.lanes), "DEPTH": str(config.mem_depths[queue.slice]), "WAYS": ways, "GROUPS": groups,
           "INDEX_BITS": str(config.index_bits)}
    return run_cocotb(Mem(config=config, queue=queue), "bench_hw_mem", toplevel_name="mem", env=env,
                      testcase=testcase).passed


@pytest.mark.parametrize(("depth", "expected"), [(256, [256]), (2560, [2048, 512]), (80, [64, 16]), (17, [16, 1])])
def test_banks(depth, expected):
    assert banks(depth) == expected
