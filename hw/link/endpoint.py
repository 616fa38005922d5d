"""One end of a link: everything but pins, clocks and instructions."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .elastic import Reader, Writer
from .lanes import Lanes
from .parameters import COUNTER_BITS, SLOT_BITS, LinkParameters
from .receive import LATENCY_BITS, OWN_CLOCK, Fault, Receiver, record
from .train import State, Trainer
from .transmit import Transmitter


def pin_ports(link: LinkParameters) -> dict:
    """The ports of an `Endpoint` to its pins."""
    return {"beats": Out(link.cycle_bits), "sampled": In(link.beat_bits),
            "delay_load": Out(link.pins), "delay_step": Out(link.pins)}


class Endpoint(wiring.Component):
    """One end of a link. Domain `sync` is the core's; `rx` is the clock that comes with the data.

    counter, counted, parent, latency: see `hw.link.counter.Counter` and `Receiver`.
    enabled: the link is used: `latency` and `parent` hold. running: so do tokens run.
    send, data / flit, arrived, take: a flit out in the slot that begins in this cycle / a flit that is here.
    start, start_slot / started, started_slot: a START out / in. load, load_value: to the counter.
    retrain, clear: train anew; forget errors and counts.
    state, lane: of training. up, errors, first, corrected, least, greatest: of the receiver. parked, waiting, begin: to
    it, between chips with clocks of their own.

    To the pins, of whatever technology (`fpga.gateware.serdes_ecp5`): beats: of the next core cycle; sampled: in domain
    `rx`; delay_load, delay_step: pulses a pin.
    """

    def __init__(self, link: LinkParameters):
        self._link = link
        counter = COUNTER_BITS + link.phase_bits
        super().__init__({
            "counter": In(counter), "counted": In(1), "parent": In(1), "latency": In(LATENCY_BITS),
            "enabled": In(1), "running": In(1),
            "send": In(1), "data": In(link.flit_bits),
            "flit": Out(link.flit_bits), "arrived": Out(1), "take": In(1),
            "start": In(1), "start_slot": In(SLOT_BITS), "started": Out(1), "started_slot": Out(SLOT_BITS),
            "load": Out(1), "load_value": Out(SLOT_BITS + link.phase_bits), "retrain": In(1), "clear": In(1),
            "state": Out(State), "lane": Out(range(link.pins)),
            "up": Out(1), "errors": Out(len(Fault)), "first": Out(record(link)), "corrected": Out(16),
            "least": Out(range(link.depth)), "greatest": Out(range(link.depth)),
            **pin_ports(link), **({name: In(1) for name in OWN_CLOCK} if link.slack else {}),
        })

    def elaborate(self, platform):
        m, link = Module(), self._link
        m.submodules.transmitter = transmitter = Transmitter(link)
        m.submodules.lanes = lanes = Lanes(link)
        sizes = {"width": link.beat_bits, "ratio": link.ratio, "depth": link.depth}
        m.submodules.writer = writer = Writer(**sizes)
        m.submodules.reader = reader = Reader(**sizes, slot=link.slot if link.slack else 0)
        m.submodules.trainer = trainer = Trainer(link)
        m.submodules.receiver = receiver = Receiver(link)
        near = Signal()
        m.d.comb += near.eq(Cat(reader.level == level for level in link.first).any())
        for part in (transmitter, receiver):
            m.d.comb += [part.counter.eq(self.counter), part.counted.eq(self.counted)]
        m.d.comb += [
            transmitter.send.eq(self.send), transmitter.data.eq(self.data),
            transmitter.start.eq(self.start), transmitter.start_slot.eq(self.start_slot),
            transmitter.training.eq(trainer.training), transmitter.trained.eq(trainer.trained),
            self.beats.eq(transmitter.beats),
            lanes.sampled.eq(self.sampled), lanes.choice.eq(trainer.choice), writer.beat.eq(lanes.beat),
            writer.slip.eq(trainer.slip), writer.entry.eq(reader.entry),
            reader.gray.eq(writer.gray), reader.beats.eq(writer.beats),
            reader.hold.eq(receiver.hold | trainer.settling & ~near),
            trainer.restart.eq(self.retrain), trainer.data.eq(reader.data), trainer.place.eq(reader.place),
            trainer.moving.eq(reader.moving), trainer.near.eq(near),
            self.delay_load.eq(trainer.delay_load), self.delay_step.eq(trainer.delay_step),
            self.state.eq(trainer.state), self.lane.eq(trainer.lane),
            receiver.linked.eq((trainer.state == State.LINKED) & self.enabled), receiver.latency.eq(self.latency),
            receiver.parent.eq(self.parent), receiver.clear.eq(self.clear), receiver.take.eq(self.take),
            receiver.running.eq(self.running & self.enabled),
            receiver.data.eq(reader.data), receiver.place.eq(reader.place), receiver.level.eq(reader.level),
        ]
        for name in ("flit", "arrived", "started", "started_slot", "load", "load_value", "up", "errors", "first",
                     "corrected", "least", "greatest"):
            m.d.comb += getattr(self, name).eq(getattr(receiver, name))
        if link.slack:
            hears = Cat(trainer.state == state for state in (State.TRAINED, State.LEAVE, State.LINKED)).any()
            m.d.comb += [receiver.trained.eq(hears), reader.skip.eq(receiver.skip), reader.repeat.eq(receiver.repeat),
                         receiver.parked.eq(self.parked), receiver.waiting.eq(self.waiting),
                         receiver.begin.eq(self.begin & self.enabled)]
        return m
