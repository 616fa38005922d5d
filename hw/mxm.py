"""The MXM: weights stream from memory past activations that are held, sums go into an accumulator file."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .config import LANES, MXM_E, PLANES, ChipConfig
from .isa import COUNT_BITS, Op, Order, Queue, Trap, Wfmt, layout
from .slice import (
    PLANE_BITS,
    Burst,
    any_of,
    drive,
    fields,
    illegal,
    lanes_group,
    one_hot,
    register,
    slots_of,
    trap,
    unit_ports,
)

HIGH = 13
"""Bit of the packed product at which the high nibble's product begins; the low one needs 12 bits, a pair of them 13."""
FACTOR_BITS = 18
PRODUCT_BITS = 26
SUM_BITS = 20
ACC_BITS = 32


def probe_layout() -> data.StructLayout:
    """State writes of this cycle; accumulator lane l is at bits 32 * l, and only lanes in `acc_we` are written."""
    return data.StructLayout({"act_we": 1, "act_index": 8, "act_data": PLANE_BITS,
                              "acc_we": LANES, "acc_index": 6, "acc_data": ACC_BITS * LANES})


class MacLoops(wiring.Component):
    """The MAC engine: two nested loops, one step a cycle.

    `start` latches `word` in cycle t. From t + 1 on, `active` is high for acts * accs cycles, with the activation entry
    `act`, the accumulator entry `acc` and `first` (this is the burst's first activation entry) of each step. It may be
    started again in the cycle of its `last` step; `conflict` pulses where it is started earlier.
    """

    def __init__(self):
        shape = layout(Op.MAC)
        super().__init__({
            "start": In(1), "word": In(shape), "op": Out(shape), "active": Out(1), "last": Out(1), "conflict": Out(1),
            "act": Out(COUNT_BITS + 1), "acc": Out(COUNT_BITS + 1), "first": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        op = Signal.like(self.op, reset_less=True)
        running = Signal()
        act, acc = Signal(COUNT_BITS, reset_less=True), Signal(COUNT_BITS, reset_less=True)
        act_last, acc_last = Signal(), Signal()
        by_row = op.order == Order.ROW
        m.d.comb += [
            self.op.eq(op), self.active.eq(running),
            act_last.eq(act + 1 == op.acts), acc_last.eq(acc + 1 == op.accs),
            self.last.eq(running & act_last & acc_last),
            self.conflict.eq(self.start & running & ~self.last),
            self.act.eq(op.act + act), self.acc.eq(op.acc + acc), self.first.eq(act == 0),
        ]
        with m.If(self.start):
            m.d.sync += [op.eq(self.word), running.eq(1), act.eq(0), acc.eq(0)]
        with m.Elif(running):
            m.d.sync += running.eq(~self.last)
            with m.If(by_row | acc_last):
                m.d.sync += act.eq(Mux(act_last, 0, act + 1))
            with m.If(~by_row | act_last):
                m.d.sync += acc.eq(Mux(acc_last, 0, acc + 1))
        return m


class Mxm(wiring.Component):
    """The matrix unit: R = 4 * weight_groups rows x 16 lanes of int8 x int8, or 2 R rows of int4 x int8.

    Three engines that work independently. Outward is E for MXM_E and W for MXM_W.
    LOAD: samples one plane of an outward group in e; a MAC step in e + MXM_LOAD sees the entry.
    MAC: samples the weights (row r is outward stream 4 + r) and the activation entry in e; the accumulators hold the
    sum for a DRAIN element in e + MXM_ACC. Accumulator entry n is part n % p of vector n // p (modulo the file), where
    a vector has p = 16 // rows parts. INT4 exists only where its 2 R rows fit a vector.
    DRAIN: reads a vector in e, drives it inward in e + MXM_DRAIN.

    One 18 x 8 multiplier a row and lane: an int4 factor is high * 2**13 + low, so that both products stand in one.
    Pipeline of MAC: e factors; e + 1 multiply; e + 2 add pairs, part the packed products, add fours; e + 3 add
    all; e + 4 accumulate.

    word, valid: the instruction and its dispatch pulse. e_in, w_in / e_data, e_drive, w_data, w_drive: streams.
    busy: an engine is; sums may still be in flight.
    Debug builds: e_driven, w_driven, traps, probe.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        self._eastern = queue.position == MXM_E
        self._int4 = 2 * config.rows <= LANES
        super().__init__(unit_ports("MXM", config.streams, probe_layout() if config.debug else None))

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.load = load = Burst(Op.LOAD)
        m.submodules.mac = mac = MacLoops()
        m.submodules.drain = drain = Burst(Op.DRAIN)
        m.submodules.act = act = Memory(shape=PLANE_BITS, depth=config.act_depth, init=[],
                                        attrs={"ram_style": "distributed"})  # too shallow for block RAMs
        m.submodules.acc = acc = Memory(shape=ACC_BITS * LANES, depth=config.acc_depth, init=[])
        for engine, op in ((load, Op.LOAD), (mac, Op.MAC), (drain, Op.DRAIN)):
            word = fields(op, self.word)
            m.d.comb += [engine.word.eq(word), engine.start.eq(self.valid & (word.op == op))]
        m.d.comb += self.busy.eq(load.busy | mac.active | drain.busy)

        outward = self.e_in if self._eastern else self.w_in
        tap, act_write = self._load(m, load, act, outward)
        acc_write = self._mac(m, mac, act, acc, outward)
        self._drain(m, drain, acc)
        if config.debug:
            self._check(m, load, mac, drain, tap)
            m.d.comb += [
                self.probe.act_we.eq(act_write.en), self.probe.act_index.eq(act_write.addr),
                self.probe.act_data.eq(act_write.data), self.probe.acc_we.eq(acc_write.en),
                self.probe.acc_index.eq(acc_write.addr), self.probe.acc_data.eq(acc_write.data),
            ]
        return m

    def _load(self, m: Module, engine: Burst, act: Memory, outward: Value):
        """LOAD; returns the streams it taps, one-hot, and the write port."""
        streams = self._config.streams
        tap = Signal(streams, reset_less=True)
        with m.If(engine.start):
            m.d.sync += tap.eq(1 << Cat(engine.word.plane, engine.word.group))
        port = act.write_port()
        m.d.comb += [
            port.en.eq(engine.active), port.addr.eq(engine.op.act + engine.index),
            port.data.eq(one_hot(tap, [outward[PLANE_BITS * s : PLANE_BITS * (s + 1)] for s in range(streams)])),
        ]
        return tap, port

    def _mac(self, m: Module, mac: MacLoops, act: Memory, acc: Memory, outward: Value):
        """MAC; returns the write port of the accumulator file."""
        rows = self._config.rows
        nibbles = self._nibbles(m, mac)
        port = act.read_port(domain="comb")
        m.d.comb += port.addr.eq(mac.act)
        lanes = range(LANES)
        held = [register(m, port.data[8 * lane : 8 * lane + 8], f"act1_{lane}").as_signed() for lane in lanes]
        low, high = [], []
        for row in range(rows):
            weights = outward[PLANE_BITS * (PLANES + row) :][:PLANE_BITS]
            factors = [register(m, self._factor(weights[8 * lane : 8 * lane + 8], nibbles[0]), f"factor1_{row}_{lane}")
                       for lane in lanes]
            products = [register(m, (factors[lane].as_signed() * held[lane])[:PRODUCT_BITS], f"product2_{row}_{lane}")
                        for lane in lanes]
            whole, upper = self._add(m, products, nibbles[2])
            low.append(whole)
            high.append(upper)
        sums = [register(m, total, "sum4") for total in self._outputs(low, high, nibbles[3])]
        return self._accumulate(m, mac, acc, sums)

    def _nibbles(self, m: Module, mac: MacLoops) -> list[Value]:
        """Whether the weights are INT4, in stages 0..3."""
        if not self._int4:
            return [Const(0)] * 4
        stages = [mac.op.wfmt == Wfmt.INT4]
        for k in range(1, 4):
            stages.append(register(m, stages[-1], f"nibbles{k}"))
        return stages

    def _factor(self, weight: Value, nibbles: Value) -> Value:
        """A weight as an 18-bit factor: int8, or high * 2**13 + low of two int4."""
        low = Cat(weight[:4], weight[3].replicate(HIGH - 4))
        high = weight[4:].as_signed() - weight[3]
        return Mux(nibbles, Cat(low, high)[:FACTOR_BITS], Cat(weight, weight[7].replicate(FACTOR_BITS - 8)))

    def _add(self, m: Module, products: list[Value], nibbles: Value) -> tuple[Value, Value]:
        """Stages 2 and 3: the sum of a row's products (of the low nibbles' products), and that of the high ones.

        The high part of a packed pair lacks 1 where the low part is negative: these bits are the carries of the adders
        that follow, but for the last, for which there is no adder left.
        """
        pairs = [Signal(PRODUCT_BITS + 1, name="pair2") for _ in range(LANES // 2)]
        m.d.comb += [pair.eq(a.as_signed() + b.as_signed())
                     for pair, a, b in zip(pairs, products[::2], products[1::2], strict=True)]
        whole = [Cat(pair[:HIGH], Mux(nibbles, pair[HIGH - 1].replicate(4), pair[HIGH : HIGH + 4])) for pair in pairs]
        whole = self._fours(m, whole, [Const(0)] * 4, "low3")
        if not self._int4:
            return _sum_of(m, whole, [Const(0)] * 3), Const(0, SUM_BITS)
        *upper, last = [pair[HIGH:] for pair in pairs]
        *carries, carry = [pair[HIGH - 1] for pair in pairs]
        upper = self._fours(m, [*upper, (last.as_signed() + carry)[: len(last)]], carries[:4], "high3")
        late = [register(m, bit, "carry3") for bit in carries[4:]]
        return _sum_of(m, whole, [Const(0)] * 3), _sum_of(m, upper, late)

    def _fours(self, m: Module, values: list[Value], carries: list[Value], name: str) -> list[Value]:
        """Sums of pairs (with carries), registered."""
        return [register(m, _add_carry(a, b, carry), name)
                for a, b, carry in zip(values[::2], values[1::2], carries, strict=True)]

    def _outputs(self, low: list[Value], high: list[Value], nibbles: Value) -> list[Value]:
        """Stage 3: sums by output row of a step; int8 rows are repeated where a step of int4 has more."""
        if not self._int4:
            return low
        packed = [total for pair in zip(low, high, strict=True) for total in pair]
        return [Mux(nibbles, packed[j], low[j % len(low)]) for j in range(len(packed))]

    def _accumulate(self, m: Module, mac: MacLoops, acc: Memory, sums: list[Value]):
        """Stage 4: read, add, write the lanes of one step's rows; returns the write port."""
        control = [Signal(data.StructLayout({"valid": 1, "clear": 1, "vector": 6, "lanes": LANES}), name=f"control{k}")
                   for k in range(5)]
        here, now = control[0], control[4]
        part8, vector8 = _split(mac.acc, LANES // self._config.rows)
        lanes8 = Cat(part8 == lane // self._config.rows for lane in range(LANES))
        if self._int4:
            size = 2 * self._config.rows
            part4, vector4 = _split(mac.acc, LANES // size)
            lanes4 = Cat(part4 == lane // size for lane in range(LANES))
            nibbles = mac.op.wfmt == Wfmt.INT4
            lanes8, vector8 = Mux(nibbles, lanes4, lanes8), Mux(nibbles, vector4, vector8)
        m.d.comb += [here.valid.eq(mac.active), here.clear.eq(mac.op.clear & mac.first), here.vector.eq(vector8),
                     here.lanes.eq(Mux(mac.active, lanes8, 0))]
        m.d.sync += [after.eq(before) for before, after in pairwise(control)]
        read, write = acc.read_port(domain="comb"), acc.write_port(granularity=ACC_BITS)
        m.d.comb += [read.addr.eq(now.vector), write.addr.eq(now.vector), write.en.eq(now.lanes)]
        for lane in range(LANES):
            bits = slice(ACC_BITS * lane, ACC_BITS * (lane + 1))
            m.d.comb += write.data[bits].eq(Mux(now.clear, 0, read.data[bits])
                                            + sums[lane % len(sums)].as_signed())
        return write

    def _drain(self, m: Module, engine: Burst, acc: Memory) -> None:
        port = acc.read_port(domain="comb")
        m.d.comb += port.addr.eq(engine.op.acc + engine.index)
        vector = register(m, port.data, "drained")
        never = Const(0)
        sides = (never, engine.active) if self._eastern else (engine.active, never)
        inward = slots_of(*sides, engine.op.group, self._config.groups)
        drive(m, self, [(register(m, inward, "drain_slots"),
                         lanes_group([vector[ACC_BITS * lane : ACC_BITS * (lane + 1)] for lane in range(LANES)]))])

    def _check(self, m: Module, load: Burst, mac: MacLoops, drain: Burst, tap: Value) -> None:
        """Everything a debug build traps."""
        config = self._config
        empty = ~(self.e_driven if self._eastern else self.w_driven)
        trap(m, self, Trap.EMPTY_READ, (load.active & (empty & tap).any()) | (mac.active & empty[PLANES:].any()))
        trap(m, self, Trap.ENGINE_BUSY, load.conflict | mac.conflict | drain.conflict)
        wrong = [(self.word[:4] != op.value) | illegal(op, fields(op, self.word))
                 for op in (Op.LOAD, Op.MAC, Op.DRAIN)]
        if not self._int4:
            wrong[1] |= fields(Op.MAC, self.word).wfmt == Wfmt.INT4
        trap(m, self, Trap.OPCODE, self.valid & wrong[0] & wrong[1] & wrong[2])
        trap(m, self, Trap.ADDRESS, any_of([
            load.active & (load.op.act + load.index >= config.act_depth),
            load.active & (load.op.group >= config.groups),
            mac.active & (mac.act >= config.act_depth),
            drain.active & (drain.op.group >= config.groups),
        ]))


def _add_carry(a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry, signed, one bit wider; a carry enters below the lowest bit, where an adder has room."""
    if isinstance(carry, Const):
        return a.as_signed() + b.as_signed()
    return (Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed())[1:]


def _sum_of(m: Module, values: list[Value], carries: list[Value]) -> Value:
    """Stage 3: the sum of four, SUM_BITS wide."""
    left = _add_carry(values[0], values[1], carries[0])
    right = _add_carry(values[2], values[3], carries[1])
    total = Signal(SUM_BITS, name="sum3")
    m.d.comb += total.eq(_add_carry(left, right, carries[2]).as_signed())
    return total


def _split(entry: Value, parts: int) -> tuple[Value, Value]:
    """(part, vector) of an accumulator entry; `parts` is a power of two."""
    bits = parts.bit_length() - 1
    return entry[:bits] if bits else Const(0), entry[bits:]
