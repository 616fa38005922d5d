"""Proof of the C2C: its two engines, what it sends, takes and drives."""

from amaranth.hdl import Array, Const, Mux, Signal
from formal import Proof, Property, free, implies

from arch.config import PLANES, ChipConfig
from arch.isa import LinkOp
from arch.row import C2C
from hw import c2c
from hw.burst import Burst, fields, is_op

CONFIG = ChipConfig(name="formal", lanes=4, mem_depths=(16, 16), ports=(0, 2))


class C2cProof(Proof):
    """Words come in any cycles. Two engines, which are proven by themselves (`BurstProof`), say when elements execute.

    What a SEND's element samples leaves at its ports and no others; what is at a RECEIVE's port is driven on its
    planes.
    """

    def __init__(self, module=c2c):
        self._module = module

    def build(self, m):
        ports, bits = CONFIG.ports_of("E"), CONFIG.plane_bits
        m.submodules.unit = unit = self._module.C2c(config=CONFIG, queue=C2C["E"])
        free(m, unit.word, unit.valid, unit.e_in, unit.w_in, unit.flits)
        m.submodules.sender, m.submodules.receiver = sender, receiver = Burst(LinkOp.SEND), Burst(LinkOp.RECEIVE)
        for engine, op in ((sender, LinkOp.SEND), (receiver, LinkOp.RECEIVE)):
            m.d.comb += [engine.word.eq(unit.word),
                         engine.start.eq(unit.valid & is_op(fields(op, unit.word).op, op))]
        planes = Array(unit.e_in.word_select(n, bits) for n in range(PLANES))
        port = Signal(range(ports))
        m.d.comb += port.eq(receiver.op.port)
        flit = Array(unit.flits.word_select(n, bits) for n in range(ports))[port]
        self.assume(implies(receiver.active, receiver.op.port < ports))
        self.claim(
            unit.busy == (sender.busy | receiver.busy),
            unit.send == Mux(sender.active, sender.op.ports[:ports], 0),
            implies(sender.active, unit.data == planes[sender.op.plane]),
            unit.take == Mux(receiver.active, Const(1) << port, 0),
            unit.w_drive == Mux(receiver.active, receiver.op.planes, 0), unit.e_drive == 0,
            implies(receiver.active, unit.w_data == flit.replicate(PLANES)),
        )


PROPERTIES = [
    Property(name="c2c", top=C2cProof, depth=12, induction=False,
             claim="an element of SEND sends the plane that runs outward to its ports, one of RECEIVE drives the flit "
                   "at its port inward on its planes, and nothing else is sent, taken or driven"),
]
