"""Units and chip at gate level: what tests their RTL, run on netlists of ECP5 cells, synthesised as for a board; and a
chip of Gowin cells.

Values and cycles must be those of the RTL. The units' benches need debug builds, so it is those that are synthesised;
the chip is the one that a board gets, behind its host port.
"""
# pyright: reportInvalidTypeForm=false, reportAttributeAccessIssue=false

import functools
from collections.abc import Callable, Iterator

import gate
import numpy as np
import pytest
import test_hw_c2c
import test_hw_icu
import test_hw_mem
import test_hw_mxm
import test_hw_stream
import test_hw_sxm
import test_hw_vxm
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from programs import small_program
from test_end_to_end import FOUR_LANES

from arch.config import CONFIGS
from arch.host_map import Control, Space
from arch.row import queues
from base.errors import TspError
from fpga.boards import BOARDS
from hw.chip import Chip
from hw.idioms import register
from program.program import Program
from sim.check import cocotb_runner
from sim.check.cocotb_runner import CocotbFailure, run_cocotb
from sim.check.random_programs import random_image
from sim.device.chip_device import ChipDevice
from sim.rtl.chip import VerilatedChip

BENCHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "icu": lambda _: test_hw_icu.test_icu(),
    "streams": lambda _: test_hw_stream.test_streams("tiny", 16),
    "mxm": lambda _: test_hw_mxm.test_mxm("tiny", "E", 16),
    "mem, banks of hw/ram.v": lambda patch: test_hw_mem.test_mem("MEM_E1", "W", "1", 8, 16, patch),
    "vxm": lambda _: test_hw_vxm.test_vxm(16, 1),
    "sxm": lambda _: test_hw_sxm.test_sxm("tiny", "E", 16),
    "c2c": lambda _: test_hw_c2c.test_c2c("E", 8, 1),
}
SLOW = {"streams", "vxm", "sxm"}
"""A minute of CPU and more."""


@pytest.fixture(autouse=True)
def netlists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Testbenches get netlists; the C++ compiler is what takes the time."""
    monkeypatch.setattr(cocotb_runner, "verilog_of", gate.netlist)
    monkeypatch.setattr(cocotb_runner, "MAKE_VARIABLES", ("OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1"))


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.nightly] if name in SLOW else []) for name in BENCHES])
def test_unit(name: str, monkeypatch: pytest.MonkeyPatch):
    BENCHES[name](monkeypatch)


def test_a_faulty_netlist_fails(monkeypatch: pytest.MonkeyPatch):
    """Enables of block RAMs that are never set: nothing can be loaded into the queue."""
    def faulty(component, name: str) -> str:
        text = gate.netlist(component, name)
        assert ".WEA(1'h1)" in text
        return text.replace(".WEA(1'h1)", ".WEA(1'h0)")

    monkeypatch.setattr(cocotb_runner, "verilog_of", faulty)
    with pytest.raises(CocotbFailure):
        test_hw_icu.test_icu()


# ---- products of LUTs ----

LUT_PRODUCTS = BOARDS["icepi_zero"].lut_products


class Products(wiring.Component):
    """Eight products as the MXM has them, in registers of such names: of all of `a` with `b`."""

    a: In(8 * 8)
    b: In(8)
    y: Out(8 * 16)

    def elaborate(self, platform):
        m = Module()
        products = (self.a.word_select(n, 8).as_signed() * self.b.as_signed() for n in range(8))
        m.d.comb += self.y.eq(Cat(register(m, product, f"product2_0_{n}") for n, product in enumerate(products)))
        return m


def test_all_products_of_luts(monkeypatch: pytest.MonkeyPatch):
    assert gate.cells(Products(), "products")["MULT18X18D"] == 8
    assert "MULT18X18D" not in gate.cells(Products(), "products", LUT_PRODUCTS)
    monkeypatch.setattr(cocotb_runner, "verilog_of", functools.partial(gate.netlist, lut_products=LUT_PRODUCTS))
    assert run_cocotb(Products(), "bench_products", toplevel_name="products").passed == ("all_products",)


def test_all_products_of_a_gw5a(monkeypatch: pytest.MonkeyPatch):
    """In its multipliers, whose registers hold them. yosys has no map of these."""
    made, board = [], BOARDS["tang_mega_138k"]

    def netlist(component, name: str) -> str:
        made.append(gate.gowin_netlist(component, name, board))
        return made[-1]

    monkeypatch.setattr(cocotb_runner, "verilog_of", netlist)
    assert run_cocotb(Products(), "bench_products", toplevel_name="products").passed == ("all_products",)
    assert made[0].count("  MULT12X12 #(") == made[0].count('.OREG_CLK("CLK0")') == 8


@pytest.mark.nightly
def test_an_mxm_with_products_of_luts(monkeypatch: pytest.MonkeyPatch):
    """Row 0 of four; values and cycles are those of the others."""
    made = []

    def netlist(component, name: str) -> str:
        made.append(gate.cells(component, name, LUT_PRODUCTS)["MULT18X18D"])
        return gate.netlist(component, name, LUT_PRODUCTS)

    monkeypatch.setattr(cocotb_runner, "verilog_of", netlist)
    test_hw_mxm.test_mxm("tiny", "E", 4)
    assert made == [3 * 4]


def test_the_board_has_the_multipliers_that_are_left():
    """The chip has one a lane in the VXM and one a row and lane in each MXM; the first rows are made of LUTs."""
    board = BOARDS["icepi_zero"]
    config = CONFIGS[board.config]
    assert config.lanes + config.macs - 2 * config.lanes <= board.dsp < config.lanes + config.macs


def test_a_cell_without_a_model_is_one_line():
    with pytest.raises(TspError, match="every LUT4 of a netlist must have INIT"):
        gate.look_up("  LUT4 #(\n    .INIT(16'h0001)\n  ) odd (\n    .A(x)\n  );\n")


# ---- the chip ----

TINY = CONFIGS["tiny"]
SHOWN = (Control.CYCLES, Control.TOKEN_CYCLES, Control.POSITION, Control.ERRORS, Control.IDENTITY)
SEEDS = range(20)


@pytest.fixture(scope="module")
def chips() -> Iterator[tuple[VerilatedChip, VerilatedChip]]:
    """A chip of ECP5 cells and one of RTL."""
    netlist = gate.netlist(Chip(config=TINY), "chip")
    with VerilatedChip(TINY, verilog=netlist, opt="-O0") as cells, VerilatedChip(TINY) as rtl:
        yield cells, rtl


def memories(chip: VerilatedChip) -> list[np.ndarray]:
    return [chip.read_mem(queue.name) for queue in queues(TINY) if queue.unit == "MEM"]


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
def test_the_chip_runs_random_programs(seed: int, chips: tuple[VerilatedChip, VerilatedChip]):
    """The chip's probes in each cycle, its counters after each token, and all of its memory at the end."""
    image, tokens = random_image(TINY, seed)
    for chip in chips:
        chip.load(image)
        chip.host_write(Space.CONTROL, Control.ERRORS.value, 0)
    before = [memories(chip) for chip in chips]
    for _ in range(tokens):
        for chip in chips:
            chip.host_write(Space.CONTROL, Control.RUN.value, 1)
        cycles = 0
        while chips[1].running or not cycles:
            assert [chips[0].running, chips[0].token_start] == [chips[1].running, chips[1].token_start], cycles
            cycles += 1
            for chip in chips:
                chip.step()
        assert not chips[0].running and cycles > 20
        shown = [[chip.control(register) for register in SHOWN] for chip in chips]
        assert shown[0] == shown[1]
        assert not shown[0][SHOWN.index(Control.ERRORS)]
    assert all(np.array_equal(*pair) for pair in zip(*before, strict=True))
    after = [memories(chip) for chip in chips]
    assert all(np.array_equal(*pair) for pair in zip(*after, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(before[1], after[1], strict=True))


@pytest.mark.nightly
def test_the_chip_tells_a_story(chips: tuple[VerilatedChip, VerilatedChip]):
    """Twenty tokens, sampled, over the border of a bucket: tokens, logits and cycles of the RTL."""
    program = small_program()
    assert program.buckets[0].limit < 20 <= program.context
    tell(program, chips, 20)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "sizes", "registers"), [
    ("tang_primer_20k", FOUR_LANES | {"n_layers": 2}, (".OUT_REG(1'h1)", ".READ_MODE(1'h1)")),
    ("tang_mega_138k", {"n_layers": 1}, ('.OREG_CLK("CLK0")',)),
])
def test_a_chip_of_gowin_cells_tells_a_story(name: str, sizes: dict, registers: tuple[str, ...]):
    """The chip of a board whose multipliers, and on a GW2A block RAMs, have taken registers in."""
    board = BOARDS[name]
    program = small_program(board.config, **sizes)
    netlist = gate.gowin_netlist(Chip(config=board.chip), "chip", board)
    assert all(register in netlist for register in registers)
    with VerilatedChip(board.chip, verilog=netlist, opt="-O0") as cells, VerilatedChip(board.chip) as rtl:
        tell(program, (cells, rtl), 4)


def tell(program: Program, chips: tuple[VerilatedChip, VerilatedChip], positions: int) -> None:
    """Tokens, sampled: logits and tokens of the cells are those of the RTL, cycles of both as predicted."""
    devices = [ChipDevice(name, chip) for name, chip in zip(("cells", "rtl"), chips, strict=True)]
    for device in devices:
        device.load(program)
        device.start([1, 5, 9], 1.0, 7)
    for position in range(positions):
        (result,), (expected,) = (device.run(1) for device in devices)
        assert result == expected, position
        assert result.cycles == program.cycles(position)
        assert np.array_equal(devices[0].logits(), devices[1].logits()), position
    assert not devices[0].errors
