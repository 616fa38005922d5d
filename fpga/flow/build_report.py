"""The report of a build: a table on the terminal, and a JSON file that is committed."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from fpga.boards import Board

FOLDER = Path(__file__).parents[1] / "reports"
PLL_CLOCKS = CHIP_CLOCK, _ = "$clock.pll_clk", "$clock.fast_clk"
"""Ends of the names of the clocks that `fpga.gateware.clock` makes: the chip's, and the doubled one."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of one bitstream.

    lut4: LUT4s that yosys counts.
    comb: LUT4s that nextpnr counts, with those of carry chains and LUT memories.
    ff: flip-flops that nextpnr counts. `comb` and `ff` include copies (`fpga.flow.passes.fanout`).
    """

    board: str
    part: str
    config: str
    digest: str
    seed: int
    seeds_tried: int
    lut4: int
    comb: int
    ff: int
    bram: int
    dsp: int
    fmax_mhz: float
    constraint_mhz: float
    critical_path: tuple[str, ...]
    versions: dict[str, str]
    seconds: dict[str, float]

    @property
    def met(self) -> bool:
        """Whether the clock constraint holds."""
        return self.fmax_mhz >= self.constraint_mhz

    def save(self, folder: Path = FOLDER) -> Path:
        """Write `BOARD.json`."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.board}.json"
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")
        return path

    def table(self, board: Board) -> Table:
        """The table for the terminal."""
        table = Table(title=f"{self.board}: config {self.config} ({self.digest}) on {self.part}, seed {self.seed}")
        for column in ("", "used", "there are", "share"):
            table.add_column(column, justify="left" if not column else "right")
        for name, used, there in (("LUT4", self.lut4, board.lut),
                                  ("LUT4 with carry and LUT memory", self.comb, board.lut),
                                  ("flip-flops", self.ff, board.ff), ("block RAM", self.bram, board.bram),
                                  ("multipliers", self.dsp, board.dsp)):
            table.add_row(name, f"{used:,}", f"{there:,}", f"{used / there:.0%}")
        verdict = "met" if self.met else "MISSED"
        table.add_row("Fmax, MHz", f"{self.fmax_mhz:.1f}", f"{self.constraint_mhz:.1f}", verdict)
        for step, seconds in self.seconds.items():
            table.add_row(f"{step}, seconds", f"{seconds:.0f}", "", "")
        for tool, version in self.versions.items():
            table.add_row(tool, version, "", "")
        return table


def fmax(report: str, ratio: int = 1) -> float:
    """MHz of the chip's clock at which every clock in nextpnr's report is fast enough.

    ratio: all clocks but the chip's are so many times as fast: those of a link (`LinkParameters.ratio`). Paths from one
    of the PLL's clocks to another have a cycle of the chip's (`fpga.gateware.serdes_ddr`). nextpnr reports these paths
    without a constraint, and forgets the constraints of other clocks when it reads a placed netlist.
    """
    read = json.loads(report)
    clocks = {name: clock["achieved"] for name, clock in read["fmax"].items()}
    if not any(ratio == 1 or name.endswith(CHIP_CLOCK) for name in clocks):
        raise ValueError("nextpnr's report does not name the chip's clock")
    reached = [mhz if name.endswith(CHIP_CLOCK) else mhz / ratio for name, mhz in clocks.items()]
    reached += [1000 / _delay(path) for path in read.get("critical_paths", ())
                if path["from"] != path["to"] and all(path[end].endswith(PLL_CLOCKS) for end in ("from", "to"))]
    return min(reached)


def critical_path(report: str) -> tuple[str, ...]:
    """The steps of the longest path within one clock: the step, its origin, and the ns after the clock edge."""
    paths = [path for path in json.loads(report).get("critical_paths", ()) if path["from"] == path["to"]]
    if not paths:
        return ()
    longest = max(paths, key=_delay)
    return tuple(f"{step['delay']:.2f} {step['type']} {_short(step['to']['cell'])}" for step in longest["path"])


def _delay(path: dict) -> float:
    """Nanoseconds of a path."""
    return sum(step["delay"] for step in path["path"])


def _short(cell: str) -> str:
    """A cell's name without the suffixes of synthesis."""
    return re.sub(r"_(LUT4|TRELLIS_FF|CCU2C|PFUMX|L6MUX21|DP16KD|MULT18X18D|DPR16X4)_.*$", "", cell)
