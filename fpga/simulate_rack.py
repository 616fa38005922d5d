"""Boards that are joined at their pins, each on a pseudo-terminal: `python -m fpga.simulate --rack pair`.

What is simulated is all between the serial lines and the header's pins, but for the PLLs: chips, endpoints, and the
pins' DDR cells and delays (`fpga.gateware.serdes_model`). Between the boards are lines with a delay each, jitter and
wrong bits. Boards beyond the first take their clock from a link, with any phase, or have clocks of their own.
"""

import ctypes
import os
import select
import threading
import tty
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from arch.config import ChipConfig
from arch.rack import Port, RackConfig
from base.cache import cache_root, check_executable, source_digest
from base.errors import TspError
from hw.link.parameters import LinkParameters
from program.image import ACCESS
from sim.lines import parameters
from sim.rtl.build import build, load
from sim.rtl.verilog import RTL_SOURCES, verilog_by_key

from .back_door import BackDoorLine
from .host.links import number_of, parents
from .simulate import CLOCK_MHZ, FAST, FOLDER, SOURCES, serial_line

HARNESS = Path(__file__).with_name("rack_harness.cpp")
TAPS = 16
"""Settings of an input delay, as on a board."""
FS = 10**9
"""Femtoseconds of a microsecond."""
_P, _U32, _U64, _I64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
_NUMBERS = np.ctypeslib.ndpointer(np.int64, flags="C")
_FUNCTIONS = {
    "rack_create": (_P, (_U32, _NUMBERS, _NUMBERS, np.ctypeslib.ndpointer(np.int32, flags="C"))),
    "rack_destroy": (None, (_P,)), "rack_board": (_P, (_P, _U32)), "rack_time": (_I64, (_P,)),
    "rack_connect": (None, (_P, _U32, _P, _U32)),
    "rack_lines": (None, (_P, _U32, _NUMBERS, _I64, _U32, ctypes.c_double, _U64)),
    "rack_bits": (None, (_P, _U32, np.ctypeslib.ndpointer(np.uint64, flags="C"))),
    "rack_clock": (None, (_P, _I64)),
    "board_cycle": (_U64, (_P,)), "board_running": (ctypes.c_int, (_P,)),
    "board_run": (ctypes.c_int, (_P, ctypes.c_int, ctypes.c_int, _U64)),
    "board_write": (None, (_P, np.ctypeslib.ndpointer(ACCESS, flags="C"), _U64)),
}


@dataclass(frozen=True, kw_only=True)
class Cable:
    """The lines of all links.

    delay: ps of the shortest one. skew: ps by which lines of a link differ at most, at random by `seed`.
    jitter: ps by which an edge comes earlier or later at most. errors: probability of a bit to be wrong.
    """

    delay: int = 1000
    skew: int = 0
    jitter: int = 0
    errors: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("delay", "skew", "jitter"):
            if not 0 <= getattr(self, name) <= MOST_PS:
                raise TspError(f"--cable: {name} must be in 0..{MOST_PS} ps, not {getattr(self, name)}")
        if not 0 <= self.errors <= 0.5:
            raise TspError(f"--cable: errors must be a probability in 0..0.5, not {self.errors:g}")
        if self.seed < 0:
            raise TspError(f"--cable: seed must be 0 or more, not {self.seed}")

    @classmethod
    def parse(cls, text: str) -> "Cable":
        """The cable of "delay=2000,skew=300,errors=1e-6". Raises TspError."""
        found: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in cls.__dataclass_fields__:
                raise TspError(f"--cable must be of {', '.join(cls.__dataclass_fields__)}, such as "
                               f"delay=2000,skew=300, not {part!r}")
            if name in found:
                raise TspError(f"--cable: {name} must be given once")
            try:
                found[name] = float(value) if name == "errors" else int(value)
            except ValueError:
                raise TspError(f"--cable: {name} must be a number, not {value!r}") from None
        return cls(**found)  # type: ignore[arg-type]


MOST_PS = 200_000
"""Longest delay: 40 m of cable."""


def link_of(config: ChipConfig, slack: int = 0) -> LinkParameters:
    """The links of a chip on a board."""
    return replace(parameters(config), taps=TAPS, slack=slack)


def library(config: ChipConfig, slack: int, divisor: Fraction, mhz: float) -> ctypes.CDLL:
    """The simulator of boards with this chip, built if it is not in the cache. Raises TspError."""
    from .gateware.back_door import LinkedBoard
    from .gateware.serdes_model import LONGEST, STEP_PS

    check_executable(cache_root())
    link = link_of(config, slack)
    key = source_digest(*RTL_SOURCES), *((FOLDER / name).read_text() for name in SOURCES)
    text = verilog_by_key(lambda: LinkedBoard(config=config, link=link, divisor=divisor, mhz=mhz), "linked_board", *key,
                          repr(config), repr(link), str(divisor), str(mhz))
    links = " ".join(f"X({n})" for n in range(sum(config.ports)))
    head = (f"#define PINS {link.pins}\n#define RATIO {link.ratio}\n#define STEP_PS {STEP_PS}\n"
            f"#define LONGEST {LONGEST}\n#define LINKS(X) {links}\n")
    lib = load(build(text, "linked_board", head + serial_line(divisor) + HARNESS.read_text()))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@dataclass
class _Terminal:
    """A board's pseudo-terminal. The slave stays open: otherwise the master ends with its last user."""

    master: int
    slave: int

    @staticmethod
    def open() -> "_Terminal":
        master, slave = os.openpty()
        os.set_blocking(master, False)
        tty.setraw(slave)
        return _Terminal(master, slave)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


class SimulatedRack:
    """Boards of a rack that a thread simulates during a `with` block. `paths` are their terminals, chip by chip.

    rack: its chips are all alike.
    cable: the lines of all links, which `lines` changes.
    phases: ps by which each board's clock comes behind that of the link that it takes it from.
    ppm: by which each board's own oscillator is fast, where boards beyond the first do not take a link's clock. By
    default they do, but on a rack with oscillators they are as far apart as it allows.
    divisor, mhz: as of `fpga.simulate.SimulatedBoard`.
    """

    def __init__(self, rack: RackConfig, *, cable: Cable = Cable(), phases: Sequence[int] | None = None,
                 ppm: Sequence[float] | None = None, divisor: int | Fraction = FAST, mhz: float = CLOCK_MHZ) -> None:
        if len(set(rack.chips)) > 1:
            raise TspError(f"rack {rack.name} must have chips that are all alike to be simulated as boards")
        if sum(rack.chips[0].ports) == 0:
            raise TspError(f"rack {rack.name} must have links to be simulated as boards")
        self.rack, self._lib = rack, library(rack.chips[0], rack.slack, Fraction(divisor), mhz)
        self._link, count = link_of(rack.chips[0], rack.slack), len(rack.chips)
        if rack.oscillators and ppm is None:
            ppm = [rack.oscillators.ppm * (1 if n % 2 else -1) for n in range(count)]
        half = FS / mhz / self._link.ratio / 2
        rates = ppm or [0.0] * count
        clocks = [-1 if ppm else parent for parent in _clock_links(rack)]
        self._halves = np.array([round(half / (1 + rate * 1e-6)) for rate in rates], np.int64)
        self._rack = _P(self._lib.rack_create(count, self._halves, _fs(phases or [1234] * count),
                                              np.array(clocks, np.int32)))
        self._boards = [_P(self._lib.rack_board(self._rack, n)) for n in range(count)]
        for near, (far, _) in rack.across.items():
            self._lib.rack_connect(self._boards[near.chip], number_of(rack, near), self._boards[far.chip],
                                   number_of(rack, far))
        self._asked: SimpleQueue[tuple[Callable[[], object], Future]] = SimpleQueue()
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        self._set_cable(cable)
        self._terminals = [_Terminal.open() for _ in rack.chips]
        self.paths = [os.ttyname(each.slave) for each in self._terminals]
        self._lines = [BackDoorLine(self._lib, board, each.master, self._stop)
                       for board, each in zip(self._boards, self._terminals, strict=True)]

    @property
    def cycles(self) -> int:
        """Cycles of chip 0 so far."""
        return self._lib.board_cycle(self._boards[0])

    def bits(self, port: Port) -> tuple[int, int]:
        """Bits that lines have carried to a port, and how many of them were made wrong."""
        found = np.zeros(2, np.uint64)
        self._do(lambda: self._lib.rack_bits(self._boards[port.chip], number_of(self.rack, port), found))
        return int(found[0]), int(found[1])

    def lines(self, port: Port, *, delays: Sequence[int], jitter: int = 0, cut: int = 0, errors: float = 0.0,
              seed: int = 0) -> None:
        """Change the lines that end at a port.

        delays: ps of the data pins and the clock. cut: a bit each, of those that are dead.
        """
        self._do(lambda: self._lib.rack_lines(self._boards[port.chip], number_of(self.rack, port),
                                              np.array(delays, np.int64), jitter, cut, errors, seed))

    def _do(self, action: Callable[[], object]) -> None:
        """Do something between two slices of time: the simulation belongs to its thread."""
        if not self._thread.is_alive():
            action()
            return
        done: Future = Future()
        self._asked.put((action, done))
        done.result()

    def _set_cable(self, cable: Cable, cut: int = 0) -> None:
        for n, port in enumerate(sorted(self.rack.across)):
            rng = np.random.default_rng([cable.seed, n])
            delays = cable.delay + rng.integers(0, cable.skew + 1, self._link.pins + 1)
            self.lines(port, delays=delays.tolist(), jitter=cable.jitter, errors=cable.errors, cut=cut,
                       seed=int(rng.integers(1 << 62)))

    def pull(self, cable: Cable) -> None:
        """Cut all lines."""
        self._set_cable(cable, (2 << self._link.pins) - 1)

    def plug(self, cable: Cable) -> None:
        """Connect all lines."""
        self._set_cable(cable)

    def __enter__(self) -> "SimulatedRack":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for line, terminal in zip(self._lines, self._terminals, strict=True):
            line.close()
            terminal.close()
        self._lib.rack_destroy(self._rack)

    def _run(self) -> None:
        masters = [each.master for each in self._terminals]
        while not self._stop.is_set():
            while not self._asked.empty():
                action, done = self._asked.get()
                done.set_result(action())
            rest = [line.step() for line in self._lines]
            if all(rest):
                select.select(masters, [], [], 0.05)


def _clock_links(rack: RackConfig) -> list[int]:
    """The number of the link whose clock each chip takes; -1 of the root."""
    found = parents(rack)
    return [number_of(rack, found[n]) if n in found else -1 for n in range(len(rack.chips))]


def _fs(picoseconds: Sequence[int]) -> np.ndarray:
    return np.array(picoseconds, np.int64) * 1000
