"""The RTL of a rack for simulation. A delay of some cycles stands for each link."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring

from arch.config import POSITIONS, ChipConfig
from arch.host_map import Space
from arch.isa import HOST_READ
from arch.rack import Link, Port, RackConfig
from hw.chip import Chip, own_ports
from program.image import each
from sim.device.hosted_chip import HostPort

from .chip import probe_table
from .ticked import Ticked


def looped(config: ChipConfig, latency: int) -> RackConfig:
    """A rack of one chip, with its western ports linked to its eastern ports."""
    links = tuple(Link(ports=(Port(0, "W", n), Port(0, "E", n)), latency=latency) for n in range(config.ports[0]))
    return RackConfig(name="looped", chips=(config,), links=links)


class Rack(wiring.Component):
    """All chips of a rack. It has all ports of its chips except the links, with `prefix(n)` before those of chip n.

    Tokens of all chips start together. A chip waits until all chips that run are `ready`, and no other is running.
    """

    def __init__(self, rack: RackConfig):
        self.rack = rack
        ports: dict[str, Any] = {}
        for n, config in enumerate(rack.chips):
            ports |= {prefix(rack, n) + name: member for name, member in own_ports(config).items()}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        chips: list[Any] = [Chip(config=config) for config in self.rack.chips]
        for n, chip in enumerate(chips):
            m.submodules[f"chip{n}"] = chip
            for name, member in own_ports(self.rack.chips[n]).items():
                own, its = getattr(self, prefix(self.rack, n) + name), getattr(chip, name)
                m.d.comb += its.eq(own) if member.flow == wiring.In else own.eq(its)
        ready: Any = Cat(chip.ready for chip in chips if hasattr(chip, "ready"))
        for chip in chips:
            if hasattr(chip, "begin"):
                m.d.comb += chip.begin.eq(ready.all())
        for near, (far, latency) in self.rack.across.items():
            _wire(m, near, far, latency, chips[near.chip], chips[far.chip], self.rack.chips[far.chip])
        return m


def prefix(rack: RackConfig, chip: int) -> str:
    """Prefix of a chip's ports. It is empty if the rack has a single chip."""
    return f"chip{chip}_" if len(rack.chips) > 1 else ""


def _wire(m: Module, near: Port, far: Port, latency: int, sender: Any, receiver: Any, config: ChipConfig) -> None:
    """Connect two ports: what one sends arrives at the other `latency` cycles later."""
    late = Cat(getattr(sender, f"send_{near.side}")[near.number], getattr(sender, f"data_{near.side}"))
    for n in range(latency):
        stage = Signal(len(late), name=f"{near}_{n}".replace(".", "_"))
        m.d.sync += stage.eq(late)
        late = stage
    bits = config.plane_bits
    m.d.comb += getattr(receiver, f"flits_{far.side}").word_select(far.number, bits).eq(late[1:])
    if config.debug:
        m.d.comb += getattr(receiver, f"arrived_{far.side}")[far.number].eq(late[0])


class RackSimulator:
    """A Verilated rack, stepped cycle by cycle. `chips` are its chips as their hosts see them.

    rack: the rack, of debug builds or not.
    """

    def __init__(self, rack: RackConfig):
        self.rack = rack
        self._model = Ticked(Rack(rack), "rack")
        self.chips = [RackChip(self, n) for n in range(len(rack.chips))]
        self._reset()

    def restart(self) -> None:
        """All chips as after power-up."""
        self._model.restart()
        self._reset()

    def _reset(self) -> None:
        self._model.rst = 1
        self._model.run(2)
        self._model.rst = 0

    def step(self, cycles: int = 1) -> None:
        """Advance all chips by `cycles` cycles."""
        self._model.run(cycles)

    def port(self, chip: int, name: str) -> int:
        """Current value of a port."""
        return getattr(self._model, prefix(self.rack, chip) + name)

    def drive(self, chip: int, **values: int) -> None:
        """Drive inputs of a chip from the current cycle on."""
        for name, value in values.items():
            setattr(self._model, prefix(self.rack, chip) + name, value)

    def close(self) -> None:
        """Free the model."""
        self._model.close()


class SteppedChips(Protocol):
    """Simulated chips that are stepped together.

    rack: the chips and their links.
    """

    rack: RackConfig

    def step(self, cycles: int = 1) -> None:
        """Advance all chips by `cycles` cycles."""

    def port(self, chip: int, name: str) -> int:
        """Current value of a port."""
        ...

    def drive(self, chip: int, **values: int) -> None:
        """Drive inputs of a chip from the current cycle on."""


class SteppedHost(HostPort):
    """The host port of one of the chips that are stepped together. Every access takes a cycle of all of them."""

    def __init__(self, simulator: SteppedChips, number: int):
        self.config = simulator.rack.chips[number]
        self._simulator, self.number = simulator, number

    def write(self, accesses: np.ndarray) -> None:
        for space, addr, data in each(accesses):
            self._simulator.drive(self.number, host_space=space.value, host_addr=addr, host_wdata=data, host_write=1)
            self._simulator.step()
        self._simulator.drive(self.number, host_write=0)

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        found = []
        for addr in addrs:
            self._simulator.drive(self.number, host_space=space.value, host_addr=addr, host_read=1)
            self._simulator.step()
            self._simulator.drive(self.number, host_read=0)
            self._simulator.step(HOST_READ - 1)
            found.append(self._simulator.port(self.number, "host_rdata"))
        return found


class RackChip(SteppedHost):
    """One chip of a `RackSimulator`."""

    def __init__(self, simulator: RackSimulator, number: int):
        super().__init__(simulator, number)
        self._probes = probe_table(self.config)

    def step(self, cycles: int = 1) -> None:
        """Advance all chips by `cycles` cycles."""
        self._simulator.step(cycles)

    def probe(self, name: str) -> int:
        """Current value of a port."""
        return self._simulator.port(self.number, name)

    def writes(self, queue: str) -> Mapping[str, int]:
        """A unit's writes to its state at the end of the current cycle, field by field (debug builds)."""
        value = self.probe(f"probe_{queue}")
        return {field: value >> offset & (1 << width) - 1
                for field, offset, width in self._probes[f"probe_{queue}"].fields}

    def streams(self, direction: str) -> np.ndarray:
        """Stream registers of direction "e" or "w", uint8 [position, stream, lane] (debug builds)."""
        size = self.config.streams * self.config.lanes
        return np.stack([np.frombuffer(self.probe(f"{direction}_{p}").to_bytes(size, "little"), np.uint8)
                         .reshape(-1, self.config.lanes).copy() for p in range(POSITIONS)])

    def driven(self, direction: str) -> np.ndarray:
        """Driven bits [position], stream s at bit s (debug builds)."""
        return np.array([self.probe(f"{direction}_driven_{p}") for p in range(POSITIONS)], np.uint32)
