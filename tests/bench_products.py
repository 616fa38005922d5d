"""cocotb test of the products in test_gate.py; not collected by pytest."""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge


@cocotb.test()
async def all_products(dut):
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 0
    for eight in np.arange(-128, 128, dtype=np.int8).reshape(-1, 8):
        dut.a.value = int.from_bytes(eight.tobytes(), "little")
        for b in range(-128, 128):
            dut.b.value = b & 255
            await FallingEdge(dut.clk)
            products = dut.y.value.to_unsigned().to_bytes(16, "little")
            assert np.array_equal(np.frombuffer(products, "<i2"), eight * np.int16(b)), (eight, b)
