"""The chips of a rack with their endpoints, and lines between their pins, in ticks of an eighth of a bit.

A beat takes 16 ticks. Each chip has a clock phase of its own, each line of each pin a delay of its own. Bits can be
flipped on the way, and lines cut.
"""

from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.rack import Port, RackConfig
from fpga.gateware.serdes_plain import PlainPins
from hw.link.endpoint import pin_ports
from hw.link.parameters import LinkParameters
from hw.linked_chip import LinkedChip
from hw.linked_chip import ports as chip_ports
from sim.rtl.rack import prefix

UNIT_INTERVAL = 8
"""Ticks of a bit on a pin."""
LINE = 64
"""Ticks that a line can be long."""
LINE_BITS = (LINE - 1).bit_length()
BIT_LATE = 2
"""Ticks by which the clock of bits is behind the core's."""
PINS = tuple(pin_ports(LinkParameters()))


def number_of(rack: RackConfig, port: Port) -> int:
    """A port's number among its chip's links."""
    return port.number + (rack.chips[port.chip].ports[0] if port.side == "E" else 0)


class LinkedRack(wiring.Component):
    """Ports of each chip as of `sim.rtl.rack.Rack`, and `late`: ticks by which its clock is late; `off`: it stands.

    Of each port of the rack, by its name (`0_E0`): skew_<port>: ticks of each line from its pins, its clock's last;
    cut_<port>: lines that are dead; flip_<port>: bits to be flipped in the next slot that is sent, while it is not 0.
    reset: of all chips, one bit each.
    """

    def __init__(self, rack: RackConfig, link: LinkParameters):
        self.rack, self.link = rack, link
        ports: dict[str, Any] = {"reset": In(len(rack.chips), init=-1), "ticks": Out(32)}
        for n, config in enumerate(rack.chips):
            own = {name: member for name, member in chip_ports(config, link).items() if not name.startswith(PINS)}
            own |= {"late": In(8), "off": In(1)}
            ports |= {prefix(rack, n) + name: member for name, member in own.items()}
        for port in rack.across:
            ports |= {f"skew_{name_of(port)}": In(LINE_BITS * (link.pins + 1)),
                      f"cut_{name_of(port)}": In(link.pins + 1), f"flip_{name_of(port)}": In(link.code.bits)}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.ticks.eq(self.ticks + 1)
        lines: dict[Port, Value] = {}
        pins: dict[Port, PlainPins] = {}
        for n in range(len(self.rack.chips)):
            chip = self._chip(m, n)
            for port in (port for port in self.rack.across if port.chip == n):
                pins[port], lines[port] = self._pins(m, chip, port)
        for port, (far, _) in self.rack.across.items():
            self._input(m, port, pins[port], lines[far])
        return m

    def _chip(self, m: Module, n: int) -> LinkedChip:
        """A chip with its clocks: core<n> and bit<n>."""
        config, before = self.rack.chips[n], prefix(self.rack, n)
        chip = LinkedChip(config=config, link=self.link)
        length = 2 * UNIT_INTERVAL * self.link.ratio
        time, core, bit = Signal(8, name=f"time{n}"), Signal(name=f"core_clock{n}"), Signal(name=f"bit_clock{n}")
        stands = getattr(self, f"{before}off")
        m.domains += [ClockDomain(f"core{n}"), ClockDomain(f"bit{n}", reset_less=True)]
        m.d.comb += [ClockSignal(f"core{n}").eq(core), ResetSignal(f"core{n}").eq(self.reset[n]),
                     ClockSignal(f"bit{n}").eq(bit)]
        m.d.sync += [
            time.eq(self.ticks - getattr(self, f"{before}late")),
            core.eq((time[: (length - 1).bit_length()] < length // 2) & ~stands),
            bit.eq(((time - BIT_LATE)[:3] < UNIT_INTERVAL // 2) & ~stands),
        ]
        domains = {"sync": f"core{n}"} | {f"rx{k}": f"rx{n}_{k}" for k in range(sum(config.ports))}
        m.submodules[f"chip{n}"] = DomainRenamer(domains)(chip)
        for name, member in chip.signature.members.items():
            if not name.startswith(PINS):
                ours, its = getattr(self, before + name), getattr(chip, name)
                m.d.comb += its.eq(ours) if member.flow is In else ours.eq(its)
        return chip

    def _pins(self, m: Module, chip: LinkedChip, port: Port) -> tuple[PlainPins, Value]:
        """A port's pins, and its lines where they end."""
        n, k, link = port.chip, number_of(self.rack, port), self.link
        m.domains += ClockDomain(f"rx{n}_{k}", reset_less=True)
        pins = PlainPins(link)
        m.submodules[f"pins_{name_of(port)}"] = DomainRenamer(
            {"sync": f"core{n}", "bit": f"bit{n}", "rx0": f"rx{n}_{k}"})(pins)
        for name in PINS:
            ours, its = getattr(chip, f"{name}_{k}"), getattr(pins, name)
            if name == "sampled":
                m.d.comb += ours.eq(its)
            elif name != "beats":
                m.d.comb += its.eq(ours)
        m.d.comb += pins.beats.eq(getattr(chip, f"beats_{k}") ^ self._flips(m, chip, port))
        ends = []
        skew, cut = getattr(self, f"skew_{name_of(port)}"), getattr(self, f"cut_{name_of(port)}")
        for pin, level in enumerate(Cat(pins.out_data, pins.out_clock)):
            line = Signal(LINE, name=f"line_{name_of(port)}_{pin}")
            m.d.sync += line.eq(Cat(level & ~cut[pin], line))
            ends.append(line.bit_select(skew.word_select(pin, LINE_BITS), 1))
        return pins, Cat(ends)

    def _input(self, m: Module, port: Port, pins: PlainPins, lines: Value) -> None:
        """Input delays in steps of a tick."""
        delayed = []
        for pin, line in enumerate(lines[:-1]):
            name = f"{name_of(port)}_{pin}"
            early, taps = Signal(32, name=f"early_{name}"), Signal(5, name=f"taps_{name}")
            m.d.sync += early.eq(Cat(line, early))
            with m.If(pins.delay_load[pin]):
                m.d[f"core{port.chip}"] += taps.eq(0)
            with m.Elif(pins.delay_step[pin]):
                m.d[f"core{port.chip}"] += taps.eq(taps + 1)
            delayed.append(Cat(line, early).bit_select(taps, 1))
        m.d.comb += [pins.in_data.eq(Cat(delayed)), pins.in_clock.eq(lines[-1])]

    def _flips(self, m: Module, chip: LinkedChip, port: Port) -> Value:
        """What is wrong with the beats that leave in this cycle."""
        link, flip = self.link, getattr(self, f"flip_{name_of(port)}")
        mask = Signal(link.code.bits, name=f"mask_{name_of(port)}")
        phase = chip.counter[: link.phase_bits]
        with m.If(phase == link.slot - 1):
            m.d[f"core{port.chip}"] += mask.eq(flip)
        return mask.word_select(phase, link.cycle_bits)


def name_of(port: Port) -> str:
    """A port's name within names of signals."""
    return str(port).replace(".", "_")
