"""cocotb tests of the counter in test_sim_check_cocotb_runner.py; not collected by pytest."""

import os

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles


async def count_after(dut, *, cycles: int, step: int) -> int:
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    dut.i_step.value = step
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    await ClockCycles(dut.clk, cycles + 1)
    return int(dut.o_count.value)


@cocotb.test()
async def counts(dut):
    assert await count_after(dut, cycles=10, step=3) == int(os.environ["EXPECTED"])


@cocotb.test()
async def stands_still(dut):
    assert await count_after(dut, cycles=10, step=0) == 0
