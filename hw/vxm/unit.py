"""The VXM: int32 lanes with shifts, a multiplier, function tables and an ALU, in one pipeline."""

from itertools import pairwise
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory

from arch.config import PLANES, ChipConfig
from arch.host_map import Trap
from arch.isa import COUNT_BITS, ErUse, Op, Src
from arch.latencies import latencies
from arch.row import Queue

from ..burst import Burst, fields, latched
from ..idioms import group_lanes, lanes_group, named, register
from ..unit import illegal, trap, unit_ports
from .arithmetic import pick
from .decode import CARRIED, decode, fault
from .fold import part_of, parts, sampled, whole
from .lane import Lane
from .operands import planes_of, register_index, register_number, shift_amounts, take, take_half
from .reduce import lay, reduce
from .registers import RegisterFile, write_layout


def probe_layout(config: ChipConfig) -> data.StructLayout:
    """Writes to the unit's state in the current cycle."""
    return write_layout(config.lanes)


class Vxm(wiring.Component):
    """The vector unit: y = sat(func(a >> pre, b) >> post alu c) on int32 lanes (`arch.numerics.vxm`).

    The unit has one burst engine. An element that samples its operands in cycle e drives its result in
    e + `Latencies.vxm_drive` (9). It writes the result at the end of that cycle, so the result is readable in
    e + `vxm_rf` (10). The reduction of a burst is driven eastward in e(last) + `vxm_reduce_drive` (10), as int32, to
    the SXM, which reduces over lanes.

    `rep` applies only to driven results. Register file, exponent file and reduction take y itself
    (`arch.numerics.exponent`). If `red` is NONE, the other `red_*` fields have no effect. The register file has one
    read port for operand a, and one that b and c share. Operands b and c may both be registers only if they are the
    same register.

    Pipeline (stage k works in cycle e + k)::

        0   select operands, add exponents to shift amounts
        1   pre shift
        2   normalise
        3   select factors and table segment
        4   look up tables
        5   multiply, first part of the post shift
        6   second part of the post shift
        7   ALU
        8   saturate
        9   drive, write, reduce
        10  drive the reduction

    The optional register "multiply" (`ChipConfig.registers`) makes a stage of the first part of the post shift, and
    "reduce" one of the terms of a reduction. All stages behind them are a cycle later.

    A folded unit (`ChipConfig.vxm_fold`) computes an element in parts of `vxm_lanes` lanes, one a cycle, lowest lanes
    first. Part j is in stage k in cycle e + j + k. The stream values of cycle e are held for the later parts, and the
    result is driven after the last part (`isa.vxm_late`). The files hold one part in a word, so part j is read and
    written j cycles late. The probe shows a vector when its last part is written.

    word, valid: the instruction and its dispatch pulse.
    e_in, w_in: the streams sampled.
    e_data, e_drive, w_data, w_drive: the streams driven.
    busy: the engine is busy (see `Burst`). Results may still be in flight.
    e_driven, w_driven, traps, probe: in debug builds.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config, self._latencies = config, latencies(config)
        self._fold, self._lanes = config.vxm_fold, config.vxm_lanes
        super().__init__(unit_ports(config, "VXM", probe_layout(config)))

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = Burst(Op.ALU, self._fold, early="control" in self._config.registers)
        m.submodules.rf = rf = RegisterFile(self._config)
        m.submodules.er = er = Memory(shape=8 * self._lanes, depth=self._config.er_depth * self._fold, init=[])
        word = fields(Op.ALU, self.word)
        known = word.op == Op.ALU
        m.d.comb += [engine.word.eq(word), engine.start.eq(self.valid & known)]

        control = self._control(m, engine)
        of_b = word.b_src == Src.RF
        registers = [rf.read(m, engine.part, *register_number(m, engine, first, steps, f"register{port}"))
                     for port, (first, steps) in enumerate((
                         (word.a_rf, word.a_inc),
                         (Mux(of_b, word.b_rf, word.c_rf), Mux(of_b, word.b_inc, word.c_inc))))]
        streams = tuple(sampled(m, engine, group, name, self._fold)
                        for name, group in (("e", self.e_in), ("w", self.w_in)))
        operands = [self._operand(m, engine, streams, registers[port], name)
                    for name, port in (("a", 0), ("b", 1), ("c", 1))]
        amounts = shift_amounts(m, engine, er)
        decoded = decode(m, control, self._following(engine) if "control" in self._config.registers else None)
        y, exponents, least = [], [], []
        number = Cat(part_of(control[-3]), control[-3].element)
        for n, (a, b, c, pre, post) in enumerate(zip(*operands, *amounts, strict=True)):
            m.submodules[f"lane{n}"] = lane = Lane(self._config)
            m.d.comb += [lane.decoded.eq(decoded), lane.a.eq(a), lane.b.eq(b), lane.c.eq(c), lane.pre.eq(pre),
                         lane.post.eq(post), lane.iota.eq(Cat(Const(n, self._own_bits), number))]
            y.append(lane.y)
            exponents.append(lane.exponent)
            least.append(lane.least)

        result, laid = Signal(32 * self._lanes), Signal(32 * self._lanes)
        before, now = control[-2:]
        m.d.comb += [result.eq(lanes_group(y)), laid.eq(lay(m, before, result))]
        driven = whole(m, laid, self._fold, "laid")
        reduced = reduce(m, before, now, y, least, self._fold, split="reduce" in self._config.registers)
        write = self._write(m, rf, er, now, result, Cat(exponents))
        complete = now.valid & part_of(now).all() if self._fold > 1 else now.valid
        drives_e, drives_w = complete & now.dst_e, complete & now.dst_w
        m.d.comb += [
            self.e_data.eq(Mux(reduced.drives, reduced.value, driven)), self.w_data.eq(driven),
            self.e_drive.eq((drives_e | reduced.drives).replicate(PLANES)), self.w_drive.eq(drives_w.replicate(PLANES)),
            self.busy.eq(engine.busy),
        ]
        if self._config.debug:
            trap(m, self, Trap.ENGINE_BUSY, self._too_early(engine, word))
            trap(m, self, Trap.OPCODE, self.valid & (~known | illegal(Op.ALU, word) | fault(word)))
            trap(m, self, Trap.COLLISION, drives_e & reduced.drives)
            samples = engine.active & (engine.part == 0) if self._fold > 1 else engine.active
            trap(m, self, Trap.EMPTY_READ, samples & self._empty(engine.op))
            trap(m, self, Trap.ADDRESS, engine.active & self._beyond(engine))
            m.d.comb += [getattr(self.probe, name).eq(value) for name, value in self._seen(m, write, now).items()]
        return m

    @property
    def _own_bits(self) -> int:
        """Bits of a lane's number within its part."""
        return self._lanes.bit_length() - 1

    def _control(self, m: Module, engine: Burst) -> list[data.View]:
        """The control fields that travel with an element, in all stages up to the last, which drives."""
        op = engine.op
        members = {"valid": 1, "first": 1, "last": 1, "element": COUNT_BITS, "rf": 5,
                   **({"part": range(self._fold)} if self._fold > 1 else {}),
                   **{name: op.shape().members[name] for name in CARRIED}}
        control = [Signal(data.StructLayout(members), name=f"control{k}") for k in range(self._latencies.vxm_drive + 1)]
        here = control[0]
        m.d.comb += [getattr(here, name).eq(getattr(op, name)) for name in CARRIED]
        m.d.comb += [
            here.valid.eq(engine.active), here.element.eq(engine.index), here.first.eq(engine.index == 0),
            here.last.eq(engine.last), *([here.part.eq(engine.part)] if self._fold > 1 else []),
            here.rf.eq(register_number(m, engine, engine.word.rf, engine.word.rf_inc, "register_written")[0]),
        ]
        m.d.sync += [after.eq(before) for before, after in pairwise(control)]
        return control

    def _following(self, engine: Burst) -> SimpleNamespace:
        """The fields that stage 1 decodes, of the element that stage 0 works on in the next cycle."""
        return SimpleNamespace(**{name: Mux(engine.start, getattr(engine.word, name), getattr(engine.op, name))
                                  for name in ("logical", "round")})

    def _operand(self, m: Module, engine: Burst, streams: tuple[Value, Value], port: SimpleNamespace,
                 name: str) -> list[Value]:
        """Lanes of one operand in stage 0.

        One LUT a bit selects between the streams and the constants. A second one adds the two banks of the register
        file. A constant bit (of the immediate, the upper bits of IOTA, the bank) is encoded in the stream selects: 1
        selects both streams, 0 neither. The selects come from registers that are loaded one cycle earlier.

        port: the operand's read port of the register file.
        """
        word, lane_bits = engine.word, self._own_bits
        source, fmt = getattr(word, f"{name}_src"), getattr(word, f"{name}_fmt")
        from_rf = latched(m, engine, source == Src.RF, f"{name}_rf")

        def following(value, what):
            """The value of `latched` in the next cycle."""
            return Mux(engine.start, value, latched(m, engine, value, f"{name}_{what}"))

        imm = following(Mux(source == Src.IMM, word.imm, 0).as_unsigned(), "imm").as_signed()
        iota = named(m, following(source == Src.IOTA, "iota"), f"{name}_iota_following")
        index = Cat(engine.part_following, Mux(engine.start, 0, engine.index + engine.done))
        if engine.early:
            index = engine.following(m, Const(0, COUNT_BITS), Const(1), engine.index, f"{name}_index")
        odd = port.bank_following & Mux(engine.start, source == Src.RF, from_rf)
        constant = Signal(32, name=f"{name}_constant")
        m.d.comb += constant.eq(imm | Mux(iota, index << lane_bits, 0) | odd.replicate(32))
        eastward, westward = (
            [register(m, constant | Mux(lanes, iota.replicate(lane_bits), 0) | taken.replicate(32), f"{name}_{way}")
             for lanes in (0, 1)] for way, taken in (("e", following(source == Src.E, "from_e")),
                                                     ("w", following(source == Src.W, "from_w"))))
        lanes = []
        for n, (e, w, low, high) in enumerate(zip(
                *map(group_lanes, (*streams, port.even, port.odd)), strict=True)):
            e_bits, w_bits = (Cat(way[n >> bit & 1 if bit < lane_bits else 0][bit] for bit in range(32))
                              for way in (eastward, westward))
            first = named(m, pick(e, e_bits, w, w_bits), f"{name}_first{n}")
            lanes.append(named(m, Mux(from_rf, (first & high) | (~first & low), first), f"{name}_raw{n}"))
        return (take if name == "a" else take_half)(m, engine, lanes, fmt, name)

    def _write(self, m: Module, rf: "RegisterFile", er: Memory, now: data.View, result: Value,
               exponents: Value) -> data.View:
        """The files' write ports."""
        er_port = er.write_port()
        write = Signal(write_layout(self._lanes))
        m.d.comb += [
            write.rf_we.eq(now.valid & now.rf_we), write.rf_index.eq(now.rf), write.rf_data.eq(result),
            write.er_we.eq(now.valid & now.er_we), write.er_index.eq(now.er_dst), write.er_data.eq(exponents),
            rf.we.eq(write.rf_we), rf.index.eq(Cat(part_of(now), write.rf_index)), rf.data.eq(write.rf_data),
            er_port.en.eq(write.er_we), er_port.addr.eq(Cat(part_of(now), write.er_index)),
            er_port.data.eq(write.er_data),
        ]
        return write

    def _seen(self, m: Module, write: data.View, now: data.View) -> dict[str, Value]:
        """The files' writes as the probe shows them."""
        seen = {name: getattr(write, name) for name in write.shape().members}
        if self._fold > 1:
            complete = part_of(now).all()
            seen |= {"rf_we": write.rf_we & complete, "er_we": write.er_we & complete,
                     "rf_data": whole(m, write.rf_data, self._fold, "rf"),
                     "er_data": Cat(parts(m, write.er_data, self._fold, "er"))}
        return seen

    def _too_early(self, engine: Burst, word: data.View) -> Value:
        """ENGINE_BUSY: a burst, or its second element, would begin before the engine is free."""
        if self._fold == 1:
            return engine.conflict
        return engine.conflict | (engine.start & (word.count != 1) & (word.interval < self._fold))

    def _empty(self, op: data.View) -> Value:
        """EMPTY_READ: an operand takes bytes of a slot that was not driven."""
        empty = []
        for name in "abc":
            source, planes = getattr(op, f"{name}_src"), planes_of(getattr(op, f"{name}_fmt"))
            empty += [((source == Src.E) & (planes & ~self.e_driven).any()),
                      ((source == Src.W) & (planes & ~self.w_driven).any())]
        return Cat(empty).any()

    def _beyond(self, engine: Burst) -> Value:
        """ADDRESS: a register or exponent beyond the configured ones."""
        config, op = self._config, engine.op
        beyond = [(getattr(op, f"{name}_src") == Src.RF) & (register_index(engine, name) >= config.rf_depth)
                  for name in "abc"]
        beyond += [
            op.rf_we & (op.rf + Mux(op.rf_inc, engine.index, 0) >= config.rf_depth),
            (op.er_use != ErUse.NONE) & (op.er >= config.er_depth), op.er_we & (op.er_dst >= config.er_depth),
        ]
        return Cat(beyond).any()
