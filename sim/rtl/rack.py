"""The RTL of a rack for simulation: chips, and in place of each link the cycles that it takes."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring

from arch.config import ChipConfig
from arch.rack import Link, Port, RackConfig
from hw.chip import Chip, link_ports
from sim.rtl.verilog import verilog_of


def looped(config: ChipConfig, latency: int) -> RackConfig:
    """A rack of one chip whose western ports are linked with its eastern ones."""
    links = tuple(Link(ports=(Port(0, "W", n), Port(0, "E", n)), latency=latency) for n in range(config.ports[0]))
    return RackConfig(name="looped", chips=(config,), links=links)


class Rack(wiring.Component):
    """All chips of a rack, whose ports but those of the links are its own: of chip n with `prefix(n)` in front.

    Tokens of all chips start together: a chip waits until all that run are `ready`, and no other is running.
    """

    def __init__(self, rack: RackConfig):
        self.rack = rack
        ports: dict[str, Any] = {}
        for n, config in enumerate(rack.chips):
            inside = link_ports(config)
            members = Chip(config=config).signature.members
            ports |= {prefix(rack, n) + name: member for name, member in members.items() if name not in inside}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        chips: list[Any] = [Chip(config=config) for config in self.rack.chips]
        for n, chip in enumerate(chips):
            m.submodules[f"chip{n}"] = chip
            inside = link_ports(self.rack.chips[n])
            for name, member in chip.signature.members.items():
                if name not in inside:
                    own, its = getattr(self, prefix(self.rack, n) + name), getattr(chip, name)
                    m.d.comb += its.eq(own) if member.flow == wiring.In else own.eq(its)
        ready = Cat(chip.ready for chip in chips if hasattr(chip, "ready")).all()
        for chip in chips:
            if hasattr(chip, "begin"):
                m.d.comb += chip.begin.eq(ready)
        for near, (far, latency) in self.rack.across.items():
            _wire(m, near, far, latency, chips[near.chip], chips[far.chip], self.rack.chips[far.chip])
        return m


def prefix(rack: RackConfig, chip: int) -> str:
    """Of a chip's ports; a single chip's are called as they are."""
    return f"chip{chip}_" if len(rack.chips) > 1 else ""


def _wire(m: Module, near: Port, far: Port, latency: int, sender: Any, receiver: Any, config: ChipConfig) -> None:
    """What a port sends, `latency` cycles later at the other."""
    late = Cat(getattr(sender, f"send_{near.side}")[near.number], getattr(sender, f"data_{near.side}"))
    for n in range(latency):
        stage = Signal(len(late), name=f"{near}_{n}".replace(".", "_"))
        m.d.sync += stage.eq(late)
        late = stage
    bits = config.plane_bits
    m.d.comb += getattr(receiver, f"flits_{far.side}").word_select(far.number, bits).eq(late[1:])
    if config.debug:
        m.d.comb += getattr(receiver, f"arrived_{far.side}")[far.number].eq(late[0])


def rack_verilog(rack: RackConfig) -> str:
    """The Verilog of a rack, its top module called `chip`, as the harness of one chip has it."""
    return verilog_of(Rack(rack), "chip")
