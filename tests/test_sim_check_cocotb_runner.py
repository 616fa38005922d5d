"""The runner itself: it passes what passes and, above all, fails what fails."""
# pyright: reportInvalidTypeForm=false

from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from unit_bench import known

from base.errors import TspError
from sim.check import cocotb_runner
from sim.check.cocotb_runner import CocotbFailure, run_cocotb


class Counter(wiring.Component):
    """Adds `i_step` to `o_count` every cycle."""

    i_step: In(8)
    o_count: Out(16)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o_count.eq(self.o_count + self.i_step)
        return m


def run(module: str, expected: int = 30, **options):
    return run_cocotb(Counter(), module, toplevel_name="counter", env={"EXPECTED": str(expected)}, **options)


def test_passing_tests_are_named():
    assert run("bench_counter").passed == ("counts", "stands_still")


def test_one_test_can_be_chosen():
    assert run("bench_counter", testcase="stands_still").passed == ("stands_still",)


def test_a_failing_test_fails():
    with pytest.raises(CocotbFailure, match=r"1 of 2 tests failed: counts"):
        run("bench_counter", expected=31)


@pytest.mark.parametrize("module", ["bench_empty", "bench_that_does_not_exist"])
def test_a_module_without_tests_fails(module: str):
    with pytest.raises(CocotbFailure):
        run(module)


def test_a_choice_that_matches_nothing_fails():
    with pytest.raises(CocotbFailure):
        run("bench_counter", testcase="no_such_test")


def test_coverage_comes_back():
    coverage = run("bench_counter", coverage=True).coverage
    assert coverage is not None and "counter" in coverage


def test_the_second_run_builds_nothing(monkeypatch: pytest.MonkeyPatch):
    run("bench_counter")

    def refuse(*args, **kwargs):
        raise AssertionError("built again")

    monkeypatch.setattr(cocotb_runner.Verilator, "build", refuse)
    assert run("bench_counter").passed


def test_the_environment_is_as_before(tmp_path: Path):
    import os

    before = dict(os.environ)
    run("bench_counter")
    assert dict(os.environ) == before


@pytest.mark.parametrize("given", [None, "icarus"])
def test_icarus_that_is_not_there(given: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Asked for by the argument, or by SIM."""
    monkeypatch.setenv("SIM", "verilator" if given else "icarus")
    monkeypatch.setattr("shutil.which", lambda name, **options: None)
    with pytest.raises(TspError, match="SIM=icarus needs Icarus Verilog, but `iverilog` was not found; apt-get"):
        cocotb_runner.simulator_of(given)


def test_an_unknown_simulator():
    with pytest.raises(TspError, match="SIM must be one of verilator, icarus, not 'spice'"):
        cocotb_runner.simulator_of("spice")


@pytest.mark.nightly
def test_a_bench_in_icarus():
    assert run("bench_counter", simulator="icarus").passed == ("counts", "stands_still")
    with pytest.raises(CocotbFailure, match=r"1 of 2 tests failed: counts"):
        run("bench_counter", expected=31, simulator="icarus")


def test_an_unknown_bit_of_a_driven_plane_is_noticed():
    """Planes of 16 lanes: plane 1 has an unknown bit (X)."""
    zeros, plane = "0" * 128, "0" * 127 + "X"
    assert known(zeros + zeros, 3) == 0
    assert known(plane + "0" * 127 + "1", 1) == 1
    with pytest.raises(AssertionError, match="plane 1 is driven and unknown"):
        known(plane + zeros, 2)
