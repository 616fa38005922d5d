"""The script for ECP5 netlists: memories with one clock and with two."""

from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal
from amaranth.lib.memory import Memory

from base.errors import TspError
from fpga.flow import tools
from fpga.flow.ecp5 import NO_COLLISION, yosys_script


def two_memories() -> str:
    """RTLIL: `own` is read and written by one clock; `far` is written by another, as in `hw.link.elastic`."""
    m, write_enable = Module(), Signal(name="write_enable")
    clocks = {domain: Signal(name=f"{domain}_clock") for domain in ("sync", "rx")}
    place, given = Signal(9, name="place"), Signal(8, name="given")
    outputs = []
    for domain, clock in clocks.items():
        m.domains += ClockDomain(domain, reset_less=True)
        m.d.comb += ClockSignal(domain).eq(clock)
    for name, domain, depth in (("own", "sync", 512), ("far", "rx", 16)):
        m.submodules[name] = memory = Memory(shape=8, depth=depth, init=[])
        write: Any = memory.write_port(domain=domain)
        read: Any = memory.read_port(domain="comb")
        found = Signal(8, name=f"{name}_seen")
        m.d.comb += [write.addr.eq(place), write.data.eq(given), write.en.eq(write_enable), read.addr.eq(place)]
        m.d.sync += found.eq(read.data)  # which yosys makes a read port with a clock
        outputs.append(found)
    return rtlil.convert(m, name="top", ports=[*clocks.values(), write_enable, place, given, *outputs], emit_src=False)


def synthesise(folder: Path, *, two_clocks: bool) -> None:
    """Up to the memories' cells; yosys asserts that it knows what `own` alone is said to be."""
    lines = yosys_script("top", two_clocks=two_clocks).splitlines()
    told = next(n for n, line in enumerate(lines) if line.startswith(NO_COLLISION)) + 1
    marked = "t:$mem_v2 r:RD_COLLISION_X_MASK=1'1 %i"
    only = f"select -assert-count 1 {marked}", f"select -assert-count 1 top/own {marked} %i"
    script = (*lines[:told], "select -assert-count 2 t:$mem_v2 r:RD_CLK_ENABLE=1'1 %i", *(only if two_clocks else ()),
              "synth_ecp5 -nowidelut -top top -run map_ram:map_ffram",
              "select -assert-count 1 t:DP16KD", "select -assert-count 2 t:TRELLIS_DPR16X4", "")
    (folder / "top.il").write_text(two_memories())
    (folder / "top.ys").write_text("\n".join(script))
    tools.run(tools.find("yosys"), ["-q", "top.ys"], folder, "yosys.out")


def test_a_memory_with_two_clocks_has_no_collisions_to_speak_of(tmp_path: Path):
    synthesise(tmp_path, two_clocks=True)


def test_the_script_for_one_clock_refuses_it(tmp_path: Path):
    """So that nothing is wrong in silence."""
    with pytest.raises(TspError, match="yosys"):
        synthesise(tmp_path, two_clocks=False)
    assert "port.clk == wport.clk" in (tmp_path / "yosys.out").read_text()
