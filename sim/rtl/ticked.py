"""Any component with one clock in Verilator. C++ steps it, for benches of millions of cycles."""

import ctypes
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import wiring

from .build import build
from .verilog import verilog_of

HARNESS = Path(__file__).with_name("ticked.cpp")
BYTES = 512
"""Bytes of the widest port."""


class Ticked:
    """A component, simulated by a library from the cache.

    Its ports are attributes that hold numbers. Set inputs before `run`, and read outputs after it.
    """

    def __init__(self, component: wiring.Component, name: str):
        members = {port: member for port, member in component.signature.members.items()}
        ports = [*members, "clk", "rst"]
        head = (f'#include "V{name}.h"\n#define TOP V{name}\n'
                f"#define PORTS(X) {' '.join(f'X({port})' for port in ports)}\n")
        library = ctypes.CDLL(str(build(verilog_of(component, name), name, head + HARNESS.read_text())))
        library.create.restype = ctypes.c_void_p
        self.__dict__.update({
            "_library": library, "_model": ctypes.c_void_p(library.create()),
            "_buffer": ctypes.create_string_buffer(BYTES),
            "_ports": {port: (n, -(-Shape.cast(members[port].shape).width // 8) if port in members else 1)
                       for n, port in enumerate(ports)},
        })
        library.run.argtypes = ctypes.c_void_p, ctypes.c_uint64

    def __getattr__(self, name: str) -> Any:
        number, size = self._ports[name]
        self._library.get(self._model, number, self._buffer)
        return int.from_bytes(self._buffer.raw[:size], "little")

    def __setattr__(self, name: str, value: int) -> None:
        number, size = self._ports[name]
        ctypes.memmove(self._buffer, value.to_bytes(size, "little").ljust(BYTES, b"\0"), BYTES)
        self._library.put(self._model, number, self._buffer)

    def restart(self) -> None:
        """A new model in place of the old one, as after power-up."""
        self._library.destroy(self._model)
        self.__dict__["_model"] = ctypes.c_void_p(self._library.create())

    def run(self, cycles: int) -> None:
        """Advance by `cycles` cycles of the clock."""
        self._library.run(self._model, cycles)

    def close(self) -> None:
        """Free the model. No call may follow."""
        self._library.destroy(self._model)
