"""The VXM: int32 lanes with shifts, a multiplier, function tables and an ALU, in one pipeline."""

from itertools import pairwise
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from arch import tables
from arch.config import MAX_LANES, PLANES, ChipConfig
from arch.host_map import Trap
from arch.isa import COUNT_BITS, FMT_PLANES, HALVES, VXM_DRIVE, Alu, ErUse, Fmt, Func, Op, Red, Rep, Sat, Src
from arch.numerics import INT32, POST_RANGE, PRE_RANGE, SAT_LIMIT
from arch.row import Queue

from .burst import Burst, fields, latched, stepping
from .idioms import any_of, group_lanes, lanes_group, named, register
from .unit import illegal, trap, unit_ports

CARRIED = ("func", "logical", "round", "alu", "sat", "rep", "dst_e", "dst_w", "rf_we", "er_we", "er_dst",
           "red", "red_slot", "red_keep", "red_e")
"""Instruction fields that travel down the pipeline with an element."""
LAST = VXM_DRIVE
"""The stage that drives and writes results."""
FACTOR_BITS = 18
PRODUCT_BITS = 2 * FACTOR_BITS - 1
"""A product of factors of which one is not -2**17."""
MANTISSA_BITS = 15
FAR = 4
"""The bits of a post shift from this one on act in stage 5, the ones below in stage 6."""
IOTA_BITS = (MAX_LANES - 1).bit_length() + COUNT_BITS
"""The number of a lane and that of an element, side by side, in the widest chip."""
INTERPOLATED = (Func.RECIP, Func.RSQRT, Func.SIGMOID, Func.LOG2)
SATURATED_BITS = sorted(limit.bit_length() for limit in (*SAT_LIMIT.values(), INT32[1]))


def probe_layout(config: ChipConfig) -> data.StructLayout:
    """State writes of this cycle."""
    return write_layout(config.lanes)


def write_layout(lanes: int) -> data.StructLayout:
    """Writes of so many lanes; register data as a stream group carries it (plane by plane)."""
    return data.StructLayout({"rf_we": 1, "rf_index": 5, "rf_data": 32 * lanes,
                              "er_we": 1, "er_index": 4, "er_data": 8 * lanes})


class Vxm(wiring.Component):
    """The vector unit: y = sat(func(a >> pre, b) >> post alu c) on int32 lanes (`arch.numerics.vxm`).

    One burst engine. The element that samples its operands in cycle e drives its result in e + VXM_DRIVE and writes
    it at the end of that cycle, so that it is readable in e + VXM_RF. The reduction of a burst is driven eastward, to
    the SXM that ends it, in e(last) + VXM_REDUCE_DRIVE. Results are laid on the planes by `rep` only where they are
    driven: register file, exponent file and reduction get y itself (`arch.numerics.exponent`), and reductions are
    driven as int32. `red_*` count for nothing if `red` is NONE. The register file has a read port for operand a and one
    for b and c, which may both be registers only if they are the same.

    Pipeline (stage k works in cycle e + k): 0 select operands, add exponents to shift amounts; 1 pre shift;
    2 normalise; 3 choose factors and the tables' segment; 4 look up; 5 multiply, first part of the post shift; 6 its
    second part; 7 ALU; 8 saturate; 9 drive, write, reduce; 10 drive the reduction.

    Folded (`ChipConfig.vxm_fold`), an element is computed in parts of `vxm_lanes` lanes, the lowest first, one a cycle:
    part j is in stage k in cycle e + j + k. What the streams carry in cycle e is kept for the later parts, and what is
    driven waits for the last one (`isa.vxm_late`). The files hold a part in a word, so that it is read and written j
    cycles late, wherever it comes from; the probe shows a vector as its last part is written.

    word, valid: the instruction and its dispatch pulse. e_in, w_in / e_data, e_drive, w_data, w_drive: streams.
    busy: the engine is (see `Burst`); results may still be in flight.
    Debug builds: e_driven, w_driven, traps, probe.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        self._fold, self._lanes = config.vxm_fold, config.vxm_lanes
        super().__init__(unit_ports(config, "VXM", probe_layout(config)))

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = Burst(Op.ALU, self._fold)
        m.submodules.rf = rf = RegisterFile(self._config)
        m.submodules.er = er = Memory(shape=8 * self._lanes, depth=self._config.er_depth * self._fold, init=[])
        word = fields(Op.ALU, self.word)
        known = word.op == Op.ALU
        m.d.comb += [engine.word.eq(word), engine.start.eq(self.valid & known)]

        control = self._control(m, engine)
        of_b = word.b_src == Src.RF
        registers = [rf.read(m, engine.part, *_stepping(m, engine, first, steps, f"register{port}"))
                     for port, (first, steps) in enumerate((
                         (word.a_rf, word.a_inc),
                         (Mux(of_b, word.b_rf, word.c_rf), Mux(of_b, word.b_inc, word.c_inc))))]
        streams = tuple(_sampled(m, engine, group, name, self._fold)
                        for name, group in (("e", self.e_in), ("w", self.w_in)))
        operands = [self._operand(m, engine, streams, registers[port], name)
                    for name, port in (("a", 0), ("b", 1), ("c", 1))]
        amounts = _amounts(m, engine, er)
        decoded = _decode(m, control)
        y, exponents, least = [], [], []
        number = Cat(_part(control[7]), control[7].element)
        for n, (a, b, c, pre, post) in enumerate(zip(*operands, *amounts, strict=True)):
            m.submodules[f"lane{n}"] = lane = Lane()
            m.d.comb += [lane.decoded.eq(decoded), lane.a.eq(a), lane.b.eq(b), lane.c.eq(c), lane.pre.eq(pre),
                         lane.post.eq(post), lane.iota.eq(Cat(Const(n, self._own_bits), number))]
            y.append(lane.y)
            exponents.append(lane.exponent)
            least.append(lane.least)

        result, laid = Signal(32 * self._lanes), Signal(32 * self._lanes)
        before, now = control[LAST - 1 :]
        m.d.comb += [result.eq(lanes_group(y)), laid.eq(_lay(m, before, result))]
        driven = _whole(m, laid, self._fold, "laid")
        reduced = _reduce(m, before, now, y, least, self._fold)
        write = self._write(m, rf, er, now, result, Cat(exponents))
        complete = now.valid & _part(now).all() if self._fold > 1 else now.valid
        drives_e, drives_w = complete & now.dst_e, complete & now.dst_w
        m.d.comb += [
            self.e_data.eq(Mux(reduced.drives, reduced.value, driven)), self.w_data.eq(driven),
            self.e_drive.eq((drives_e | reduced.drives).replicate(PLANES)), self.w_drive.eq(drives_w.replicate(PLANES)),
            self.busy.eq(engine.busy),
        ]
        if self._config.debug:
            trap(m, self, Trap.ENGINE_BUSY, self._too_early(engine, word))
            trap(m, self, Trap.OPCODE, self.valid & (~known | illegal(Op.ALU, word) | _fault(word)))
            trap(m, self, Trap.COLLISION, drives_e & reduced.drives)
            samples = engine.active & (engine.part == 0) if self._fold > 1 else engine.active
            trap(m, self, Trap.EMPTY_READ, samples & self._empty(engine.op))
            trap(m, self, Trap.ADDRESS, engine.active & self._beyond(engine))
            m.d.comb += [getattr(self.probe, name).eq(value) for name, value in self._seen(m, write, now).items()]
        return m

    @property
    def _own_bits(self) -> int:
        """Bits of a lane's number that are its place in the part."""
        return self._lanes.bit_length() - 1

    def _control(self, m: Module, engine: Burst) -> list[data.View]:
        """What travels with an element, in stages 0..LAST."""
        op = engine.op
        members = {"valid": 1, "first": 1, "last": 1, "element": COUNT_BITS, "rf": 5,
                   **({"part": range(self._fold)} if self._fold > 1 else {}),
                   **{name: op.shape().members[name] for name in CARRIED}}
        control = [Signal(data.StructLayout(members), name=f"control{k}") for k in range(LAST + 1)]
        here = control[0]
        m.d.comb += [getattr(here, name).eq(getattr(op, name)) for name in CARRIED]
        m.d.comb += [
            here.valid.eq(engine.active), here.element.eq(engine.index), here.first.eq(engine.index == 0),
            here.last.eq(engine.last), *([here.part.eq(engine.part)] if self._fold > 1 else []),
            here.rf.eq(_stepping(m, engine, engine.word.rf, engine.word.rf_inc, "register_written")[0]),
        ]
        m.d.sync += [after.eq(before) for before, after in pairwise(control)]
        return control

    def _operand(self, m: Module, engine: Burst, streams: tuple[Value, Value], port: SimpleNamespace,
                 name: str) -> list[Value]:
        """Lanes of one operand in stage 0; `port` is its port of the register file.

        Streams and constants meet in one LUT a bit, both banks of the register file and these in a second one: what
        is constant over the lanes (the immediate, the upper bits of IOTA, the bank) comes as both streams selected,
        by registers that are made in the cycle before.
        """
        word, lane_bits = engine.word, self._own_bits
        source, fmt = getattr(word, f"{name}_src"), getattr(word, f"{name}_fmt")
        from_rf = latched(m, engine, source == Src.RF, f"{name}_rf")

        def following(value, what):
            """What `latched` gives in the next cycle."""
            return Mux(engine.start, value, latched(m, engine, value, f"{name}_{what}"))

        imm = following(Mux(source == Src.IMM, word.imm, 0).as_unsigned(), "imm").as_signed()
        iota = named(m, following(source == Src.IOTA, "iota"), f"{name}_iota_following")
        index = Cat(engine.part_following, Mux(engine.start, 0, engine.index + engine.done))
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
            first = named(m, _pick(e, e_bits, w, w_bits), f"{name}_first{n}")
            lanes.append(named(m, Mux(from_rf, (first & high) | (~first & low), first), f"{name}_raw{n}"))
        return (_take if name == "a" else _take_half)(m, engine, lanes, fmt, name)

    def _write(self, m: Module, rf: "RegisterFile", er: Memory, now: data.View, result: Value,
               exponents: Value) -> data.View:
        """The files' write ports."""
        er_port = er.write_port()
        write = Signal(write_layout(self._lanes))
        m.d.comb += [
            write.rf_we.eq(now.valid & now.rf_we), write.rf_index.eq(now.rf), write.rf_data.eq(result),
            write.er_we.eq(now.valid & now.er_we), write.er_index.eq(now.er_dst), write.er_data.eq(exponents),
            rf.we.eq(write.rf_we), rf.index.eq(Cat(_part(now), write.rf_index)), rf.data.eq(write.rf_data),
            er_port.en.eq(write.er_we), er_port.addr.eq(Cat(_part(now), write.er_index)),
            er_port.data.eq(write.er_data),
        ]
        return write

    def _seen(self, m: Module, write: data.View, now: data.View) -> dict[str, Value]:
        """What the probe shows of the files' writes."""
        seen = {name: getattr(write, name) for name in write.shape().members}
        if self._fold > 1:
            complete = _part(now).all()
            seen |= {"rf_we": write.rf_we & complete, "er_we": write.er_we & complete,
                     "rf_data": _whole(m, write.rf_data, self._fold, "rf"),
                     "er_data": Cat(_parts(m, write.er_data, self._fold, "er"))}
        return seen

    def _too_early(self, engine: Burst, word: data.View) -> Value:
        """ENGINE_BUSY: a burst begins, or its second element would, before the engine is free."""
        if self._fold == 1:
            return engine.conflict
        return engine.conflict | (engine.start & (word.count != 1) & (word.interval < self._fold))

    def _empty(self, op: data.View) -> Value:
        """EMPTY_READ: an operand takes bytes of a slot that nobody has driven."""
        empty = []
        for name in "abc":
            source, planes = getattr(op, f"{name}_src"), _planes_of(getattr(op, f"{name}_fmt"))
            empty += [((source == Src.E) & (planes & ~self.e_driven).any()),
                      ((source == Src.W) & (planes & ~self.w_driven).any())]
        return Cat(empty).any()

    def _beyond(self, engine: Burst) -> Value:
        """ADDRESS: a register or exponent beyond the configured ones."""
        config, op = self._config, engine.op
        beyond = [(getattr(op, f"{name}_src") == Src.RF) & (_register_index(engine, name) >= config.rf_depth)
                  for name in "abc"]
        beyond += [
            op.rf_we & (op.rf + Mux(op.rf_inc, engine.index, 0) >= config.rf_depth),
            (op.er_use != ErUse.NONE) & (op.er >= config.er_depth), op.er_we & (op.er_dst >= config.er_depth),
        ]
        return Cat(beyond).any()


class RegisterFile(wiring.Component):
    """The registers in two banks, so that whoever reads chooses between the banks in a multiplexer of his own.

    we, index, data: a write at the end of this cycle; below a register's number, `index` has that of the part. Reads
    (`read`) show what stands there in this cycle.
    """

    def __init__(self, config: ChipConfig):
        depth, bits = config.rf_depth * config.vxm_fold, 32 * config.vxm_lanes
        self._index_bits = (depth - 1).bit_length()
        self._banks = [Memory(shape=bits, depth=depth // 2, init=[]) for _ in range(2)]
        part_bits = (config.vxm_fold - 1).bit_length()
        super().__init__({"we": In(1), "index": In(part_bits + 5), "data": In(bits)})

    def _bank(self, index: Value) -> Value:
        return index[self._index_bits - 1]

    def read(self, m: Module, part: Value, register: Value, following: Value) -> SimpleNamespace:
        """A read port: what a register's place holds in either bank, and the bank of the register `following`, which is
        that of the next cycle; before elaboration."""
        ports = [bank.read_port(domain="comb") for bank in self._banks]
        m.d.comb += [port.addr.eq(Cat(part, register)[: self._index_bits - 1]) for port in ports]
        even, odd = ports
        return SimpleNamespace(even=even.data, odd=odd.data, bank_following=self._bank(Cat(part, following)))

    def elaborate(self, platform):
        m = Module()
        for number, bank in enumerate(self._banks):
            m.submodules[f"bank{number}"] = bank
            port = bank.write_port()
            m.d.comb += [port.en.eq(self.we & (self._bank(self.index) == number)), port.data.eq(self.data),
                         port.addr.eq(self.index[: self._index_bits - 1])]
        return m


def _pick(x: Value, take_x: Value, y: Value, take_y: Value) -> Value:
    """x or y, 0 if neither is taken, 1 if both are: the four states of a LUT with two data inputs."""
    return (x & take_x) | (y & take_y) | (take_x & take_y)


def _fault(word: data.View) -> Value:
    """`isa.fault` of an instruction."""
    two = (word.b_rf != word.c_rf) | (word.b_inc != word.c_inc)
    halves = [any_of([fmt == one for one in HALVES]) for fmt in (word.b_fmt, word.c_fmt)]
    index = (word.alu == Alu.INDEX) & ((word.b_src != Src.IOTA) | (word.b_fmt != Fmt.I32))
    return (word.b_src == Src.RF) & (word.c_src == Src.RF) & two | ~Cat(halves).all() | index


# --- parts of a vector ------------------------------------------------------------------------------------------------


def _part(stage: data.View) -> Value:
    """The part of its element that is in a stage; of no bits where the element is in one piece."""
    return stage.part if "part" in stage.shape().members else Const(0, 0)


def _sampled(m: Module, engine: Burst, group: Value, name: str, fold: int) -> Value:
    """The present part of what the element samples, in its first cycle, of a stream group."""
    if fold == 1:
        return group
    lanes, own = group_lanes(group), len(group) // 32 // fold
    first, *others = (lanes_group(lanes[at : at + own]) for at in range(0, len(lanes), own))
    later = register(m, engine.part_following.any(), f"{name}_later")
    kept = others[-1]
    for part in reversed(range(1, fold)):
        kept = register(m, Mux(later, kept, others[part - 1]) if part < fold - 1 else kept, f"{name}_part{part}")
    return named(m, Mux(later, kept, first), f"{name}_sampled")


def _parts(m: Module, part: Value, fold: int, name: str) -> list[Value]:
    """All parts of a vector in the cycle of its last one; `part` is the present one."""
    parts = [part]
    for number in reversed(range(fold - 1)):
        parts.insert(0, register(m, parts[0], f"{name}_part{number}"))
    return parts


def _whole(m: Module, part: Value, fold: int, name: str) -> Value:
    """The stream group whose last part is the present one."""
    if fold == 1:
        return part
    return lanes_group([lane for one in _parts(m, part, fold, name) for lane in group_lanes(one)])


# --- stage 0 ----------------------------------------------------------------------------------------------------------


def _stepping(m: Module, engine: Burst, first: Value, steps: Value, name: str) -> tuple[Signal, Signal]:
    """The register that the element of this cycle names, and that of the next cycle; `steps`: each element names the
    register behind that of the element before."""
    return stepping(m, engine, first, latched(m, engine, steps, f"{name}_steps"), name)


def _planes_of(fmt: Value) -> Value:
    """The one of `FMT_PLANES`."""
    return any_of([Mux(fmt == one, Const(mask, PLANES), 0) for one, mask in FMT_PLANES.items()])


def _register_index(engine: Burst, name: str) -> Value:
    """The register that an operand of this element names."""
    op = engine.op
    return getattr(op, f"{name}_rf") + Mux(getattr(op, f"{name}_inc"), engine.index, 0)


def _take(m: Module, engine: Burst, lanes: list[Value], fmt: Value, name: str) -> list[Value]:
    """The lanes with the bytes that `fmt` (of the engine's word) selects, sign-extended."""
    def is_any(which, *formats):
        return latched(m, engine, any_of([fmt == one for one in formats]), f"{name}_{which}")

    whole, byte = is_any("whole", Fmt.I32), is_any("byte", Fmt.B0, Fmt.B1, Fmt.B2, Fmt.B3)
    upper, odd = is_any("upper", Fmt.HI16, Fmt.B2, Fmt.B3), is_any("odd", Fmt.B1, Fmt.B3)
    plain, high = is_any("plain", Fmt.I32, Fmt.LO16), is_any("high", Fmt.HI16)
    taken = []
    for n, lane in enumerate(lanes):
        p0, p1, p2, p3 = (lane[8 * p : 8 * p + 8] for p in range(PLANES))
        low = named(m, Mux(upper, Mux(odd, p3, p2), Mux(odd, p1, p0)), f"{name}_low{n}")
        sign8 = byte & low[7]
        middle = named(m, Mux(plain, p1, 0) | Mux(high, p3, 0) | sign8.replicate(8), f"{name}_middle{n}")
        taken.append(Cat(low, middle, Mux(whole, Cat(p2, p3), middle[7].replicate(16))))
    return taken


def _take_half(m: Module, engine: Burst, lanes: list[Value], fmt: Value, name: str) -> list[Value]:
    """The lanes, or their halves that `fmt` (of the engine's word) selects, sign-extended."""
    whole, upper = (latched(m, engine, fmt == one, f"{name}_{which}")
                    for which, one in (("whole", Fmt.I32), ("upper", Fmt.HI16)))
    taken = []
    for n, lane in enumerate(lanes):
        low = named(m, Mux(upper, lane[16:], lane[:16]), f"{name}_low{n}")
        taken.append(Cat(low, Mux(whole, lane[16:], low[15].replicate(16))))
    return taken


def _amounts(m: Module, engine: Burst, er: Memory) -> tuple[list[Value], list[Value]]:
    """Pre and post shift of every lane with the exponents: the first clamped to +-31, the second not yet clamped."""
    op, word, port = engine.op, engine.word, er.read_port(domain="comb")
    m.d.comb += port.addr.eq(Cat(engine.part, op.er))
    to_pre, to_post = (latched(m, engine, word.er_use == use, name)
                       for use, name in ((ErUse.PRE, "to_pre"), (ErUse.POST, "to_post")))
    base = latched(m, engine, Mux(word.er_use == ErUse.PRE, word.pre, word.post), "shift_base").as_signed()
    pre, post = [], []
    for lane in range(0, len(port.data), 8):
        exponent = (port.data[lane : lane + 8] ^ op.er_neg.replicate(8)).as_signed()
        total = _sum(m, base, exponent, op.er_neg, 9, "shift_total")
        pre.append(_clamp(m, Mux(to_pre, total, op.pre), PRE_RANGE[1]))
        post.append(Mux(to_post, total, op.post)[:9])
    return pre, post


def _sum(m: Module, a: Value, b: Value, carry: Value, bits: int, name: str) -> Signal:
    """a + b + carry (signed) in one carry chain."""
    chain, out = Signal(bits + 1, name=f"{name}_chain"), Signal(signed(bits), name=name)
    m.d.comb += [
        chain.eq(Cat(Const(1, 1), Value.cast(a)).as_signed() + Cat(carry, Value.cast(b)).as_signed()),
        out.eq(chain[1:]),
    ]
    return out


def _decode(m: Module, control: list[data.View]) -> data.View:
    """The lanes' controls, registered for their stages (stage k decodes what stage k - 1 holds)."""
    decoded = Signal(DECODED, reset_less=True)
    shift, normalise, choose, lookup, multiply, near, alu, saturate, write = control[:LAST]

    def func(stage, *funcs):
        return any_of([stage.func == one for one in funcs])

    def ops(stage, *alus):
        return any_of([stage.alu == one for one in alus])

    limits = {Sat.S32: INT32[1], **SAT_LIMIT}
    compares = ops(saturate, Alu.LT, Alu.GT, Alu.EQ)
    limit = any_of([Mux(saturate.sat == sat, Const(value, 31), 0) for sat, value in limits.items()])
    m.d.sync += [getattr(decoded, name).eq(value) for name, value in {
        "arithmetic": ~shift.logical, "round1": shift.round & ~shift.logical,
        **{f"{one.name.lower()}2": func(normalise, one) for one in (Func.MUL, Func.SQUARE, Func.SIGMOID)},
        "mantissa2": func(normalise, Func.RECIP, Func.RSQRT, Func.LOG2),
        "rsqrt3": func(choose, Func.RSQRT), "signed3": func(choose, Func.MUL, Func.SQUARE),
        "interpolate3": func(choose, *INTERPOLATED),
        **{f"{one.name.lower()}4": func(lookup, one)
           for one in (Func.PASS, Func.BITLEN, Func.EXP2, Func.RSQRT, Func.LOG2)},
        "interpolate4": func(lookup, *INTERPOLATED),
        "table4": any_of([Mux(lookup.func == one, tables.TABLES[one].start >> 6, 0) for one in INTERPOLATED]),
        "invert_c4": ops(lookup, Alu.SUB, Alu.LT, Alu.MIN, Alu.MAX, Alu.EQ, Alu.ANDN, Alu.OR, Alu.INDEX),
        "pass5": func(multiply, Func.PASS), "bypass5": func(multiply, Func.PASS, Func.BITLEN, Func.EXP2),
        "round6": near.round,
        "invert_q": ops(alu, Alu.RSUB, Alu.GT, Alu.OR), "carry": ~ops(alu, Alu.ADD),
        "sum": ops(alu, Alu.ADD, Alu.SUB, Alu.RSUB, Alu.LT, Alu.GT, Alu.EQ),
        "min": ops(alu, Alu.MIN), "max": ops(alu, Alu.MAX), "index": ops(alu, Alu.INDEX),
        "conjunction": ops(alu, Alu.AND, Alu.ANDN, Alu.OR, Alu.XOR), "parity": ops(alu, Alu.XOR),
        "invert_y": ops(alu, Alu.OR),
        "limit": Mux(compares, 0, limit), "symmetric": saturate.sat != Sat.S32,
        "compare": compares, "equal": ops(saturate, Alu.EQ),
        "exponent_is_k": func(write, Func.RECIP, Func.RSQRT),
    }.items()]
    return decoded


# --- stages 1..8, one lane --------------------------------------------------------------------------------------------

DECODED = data.StructLayout({
    **dict.fromkeys(("arithmetic", "round1", "mul2", "square2", "sigmoid2", "mantissa2",
                     "rsqrt3", "signed3", "interpolate3",
                     "pass4", "bitlen4", "exp24", "rsqrt4", "log24", "interpolate4"), 1),
    "table4": 2,
    **dict.fromkeys(("invert_c4", "pass5", "bypass5", "round6", "invert_q", "carry", "sum", "min", "max", "index",
                     "conjunction", "parity", "invert_y"), 1),
    "limit": 31, "symmetric": 1, "compare": 1, "equal": 1, "exponent_is_k": 1,
})
"""Controls of a lane, each registered for the stage that uses it: the same for all lanes."""


class Lane(wiring.Component):
    """Stages 1..8 of one lane.

    decoded: controls, each in its stage. a, b, c, pre, post: operands and shift amounts, in stage 0. iota: what INDEX
    yields, in stage 7.
    y, least, exponent: the result, whether it is -2**31, and what an exponent entry gets, from registers, in stage 9.
    """

    decoded: In(DECODED)
    a: In(32)
    b: In(FACTOR_BITS)
    c: In(32)
    pre: In(6)
    post: In(9)
    iota: In(IOTA_BITS)
    y: Out(32)
    least: Out(1)
    exponent: Out(8)

    def elaborate(self, platform):
        m = Module()
        decoded = self.decoded

        def registers(stage, **values):
            return SimpleNamespace(**{name: register(m, value, f"{name}{stage}") for name, value in values.items()})

        s = registers(1, a=self.a, b=self.b, c=self.c, pre=self.pre, post=self.post)
        s = registers(2, a=_pre_shift(m, decoded, s.a, s.pre), b=s.b, c=s.c, post=s.post)
        s = registers(3, **_prepare(m, decoded, s.a, s.b, s.c), a=s.a, c=s.c, post=s.post)
        s = registers(4, **_choose(m, decoded, s), right=s.right, above=s.above, below=s.below, a=s.a, c=s.c,
                      post=s.post)
        s = registers(5, **_look_up(m, decoded, s), left=s.left)
        s = registers(6, p=_multiply(m, decoded, s.left, s.right, s.passed, s.post), post=s.post[:FAR], c=s.c, k=s.k)
        s = registers(7, **_round(m, decoded, s.p, s.post), c=s.c, k=s.k)
        s = registers(8, **_alu(m, decoded, s, self.iota), k=s.k)
        s = registers(9, **_saturate(m, decoded, s.y, s.beyond), k=s.k)
        m.d.comb += [self.y.eq(s.y), self.least.eq(s.least),
                     self.exponent.eq(Mux(decoded.exponent_is_k, s.k, s.y[:8]))]
        return m


def _clamp(m: Module, value: Value, limit: int) -> Value:
    """A signed value clamped to +-limit, limit = 2**n - 1: n + 1 bits, two's complement."""
    bits = limit.bit_length()
    sign, upper = value[-1], value[bits:-1]
    most = named(m, ~sign & upper.any(), "most")
    least = named(m, sign & (~upper.all() | ~value[:bits].any()), "least")
    return Mux(most, limit, Mux(least, -limit & (2 * limit + 1), value[: bits + 1]))[: bits + 1]


def _pre_shift(m: Module, decoded: data.View, a: Value, amount: Value) -> Value:
    """a shifted right by amount (left if negative): a left shift by n is the upper half of {a, 0} >> (32 - n)."""
    left, far, fill = amount[5], amount[4], decoded.arithmetic & a[31]
    right_near, right_far, left_near, left_far = (named(m, value, name) for name, value in (
        ("right_near", ~left & ~far), ("right_far", ~left & far),
        ("left_near", left & ~far), ("left_far", left & far)))
    far_fill, fill = named(m, right_far & fill, "far_fill"), named(m, ~left & fill, "fill")

    def choose(x, take_x, y, take_y):
        return _pick(x, take_x.replicate(len(x)), y, take_y.replicate(len(y)))

    x = named(m, Cat(
        right_far & a[15],
        choose(a[:16], right_near, a[16:], right_far),
        choose(a[16:], named(m, right_near | far_fill, "take_high"), a[:16], named(m, left_far | far_fill, "take_low")),
        choose(a[:15], named(m, left_near | fill, "left_low"), a[16:31], named(m, left_far | fill, "left_high")),
    ), "shifted16")
    for bit in (3, 2, 1, 0):
        x = named(m, Mux(amount[bit], x[1 << bit :], x[: len(x) - (1 << bit)]), f"shifted{1 << bit}")
    return (x[1:] + (decoded.round1 & x[0]))[:32]


def _normalise(m: Module, x: Value) -> tuple[Value, Value]:
    """Whether x (31 bits, unsigned) is shifted left by 4, 8 and 16 until none of its upper 4 bits, or only they, are
    left; x so shifted. This is seen in the nibbles of x itself, before it is shifted."""
    x = named(m, Cat(Const(0, 1), x), "wide")
    some = [_kept(m, x[4 * n : 4 * n + 4].any(), f"some{n}") for n in range(8)]
    zeros16 = _kept(m, ~any_of(some[4:]), "zeros16")
    zeros8 = _kept(m, ~Mux(zeros16, some[3] | some[2], some[7] | some[6]), "zeros8")
    zeros4 = _kept(m, ~Mux(zeros8, named(m, Mux(zeros16, some[1], some[5]), "some1_5"),
                           named(m, Mux(zeros16, some[3], some[7]), "some3_7")), "zeros4")
    for width, zeros in ((16, zeros16), (8, zeros8), (4, zeros4)):
        x = _shift_zeros(m, x, width, zeros)
    return Cat(zeros4, zeros8, zeros16), x


def _shift_zeros(m: Module, x: Value, width: int, zeros: Value) -> Value:
    """x shifted left by `width` if its upper bits are zeros; so many upper bits as the mantissa may yet take from."""
    return named(m, Mux(zeros, x << width, x)[: len(x)], f"normal{width}")[len(x) - MANTISSA_BITS - width :]


def _prepare(m: Module, decoded: data.View, a: Value, b: Value, c: Value) -> dict[str, Value]:
    """Stage 2: most of normalising a, a - c, the right factor but for tables, and whether a itself is clamped
    symmetrically (`_clamped`): to 18 bits the left factor, to 16 the argument of SIGMOID."""
    sign = a[31]
    zeros, normal = _normalise(m, a[:31] ^ sign.replicate(31))

    low, middle, high = a[:15].any(), a[15:17], a[17:31] ^ sign.replicate(14)
    far = named(m, high.any(), "far")
    over18 = named(m, far | (sign & ~low & ~middle.any()), "over18")
    over16 = named(m, far | (middle ^ sign.replicate(2)).any() | (sign & ~low), "over16")

    def clamping(taken, over):
        """Whether the value counts, and is within the limits; whether its lowest bit is set, and the others."""
        return Cat(taken & ~over, taken & over, taken & over & ~sign)

    take, lowest, ones = square = named(m, clamping(decoded.square2, over18), "square")
    x, most = Cat(a[:17], sign), Cat(lowest, ones.replicate(16))
    right = _pick(x, Cat(take.replicate(17) | most, decoded.square2),
                  b, Cat(most, Const(0, 1)) | decoded.mul2.replicate(FACTOR_BITS))
    return {"zeros": zeros, "normal": normal, "right": right, "below": a.as_signed() - c.as_signed(),
            "factor": square | clamping(decoded.mul2, over18), "argument": clamping(decoded.sigmoid2, over16),
            "above": decoded.sigmoid2 & ~sign, "mantissa": decoded.mantissa2 & ~sign}


def _clamped(value: Value, controls: Value) -> Value:
    """A value without its sign, clamped as the `controls` from `_prepare` say."""
    take, lowest, ones = controls
    return (value & take.replicate(len(value))) | Cat(lowest, ones.replicate(len(value) - 1))


def _choose(m: Module, decoded: data.View, s: SimpleNamespace) -> dict[str, Value]:
    """Stage 3: bit length and exponent of a, the left factor (a fraction for tables), and the tables' segment."""
    top = s.normal[-4:]
    zeros2, zeros1 = named(m, ~top[2:].any(), "zeros2"), named(m, ~Mux(top[2:].any(), top[3], top[1]), "zeros1")
    normal = _shift_zeros(m, _shift_zeros(m, s.normal, 2, zeros2), 1, zeros1)
    normal = named(m, normal & s.mantissa.replicate(len(normal)), "normal")
    length = named(m, ~Cat(zeros1, zeros2, s.zeros), "length")
    k = Mux(normal[-1], Cat(bit ^ ~length[:n].any() for n, bit in enumerate(length)), 0)  # length - 1

    rsqrt = decoded.rsqrt3
    u = named(m, _clamped(s.a[:MANTISSA_BITS], s.argument) | normal[:MANTISSA_BITS], "u")
    lower_half = named(m, decoded.interpolate3 & ~Mux(rsqrt, u[11], u[10]), "lower_half")
    fraction = Cat(u[:10], Mux(rsqrt, u[10], lower_half), lower_half.replicate(FACTOR_BITS - 11))
    left = Cat(_clamped(s.a[: FACTOR_BITS - 1], s.factor), decoded.signed3 & s.a[31]) | fraction
    segment = Cat(Mux(rsqrt, u[11:15], u[10:14]), Mux(rsqrt, ~length[0] & normal[-1], u[14]))
    return {"length": length, "k": k, "left": left, "segment": segment}


def _look_up(m: Module, decoded: data.View, s: SimpleNamespace) -> dict[str, Value]:
    """Stage 4: what the multiplier, or who passes it by, and the ALU get from the tables. The second half of SIGMOID,
    `above` 0, mirrors the first."""
    rsqrt, above = decoded.rsqrt4, s.above
    negative, table = s.below[-1], decoded.table4
    base, slope, power = (_rom(m, name, words, bits, named(m, address, f"{name}_address"), enable)
                          for name, words, bits, address, enable in (
        ("centres", tables.centres(), tables.CENTRE_BITS, Cat(s.segment[1:], above | rsqrt, table), Const(1)),
        ("slopes", tables.slopes(), tables.SLOPE_BITS, Cat(s.segment ^ above.replicate(5), rsqrt, table), Const(1)),
        ("powers", tables.powers(), tables.CENTRE_BITS,
         Mux(negative, s.below[: tables.EXP2_FRACTION], 0), decoded.exp24)))
    slope = Cat(slope, slope[-1].replicate(FACTOR_BITS - tables.SLOPE_BITS))
    exponent = Mux(decoded.log24, s.k, 0) << tables.LOG2_FRACTION
    c = (Mux(decoded.interpolate4, 0, s.c) | base | exponent)[:32]
    passed = Mux(decoded.pass4, s.a[: tables.CENTRE_BITS], 0) | power | Mux(decoded.bitlen4, s.length, 0)
    return {
        "right": s.right | slope, "c": c ^ decoded.invert_c4.replicate(32),
        "passed": Cat(passed[: tables.CENTRE_BITS], s.a[tables.CENTRE_BITS :]),
        "post": _post_amount(m, decoded.exp24 & negative, s.below[tables.EXP2_FRACTION :], s.post),
        "k": Mux(rsqrt, s.k[1:], s.k),
    }


def _kept(m: Module, value: Value, name: str) -> Signal:
    """A value that the mapper must keep as a signal: it would take it apart into more LUTs than the value has bits."""
    out = Signal(len(value), name=name, attrs={"keep": 1})
    m.d.comb += out.eq(value)
    return out


def _rom(m: Module, name: str, words: list[int], bits: int, address: Value, enable: Value) -> Value:
    """The addressed word of a ROM, 0 if not enabled: blocks of 16 words, one LUT a bit, and an OR of the chosen one."""
    chosen = []
    for number in range(len(words) // 16):
        block = words[16 * number : 16 * (number + 1)]
        if any(block):
            m.submodules[f"{name}{number}"] = rom = Memory(shape=bits, depth=16, init=block)
            port = rom.read_port(domain="comb")
            m.d.comb += port.addr.eq(address[:4])
            here = named(m, enable & (address[4:] == number), f"{name}{number}_chosen")
            chosen.append(_kept(m, port.data, f"{name}{number}_word") & here.replicate(bits))
    return any_of(chosen)


def _post_amount(m: Module, grows: Value, octaves: Value, post: Value) -> Value:
    """The post shift, less the octaves of an EXP2 (negative) if it grows, clamped to 0..47."""
    far = named(m, grows & ~octaves[8:].all(), "post_far")
    total = _sum(m, post.as_signed(), ~Mux(grows, octaves[:9], 0)[:9].as_signed(), Const(1, 1), 10, "post_total")
    most = named(m, far | (~total[-1] & (total[6:9].any() | total[4:6].all())), "post_most")
    take = named(m, ~far & ~total[-1] & ~most, "post_take")
    return Mux(take, total[:6], 0) | Mux(most, POST_RANGE[1], 0)


def _multiply(m: Module, decoded: data.View, left: Value, right: Value, passed: Value, amount: Value) -> Value:
    """Stage 5: the product or the passed value, and a bit below it, shifted right by the upper bits of the amount."""
    p = Signal(signed(PRODUCT_BITS), name="product")
    by = Cat(decoded.bypass5.replicate(tables.CENTRE_BITS), decoded.pass5.replicate(32 - tables.CENTRE_BITS))
    m.d.comb += p.eq((left.as_signed() * right.as_signed()) | (passed & by).as_signed())
    return _shifted(m, Cat(Const(0, 1), p), amount, range(FAR, len(amount)))


def _shifted(m: Module, x: Value, amount: Value, bits: range) -> Value:
    """x shifted right, arithmetically, by those bits of the amount."""
    for bit in reversed(bits):
        x = named(m, Mux(amount[bit], Cat(x[1 << bit :], x[-1].replicate(1 << bit)), x), f"shifted{1 << bit}")
    return x


def _round(m: Module, decoded: data.View, p: Value, amount: Value) -> dict[str, Value]:
    """Stage 6: p shifted by the rest of the amount and rounded; whether it is beyond 32 bits."""
    x, q = _shifted(m, p, amount, range(FAR)), Signal(PRODUCT_BITS, name="q")
    m.d.comb += q.eq(x[1:] + (decoded.round6 & x[0]))
    sign = q[-1]
    return {"q": Cat(q[:31], sign), "over": q[31:-1] != sign.replicate(PRODUCT_BITS - 32)}


def _alu(m: Module, decoded: data.View, s: SimpleNamespace, iota: Value) -> dict[str, Value]:
    """Stage 7: sat32(q) alu c, iota for INDEX, not yet saturated; c comes inverted where the ALU wants it.

    A comparison leaves its difference here, an INDEX that has found nothing is `beyond` any limit.
    """
    c, sign = s.c, s.q[-1]
    lower = Mux(s.over, (~sign).replicate(31), s.q[:31])
    q = named(m, Cat(lower, sign) ^ decoded.invert_q.replicate(32), "limited")
    total = _sum(m, q.as_signed(), c.as_signed(), decoded.carry, 33, "total")
    less = total[-1]
    take_c = named(m, (decoded.min & ~less) | (decoded.max & less), "take_c")
    both, parity = decoded.conjunction, named(m, decoded.parity | take_c, "parity_or_c")
    logic = named(m, Mux(both, Mux(parity, q ^ c, q & c), Mux(parity, c, q)), "logic")
    inverted = named(m, decoded.invert_y | take_c, "inverted")
    y = named(m, Mux(decoded.sum, total[:33], Cat(logic, logic[-1]) ^ inverted.replicate(33)), "unsaturated")
    found = named(m, decoded.index & ~less, "found")
    return {"y": Mux(found, iota, y), "beyond": decoded.index & less}


def _saturate(m: Module, decoded: data.View, y: Value, beyond: Value) -> dict[str, Value]:
    """Stage 8: y clamped to 32 bits; of a comparison, whose limit is 0, all bits or none. Whether that is -2**31.

    y is beyond the limit if a bit above the limit's differs from the sign, or if y = -limit - 1 where symmetric.
    """
    sign, limit = y[-1], decoded.limit
    spans = list(pairwise((0, *SATURATED_BITS, 32)))
    differs = [named(m, (y[low:high] ^ sign.replicate(high - low)).any(), f"differs{low}") for low, high in spans[1:]]
    excess = any_of([d & ~(limit[low] if low < 31 else 0) for d, (low, _) in zip(differs, spans[1:], strict=True)])
    some = named(m, y[spans[0][0] : spans[0][1]].any(), "some")
    zero = ~any_of([some, *(y[low:high].any() & limit[low] for low, high in spans[1:-1])])
    lowest = named(m, sign & zero, "lowest")
    beneath = named(m, Mux(decoded.equal, ~(sign | some | any_of(differs)), sign & ~beyond), "beneath")
    over = named(m, excess | (decoded.symmetric & lowest) | decoded.compare | beyond, "saturated")
    first = Mux(beneath, decoded.symmetric | decoded.compare, limit[0])
    return {"y": Mux(over, Cat(first, limit[1:] ^ beneath.replicate(30), beneath), y[:32]),
            "least": ~decoded.symmetric & ~decoded.compare & Mux(over, beneath, lowest)}


# --- stages 9 and 10 --------------------------------------------------------------------------------------------------


def _lay(m: Module, before: data.View, result: Value) -> Value:
    """The result's planes as `rep` lays them on the planes driven; `before`: the stage before."""
    p0, p1, p2, p3 = (result.word_select(p, len(result) // PLANES) for p in range(PLANES))
    half, byte = (register(m, before.rep == rep, rep.name.lower()) for rep in (Rep.REP16, Rep.REP8))
    return Cat(p0, Mux(byte, p0, p1), Mux(byte | half, p0, p2), Mux(byte, p0, Mux(half, p1, p3)))


def _reduce(m: Module, before: data.View, now: data.View, y: list[Value], least: list[Value],
            fold: int) -> SimpleNamespace:
    """The reduction over a burst (`value`) and whether it is driven (`drives`), in stage 10 of the last element; `now`
    and `before` are stages 9 and 8.

    A term that is to be compared comes as its complement, so that sums and comparisons need one adder.
    """
    valid, drives = now.valid & (now.red != Red.NONE), Signal()
    m.submodules.reductions = slots = Memory(shape=32 * len(y), depth=fold << len(now.red_slot), init=[])
    old, new = slots.read_port(domain="comb"), slots.write_port()
    summing, clears = before.red == Red.SUM, before.first & ~before.red_keep
    adding, comparing, choosing_least, absolute, fresh = (register(m, value, name) for name, value in (
        ("adding", summing & ~clears), ("comparing", ~summing), ("choosing_least", before.red == Red.MIN),
        ("absolute", before.red == Red.MAXABS), ("fresh", clears)))
    m.d.sync += drives.eq(valid & now.last & now.red_e)
    totals = []
    for value, is_least, held in zip(y, least, group_lanes(old.data), strict=True):
        negate = named(m, absolute & value[31], "negate")
        decrement = named(m, negate & ~is_least, "decrement")
        term = Signal(32, name="term")
        m.d.comb += term.eq((value ^ (comparing & ~negate).replicate(32)) + decrement.replicate(32))
        total = _sum(m, held.as_signed(), term.as_signed(), comparing, 33, "reduction_total")
        replace = named(m, fresh | (total[-1] ^ choosing_least), "replace")
        totals.append(Mux(adding, total[:32], Mux(replace, term ^ comparing.replicate(32), held)))
    total = named(m, lanes_group(totals), "reduction_total")
    slot = Cat(_part(now), now.red_slot)
    m.d.comb += [old.addr.eq(slot), new.addr.eq(slot), new.data.eq(total), new.en.eq(valid)]
    return SimpleNamespace(drives=drives, value=_whole(m, register(m, total, "reduction"), fold, "reduction"))
