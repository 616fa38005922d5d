"""Coverage data is read as it is meant; and the unit benches reach the RTL (nightly)."""

import importlib
import inspect
import os
from pathlib import Path

import pytest

from sim.check.cocotb_runner import run_cocotb
from sim.check.coverage import read_coverage


def point(count: int, **fields: object) -> str:
    text = "".join(f"\x01{key}\x02{value}" for key, value in fields.items())
    return f"C '{text}' {count}\n"


def test_lines_and_toggles_are_counted():
    text = "# SystemC::Coverage-3\n" + "".join([
        point(3, f="a.v", l=4, page="v_line/a", o="block", S="4-6,9"),
        point(0, f="a.v", l=6, page="v_branch/a", o="if", S="6-7"),
        point(0, f="a.v", l=1, page="v_toggle/a", o="x:0->1"), point(9, f="a.v", l=1, page="v_toggle/a", o="x:1->0")])
    found = read_coverage(text)
    assert (found.lines, found.lines_all, found.missed) == (4, 5, (7,))
    assert (found.toggles, found.toggles_all) == (1, 2)


def test_data_without_coverage_is_refused():
    with pytest.raises(ValueError, match="must hold lines and toggles"):
        read_coverage("# SystemC::Coverage-3\n")


UNITS = {
    "mem": ("test_hw_mem", "test_mem", {"name": "MEM_W0", "ways": "EW", "groups": "12", "deep": 4096, "lanes": 8}),
    "mxm": ("test_hw_mxm", "test_mxm", {"name": "tiny", "side": "E", "lanes": 16}),
    "sxm": ("test_hw_sxm", "test_sxm", {"name": "tiny", "side": "E", "lanes": 16}),
    "vxm": ("test_hw_vxm", "test_vxm", {"lanes": 16, "fold": 1}),
    "folded vxm": ("test_hw_vxm", "test_vxm", {"lanes": 4, "fold": 4}),
    "icu": ("test_hw_icu", "test_icu", {}),
    "streams": ("test_hw_stream", "test_streams", {"name": "tiny", "lanes": 16}),
    "host": ("test_hw_host", "test_host", {}),
}
"""Module, test and arguments that run a unit's bench."""


@pytest.mark.parametrize("unit", UNITS)
def test_the_benches_take_these_arguments(unit: str):
    name, test, arguments = UNITS[unit]
    needed = set(inspect.signature(getattr(importlib.import_module(name), test)).parameters)
    assert needed - {"monkeypatch"} == arguments.keys()


@pytest.mark.nightly
@pytest.mark.parametrize("unit", UNITS)
def test_unit_benches_cover_the_rtl(unit: str, monkeypatch: pytest.MonkeyPatch):
    """At least 95 % of lines. Figures are appended to the file METRONOME_COVERAGE, if set."""
    name, test, arguments = UNITS[unit]
    module = importlib.import_module(name)
    data = []

    def covered(*args, **options):
        result = run_cocotb(*args, coverage=True, **options)
        data.append(result.coverage)
        return result

    monkeypatch.setattr(module, "run_cocotb", covered)
    needed = {"monkeypatch": monkeypatch} if unit == "mem" else {}
    getattr(module, test)(**arguments, **needed)
    found = read_coverage(data[0])
    line = (f"{unit}: lines {found.line_share:.1%} of {found.lines_all:,}, "
            f"toggles {found.toggle_share:.1%} of {found.toggles_all:,}")
    print(line)
    if report := os.environ.get("METRONOME_COVERAGE"):
        with Path(report).open("a") as file:
            file.write(line + "\n")
    assert found.line_share >= 0.95, f"{line}; first lines missed: {found.missed[:20]}"
