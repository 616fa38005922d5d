"""The units at gate level: the benches of their RTL, run on netlists of ECP5 cells, synthesised as for a board.

Values and cycles must be those of the RTL; the benches need debug builds, so it is those that are synthesised.
"""

from collections.abc import Callable

import gate
import pytest
import test_hw_icu
import test_hw_mem
import test_hw_mxm
import test_hw_stream
import test_hw_sxm

from compiler.errors import TspError
from sim import cocotb_runner
from sim.cocotb_runner import CocotbFailure

BENCHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "icu": lambda _: test_hw_icu.test_icu(),
    "streams": lambda _: test_hw_stream.test_streams(),
    "mxm": lambda _: test_hw_mxm.test_mxm("tiny", "E"),
    "mem, banks of hw/ram.v": lambda patch: test_hw_mem.test_mem("MEM_E1", "W", 8, patch),
    "sxm": lambda _: test_hw_sxm.test_sxm("tiny", "E"),
}
SLOW = {"streams", "sxm"}
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


def test_a_cell_without_a_model_is_one_line():
    with pytest.raises(TspError, match="every LUT4 of a netlist must have INIT"):
        gate.look_up("  LUT4 #(\n    .INIT(16'h0001)\n  ) odd (\n    .A(x)\n  );\n")
