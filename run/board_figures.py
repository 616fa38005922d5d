"""The figures of boards for `tsp bench`: of what was built out of the committed reports, of the line by its bytes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from arch.host_map import Space
from arch.identity import chip_digest
from fpga.boards import BOARDS
from fpga.flow.build_report import FOLDER
from fpga.gateware.uart import BITS
from fpga.host.board import BAUD
from fpga.host.frames import writes
from program.image import Access
from program.program import Program
from sim.device.chip_device import ChipDevice
from sim.device.port_chip import PortChip

from .bench import CYCLES, Figure
from .programs import open_program


def board_figures(found: Iterable[Figure], folder: Path = FOLDER) -> list[Figure]:
    """Of every board with a report of its present chip: what it takes, its clock, and tokens a second at that clock.

    found: figures of models, of which the cycles a token are used.
    """
    figures: list[Figure] = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        board = BOARDS.get(report["board"])
        if board is None or (report["config"], report["digest"]) != (board.chip.name, chip_digest(board.chip)):
            continue
        name, config = f"board {board.name}", board.chip
        figures += [
            Figure(name, f"Fmax by nextpnr, best of {report['seeds_tried']} seeds", report["fmax_mhz"], "MHz"),
            Figure(name, "LUT4, share of the part's", report["lut4"] / board.lut, ""),
            Figure(name, "LUT4 with carry and LUT memory, share", report["comb"] / board.lut, ""),
            Figure(name, "flip-flops, share", report["ff"] / board.ff, ""),
            Figure(name, "int8 multiply-accumulates a cycle", config.macs, ""),
        ]
        clock, at = ((report["fmax_mhz"], "Fmax") if board.pll else
                     (board.mhz, f"{board.mhz:g} MHz, the only clock without a PLL"))
        figures += [Figure(name, f"{figure.model} at {at}", clock * 1e6 / figure.value, "tokens/s")
                    for figure in found if figure.what.startswith(CYCLES.format(config.name))]
    return figures


# --- the line ------------------------------------------------------------------------------------------------------


class _Counter:
    """A port to a chip that is always the right one, and counts bytes."""

    def __init__(self, program: Program) -> None:
        self._identity = int(chip_digest(program.config), 16)
        self.sent = 0

    def write(self, accesses: Iterable[Access]) -> None:
        self.sent += sum(len(write.frame(0)) for write in writes(accesses))

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        return [self._identity for _ in addrs]


def load_seconds(program: Program) -> float:
    """What the bytes of loading a program take on the line, if none is lost."""
    port = _Counter(program)
    ChipDevice("line", PortChip(program.config, port)).load(program)
    return port.sent * BITS / BAUD


def load_figures(checkpoints: Iterable[Path]) -> list[Figure]:
    """Of programs for the default chip. Raises TspError."""
    return [Figure(path.stem, f"load over UART at {BAUD / 1e6:g} Mbaud", load_seconds(open_program(path)), "s")
            for path in checkpoints]
