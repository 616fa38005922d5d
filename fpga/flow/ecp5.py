"""ECP5 boards: `synth_ecp5`, netlist passes, placement by nextpnr, fanout duplication, routing by nextpnr, ecppack.

The cache keeps a placed chip under the netlist and the seed, and a routed chip under the placed one.
"""

import json
import re
from pathlib import Path

from base.cache import cached, content_key
from fpga.boards import Board
from fpga.flow.passes.netlist import top

from . import floorplan_picture, tools
from .family import Cells, Family, Netlist, Routed, Used, Utilization, seconds
from .passes import carry, exchange, fanout, macro_placement, multiplier

NEXTPNR = "nextpnr-ecp5"

LOGIC_PS = 5_000
"""Logic delay (without wires) that the mapper may leave in a path. It gives up speed beyond that for area. At 10,000
the VXM is 1 % smaller, but has chains of 17 LUTs instead of 11."""

MAPPER = "abc9.script.flow2"
"""abc9's script. With it, a VXM lane takes 6 % fewer LUTs than with the default script, and the other units as many."""

_ROUND = "&synch2,-K,6,-C,500;&if,-m,{W},{D},{R},-v;&save;&dch,-C,500;&if,-m,{W},{D},{R},-v;&save;"
LOCAL_MAPPER = f"+&scorr;&sweep;{_ROUND}&load;&st;&sopb,-R,10,-C,4;{_ROUND}&load"
"""The same without &mfs, for boards that do not `resubstitute`."""

PLACER = "--placer", "static"
"""nextpnr's electrostatic placer. It spreads cells evenly over a full FPGA. There HeAP, which begins with all cells in
one place, creates congestion that no router resolves."""
COPY_PLACER = {"placer": "heap"}
"""The placer for the few cells that `fpga.flow.passes.fanout` makes. All other cells are locked."""
ROUTER = {"router": "router2", "router2/bbMargin/x": "9", "router2/bbMargin/y": "9", "router2/estimateWeight": "1.0"}
"""nextpnr's settings for routing with router2. It may leave a net's bounding box by 9 tiles instead of 3, and does not
overestimate the rest of a path. router1 finds faster paths where there is room, but takes two to ten times as long and
may not end."""

PASSES = carry.fold, carry.end, multiplier.take_registers
"""The passes over yosys' netlists."""
FOLDER = Path(__file__).with_name("passes")
SOURCES = tuple((FOLDER / f"{name}.py").read_text() for name in ("carry", "multiplier", "netlist"))
LUT_PRODUCT = FOLDER / "lut_product.v"

NO_COLLISION = "setparam -set RD_COLLISION_X_MASK 1'1"
ONE_PORT_READ = "t:$mem_v2 r:RD_CLK_ENABLE=1'1 %i"
"""Memories with one read port, which has a clock."""


def no_collisions(two_clocks: bool = False) -> tuple[str, ...]:
    """Commands that give block RAMs with one read and one write port no logic that gives the old data to a colliding
    read, because the ISA forbids such reads.

    two_clocks: some memories are written by one clock and read by another, such as a link's elastic buffer. yosys knows
    collisions only within one clock and aborts at other memories. So only memories whose write clock also reads a
    memory get the setting.
    """
    if not two_clocks:
        return (f"{NO_COLLISION} {ONE_PORT_READ}",)
    return (f"select -set one_port {ONE_PORT_READ}", "select -set read_clocks @one_port %ci1:+[RD_CLK] w:* %i",
            f"{NO_COLLISION} @one_port @read_clocks %co1:+[WR_CLK] %i")


def yosys_script(name: str, lut_products: str = "", *, two_clocks: bool = False, resubstitute: bool = True) -> str:
    """The script from RTLIL to an ECP5 netlist.

    Wide multiplexers are made of LUT4s. They are smaller than with PFUMX cells, which hide logic from the mapper.

    lut_products: registers whose products fpga/flow/passes/lut_product.v makes before yosys infers multipliers (see
    `Board`). A product is found by the register's name, through its cell and the cell's input.
    two_clocks: see `no_collisions`.
    resubstitute: see `Board`.
    """
    synth = f"synth_ecp5 -nowidelut -top {name}"
    adders = (f"hierarchy -top {name}", "proc", "flatten",
              f"techmap -map {LUT_PRODUCT.name} w:{lut_products} %ci4 t:$mul %i")
    return "\n".join((
        f"read_rtlil {name}.il", *(adders if lut_products else ()),
        f"scratchpad -set abc9.D {LOGIC_PS}",
        f"scratchpad -copy {MAPPER} abc9.script" if resubstitute else f"scratchpad -set abc9.script {LOCAL_MAPPER}",
        f"{synth} -run begin:map_ram",
        *no_collisions(two_clocks),
        f"{synth} -run map_ram:", f"write_json {name}.json", "",
    ))


def _place(board: Board, netlist: Netlist, seed: int) -> Path:
    """Pack and place. Returns the folder with `placed.json` and `top.lpf`."""
    nextpnr = tools.find(NEXTPNR)
    cells = json.loads((netlist.folder / "top.json").read_text())
    macro_placement.constrain(cells, board)
    text = json.dumps(cells)
    arguments = [*board.nextpnr, "--json", "top.json", "--lpf", "top.lpf", "--seed", str(seed),
                 "--freq", str(board.mhz), *PLACER, "--no-route", "--timing-allow-fail", "--write", "placed.json"]

    def make(folder: Path) -> None:
        (folder / "top.json").write_text(text)
        (folder / "top.lpf").write_text(netlist.constraints)
        spent = tools.run(nextpnr, arguments, folder, "nextpnr.log")
        (folder / "seconds").write_text(str(spent.user_s))
        (folder / "top.json").unlink()

    return cached("placed", content_key(text, netlist.constraints, *arguments, nextpnr.version), make)


def _copy_cells(board: Board, placed: Path) -> Path:
    """Exchange block RAMs that lie too far away (`fpga.flow.passes.exchange`), if the board has that. Then duplicate
    cells of high fanout and place the copies (`fpga.flow.passes.fanout`).

    Returns the folder with `placed.json`, `top.lpf`, and `places.json` for `fpga.flow.floorplan_picture`.
    """
    nextpnr = tools.find(NEXTPNR)
    original, constraints = (placed / "placed.json").read_text(), (placed / "top.lpf").read_text()
    cells = json.loads(original)
    if board.exchanges:
        exchange.exchange(cells)
    fanout.split(cells, board.sinks)
    top(cells)["settings"] |= COPY_PLACER
    text = json.dumps(cells)
    arguments = [*board.nextpnr, "--json", "parted.json", "--lpf", "top.lpf", "--no-pack", "--no-route",
                 "--timing-allow-fail", "--write", "placed.json"]

    def make(folder: Path) -> None:
        (folder / "parted.json").write_text(text)
        (folder / "top.lpf").write_text(constraints)
        spent = tools.run(nextpnr, arguments, folder, "nextpnr.log")
        copied = json.loads((folder / "placed.json").read_text())
        fanout.check(json.loads(original), copied)
        found = floorplan_picture.places(copied)
        (folder / "places.json").write_text(json.dumps(found))
        (folder / "parted.json").unlink()
        (folder / "seconds").write_text(str(spent.user_s))

    return cached("placed", content_key(text, constraints, *arguments, nextpnr.version), make)


def _route(board: Board, placed: Path) -> Path:
    """Route and pack. Returns the folder with `top.bit` and `report.json`.

    The settings in a placed netlist override nextpnr's arguments.
    """
    nextpnr, pack = tools.find(NEXTPNR), tools.find(board.pack)
    cells = json.loads((placed / "placed.json").read_text())
    first, growth = map(str, board.prices)
    top(cells)["settings"] |= ROUTER | {"router2/initCurrCongWeight": first, "router2/currCongWeightMult": growth}
    text, constraints = json.dumps(cells), faster((placed / "top.lpf").read_text(), board.router_clock)
    arguments = [*board.nextpnr, "--json", "placed.json", "--lpf", "top.lpf", "--no-pack", "--no-place",
                 "--timing-allow-fail", "--textcfg", "top.config", "--report", "report.json",
                 "--detailed-timing-report"]

    def make(folder: Path) -> None:
        (folder / "placed.json").write_text(text)
        (folder / "top.lpf").write_text(constraints)
        spent = tools.run(nextpnr, arguments, folder, "nextpnr.log")
        (folder / "placed.json").unlink()
        tools.run(pack, ["--compress", "--input", "top.config", "--bit", "top.bit"], folder, "pack.log")
        (folder / "seconds").write_text(str(spent.user_s))

    return cached("bitstream", content_key(text, constraints, *arguments, nextpnr.version, pack.version), make)


def faster(constraints: str, factor: float) -> str:
    """Constraints (LPF) with faster clocks for nets. The clocks of ports stay."""
    return re.sub(r"(?<=^FREQUENCY NET )(\S+) (\S+)", lambda clock: f"{clock[1]} {float(clock[2]) * factor}",
                  constraints, flags=re.MULTILINE)


def _place_and_route(board: Board, netlist: Netlist, seed: int) -> Routed:
    """Place, copy, route and pack."""
    first = _place(board, netlist, seed)
    placed = _copy_cells(board, first)
    folder = _route(board, placed)
    return Routed(folder, placed, {"nextpnr, placing": seconds(first) + seconds(placed),
                                   "nextpnr, routing": seconds(folder)})


def _used(cells: Cells, utilization: Utilization) -> Used:
    return Used(lut4=cells.get("LUT4", 0), comb=utilization["TRELLIS_COMB"]["used"],
                ff=utilization["TRELLIS_FF"]["used"], bram=cells.get("DP16KD", 0), dsp=cells.get("MULT18X18D", 0))


def _script(board: Board, name: str) -> str:
    return yosys_script(name, board.lut_products, two_clocks=bool(board.wires),
                        resubstitute=board.resubstitute)


FAMILY = Family(
    nextpnr=NEXTPNR, pins="lpf", bitstream="bit", script=_script,
    files=(LUT_PRODUCT,), passes=PASSES, sources=SOURCES, route=_place_and_route, used=_used,
)
