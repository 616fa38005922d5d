"""Any component with one clock in Verilator. C++ steps it, for benches of millions of cycles."""

import ctypes
from pathlib import Path
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Module, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from .build import build
from .verilog import verilog_of

HARNESS = Path(__file__).with_name("ticked.cpp")
BYTES = 512
"""Bytes of the widest port."""


TAKE = "take_inputs"
"""Port of a `Held` component."""


class Held(wiring.Component):
    """A component whose inputs are taken when port TAKE rises.

    Verilator computes all logic behind a model's inputs anew whenever any input changes, the clock included. Where much
    logic hangs on inputs that seldom change, it takes most of the time; behind registers it takes none.
    """

    def __init__(self, component: wiring.Component):
        self._component = component
        super().__init__({**component.signature.members, TAKE: In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.held = self._component
        m.domains += ClockDomain("taken", reset_less=True)
        m.d.comb += ClockSignal("taken").eq(getattr(self, TAKE))
        for name, member in self._component.signature.members.items():
            ours, its = getattr(self, name), getattr(self._component, name)
            if member.flow is In:
                m.d.taken += its.eq(ours)
            else:
                m.d.comb += ours.eq(its)
        return m


class Ticked:
    """A component, simulated by a library from the cache.

    Its ports are attributes that hold numbers. Set inputs before `run`, and read outputs after it.

    held: keep inputs in registers (`Held`), which is faster where a bench sets them seldom. Cycles stay the same.
    """

    def __init__(self, component: wiring.Component, name: str, *, held: bool = False):
        members = {port: member for port, member in component.signature.members.items()}
        ports = [*members, "clk", "rst"]
        head = (f'#include "V{name}.h"\n#define TOP V{name}\n'
                f"#define PORTS(X) {' '.join(f'X({port})' for port in ports)}\n")
        if held:
            component, head = Held(component), f"{head}#define TAKE {TAKE}\n"
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
