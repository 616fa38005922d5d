"""Gowin boards: `synth_gowin`, one run of nextpnr's himbaechel-gowin, and gowin_pack of Project Apicula."""

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from base.cache import cached, content_key
from base.errors import TspError
from fpga.boards import Board

from . import floorplan_picture, tools
from .ecp5 import LOGIC_PS, MAPPER, no_collisions
from .family import Cells, Family, Netlist, Routed, Used, Utilization, seconds
from .passes import gowin_registers, macro_placement
from .passes.macro_placement import Place, Sites

NEXTPNR = "nextpnr-himbaechel-gowin"
BRAMS, PRODUCTS = (Path(__file__).with_name(name) for name in ("gowin_brams.txt", "gowin_products.v"))
SITES = {"SDPX9B": ("BSRAM",), "MULT12X12": ("MULT12X1200", "MULT12X1201")}
"""The bels, as nextpnr names them, that take a macro of each type."""


def yosys_script(series: str, brams: str, name: str, *, products: bool = False, two_clocks: bool = False) -> str:
    """The script from RTLIL to a netlist, as for ECP5 (`fpga.flow.ecp5.yosys_script`).

    Block RAMs are only those of gowin_brams.txt. Otherwise yosys makes some of them DPX9Bs, for which nextpnr has no
    timing of paths to the read address (its issue 1803). Such paths would pass however long they are.

    series: yosys' name of the series.
    brams: yosys' map of its block RAMs.
    products: gowin_products.v makes products, because yosys has no map of the series' multipliers.
    two_clocks: see `fpga.flow.ecp5.no_collisions`.
    """
    synth = f"synth_gowin -family {series} -nowidelut -top {name}"
    mapped = (f"hierarchy -top {name}", "proc", "flatten", f"techmap -map {PRODUCTS.name} t:$mul") if products else ()
    return "\n".join((
        f"read_rtlil {name}.il", *mapped,
        f"scratchpad -set abc9.D {LOGIC_PS}", f"scratchpad -copy {MAPPER} abc9.script",
        f"{synth} -run begin:map_ram",
        *no_collisions(two_clocks),
        f"memory_libmap -lib +/gowin/lutrams.txt -lib {BRAMS.name}",
        f"techmap -map +/gowin/lutrams_map.v -map +/gowin/{brams}",
        f"{synth} -run map_ffram:", f"write_json {name}.json", "",
    ))


def _script(series: str, brams: str, products: bool, board: Board, name: str) -> str:
    if board.lut_products:
        raise TspError(f"lut_products must be empty on a Gowin board, not {board.lut_products!r}: "
                       "such products are ECP5 cells")
    return yosys_script(series, brams, name, products=products, two_clocks=bool(board.wires))


def sites(board: Board, netlist: dict) -> Sites:
    """All places of a GW5A's block RAMs and multipliers, as Project Apicula has them. Each macro has one of them."""
    device = board.pack_for[board.pack_for.index("-d") + 1]
    with resources.as_file(resources.files("apycula") / f"{device}.msgpack.xz") as file:
        chip = import_module("apycula.chipdb").load_chipdb(str(file))
    return sites_on(chip, netlist)


def sites_on(chip: Any, netlist: dict) -> Sites:
    """The same, of a chip of apycula: `rows`, `cols`, and `chip[row, column].bels` by name."""
    spare: dict[str, list[Place]] = defaultdict(list)
    for row in range(chip.rows):
        for column in range(chip.cols):
            for kind, bels in SITES.items():
                spare[kind] += [Place(column, row, f"X{column}Y{row}/{bel}") for bel in bels
                                if bel in chip[row, column].bels]
    at = {name: spare[cell["type"]].pop() for name, cell in macro_placement.macros_of(netlist).items()}
    return Sites(at, spare, chip.cols, chip.rows)


def _route(board: Board, netlist: Netlist, seed: int) -> Routed:
    """Give flip-flops their LUTs, then place, route and pack."""
    nextpnr, pack = tools.find(NEXTPNR), tools.find(board.pack)
    cells = json.loads((netlist.folder / "top.json").read_text())
    macro_placement.constrain(cells, board)
    gowin_registers.pass_through(cells)
    text = json.dumps(cells)
    arguments = [*board.nextpnr, "--vopt", "cst=top.cst", "--json", "top.json", "--seed", str(seed),
                 "--freq", str(board.mhz), "--placer-heap-beta", str(board.density), "--router", board.router,
                 "--timing-allow-fail", "--write", "routed.json", "--report", "report.json", "--detailed-timing-report"]
    packing = [*board.pack_for, "-o", "top.fs", "routed.json"]

    def make(folder: Path) -> None:
        (folder / "top.json").write_text(text)
        (folder / "top.cst").write_text(netlist.constraints)
        spent = tools.run(nextpnr, arguments, folder, "nextpnr.log")
        tools.run(pack, packing, folder, "pack.log")
        routed = folder / "routed.json"
        (folder / "places.json").write_text(json.dumps(floorplan_picture.places(json.loads(routed.read_text()))))
        (folder / "seconds").write_text(str(spent.user_s))
        for left in (folder / "top.json", routed):
            left.unlink()

    key = content_key(text, netlist.constraints, *arguments, *packing, nextpnr.version, pack.version)
    folder = cached("bitstream", key, make)
    return Routed(folder, folder, {"nextpnr, placing and routing": seconds(folder)})


def _used(cells: Cells, utilization: Utilization) -> Used:
    """The resources that a netlist uses.

    `comb` counts places of LUTs. nextpnr counts only the places that hold a LUT, and four of the eight that a LUT
    memory takes. An 18x18 multiplier can be two 9x9 multipliers; one of a GW5A can be two 12x12 ones.
    """
    places = sum(number * utilization[kind]["used"] for kind, number in (("LUT4", 1), ("ALU", 1), ("RAM16SDP4", 4)))
    return Used(lut4=sum(cells.get(f"LUT{inputs}", 0) for inputs in range(1, 5)), comb=places,
                ff=utilization["DFF"]["used"], bram=cells.get("SDPX9B", 0),
                dsp=cells.get("MULT18X18", 0) + -(-(cells.get("MULT9X9", 0) + cells.get("MULT12X12", 0)) // 2))


def _family(series: str, brams: str, passes: tuple[Callable[[dict], object], ...], files: tuple[Path, ...],
            sites: Callable[[Board, dict], Sites] | None = None) -> Family:
    return Family(nextpnr=NEXTPNR, pins="cst", bitstream="fs",
                  script=partial(_script, series, brams, PRODUCTS in files), files=files, passes=passes,
                  sources=SOURCES, route=_route, used=_used, sites=sites)


SOURCES = tuple(Path(__file__).with_name("passes").joinpath(f"{name}.py").read_text()
                for name in ("gowin_registers", "netlist"))

GW2A = _family("gw2a", "brams_map.v", (gowin_registers.take_multipliers, gowin_registers.take_brams), (BRAMS,))
GW5A = _family("gw5a", "brams_map_gw5a.v", (gowin_registers.take_multipliers,), (BRAMS, PRODUCTS), sites)
