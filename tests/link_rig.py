"""Two ends of a link and the lines between them, in ticks of an eighth of a bit: what the benches of the link run.

A beat takes 16 ticks, a core cycle 16 or 32. Each side has its own clock phase; each pin its own delay; bits can be
flipped on the way. Both sides send flits by a rule of the slot's number, and check those that come by the same rule.
"""

from amaranth.hdl import (
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Module,
    Mux,
    ResetSignal,
    Signal,
    Value,
    signed,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.link.counter import Counter
from hw.link.endpoint import Endpoint
from hw.link.parameters import COUNTER_BITS, SLOT_BITS, LinkParameters
from hw.link.receive import LATENCY_BITS, Fault, record
from hw.link.train import State

UNIT_INTERVAL = 8
"""Ticks of a bit on a pin."""
BEAT = 2 * UNIT_INTERVAL
LINE = 64
"""Ticks that a line can be long."""
LINE_BITS = (LINE - 1).bit_length()
AHEAD = 16
"""Slots from a root's `go` to the start."""
SIDES = "ab"
READY = 96
"""Slots before flits, with clocks of their own, in which no counter is set any more; the host's START would say so."""
SETTLED = 32
"""Slots behind flits in which their CRC is compared, and nothing is realigned."""


def flit_of(link: LinkParameters, slot):
    """What is sent in a slot; of numbers and of signals."""
    if isinstance(slot, int):
        word = slot * 0x9E37 & 0xFFFF
        parts = [(word ^ 0x5A5A * (k & 1)) + 257 * k & 0xFFFF for k in range(link.flit_bits // 16)]
        return sum(part << 16 * k for k, part in enumerate(parts))
    word = (slot * 0x9E37)[:16]
    return Cat(((word ^ (0x5A5A * (k & 1))) + 257 * k)[:16] for k in range(link.flit_bits // 16))


def is_sent(traffic, slot):
    """Whether a slot holds a flit: never, in half the slots in no order, or in all but one of eight."""
    some = slot[0] ^ slot[2] ^ slot[5]
    most = slot[:3].any()
    return Mux(traffic[1], most, traffic[0] & some)


def ports(link: LinkParameters) -> dict:
    counter = COUNTER_BITS + link.phase_bits
    found: dict = {
        "reset": In(1, init=1), "latency": In(LATENCY_BITS), "clock_shift": In(LINE_BITS),
        "traffic": In(2), "from_slot": In(COUNTER_BITS), "to_slot": In(COUNTER_BITS),
        "mark_slot": In(COUNTER_BITS),
        "go": In(1), "ticks": Out(32),
    }
    for side in SIDES:
        found |= {
            f"{side}_phase": In(8), f"{side}_off": In(1), f"{side}_skew": In(LINE_BITS * (link.pins + 1)),
            f"{side}_retrain": In(1), f"{side}_clear": In(1),
            f"{side}_flip": In(link.code.bits), f"{side}_flipped": Out(16), f"{side}_cut": In(link.pins + 1),
            f"{side}_state": Out(State), f"{side}_lane": Out(range(link.pins)), f"{side}_up": Out(1),
            f"{side}_errors": Out(len(Fault)), f"{side}_first": Out(record(link)), f"{side}_corrected": Out(16),
            f"{side}_least": Out(range(link.depth)), f"{side}_greatest": Out(range(link.depth)),
            f"{side}_taken": Out(32), f"{side}_wrong": Out(32),
            f"{side}_counter": Out(counter), f"{side}_counted": Out(1), f"{side}_begun": Out(32),
            f"{side}_begin_tick": Out(32), f"{side}_begin_counter": Out(counter),
            f"{side}_slot_tick": Out(32), f"{side}_arrival": Out(32), f"{side}_retard": Out(1),
        }
    return found


class Rig(wiring.Component):
    """Side a is the root. `flip` is a mask on the codeword that the side sends in the next slot in which it is not 0;
    `flipped` counts. `skew`: ticks of each line towards the other side, its clock's last. `cut`: lines that are dead.
    traffic: the rule, in the slots from_slot..to_slot - 1.
    With clocks of their own no token runs but in the slots from `from_slot` to SETTLED behind `to_slot`.
    `begin_tick`, `begin_counter`: of the last token's begin. `slot_tick`: when slot `mark_slot` began by the
    side's counter; `arrival`: when a frame or flit with that number arrived here. `phase`: ticks by which the side's
    clock is late.
    """

    def __init__(self, link: LinkParameters):
        self.link = link
        super().__init__(ports(link))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.ticks.eq(self.ticks + 1)
        lines = {side: self._side(m, side) for side in SIDES}
        for side, other in zip(SIDES, reversed(SIDES), strict=True):
            self._sample(m, side, *lines[other])
        return m

    def port(self, side: str, name: str) -> Signal:
        return getattr(self, f"{side}_{name}")

    def _is_sent(self, slot: Value) -> Value:
        return is_sent(self.traffic, slot) & (slot >= self.from_slot) & (slot < self.to_slot)

    def _side(self, m: Module, side: str) -> tuple[list[Value], Value]:
        """An endpoint with its clock; its data lines and clock line, behind their delays."""
        link, at = self.link, lambda name: self.port(side, name)
        core, rx = f"core_{side}", f"rx_{side}"
        m.domains += [ClockDomain(core), ClockDomain(rx, reset_less=True),
                      ClockDomain(f"fall_{side}", clk_edge="neg", reset_less=True)]
        length = BEAT * link.ratio
        time = Signal(8, name=f"{side}_time")
        clock = Signal(name=f"{side}_core_clock")
        m.d.sync += time.eq(self.ticks - at("phase"))
        turn = time[: (length - 1).bit_length()]
        m.d.sync += clock.eq((turn < length // 2) & ~at("off"))
        m.d.comb += [ClockSignal(core).eq(clock), ResetSignal(core).eq(self.reset)]
        counter = DomainRenamer(core)(Counter(phase_bits=link.phase_bits, own_clock=link.slack > 0))
        end = Endpoint(link)
        m.submodules[f"counter_{side}"] = counter
        m.submodules[f"end_{side}"] = DomainRenamer({"sync": core, "rx": rx})(end)
        setattr(self, f"end_{side}", end)
        phase_bits = link.phase_bits
        if side == "a":
            self._root = counter.counter
        # Chips count alike in the lowest bits; the rig goes by the root's number that has the same ones, the nearest.
        number, sent = (Signal.like(counter.counter, name=f"{side}_{name}") for name in ("number", "sent"))
        off = Signal(signed(SLOT_BITS + phase_bits), name=f"{side}_off")
        m.d.comb += [off.eq(counter.counter - self._root), number.eq(self._root + off)]
        slot = number[phase_bits:]
        m.d.comb += [
            end.enabled.eq(1), counter.ahead.eq(READY if link.slack else AHEAD),
            end.counter.eq(counter.counter), end.counted.eq(counter.counted), end.parent.eq(side != "a"),
            end.latency.eq(self.latency), end.retrain.eq(at("retrain")), end.clear.eq(at("clear")),
            end.start.eq(counter.start if side == "a" else 0), end.start_slot.eq(counter.start_slot),
            counter.root.eq(side == "a"), counter.go.eq(self.go if side == "a" else 0),
            counter.load.eq(end.load), counter.load_value.eq(end.load_value),
            counter.started.eq(end.started), counter.started_slot.eq(end.started_slot),
            sent.eq(number - self.latency),
            end.send.eq(self._is_sent(slot)), end.data.eq(flit_of(link, slot)),
            end.take.eq(self._is_sent(sent[phase_bits:])),
        ]
        if link.slack:
            self._park(m, core, side, end, slot, counter.waiting)
        for name in ("state", "lane", "up", "errors", "first", "corrected", "least", "greatest"):
            m.d.comb += at(name).eq(getattr(end, name))
        m.d.comb += [at("counter").eq(number), at("counted").eq(counter.counted)]
        with m.If(end.arrived & end.take):
            m.d[core] += at("taken").eq(at("taken") + 1)
            with m.If(end.flit != flit_of(link, sent[phase_bits:])):
                m.d[core] += at("wrong").eq(at("wrong") + 1)
        with m.If(counter.begin):
            m.d[core] += [at("begun").eq(at("begun") + 1), at("begin_tick").eq(self.ticks),
                          at("begin_counter").eq(number)]
        with m.If(number == Cat(Const(0, phase_bits), self.mark_slot)):
            m.d[core] += at("slot_tick").eq(self.ticks)
        with m.If(end.arrived & end.up & (sent[phase_bits:] == self.mark_slot)):
            m.d[core] += at("arrival").eq(self.ticks)
        return self._lines(m, side, turn, core, end.beats, counter.counter[:phase_bits])

    def _park(self, m: Module, core: str, side: str, end: Endpoint, slot: Value, waiting: Value) -> None:
        """When a token runs, and when one will."""
        before, ran = slot - self.from_slot + READY, Signal(name=f"{side}_ran")
        some = self.from_slot != self.to_slot
        m.d[core] += ran.eq(~end.parked)
        m.d.comb += [
            end.waiting.eq(waiting | some & (before[:COUNTER_BITS] < READY)), end.begin.eq(~end.parked & ~ran),
            end.parked.eq(~(some & (slot >= self.from_slot) & (slot < self.to_slot + SETTLED))),
        ]

    def _lines(self, m: Module, side: str, turn: Value, core: str, beats: Value, phase: Value):
        """Data and clock on the pins: what `beats` was in the last core cycle, a bit every UNIT_INTERVAL ticks."""
        link, at = self.link, lambda name: self.port(side, name)
        out = Signal(len(beats), name=f"{side}_out")
        mask = Signal(link.slot * len(beats), name=f"{side}_mask")
        with m.If((phase == link.slot - 1) & (at("flip") != 0)):
            m.d[core] += at("flipped").eq(at("flipped") + 1)
        with m.If(phase == link.slot - 1):
            m.d[core] += mask.eq(at("flip"))
        part = mask.word_select(phase, len(beats))
        m.d[core] += out.eq(beats ^ part)
        bit = Signal(range(2 * link.ratio), name=f"{side}_bit")
        m.d.comb += bit.eq((turn - 1) >> 3)
        data = []
        for pin in range(link.pins + 1):
            line = Signal(LINE, name=f"{side}_line{pin}")
            if pin < link.pins:
                value = Cat(out[link.pins * n + pin] for n in range(2 * link.ratio)).bit_select(bit, 1)
            else:
                late = Signal(4, name=f"{side}_clock_turn")
                m.d.comb += late.eq(turn - 1 - self.clock_shift)
                value = late < UNIT_INTERVAL
            m.d.sync += line.eq(Cat(value & ~at("cut")[pin] & ~at("off"), line))
            data.append(line.bit_select(at("skew").word_select(pin, LINE_BITS), 1))
        return data[:-1], data[-1]

    def _sample(self, m: Module, side: str, lines: list[Value], clock: Value) -> None:
        """Input delays and registers at both edges."""
        link, rx, end = self.link, f"rx_{side}", getattr(self, f"end_{side}")
        m.d.comb += [ClockSignal(rx).eq(clock), ClockSignal(f"fall_{side}").eq(clock)]
        for pin, line in enumerate(lines):
            early, taps = Signal(32, name=f"{side}_input{pin}"), Signal(5, name=f"{side}_tap{pin}")
            m.d.sync += early.eq(Cat(line, early))
            with m.If(end.delay_load[pin]):
                m.d[f"core_{side}"] += taps.eq(0)
            with m.Elif(end.delay_step[pin]):
                m.d[f"core_{side}"] += taps.eq(taps + 1)
            here = early.bit_select(taps, 1)
            rise, fall = Signal(name=f"{side}_rise{pin}"), Signal(name=f"{side}_fall{pin}")
            m.d[rx] += [rise.eq(here), end.sampled[pin].eq(rise), end.sampled[link.pins + pin].eq(fall)]
            m.d[f"fall_{side}"] += fall.eq(here)


