"""The VXM: sixteen int32 lanes with shifts, a multiplier, function tables and an ALU, in one pipeline."""

from itertools import pairwise
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from . import tables
from .config import LANES, PLANES, ChipConfig
from .isa import Alu, Dir, ErUse, Fmt, Func, Op, Queue, Red, Rep, Sat, Src, Trap
from .numerics import INT32, POST_RANGE, PRE_RANGE, SAT_LIMIT
from .slice import (
    GROUP_BITS,
    PLANE_BITS,
    Burst,
    any_of,
    drive,
    fields,
    group_lanes,
    group_of,
    illegal,
    lanes_group,
    named,
    one_hot,
    register,
    slots_of,
    trap,
    unit_ports,
)

CARRIED = ("func", "logical", "round", "alu", "sat", "rep", "dst_e", "dst_w", "dst_group", "rf_we", "er_we", "er_dst",
           "red", "red_slot", "red_keep", "red_e", "red_w", "red_group", "red_we", "red_rf")
"""Instruction fields that travel down the pipeline with an element."""
FACTOR_BITS = 18
FACTOR_MAX = (1 << FACTOR_BITS - 1) - 1
MANTISSA_BITS = 15
INTERPOLATED = (Func.RECIP, Func.RSQRT, Func.SIGMOID, Func.LOG2)


def probe_layout() -> data.StructLayout:
    """State writes of this cycle; register data as a stream group carries it (plane by plane)."""
    return data.StructLayout({"rf_we": 1, "rf_index": 5, "rf_data": GROUP_BITS,
                              "er_we": 1, "er_index": 4, "er_data": PLANE_BITS})


class Vxm(wiring.Component):
    """The vector unit: y = sat(func(a >> pre, b) >> post alu c) on 16 int32 lanes (`hw.numerics.vxm`).

    One burst engine. The element that samples its operands in cycle e drives its result in e + VXM_DRIVE and writes
    it at the end of that cycle, so that it is readable in e + VXM_RF. The reduction of a burst is driven in
    e(last) + VXM_REDUCE_DRIVE and readable one cycle later; it takes the register file's write port from a result of
    that cycle. Results are laid on the planes by `rep` only where they are driven: register file, exponent file and
    reduction get y itself (`hw.numerics.exponent`), and reductions are driven as int32. `red_*` count for nothing if
    `red` is NONE.

    Pipeline (stage k works in cycle e + k): 0 select operands, add exponents to shift amounts; 1 pre shift;
    2 normalise, look up, choose factors; 3 multiply, post shift; 4 ALU, saturate; 5 drive, write, reduce; 6 drive and
    write the reduction.

    word, valid: the instruction and its dispatch pulse. e_in, w_in / e_data, e_drive, w_data, w_drive: streams.
    busy: the engine is (see `Burst`); results may still be in flight.
    Debug builds: e_driven, w_driven, traps, probe.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        super().__init__(unit_ports("VXM", config.streams, probe_layout() if config.debug else None))

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = Burst(Op.ALU)
        m.submodules.rf = rf = Memory(shape=GROUP_BITS, depth=self._config.rf_depth, init=[])
        m.submodules.er = er = Memory(shape=PLANE_BITS, depth=self._config.er_depth, init=[])
        word = fields(Op.ALU, self.word)
        known = word.op == Op.ALU
        m.d.comb += [engine.word.eq(word), engine.start.eq(self.valid & known)]

        control = self._control(m, engine)
        operands = [self._operand(m, engine, word, rf, name) for name in "abc"]
        amounts = _amounts(m, engine.op, er)
        decoded = _decode(m, control)
        y, exponents = [], []
        for n, (a, b, c, pre, post) in enumerate(zip(*(o.lanes for o in operands), *amounts, strict=True)):
            m.submodules[f"lane{n}"] = lane = Lane()
            m.d.comb += [lane.decoded.eq(decoded), lane.a.eq(a), lane.b.eq(b), lane.c.eq(c), lane.pre.eq(pre),
                         lane.post.eq(post)]
            y.append(lane.y)
            exponents.append(lane.exponent)

        result, laid = Signal(GROUP_BITS), Signal(GROUP_BITS)
        now = control[5]
        m.d.comb += [result.eq(lanes_group(y)), laid.eq(_lay(result, now.rep))]
        reduction, reduced = _reduce(m, now, y)
        write = self._write(m, rf, er, now, result, Cat(exponents), reduced, reduction)
        groups = self._config.groups
        before = control[4]
        collision = drive(m, self, [
            (register(m, slots_of(before.valid & before.dst_e, before.valid & before.dst_w, before.dst_group, groups),
                      "result_slots"), laid),
            (named(m, slots_of(reduced.e, reduced.w, reduced.group, groups), "reduction_slots"), reduction),
        ])
        m.d.comb += self.busy.eq(engine.busy)
        if self._config.debug:
            trap(m, self, Trap.ENGINE_BUSY, engine.conflict)
            trap(m, self, Trap.OPCODE, self.valid & (~known | illegal(Op.ALU, word)))
            trap(m, self, Trap.COLLISION, collision)
            trap(m, self, Trap.REGISTER_CONFLICT, write.conflict)
            self._check_sources(m, engine, operands)
            self._check_addresses(m, engine, operands)
            m.d.comb += [getattr(self.probe, name).eq(getattr(write, name)) for name in self.probe.shape().members]
        return m

    def _control(self, m: Module, engine: Burst) -> list[data.View]:
        """What travels with an element, in stages 0..5."""
        op = engine.op
        members = {"valid": 1, "first": 1, "last": 1, "rf": 5, **{name: op.shape().members[name] for name in CARRIED}}
        control = [Signal(data.StructLayout(members), name=f"control{k}") for k in range(6)]
        here = control[0]
        m.d.comb += [getattr(here, name).eq(getattr(op, name)) for name in CARRIED]
        m.d.comb += [
            here.valid.eq(engine.active), here.first.eq(engine.index == 0), here.last.eq(engine.last),
            here.rf.eq(op.rf + Mux(op.rf_inc, engine.index, 0)),
        ]
        m.d.sync += [after.eq(before) for before, after in pairwise(control)]
        return control

    def _operand(self, m: Module, engine: Burst, word: data.View, rf: Memory, name: str) -> SimpleNamespace:
        """Lanes of one operand in stage 0, and what the debug checks must know of it."""
        op, groups = engine.op, self._config.groups
        source, fmt = getattr(op, f"{name}_src"), getattr(op, f"{name}_fmt")
        sources = [Src.stream(side, g) for side in Dir for g in range(groups)] + [Src.RF, Src.IMM, Src.IOTA]
        select = Signal(len(sources), name=f"{name}_select", reset_less=True)
        with m.If(engine.start):
            m.d.sync += select.eq(Cat(getattr(word, f"{name}_src") == one for one in sources))
        port = rf.read_port(domain="comb")
        index = Signal(13, name=f"{name}_index")
        m.d.comb += [
            index.eq(getattr(op, f"{name}_rf") + Mux(getattr(op, f"{name}_inc"), engine.index, 0)),
            port.addr.eq(index),
        ]
        imm = Cat(op.imm, op.imm[-1].replicate(32 - len(op.imm)))
        iota = [Cat(Const(lane, 4), engine.index, Const(0, 16)) for lane in range(LANES)]
        raw = Signal(GROUP_BITS, name=f"{name}_raw")
        m.d.comb += raw.eq(one_hot(select, [
            *(group_of(streams, g) for streams in (self.e_in, self.w_in) for g in range(groups)),
            port.data, lanes_group([imm] * LANES), lanes_group(iota),
        ]))
        return SimpleNamespace(lanes=_take(m, raw, fmt, name), source=source, select=select, fmt=fmt, index=index)

    def _write(self, m: Module, rf: Memory, er: Memory, now: data.View, result: Value, exponents: Value,
               reduced: data.View, reduction: Value) -> data.View:
        """The files' write ports; a reduction goes before a result."""
        rf_port, er_port = rf.write_port(), er.write_port()
        write = Signal(data.StructLayout({**probe_layout().members, "conflict": 1}))
        result_we, reduce_we = now.valid & now.rf_we, reduced.rf_we
        m.d.comb += [
            write.rf_we.eq(result_we | reduce_we),
            write.rf_index.eq(Mux(reduce_we, reduced.rf, now.rf)),
            write.rf_data.eq(Mux(reduce_we, reduction, result)),
            write.er_we.eq(now.valid & now.er_we), write.er_index.eq(now.er_dst), write.er_data.eq(exponents),
            write.conflict.eq(result_we & reduce_we),
            rf_port.en.eq(write.rf_we), rf_port.addr.eq(write.rf_index), rf_port.data.eq(write.rf_data),
            er_port.en.eq(write.er_we), er_port.addr.eq(write.er_index), er_port.data.eq(write.er_data),
        ]
        return write

    def _check_sources(self, m: Module, engine: Burst, operands: list[SimpleNamespace]) -> None:
        """EMPTY_READ: an operand takes bytes of a slot that nobody has driven."""
        groups = self._config.groups
        empty = Cat(streams[PLANES * g : PLANES * (g + 1)] for streams in (~self.e_driven, ~self.w_driven)
                    for g in range(groups))
        taken = [any_of([Mux(operand.select[g], empty[PLANES * g : PLANES * (g + 1)], 0) for g in range(2 * groups)])
                 & _planes_of(operand.fmt) for operand in operands]
        trap(m, self, Trap.EMPTY_READ, engine.active & any_of(taken).any())

    def _check_addresses(self, m: Module, engine: Burst, operands: list[SimpleNamespace]) -> None:
        """ADDRESS: a register, exponent or group beyond the configured ones."""
        config, op = self._config, engine.op
        beyond = [(operand.source == Src.RF) & (operand.index >= config.rf_depth) for operand in operands]
        beyond += [(operand.source.as_value()[2:] != 0) & (operand.source.as_value()[:2] >= config.groups)
                   for operand in operands]
        beyond += [
            op.rf_we & (op.rf + Mux(op.rf_inc, engine.index, 0) >= config.rf_depth),
            (op.red != Red.NONE) & op.red_we & (op.red_rf >= config.rf_depth),
            (op.er_use != ErUse.NONE) & (op.er >= config.er_depth), op.er_we & (op.er_dst >= config.er_depth),
            (op.dst_e | op.dst_w) & (op.dst_group >= config.groups),
            (op.red != Red.NONE) & (op.red_e | op.red_w) & (op.red_group >= config.groups),
        ]
        trap(m, self, Trap.ADDRESS, engine.active & Cat(beyond).any())


# --- stage 0 ----------------------------------------------------------------------------------------------------------


def _planes_of(fmt: Value) -> Value:
    """Mask of the planes that an operand format takes."""
    masks = {Fmt.I32: 15, Fmt.LO16: 3, Fmt.HI16: 12, Fmt.B0: 1, Fmt.B1: 2, Fmt.B2: 4, Fmt.B3: 8}
    return any_of([Mux(fmt == one, Const(mask, PLANES), 0) for one, mask in masks.items()])


def _take(m: Module, raw: Value, fmt: Value, name: str) -> list[Value]:
    """The lanes of a group with the bytes that `fmt` selects, sign-extended."""
    def is_any(*formats):
        return any_of([fmt == one for one in formats])

    p0, p1, p2, p3 = (raw[PLANE_BITS * p : PLANE_BITS * (p + 1)] for p in range(PLANES))
    whole, half, byte = fmt == Fmt.I32, is_any(Fmt.LO16, Fmt.HI16), is_any(Fmt.B0, Fmt.B1, Fmt.B2, Fmt.B3)
    low = named(m, Cat(is_any(Fmt.I32, Fmt.LO16, Fmt.B0), fmt == Fmt.B1, is_any(Fmt.HI16, Fmt.B2), fmt == Fmt.B3),
                f"{name}_low")
    high = named(m, Cat(is_any(Fmt.I32, Fmt.LO16), fmt == Fmt.HI16), f"{name}_high")
    bare = named(m, Cat(one_hot(low, [p0, p1, p2, p3]), one_hot(high, [p1, p3]), Mux(whole, Cat(p2, p3), 0)),
                 f"{name}_bare")
    extend8, extend16 = named(m, byte, f"{name}_extend8"), named(m, half, f"{name}_extend16")
    lanes = []
    for lane in group_lanes(bare):
        sign8 = named(m, extend8 & lane[7], f"{name}_sign8")
        sign16 = named(m, sign8 | (extend16 & lane[15]), f"{name}_sign16")
        lanes.append(lane | Cat(Const(0, 8), sign8.replicate(8), sign16.replicate(16)))
    return lanes


def _amounts(m: Module, op: data.View, er: Memory) -> tuple[list[Value], list[Value]]:
    """Pre and post shift of every lane with the exponents: the first clamped to +-31, the second not yet clamped."""
    port = er.read_port(domain="comb")
    m.d.comb += port.addr.eq(op.er)
    to_pre, to_post = named(m, op.er_use == ErUse.PRE, "to_pre"), named(m, op.er_use == ErUse.POST, "to_post")
    base = Signal(signed(8), name="shift_base")
    m.d.comb += base.eq(Mux(to_pre, op.pre, op.post))
    pre, post = [], []
    for lane in range(LANES):
        exponent = port.data[8 * lane : 8 * lane + 8].as_signed()
        total, own_pre = Signal(signed(9), name="shift_total"), Signal(signed(9), name="pre_total")
        m.d.comb += [
            total.eq(Mux(op.er_neg, base - exponent, base + exponent)),
            own_pre.eq(Mux(to_pre, total, op.pre)),
        ]
        pre.append(_clamp(m, own_pre, PRE_RANGE[1]))
        post.append(Mux(to_post, total, op.post)[:9])
    return pre, post


def _decode(m: Module, control: list[data.View]) -> data.View:
    """The lanes' controls, registered for their stages (stage k decodes what stage k - 1 holds)."""
    decoded = Signal(DECODED, reset_less=True)
    shift, func, multiply, alu, write = control[0], control[1], control[2], control[3], control[4]

    def is_any(*ops):
        return any_of([alu.alu == one for one in ops])

    limits = {Sat.S32: INT32[1], **SAT_LIMIT}
    m.d.sync += [getattr(decoded, name).eq(value) for name, value in {
        "arithmetic": ~shift.logical, "round1": shift.round & ~shift.logical,
        **{one.name.lower(): func.func == one for one in Func},
        "interpolate": any_of([func.func == one for one in INTERPOLATED]),
        "round3": multiply.round,
        "invert_q": is_any(Alu.RSUB, Alu.GT),
        "invert_c": is_any(Alu.SUB, Alu.LT, Alu.MIN, Alu.MAX, Alu.EQ, Alu.ANDN, Alu.INDEX),
        "carry": ~is_any(Alu.ADD),
        "sum": is_any(Alu.ADD, Alu.SUB, Alu.RSUB),
        "q": is_any(Alu.Q), "min": is_any(Alu.MIN), "max": is_any(Alu.MAX),
        "conjunction": is_any(Alu.AND, Alu.ANDN, Alu.OR), "parity": is_any(Alu.XOR, Alu.OR),
        "less": is_any(Alu.LT, Alu.GT), "equal": is_any(Alu.EQ), "index": is_any(Alu.INDEX),
        "limit": any_of([Mux(alu.sat == sat, Const(value, 31), 0) for sat, value in limits.items()]),
        "symmetric": alu.sat != Sat.S32,
        "exponent_is_k": (write.func == Func.RECIP) | (write.func == Func.RSQRT),
    }.items()]
    return decoded


# --- stages 1..4, one lane --------------------------------------------------------------------------------------------

DECODED = data.StructLayout({
    "arithmetic": 1, "round1": 1, **{func.name.lower(): 1 for func in Func}, "interpolate": 1, "round3": 1,
    **dict.fromkeys(("invert_q", "invert_c", "carry", "sum", "q", "min", "max", "conjunction", "parity", "less",
                     "equal", "index", "symmetric"), 1),
    "limit": 31, "exponent_is_k": 1,
})
"""Controls of a lane, each registered for the stage that uses it: the same for all lanes."""


class Lane(wiring.Component):
    """Stages 1..4 of one lane.

    decoded: controls, each in its stage. a, b, c, pre, post: operands and shift amounts, in stage 0.
    y, exponent: the result, and what an exponent entry gets, from registers, in stage 5.
    """

    decoded: In(DECODED)
    a: In(32)
    b: In(FACTOR_BITS)
    c: In(32)
    pre: In(6)
    post: In(9)
    y: Out(32)
    exponent: Out(8)

    def elaborate(self, platform):
        m = Module()
        decoded = self.decoded
        m.submodules.rom = rom = Memory(shape=tables.BASE_BITS + tables.SLOPE_BITS, depth=tables.ROM_DEPTH,
                                        init=_rom_words())

        def registers(*pairs):
            return [register(m, value, name) for name, value in pairs]

        a, b, c, pre, post = registers(("a1", self.a), ("b1", self.b), ("c1", self.c), ("pre1", self.pre),
                                       ("post1", self.post))
        a, b, c, post = registers(("a2", _pre_shift(m, decoded, a, pre)), ("b2", b), ("c2", c), ("post2", post))
        chosen = _function(m, decoded, rom, a, b, c)
        left, right, passed, b, c, post, k = registers(
            ("left3", chosen.left), ("right3", chosen.right), ("passed3", chosen.passed), ("b3", b), ("c3", chosen.c),
            ("post3", _post_amount(m, decoded, chosen.octaves, post)), ("k3", chosen.k))
        q, b, c, k = registers(("q4", _post_shift(m, decoded, left, right, passed, post)), ("b4", b), ("c4", c),
                               ("k4", k))
        y, k = registers(("y5", _alu(m, decoded, q, b, c)), ("k5", k))
        m.d.comb += [self.y.eq(y), self.exponent.eq(Mux(decoded.exponent_is_k, k, y[:8]))]
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
    left = amount[5]
    sign = (decoded.arithmetic & a[31]).replicate(31)
    funnel = Cat(Const(0, 1), Mux(left, 0, a)[:32], Mux(left, a[:31], sign))
    shifted = named(m, (funnel >> amount[:5])[:33], "shifted")
    return (shifted[1:] + (decoded.round1 & shifted[0]))[:32]


def _rom_words() -> list[int]:
    return [base | (slope & ((1 << tables.SLOPE_BITS) - 1)) << tables.BASE_BITS for base, slope in tables.rom()]


def _normalise(m: Module, x: Value) -> tuple[Value, Value]:
    """Bit length of x (31 bits, unsigned), and x shifted left until its top bit is set."""
    zeros = []
    for width in (16, 8, 4, 2, 1):
        zero = Signal(name=f"zeros{width}")
        shifted = Signal(31, name=f"normal{width}")
        m.d.comb += [zero.eq(~x[31 - width :].any()), shifted.eq(Mux(zero, x << width, x))]
        x = shifted
        zeros.append(zero)
    return ~Cat(reversed(zeros)), x


def _function(m: Module, decoded: data.View, rom: Memory, a: Value, b: Value, c: Value) -> SimpleNamespace:
    """Stage 2: the multiplier's factors (or 0), the value that passes by it (or 0), c or what takes its place, k and
    the octaves by which EXP2 grows the post shift (0 or less)."""
    is_, sign = {func: getattr(decoded, func.name.lower()) for func in Func}, a[31]
    length, normal = _normalise(m, Mux(sign, Mux(is_[Func.BITLEN], ~a, 0), a)[:31])
    k, below = Signal(5, name="k"), Signal(signed(33), name="below")
    m.d.comb += [k.eq(Mux(normal[30], length - 1, 0)), below.eq(a.as_signed() - c.as_signed())]
    u = {func: normal[MANTISSA_BITS : 2 * MANTISSA_BITS] for func in INTERPOLATED}
    u[Func.SIGMOID] = _clamp(m, a, 32767) ^ 0x8000
    u[Func.EXP2] = Mux(below[-1], below[: tables.EXP2_FRACTION], 0)
    segment = {func: value[tables.TABLES[func].frac_bits :] for func, value in u.items()}
    segment[Func.RSQRT] = Cat(segment[Func.RSQRT], k[0])
    port = rom.read_port(domain="comb")
    entry, fraction, pair = Signal(8, name="entry"), Signal(11, name="fraction"), Signal(31, name="pair")
    saturated = Signal(FACTOR_BITS, name="saturated")
    m.d.comb += [
        entry.eq(any_of([Mux(is_[func], segment[func] | table.start, 0) for func, table in tables.TABLES.items()])),
        fraction.eq(any_of([Mux(is_[func], u[func][: tables.TABLES[func].frac_bits], 0) for func in INTERPOLATED])),
        port.addr.eq(entry), pair.eq(port.data), saturated.eq(_clamp(m, a, FACTOR_MAX)),
    ]
    base, slope = pair[: tables.BASE_BITS], pair[tables.BASE_BITS :]
    slope = Cat(slope, slope[-1].replicate(FACTOR_BITS - tables.SLOPE_BITS))
    multiply, square, table = is_[Func.MUL], is_[Func.SQUARE], decoded.interpolate
    left = Mux(multiply | square, saturated, 0) | Mux(table, fraction, 0)
    right = Mux(multiply, b, 0) | Mux(square, saturated, 0) | Mux(table, slope, 0)
    passed = Mux(is_[Func.PASS], a, 0) | Mux(is_[Func.BITLEN], length, 0) | Mux(is_[Func.EXP2], base, 0)
    replaced = base | Mux(is_[Func.LOG2], k, 0) << tables.LOG2_FRACTION
    return SimpleNamespace(
        left=left[:FACTOR_BITS], right=right[:FACTOR_BITS], passed=passed[:32], c=Mux(table, replaced, c)[:32],
        k=Mux(is_[Func.RSQRT], k[1:], k)[:5],
        octaves=Mux(is_[Func.EXP2] & below[-1], below[tables.EXP2_FRACTION :], 0)[: 33 - tables.EXP2_FRACTION])


def _post_amount(m: Module, decoded: data.View, octaves: Value, post: Value) -> Value:
    """Stage 2: the post shift, grown by the octaves of an EXP2, clamped to 0..47."""
    far = octaves[-1] & ~octaves[8:].all()
    total = Signal(signed(11), name="post_total")
    m.d.comb += total.eq(post.as_signed() - Mux(far, -256, octaves[:9].as_signed()))
    return Mux(total[-1], 0, Mux(total[:10] > POST_RANGE[1], POST_RANGE[1], total[:6]))[:6]


def _post_shift(m: Module, decoded: data.View, left: Value, right: Value, passed: Value, amount: Value) -> Value:
    """Stage 3: (product or passed value) >> amount, rounded: 36 bits."""
    p = Signal(signed(2 * FACTOR_BITS), name="p")
    shifted = Signal(signed(2 * FACTOR_BITS + 1), name="p_shifted")
    m.d.comb += [
        p.eq((left.as_signed() * right.as_signed()) | passed.as_signed()),
        shifted.eq(Cat(Const(0, 1), p).as_signed() >> amount),
    ]
    return (shifted[1:] + (decoded.round3 & shifted[0]))[: 2 * FACTOR_BITS]


def _alu(m: Module, decoded: data.View, q: Value, b: Value, c: Value) -> Value:
    """Stage 4: y = sat(sat32(q) alu c), b for INDEX."""
    over, sign = named(m, q[31:] != q[-1].replicate(len(q) - 31), "over"), q[-1]
    q33, c33, total, y = (Signal(signed(33), name=name) for name in ("q33", "c33", "total", "unsaturated"))
    less = total[-1]
    m.d.comb += [
        q33.eq(Mux(over, Cat((~sign).replicate(31), sign), q[:32]).as_signed()),
        c33.eq(c.as_signed()),
        total.eq((q33 ^ decoded.invert_q.replicate(33)) + (c33 ^ decoded.invert_c.replicate(33)) + decoded.carry),
        y.eq(any_of([
            Mux(decoded.sum, total, 0),
            Mux(decoded.q | (decoded.min & less) | (decoded.max & ~less), q33, 0),
            Mux((decoded.min & ~less) | (decoded.max & less), c33, 0),
            Mux(decoded.conjunction, q33 & (c33 ^ decoded.invert_c.replicate(33)), 0),
            Mux(decoded.parity, q33 ^ c33, 0),
            Mux(decoded.index, Mux(less, INT32[1], Cat(b, b[-1].replicate(33 - FACTOR_BITS))), 0)[:33],
            ((decoded.less & less) | (decoded.equal & (total == 0))).replicate(33),
        ])),
    ]
    return _saturate(decoded, y)


def _saturate(decoded: data.View, y: Value) -> Value:
    """y clamped to 32 bits: a bit above the limit's bits differs from the sign, or y = -limit - 1 where symmetric."""
    sign, limit = y[-1], Cat(decoded.limit, Const(0, 1))
    excess = ((y[:32] ^ sign.replicate(32)) & ~limit).any()
    least = decoded.symmetric & sign & ~(y[:31] & decoded.limit).any()
    return Mux(excess | least, Mux(sign, ~limit | decoded.symmetric, limit), y[:32])[:32]


# --- stages 5 and 6 ---------------------------------------------------------------------------------------------------


def _lay(result: Value, rep: Value) -> Value:
    """The result's planes as `rep` lays them on the planes driven."""
    p0, p1, p2, p3 = (result[PLANE_BITS * p : PLANE_BITS * (p + 1)] for p in range(PLANES))
    half, byte = rep == Rep.REP16, rep == Rep.REP8
    return Cat(p0, Mux(byte, p0, p1), Mux(byte | half, p0, p2), Mux(byte, p0, Mux(half, p1, p3)))


def _reduce(m: Module, now: data.View, y: list[Value]) -> tuple[Value, data.View]:
    """The reduction over a burst (512 bits) and, in stage 6 of its last element, where it goes."""
    reduced = Signal(data.StructLayout({"e": 1, "w": 1, "group": 2, "rf_we": 1, "rf": 5}))
    valid = now.valid & (now.red != Red.NONE)
    done = valid & now.last
    m.d.sync += [
        reduced.e.eq(done & now.red_e), reduced.w.eq(done & now.red_w), reduced.group.eq(now.red_group),
        reduced.rf_we.eq(done & now.red_we), reduced.rf.eq(now.red_rf),
    ]
    m.submodules.reductions = slots = Memory(shape=GROUP_BITS, depth=1 << len(now.red_slot), init=[])
    old, new = slots.read_port(domain="comb"), slots.write_port()
    summing, least, absolute, fresh = (named(m, value, name) for name, value in (
        ("summing", now.red == Red.SUM), ("least", now.red == Red.MIN), ("absolute", now.red == Red.MAXABS),
        ("fresh", now.first & ~now.red_keep)))
    totals = []
    for n, value in enumerate(y):
        before = old.data[32 * n : 32 * n + 32].as_signed()
        x, less = Signal(signed(32), name="reduced_x"), Signal(name="reduced_less")
        m.d.comb += [
            x.eq(Mux(absolute & value[31], Mux(value == 1 << 31, INT32[1], -value.as_signed()), value)),
            less.eq(x < before),
        ]
        totals.append(Mux(fresh | (~summing & (less == least)), x, Mux(summing, before + x, before))[:32])
    total = Signal(len(totals) * 32, name="reduction_total")
    m.d.comb += [
        total.eq(Cat(totals)), old.addr.eq(now.red_slot),
        new.addr.eq(now.red_slot), new.data.eq(total), new.en.eq(valid),
    ]
    reduction = register(m, total, "reduction")
    return lanes_group([reduction[32 * n : 32 * n + 32] for n in range(LANES)]), reduced
