"""`python -m fpga.flow.endpoint`: area and speed of one end of a link, alone on a ULX3S, with its pins.

Registers hold its ports to the chip, so paths are as in a chip. A shift register fills and empties them. If the core's
clock runs at half the link's clock, they count as unrelated clocks here, and paths between them are not timed.
"""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from amaranth.back import rtlil
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Elaboratable, Module, Signal, Value
from rich.console import Console

from base.cache import cached, content_key
from base.command import run
from base.errors import TspError
from fpga.gateware.serdes_ddr import DdrPins
from fpga.gateware.serdes_ecp5 import Ecp5Pins, renamed
from hw.link.endpoint import Endpoint
from hw.link.parameters import LinkParameters

from . import tools
from .ecp5 import NEXTPNR, yosys_script

SITES = ("B11 A10 A9 B9 A7 C8 C6 A6 A4 A2", "C11 A11 B10 C10 A8 B8 C7 B6 A5 B1")
"""Pins gp0..gp9 and gn0..gn9 of the header J1. One chip sends on the first and receives on the second; the other chip
does the reverse. The last pin of each is the clock."""
PARTS = "--85k", "--package", "CABGA381", "--speed", "6"
PINS = {"beats", "sampled", "delay_load", "delay_step"}


class Alone(Elaboratable):
    """An endpoint with its pins. Ports: clk, fast, scan_in, scan_out, out, in.

    pins: the pins of a technology.
    """

    def __init__(self, link: LinkParameters, pins: type[DdrPins] = Ecp5Pins):
        self.link, self._pins = link, pins
        self.clk, self.fast, self.scan_in, self.scan_out = (Signal(name=name) for name in
                                                            ("clk", "fast", "scan_in", "scan_out"))
        self.out, self.into = Signal(link.pins + 1, name="link_out"), Signal(link.pins + 1, name="link_in")
        self.ports = [self.clk, self.fast, self.scan_in, self.scan_out, self.out, self.into]

    def elaborate(self, platform):
        m = Module()
        m.domains += [ClockDomain(name, reset_less=True) for name in ("sync", "fast", "rx0")]
        m.d.comb += [ClockSignal().eq(self.clk), ClockSignal("fast").eq(self.fast)]
        end = Endpoint(self.link)
        m.submodules.end = renamed(end, 0)
        m.submodules.pins = pins = self._pins(self.link)
        for name in PINS:
            ours, theirs = getattr(end, name), getattr(pins, name)
            m.d.comb += ours.eq(theirs) if name == "sampled" else theirs.eq(ours)
        m.d.comb += [self.out.eq(Cat(pins.out_data, pins.out_clock)), pins.in_data.eq(self.into[:-1]),
                     pins.in_clock.eq(self.into[-1])]
        sides: dict[str, list[Value]] = {"In": [], "Out": []}
        for name, member in end.signature.members.items():
            if name not in PINS:
                sides[str(member.flow).rpartition(".")[2]].append(Value.cast(getattr(end, name)))
        self._scan(m, Cat(sides["In"]), Cat(sides["Out"]))
        return m

    def _scan(self, m: Module, inputs: Value, outputs: Value) -> None:
        given, seen, turn = Signal(len(inputs)), Signal(len(outputs)), Signal(6)
        m.d.sync += [given.eq(Cat(self.scan_in, given)), turn.eq(turn + 1), self.scan_out.eq(seen[-1]),
                     seen.eq(Cat(seen[-1], seen))]
        with m.If(turn == 0):
            m.d.sync += seen.eq(outputs)
        m.d.comb += inputs.eq(given)


def synthesised(link: LinkParameters) -> dict[str, int]:
    """Cells of an endpoint without pins, by type."""
    return json.loads((_synthesise(Endpoint(link), "end", None) / "cells.json").read_text())


def _synthesise(component: Elaboratable, name: str, ports: list[Signal] | None) -> Path:
    """The folder of the netlist NAME.json and of `cells.json`."""
    text = rtlil.convert(component, name=name, emit_src=False, **({"ports": ports} if ports else {}))
    script = yosys_script(name, two_clocks=True) + "tee -q -o stat.txt stat\n"
    yosys = tools.find("yosys")

    def make(folder: Path) -> None:
        (folder / f"{name}.il").write_text(text)
        (folder / f"{name}.ys").write_text(script)
        tools.run(yosys, ["-q", "-l", "yosys.log", f"{name}.ys"], folder, "yosys.out")
        found = re.findall(r"^\s*(\d+)\s+([A-Z]\w+)\s*$", (folder / "stat.txt").read_text(), re.MULTILINE)
        (folder / "cells.json").write_text(json.dumps({cell: int(count) for count, cell in found}))

    return cached("endpoint", content_key(text, script, yosys.version), make)


def routed(link: LinkParameters, mhz: float) -> dict[str, float]:
    """MHz that each clock of an endpoint with its pins reaches.

    mhz: clock of the core.
    """
    alone = Alone(link)
    folder = _synthesise(alone, "alone", alone.ports)
    netlist, pins = (folder / "alone.json").read_text(), _pins(link, mhz)
    nextpnr = tools.find(NEXTPNR)
    arguments = [*PARTS, "--json", "alone.json", "--lpf", "pins.lpf", "--textcfg", "alone.config", "--report",
                 "report.json", "--timing-allow-fail", "--lpf-allow-unconstrained"]

    def make(target: Path) -> None:
        (target / "alone.json").write_text(netlist)
        (target / "pins.lpf").write_text(pins)
        tools.run(nextpnr, arguments, target, "nextpnr.log")
        tools.run(tools.find("ecppack"), ["--input", "alone.config", "--bit", "alone.bit"], target, "pack.log")

    report = json.loads((cached("endpoint", content_key(netlist, pins, *arguments, nextpnr.version), make)
                         / "report.json").read_text())
    return {re.sub(r"\$glbnet\$|\$TRELLIS_IO_IN", "", clock): found["achieved"]
            for clock, found in report["fmax"].items()}


def _pins(link: LinkParameters, mhz: float) -> str:
    sends, takes = (sites.split() for sites in SITES)
    lines = [f'FREQUENCY PORT "clk" {mhz} MHZ;', f'FREQUENCY PORT "fast" {2 * mhz} MHZ;',
             f'FREQUENCY PORT "link_in[{link.pins}]" {link.ratio * mhz} MHZ;', 'LOCATE COMP "clk" SITE "G2";']
    for name, sites in (("link_out", sends), ("link_in", takes)):
        for n, site in enumerate((*sites[: link.pins], sites[-1])):
            lines += [f'LOCATE COMP "{name}[{n}]" SITE "{site}";',
                      f'IOBUF PORT "{name}[{n}]" IO_TYPE=LVCMOS33 SLEWRATE=FAST;']
    return "\n".join((*lines, ""))


def main(
    lanes: Annotated[int, typer.Option(help="4 or 8")] = 8,
    ratio: Annotated[int, typer.Option(help="link clocks in a core cycle: 1 or 2")] = 1,
    slack: Annotated[int, typer.Option(help="cycles by which clocks of their own may run apart; 0: one clock")] = 0,
    mhz: Annotated[float, typer.Option(help="clock of the core")] = 50.0,
) -> None:
    """Synthesise and route one end of a link."""
    console = Console()
    try:
        link = LinkParameters(lanes=lanes, pins=lanes + 1, ratio=ratio, taps=16, slack=slack)
        console.print("synthesis, place and route (take a minute or two unless they are in the cache)")
        cells, clocks = synthesised(link), routed(link, mhz)
    except (TspError, ValueError) as error:
        print(f"fpga.flow.endpoint: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    console.print(", ".join(f"{count} {cell}" for cell, count in cells.items()))
    console.print(", ".join(f"{clock}: {reached:.0f} MHz" for clock, reached in clocks.items()))


if __name__ == "__main__":
    run(main, "fpga.flow.endpoint")
