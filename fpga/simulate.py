"""`python -m fpga.simulate`: a board on a pseudo-terminal, so that `tsp run --device /dev/pts/N` finds one.

It simulates the Verilog of the board's logic within the pins. Bytes from the terminal go to the pin `rx` bit by bit,
and bytes from the pin `tx` go back. Time stands still while nothing happens.
"""

import ctypes
import os
import select
import sys
import threading
import tty
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from arch.config import CONFIGS, DEFAULT_CONFIG, ChipConfig, config_of
from arch.rack_file import rack_of
from base.cache import cache_root, check_executable, source_digest
from base.command import run
from base.errors import TspError
from fpga.gateware.uart import divisor_of
from program.image import ACCESS
from sim.rtl.build import build, load
from sim.rtl.verilog import RTL_SOURCES, verilog_by_key

from .back_door import BackDoorLine
from .boards import BOARDS, board_of

HARNESS, SERIAL_LINE = (Path(__file__).with_name(name) for name in ("harness.cpp", "serial_line.h"))
FOLDER = Path(__file__).parent
SOURCES = ("gateware/back_door.py", "gateware/bridge.py", "gateware/linked.py", "gateware/serdes.py",
           "gateware/serdes_ddr.py", "gateware/serdes_model.py", "gateware/top.py", "gateware/uart.py", "protocol.py")
"""Sources of the simulated logic in addition to `RTL_SOURCES`."""
FAST = 4
"""Fewest cycles a bit."""
SLICE = 1 << 16
"""Cycles between checks for the end of the simulation."""
MHZ = (0.01, 10_000.0)
"""Range of the clock that a board may report. It reports kHz, and no FPGA reaches the upper limit."""
CLOCK_MHZ = 50.0
"""The default clock."""
SLOWEST = 300
"""Bits a second of the slowest line."""
_BOARD = ctypes.c_void_p
_FUNCTIONS = {
    "board_create": (_BOARD, ()),
    "board_destroy": (None, (_BOARD,)),
    "board_cycle": (ctypes.c_uint64, (_BOARD,)),
    "board_running": (ctypes.c_int, (_BOARD,)),
    "board_run": (ctypes.c_int, (_BOARD, ctypes.c_int, ctypes.c_int, ctypes.c_uint64)),
}
_BACK_DOOR = {"board_write": (None, (_BOARD, np.ctypeslib.ndpointer(ACCESS, flags="C"), ctypes.c_uint64))}


def serial_line(divisor: Fraction) -> str:
    """What a harness needs of a serial line (serial_line.h). divisor: cycles a bit."""
    return (f"#define BIT_PARTS {divisor.numerator}\n#define CYCLE_PARTS {divisor.denominator}\n"
            + SERIAL_LINE.read_text())


def library(config: ChipConfig, divisor: Fraction, mhz: float, back_door: bool) -> ctypes.CDLL:
    """The simulator of a board, built if it is not in the cache. Raises TspError."""
    from fpga.gateware.back_door import BackDoor
    from fpga.gateware.top import Core

    check_executable(cache_root())
    key = source_digest(*RTL_SOURCES), *((FOLDER / name).read_text() for name in SOURCES)
    top = BackDoor if back_door else Core
    text = verilog_by_key(lambda: top(config=config, divisor=divisor, mhz=mhz), "board", *key, repr(config),
                          str(divisor), str(mhz), top.__name__)
    head = "#define BACK_DOOR\n" if back_door else ""
    lib = load(build(text, "board", head + serial_line(divisor) + HARNESS.read_text()))
    for name, (result, arguments) in {**_FUNCTIONS, **(_BACK_DOOR if back_door else {})}.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class SimulatedBoard:
    """A board that a thread simulates during a `with` block. `path` is its terminal.

    config: its chip.
    divisor: cycles a bit of its line.
    mhz: the clock that it reports.
    back_door: frames that load the chip take a cycle a word (`fpga.back_door`).
    """

    def __init__(self, config: ChipConfig, *, divisor: int | Fraction = FAST, mhz: float = CLOCK_MHZ,
                 back_door: bool = False) -> None:
        self._lib = library(config, Fraction(divisor), mhz, back_door)
        self._board = _BOARD(self._lib.board_create())
        self._master, self._slave = os.openpty()  # the slave stays open: otherwise the master ends with its last user
        os.set_blocking(self._master, False)
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._stop = threading.Event()
        self._line = BackDoorLine(self._lib, self._board, self._master, self._stop) if back_door else None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def cycles(self) -> int:
        """Cycles simulated so far."""
        return self._lib.board_cycle(self._board)

    def __enter__(self) -> "SimulatedBoard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._line:
            self._line.close()
        self._lib.board_destroy(self._board)
        os.close(self._master)
        os.close(self._slave)

    def _run(self) -> None:
        while not self._stop.is_set():
            at_rest = (self._line.step() if self._line
                       else self._lib.board_run(self._board, self._master, self._master, SLICE))
            if at_rest:
                select.select([self._master], [], [], 0.05)


def divisor(mhz: float, baud: int) -> Fraction:
    """Cycles a bit of a line. They are as few as possible if baud is 0. Raises TspError if a number is out of range."""
    if not MHZ[0] <= mhz <= MHZ[1]:  # also refuses nan
        raise TspError(f"--mhz must be in {MHZ[0]:g}..{MHZ[1]:g}, not {mhz:g}: the boards have 45 to 50")
    most = int(mhz * 1e6 / FAST)
    if baud and not SLOWEST <= baud <= most:
        raise TspError(f"--baud must be in {SLOWEST}..{most} at {mhz:g} MHz, because a bit takes at least {FAST} "
                       "cycles, "
                       f"not {baud}: leave it out for {FAST} cycles a bit")
    return divisor_of(mhz, baud) if baud else Fraction(FAST)


def chip_and_clock(config: str | None, mhz: float | None, board: str) -> tuple[ChipConfig, float]:
    """Chip and clock of the board, if one is given, or else of the options. Raises TspError if both are given."""
    if not board:
        return config_of(DEFAULT_CONFIG if config is None else config), CLOCK_MHZ if mhz is None else mhz
    chosen = board_of(board)
    if chosen.rack:
        raise TspError(f"board {board} is one of rack {chosen.rack}: simulate all of them with --rack {chosen.rack}")
    for option, value in (("--config", config), ("--mhz", mhz)):
        if value is not None:
            raise TspError(f"{option} must not be given together with --board, which sets it: leave one of them out")
    return config_of(chosen.config), chosen.mhz


def main(
    config: Annotated[str | None, typer.Option(help=f"The board's chip: {', '.join(CONFIGS)}.  [default: "
                                                    f"{DEFAULT_CONFIG}]")] = None,
    mhz: Annotated[float | None, typer.Option(help=f"Clock that the board reports.  [default: {CLOCK_MHZ:g}]")] = None,
    baud: Annotated[int, typer.Option(help="Baud rate of its line. Programs are then loaded bit by bit.  "
                                           "[default: 4 cycles a bit, and a back door for programs]")] = 0,
    board: Annotated[str, typer.Option(help=f"Board whose chip and clock to take: {', '.join(BOARDS)}.")] = "",
    rack: Annotated[str | None, typer.Option(help="Boards that are joined at their pins: pair, or a file "
                                                  "NAME.json.")] = None,
    cable: Annotated[str, typer.Option(help="Lines between them: delay=PS,skew=PS,jitter=PS,errors=RATE,seed=N.")] = "",
) -> None:
    """Simulate a board, or a rack of boards, until ctrl-C. Exits with 2 if it cannot be built."""
    try:
        if rack is not None:
            _rack(rack, cable, {"--config": config, "--mhz": mhz, "--baud": baud or None, "--board": board or None})
            return
        if cable:
            raise TspError("--cable is between boards of a rack: give --rack, too")
        chip, clock = chip_and_clock(config, mhz, board)
        simulated = SimulatedBoard(chip, divisor=divisor(clock, baud), mhz=clock, back_door=not baud)
    except (TspError, ValueError) as error:
        print(f"fpga.simulate: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    with simulated:
        path = simulated.path
        print(f"a board with config {chip.name} at {path}: tsp run PROGRAM --device {path}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{simulated.cycles:,} cycles")


def _rack(name: str, cable: str, others: dict[str, object]) -> None:
    """Simulate a rack of boards until ctrl-C. Raises TspError."""
    from .simulate_rack import Cable, SimulatedRack

    if given := [option for option, value in others.items() if value is not None]:
        raise TspError(f"--rack sets the boards and their clock: leave out {' and '.join(given)}")
    with SimulatedRack(rack_of(name), cable=Cable.parse(cable)) as boards:
        ports = ",".join(boards.paths)
        print(f"the boards of rack {boards.rack.name} at {ports}: tsp run PROGRAM --rack {name} --device {ports}",
              flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{boards.cycles:,} cycles")


if __name__ == "__main__":
    run(main, "fpga.simulate")
