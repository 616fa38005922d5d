"""The C2C: what leaves the chip at an end of the row, and what comes in there from another chip."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from arch.config import MAX_PORTS, PLANES, ChipConfig
from arch.host_map import Trap
from arch.isa import LinkOp
from arch.row import Queue

from .burst import Burst, fields, is_op
from .idioms import any_of, one_hot
from .unit import trap, unit_ports


def probe_layout(config: ChipConfig) -> data.StructLayout:
    """A C2C has no state; shown is what it sends in this cycle, and what it takes."""
    ports = max(config.ports)
    return data.StructLayout({"sent": ports, "sent_data": config.plane_bits,
                              "taken": ports, "taken_data": config.plane_bits})


class C2c(wiring.Component):
    """Sends byte planes to other chips and drives those that come from there.

    Two engines: SEND and RECEIVE. Outward is E for C2C_E and W for C2C_W. What a SEND element samples of the outward
    stream in e is the flit of the slot that begins in e on the links of its ports. A RECEIVE element takes the flit
    that arrives in e at its port and drives it inward in e. Nothing says whether there is one: the schedule does.

    word, valid: the instruction and its dispatch pulse. e_in, w_in / e_data, e_drive, w_data, w_drive: streams.
    send, data: ports whose next slot begins in this cycle with the flit `data`.
    flits, take: of each port, the flit that arrives in this cycle, if one does; the port whose flit is taken.
    busy: an engine is.
    Debug builds: e_driven, w_driven, traps, probe; begins: a slot begins in this cycle; arrived: a port's flit does.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config, self._eastern = config, queue.side == "E"
        self._ports = ports = config.ports_of(queue.side)
        super().__init__({
            **unit_ports(config, "C2C", probe_layout(config)),
            "send": Out(ports), "data": Out(config.plane_bits),
            "flits": In(ports * config.plane_bits), "take": Out(ports),
            **({"begins": In(1), "arrived": In(ports)} if config.debug else {}),
        })

    def elaborate(self, platform):
        m, ports, bits = Module(), self._ports, self._config.plane_bits
        early = "control" in self._config.registers
        m.submodules.sender = sender = Burst(LinkOp.SEND, early=early)
        m.submodules.receiver = receiver = Burst(LinkOp.RECEIVE, early=early)
        for engine, op in ((sender, LinkOp.SEND), (receiver, LinkOp.RECEIVE)):
            m.d.comb += [engine.word.eq(self.word),
                         engine.start.eq(self.valid & is_op(fields(op, self.word).op, op))]
        outward = self.e_in if self._eastern else self.w_in
        flit = Signal(bits)
        chosen = Signal(ports)
        m.d.comb += [
            self.busy.eq(sender.busy | receiver.busy),
            self.data.eq(outward.word_select(sender.op.plane, bits)),
            self.send.eq(Mux(sender.active, sender.op.ports[:ports], 0)),
            chosen.eq(1 << receiver.op.port), self.take.eq(Mux(receiver.active, chosen, 0)),
            flit.eq(one_hot(chosen, [self.flits.word_select(port, bits) for port in range(ports)])),
        ]
        into, drive = (self.w_data, self.w_drive) if self._eastern else (self.e_data, self.e_drive)
        m.d.comb += [into.eq(Cat([flit] * PLANES)), drive.eq(Mux(receiver.active, receiver.op.planes, 0))]
        if self._config.debug:
            self._check(m, sender, receiver)
            m.d.comb += [
                self.probe.sent.eq(self.send), self.probe.sent_data.eq(Mux(self.send.any(), self.data, 0)),
                self.probe.taken.eq(self.take), self.probe.taken_data.eq(Mux(self.take.any(), flit, 0)),
            ]
        return m

    def _check(self, m: Module, sender: Burst, receiver: Burst) -> None:
        """Everything a debug build traps."""
        driven = self.e_driven if self._eastern else self.w_driven
        trap(m, self, Trap.EMPTY_READ, (sender.active & ~driven.bit_select(sender.op.plane, 1))
             | (self.take & ~self.arrived).any())
        trap(m, self, Trap.COLLISION, sender.active & ~self.begins)
        trap(m, self, Trap.ENGINE_BUSY, sender.conflict | receiver.conflict)
        opcode = fields(LinkOp.SEND, self.word).op
        trap(m, self, Trap.OPCODE, self.valid & ~any_of([is_op(opcode, op) for op in LinkOp]))
        beyond = sender.op.ports[self._ports :].any() if self._ports < MAX_PORTS else Const(0)
        known = any_of([receiver.op.port == port for port in range(self._ports)])
        trap(m, self, Trap.ADDRESS, (sender.active & beyond) | (receiver.active & ~known))
