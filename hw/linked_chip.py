"""A chip with the endpoints of its links, up to the pins: tokens start and fail together with those of other chips."""

from typing import Any

from amaranth.hdl import Cat, Const, DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.config import ChipConfig
from arch.host_map import Control, Space, Trap
from arch.isa import HOST_READ
from arch.link_map import (
    COMMAND,
    RACK,
    RACK_SETUP,
    SETUP,
    STATUS,
    Fields,
    LinkRegister,
    LinkTrap,
    link_address,
    offset,
)

from .chip import Chip, own_ports
from .idioms import one_hot
from .link.counter import Counter
from .link.endpoint import Endpoint, pin_ports
from .link.frame import crc_frames
from .link.parameters import COUNTER_BITS, LinkParameters
from .link.receive import LATENCY_BITS

AHEAD = 32
"""Slots from a RUN to its first token, before the host has set them."""


def settle_cycles(link: LinkParameters) -> int:
    """Cycles behind a token in which its CRC reaches the other chips, whatever the latency."""
    return (1 << LATENCY_BITS) + (crc_frames(link) + 1) * link.slot


def ports(config: ChipConfig, link: LinkParameters) -> dict:
    """The ports of a `LinkedChip`. Raises ValueError where the links do not fit the chip."""
    if (link.lanes, link.slot) != (config.lanes, config.slot):
        raise ValueError(f"link must have {config.lanes} lanes and slots of {config.slot} cycles like the chip, "
                         f"not {link.lanes} and {link.slot}")
    found = own_ports(config) | {"errors": Out(len(Trap) + len(LinkTrap)),
                                 "counter": Out(COUNTER_BITS + link.phase_bits)}
    for n in range(sum(config.ports)):
        found |= {f"{name}_{n}": member for name, member in pin_ports(link).items()}
    return found


class LinkedChip(wiring.Component):
    """A chip whose ports end at the pins of links.

    config: the chip; it has links. link: of each of them. Raises ValueError as `ports` does.

    All ports of `hw.chip.Chip` except its links. The host has besides the registers of `arch.link_map`, and `errors`
    and the register ERRORS have the bits of `LinkTrap`. `settle_cycles` behind the last token RUN still reads as 1, and
    `running` is high: when they are over, a token with a wrong CRC is known to be wrong.
    counter: the present cycle's number; its lowest bits count within a slot.
    Of each link n, western ones first: beats_n, sampled_n, delay_load_n, delay_step_n, as of `Endpoint`. The clock that
    comes with its data is the domain rx<n>.

    A run starts in the slot that the START of the parent's link names; the root names it when its host writes RUN. A
    chip whose parent's link has an error does not wait for a START that may never come: it starts by itself, and tells
    those that follow it. So every run ends on every chip, with an error on some of them.
    """

    def __init__(self, *, config: ChipConfig, link: LinkParameters):
        self._config, self._link, self._count = config, link, sum(config.ports)
        super().__init__(ports(config, link))

    def elaborate(self, platform):
        m = Module()
        m.submodules.chip = self._chip = chip = Chip(config=self._config)
        m.submodules.counter = self._counter = Counter(phase_bits=self._link.phase_bits,
                                                       own_clock=self._link.slack > 0)
        self._ends = [Endpoint(self._link) for _ in range(self._count)]
        for n, end in enumerate(self._ends):
            m.submodules[f"end{n}"] = DomainRenamer({"rx": f"rx{n}"})(end)
        for name, member in own_ports(self._config).items():
            if name not in ("errors", "host_rdata", "running"):
                ours, its = getattr(self, name), getattr(chip, name)
                m.d.comb += its.eq(ours) if member.flow is In else ours.eq(its)
        self._connect_ends(m)
        self._set_up(m)
        missed = self._start(m)
        settling = self._settle(m)
        if self._link.slack:
            self._park(m, settling)
        lost = Cat(end.errors.any() for end in self._ends).any()
        m.d.comb += [self.errors.eq(Cat(chip.errors, lost, missed)), self.running.eq(chip.running | settling),
                     self.counter.eq(self._counter.counter)]
        self._read(m, settling)
        return m

    def _connect_ends(self, m: Module) -> None:
        """Flits, and the pins."""
        chip, ends, n = self._chip, iter(self._ends), 0
        for side in "WE":
            own = [next(ends) for _ in range(self._config.ports_of(side))]
            for k, end in enumerate(own):
                m.d.comb += [end.send.eq(getattr(chip, f"send_{side}")[k]), end.data.eq(getattr(chip, f"data_{side}")),
                             end.take.eq(getattr(chip, f"take_{side}")[k])]
                m.d.comb += [getattr(self, f"beats_{n}").eq(end.beats), end.sampled.eq(getattr(self, f"sampled_{n}"))]
                n += 1
            if own:
                m.d.comb += getattr(chip, f"flits_{side}").eq(Cat(end.flit for end in own))
                if self._config.debug:
                    m.d.comb += getattr(chip, f"arrived_{side}").eq(Cat(end.arrived for end in own))

    def _set_up(self, m: Module) -> None:
        """What the host writes."""
        counter = self._counter
        control, at = self.host_space == Space.CONTROL, self.host_addr
        word = Signal(max(sum(fields.values()) for fields in (RACK_SETUP, SETUP, COMMAND)), reset_less=True)
        clear = Signal()
        m.d.sync += [word.eq(self.host_wdata),
                     clear.eq(self.host_write & control & (at == Control.ERRORS.value))]
        self._clear = clear

        def written(address: int, name: str) -> Signal:
            pulse = Signal(name=f"writes_{name}")
            m.d.sync += pulse.eq(self.host_write & control & (at == address))
            return pulse

        rack = written(RACK, "rack")
        root, ahead = Signal(), Signal(RACK_SETUP["ahead"], init=AHEAD)
        with m.If(rack):
            m.d.sync += [root.eq(_field(word, RACK_SETUP, "root")), ahead.eq(_field(word, RACK_SETUP, "ahead"))]
        m.d.comb += [counter.root.eq(root), counter.ahead.eq(ahead), counter.leave.eq(rack)]
        for n, end in enumerate(self._ends):
            setup = Signal(sum(SETUP.values()), name=f"setup{n}")
            with m.If(written(link_address(n, LinkRegister.SETUP), f"setup{n}")):
                m.d.sync += setup.eq(word)
            m.d.comb += [getattr(end, name).eq(_field(setup, SETUP, name)) for name in SETUP]
            act = written(link_address(n, LinkRegister.COMMAND), f"command{n}")
            m.d.comb += [end.clear.eq(clear), end.retrain.eq(act & word[0])]
            for name in ("step", "load"):
                asked = Mux(act, _field(word, COMMAND, name), 0)
                m.d.comb += getattr(self, f"delay_{name}_{n}").eq(getattr(end, f"delay_{name}") | asked)

    def _start(self, m: Module) -> Value:
        """Tokens by the counter. Whether a start was missed."""
        chip, counter = self._chip, self._counter
        missed, wanted, before = Signal(), Signal(), Signal()
        failed = Cat(end.errors.any() & end.parent for end in self._ends).any()
        m.d.comb += [
            wanted.eq(chip.ready & (counter.root | failed | missed)), counter.go.eq(wanted & ~before),
            chip.begin.eq(counter.due),
        ]
        m.d.sync += [before.eq(wanted), missed.eq(~self._clear & (missed | counter.due & ~chip.ready))]
        parents = Cat(end.parent for end in self._ends)
        for name in ("started", "started_slot", "load", "load_value"):
            m.d.comb += getattr(counter, name).eq(one_hot(parents, [getattr(end, name) for end in self._ends]))
        for end in self._ends:
            m.d.comb += [
                end.counter.eq(counter.counter), end.counted.eq(counter.counted),
                end.start.eq(counter.start & ~end.parent), end.start_slot.eq(counter.start_slot),
                end.running.eq(chip.running),
            ]
        return missed

    def _settle(self, m: Module) -> Value:
        """Whether the CRC of the last token is still on the way."""
        cycles = settle_cycles(self._link)
        left = Signal(range(cycles + 1))
        with m.If(self._chip.token_end):
            m.d.sync += left.eq(cycles)
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
        return left.any()

    def _park(self, m: Module, settling: Value) -> None:
        """Says to the ends when no token runs, and none is still to be judged: then they may be realigned."""
        chip, counter, runs = self._chip, self._counter, Signal()
        with m.If(counter.due & chip.ready):
            m.d.sync += runs.eq(1)
        with m.Elif(~chip.running & ~settling):
            m.d.sync += runs.eq(0)
        for end in self._ends:
            m.d.comb += [end.parked.eq(~runs), end.waiting.eq(counter.waiting), end.begin.eq(counter.begin & runs)]

    def _read(self, m: Module, settling: Value) -> None:
        """What the host reads: the chip's words, and those here, in the same cycle."""
        control, at = self.host_space == Space.CONTROL, self.host_addr
        counter = self._counter
        slot = counter.counter[self._link.phase_bits :]
        words = {
            Control.RUN.value: settling & ~self._chip.running,
            Control.ERRORS.value: Cat(Const(0, len(Trap)), self.errors[len(Trap) :]),
            RACK: Cat(counter.counted, Const(0, 7), slot, Const(self._link.slack, 8 if self._link.slack else 0)),
            **{link_address(n, LinkRegister.STATUS): self._status(end) for n, end in enumerate(self._ends)},
        }
        picked: Any = Cat((at == address) & control & self.host_read for address in words)
        for n in range(HOST_READ - 1):
            later = Signal(len(words), name=f"picked{n}")
            m.d.sync += later.eq(picked)
            picked = later
        word = Signal(max(map(len, words.values())))
        m.d.sync += word.eq(one_hot(picked, list(words.values())))
        m.d.comb += self.host_rdata.eq(self._chip.host_rdata | word)

    def _status(self, end: Endpoint) -> Value:
        shown = {name: getattr(end, name) for name in ("state", "lane", "up", "errors", "corrected", "least",
                                                       "greatest")}
        shown |= {"first": end.first.faults, "slot": end.first.slot, "syndrome": end.first.syndrome}
        return Cat(Cat(Value.cast(shown[name]), Const(0, bits))[:bits] for name, bits in STATUS.items())


def _field(word: Value, fields: Fields, name: str) -> Value:
    at = offset(fields, name)
    return word[at : at + fields[name]]
