"""The Verilated chip: the RTL in a shared library. C++ drives it for millions of cycles in one call."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data as layouts

from arch.config import PLANES, POSITIONS, ChipConfig
from arch.host_map import WORD, Control, Space, Trap, c_defines
from arch.row import slice_depths
from base import cache
from base.progress import Tell
from hw.chip import Chip, probe_ports
from hw.mem import DEEP, banks
from program.image import ACCESS, Image
from sim.device.hosted_chip import HostedChip

from .build import TRACES, build, load
from .verilog import RTL_SOURCES, verilog_by_key

HARNESS = Path(__file__).with_name("harness.cpp")
DEEP_BANKS = Path(__file__).with_name("deep_banks.cpp")
LINKS = Path(__file__).with_name("links.cpp")


class TimeoutExceeded(RuntimeError):
    """A run did not end within its limit of cycles."""


@dataclass(frozen=True)
class Probe:
    """A debug output: its place in the flat buffer, and its bits."""

    offset: int
    size: int
    shape: object

    @cached_property
    def fields(self) -> list[tuple[str, int, int]]:
        """(name, offset, width) of the fields of a struct, in bits."""
        return list(_fields(self.shape))


def probe_table(config: ChipConfig) -> dict[str, Probe]:
    """The chip's debug outputs in the order of the flat buffer. It is empty for a build without them."""
    table: dict[str, Probe] = {}
    offset = 0
    for name, member in probe_ports(config).items() if config.debug else ():
        shape = member.shape
        size = _stored_bytes(Shape.cast(shape).width)
        table[name] = Probe(offset, size, shape)
        offset += size
    return table


def _stored_bytes(bits: int) -> int:
    """Bytes of a port in Verilator's model."""
    for size in (1, 2, 4, 8):
        if bits <= 8 * size:
            return size
    return 4 * -(-bits // 32)


def library(config: ChipConfig, *, trace: str | None = None, verilog: str | None = None, opt: str = "-O2") -> Path:
    """The shared library of a chip, built if it is not in the cache.

    trace: format of waveforms, if any.
    verilog: a module `chip` in place of the config's own.
    opt: C++ optimisation (see `sim.rtl.build.build`).
    """
    cache.check_executable(cache.cache_root())
    deep = DEEP_BANKS.read_text() if deep_slices(config) and not verilog else ""
    text = harness(config, trace=trace) + deep + (_links(config) if any(config.ports) else "")
    return build(verilog or chip_verilog(config), "chip", text, trace=trace, opt=opt)


def _links(config: ChipConfig) -> str:
    """links.cpp, preceded by its macros."""
    sides = " ".join(f"X({n}, {side}, {count})" for n, side in enumerate("WE") if (count := config.ports_of(side)))
    return f"#define SIDES(X) {sides}\n#define PLANE {config.plane_bits // 8}\n" + LINKS.read_text()


def harness(config: ChipConfig, *, trace: str | None = None) -> str:
    """The C++ that drives a chip: harness.cpp, preceded by its macros."""
    probes = " ".join(f"X({name})" for name in probe_table(config))
    head = f"{c_defines()}#define PROBES(X) {probes}\n"
    if trace:
        writer, header = TRACES[trace]
        head += f'#define TRACE {writer}\n#define TRACE_HEADER "{header}"\n'
    return head + HARNESS.read_text()


def deep_slices(config: ChipConfig) -> dict[str, list[int]]:
    """Bank depths of each slice ("MEM_E1") whose banks are all deep. `sim_bank` can fill these directly."""
    depths = {f"MEM_{name}": banks(depth) for name, depth in slice_depths(config).items()}
    return {name: found for name, found in depths.items() if min(found) > DEEP}


def chip_verilog(config: ChipConfig) -> str:
    """The chip's Verilog. The cache keeps it until a file of arch/ or hw/ changes."""
    return verilog_by_key(lambda: Chip(config=config), "chip", cache.source_digest(*RTL_SOURCES), repr(config))


_U32P = np.ctypeslib.ndpointer(np.uint32, flags="C")
_U64P = np.ctypeslib.ndpointer(np.uint64, flags="C")
_SIM = ctypes.c_void_p
_FUNCTIONS = {
    "sim_create": (_SIM, (ctypes.c_char_p,)),
    "sim_destroy": (None, (_SIM,)),
    "sim_brief": (ctypes.c_int, (_SIM,)),
    "sim_cycle": (ctypes.c_uint64, (_SIM,)),
    "sim_write": (None, (_SIM, np.ctypeslib.ndpointer(ACCESS, flags="C"), ctypes.c_uint64)),
    "sim_read": (None, (_SIM, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, _U32P)),
    "sim_step": (None, (_SIM, ctypes.c_uint64)),
    "sim_running": (ctypes.c_int, (_SIM,)),
    "sim_token_start": (ctypes.c_int, (_SIM,)),
    "sim_run": (ctypes.c_int64, (_SIM, ctypes.c_uint32, ctypes.c_uint64, _U64P)),
    "sim_probe_bytes": (ctypes.c_uint64, ()),
    "sim_probes": (None, (_SIM, np.ctypeslib.ndpointer(np.uint8, flags="C"))),
}


def bind(path: Path) -> Any:
    """The functions of a library."""
    lib = load(path)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    if hasattr(lib, "sim_bank"):
        lib.sim_bank.restype, lib.sim_bank.argtypes = ctypes.c_void_p, (_SIM, ctypes.c_char_p)
    return lib


class VerilatedChip(HostedChip):
    """One Verilated chip.

    Memory contents are uint8 [quad, plane, lane]. Each host access takes a cycle. Deep slices of an image are written
    to their banks directly and take no cycles.

    config: the chip's config. With `debug`, the build has traps and probes.
    trace: a file of waveforms, in a format of `sim.rtl.build.TRACES`. Its build is slower. Cycle n begins at time 2 n.
    verilog, opt: see `library`.
    """

    def __init__(self, config: ChipConfig, debug: bool = False, trace: str | Path | None = None,
                 trace_format: str = "vcd", *, verilog: str | None = None, opt: str = "-O2"):
        self.config = replace(config, debug=debug)
        self._lib = self._bind(library(self.config, trace=trace_format if trace else None, verilog=verilog, opt=opt))
        self._deep = {} if verilog else deep_slices(config)
        self._probes = probe_table(self.config)
        self._sim = _SIM(self._lib.sim_create(str(trace).encode() if trace else None))
        self._buffer = np.zeros(self._lib.sim_probe_bytes(), np.uint8)

    def _bind(self, path: Path) -> Any:
        if any(self.config.ports):
            raise ValueError(f"config {self.config.name} must have no links: chips with links are simulated in a rack "
                             "(sim.rtl.linked)")
        return bind(path)

    def close(self) -> None:
        """Free the chip and finish its waveforms."""
        if self._sim:
            self._lib.sim_destroy(self._sim)
            self._sim = None

    def __enter__(self) -> "VerilatedChip":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def brief(self) -> bool:
        """Whether the simulation leaves out falling edges, at which nothing happens. With waveforms it does not."""
        return bool(self._lib.sim_brief(self._sim))

    # --- host port -----------------------------------------------------------------------------------------------

    def load(self, image: Image, tell: Tell = lambda done: None) -> None:
        """Write an image and position 0. Deep slices are written directly.

        tell: see `HostedChip.load`.
        """
        for name in self._deep.keys() & image.mems.keys():
            self._fill(name, image.mems[name])
        others = {name: data for name, data in image.mems.items() if name not in self._deep}
        super().load(replace(image, mems=others), tell)

    def _fill(self, name: str, data: np.ndarray) -> None:
        """Write the first quads of a deep slice. In a word of its banks, the planes of a lane are adjacent."""
        first = 0
        for number, depth in enumerate(self._deep[name]):
            part = data[first : first + depth]
            self._bank(f"chip.chip.unit_{name}.banks.bank{number}", depth)[: len(part)] = part.swapaxes(1, 2)
            first += depth

    def _bank(self, scope: str, depth: int) -> np.ndarray:
        """The words of a bank, uint8 [quad, lane, plane]."""
        address = self._lib.sim_bank(self._sim, scope.encode())
        if not address:
            raise RuntimeError(f"the simulator has no bank {scope}")
        shape = (depth, self.config.lanes, PLANES)
        return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8)), shape)

    def write(self, accesses: np.ndarray) -> None:
        """Host writes, one a cycle."""
        self._lib.sim_write(self._sim, np.ascontiguousarray(accesses, ACCESS), len(accesses))

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        """Host words. Adjacent addresses take one cycle each, and HOST_READ - 1 cycles in addition."""
        found, begin = [], 0
        for end in range(1, len(addrs) + 1):
            if end == len(addrs) or addrs[end] != addrs[end - 1] + 1:
                found.append(self._read(space, addrs[begin], end - begin))
                begin = end
        raw = b"".join(found)
        return [int.from_bytes(raw[n : n + WORD // 8], "little") for n in range(0, len(raw), WORD // 8)]

    def _read(self, space: Space, addr: int, count: int) -> bytes:
        data = np.zeros((count, WORD // 32), np.uint32)
        self._lib.sim_read(self._sim, space.value, addr, count, data)
        return data.tobytes()

    def control(self, register: Control) -> int:
        """Current value of a CONTROL register."""
        return self.host_read(Space.CONTROL, register.value)

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Cycles since reset."""
        return self._lib.sim_cycle(self._sim)

    @property
    def running(self) -> bool:
        return bool(self._lib.sim_running(self._sim))

    @property
    def token_start(self) -> bool:
        """Whether this cycle has a start pulse."""
        return bool(self._lib.sim_token_start(self._sim))

    def step(self, cycles: int = 1) -> None:
        """Advance by `cycles` cycles."""
        self._lib.sim_step(self._sim, cycles)

    def run(self, n_tokens: int, max_cycles: int = 1 << 40) -> np.ndarray:
        """Run tokens from the current position.

        Returns the cycles of each token, from its start pulse to the next, as clock cycles of the simulation.
        """
        cycles = np.zeros(n_tokens, np.uint64)
        ended = self._lib.sim_run(self._sim, n_tokens, max_cycles, cycles)
        if ended < 0:
            raise TimeoutExceeded(f"{n_tokens} tokens must end within {max_cycles} cycles, but did not")
        return cycles[:ended]

    def errors(self) -> set[Trap]:
        """Traps since they were last cleared."""
        bits = self.control(Control.ERRORS)
        return {trap for trap in Trap if bits >> trap.value & 1}

    # --- debug builds --------------------------------------------------------------------------------------------

    def probe_bytes(self) -> np.ndarray:
        """All probes of the current cycle in one flat buffer, which the next call overwrites (debug builds)."""
        self._lib.sim_probes(self._sim, self._buffer)
        return self._buffer

    def probe(self, name: str) -> int:
        """One probe of the current cycle."""
        entry = self._probes[name]
        return int.from_bytes(self.probe_bytes()[entry.offset : entry.offset + entry.size].tobytes(), "little")

    def writes(self, queue: str) -> Mapping[str, int]:
        """A unit's writes to its state at the end of the current cycle, field by field."""
        name = f"probe_{queue}"
        value = self.probe(name)
        return {field: value >> offset & (1 << width) - 1 for field, offset, width in self._probes[name].fields}

    def streams(self, direction: str) -> np.ndarray:
        """A copy of the stream registers of direction "e" or "w", uint8 [position, stream, lane]."""
        buffer = self.probe_bytes()
        entries = [self._probes[f"{direction}_{p}"] for p in range(POSITIONS)]
        return np.stack([buffer[e.offset : e.offset + e.size].reshape(-1, self.config.lanes) for e in entries])

    def driven(self, direction: str) -> np.ndarray:
        """Driven bits [position], stream s at bit s."""
        return np.array([self.probe(f"{direction}_driven_{p}") for p in range(POSITIONS)], np.uint32)


def _words(data: int) -> np.ndarray:
    return np.frombuffer(int(data).to_bytes(WORD // 8, "little"), "<u4")


def _fields(shape: object) -> Iterator[tuple[str, int, int]]:
    """(name, offset, width) of the fields of a struct. Nested ones are named "outer.inner"."""
    assert isinstance(shape, layouts.Layout)
    for name, field in iter(shape):  # type: ignore[call-overload]
        if isinstance(field.shape, layouts.Layout):
            for inner, offset, width in _fields(field.shape):
                yield f"{name}.{inner}", field.offset + offset, width
        else:
            yield str(name), field.offset, Shape.cast(field.shape).width
