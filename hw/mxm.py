"""The MXM: weights stream past held activations, and their products are summed in an accumulator file."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from arch.config import MXM_E, PLANES, ChipConfig
from arch.host_map import Trap
from arch.isa import COUNT_BITS, DrainMax, Op, Order, Wfmt, layout
from arch.latencies import latencies
from arch.row import Queue

from .burst import Burst, fields, stepping
from .idioms import lanes_group, named, register
from .unit import illegal, trap, unit_ports

HIGH = 14
"""The bit where the high nibble's product begins. A low product has 12 bits, the sum of four has 14."""
ACC_BITS = 32


def probe_layout(config: ChipConfig) -> data.StructLayout:
    """State writes of this cycle; accumulator lane l is at bits 32 * l, and only lanes in `acc_we` are written."""
    return data.StructLayout({"act_we": 1, "act_index": 8, "act_data": config.plane_bits,
                              "acc_we": config.lanes, "acc_index": 6, "acc_data": ACC_BITS * config.lanes})


class MacLoops(wiring.Component):
    """The MAC engine: two nested loops, one step a cycle.

    `start` latches `word` in cycle t. `active` is high for acts * accs cycles from t + 1 on. In each step `act` is the
    activation entry, `acc` the accumulator entry, and `first` marks the burst's first activation entry. The engine may
    start again in the cycle of its `last` step. An earlier start pulses `conflict`.

    early: whether a loop ends with this step is known from registers that are loaded a cycle earlier.
    """

    def __init__(self, *, early: bool = False):
        self._early = early
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
        act_at, acc_at = Signal.like(self.act, reset_less=True), Signal.like(self.acc, reset_less=True)
        act_last, acc_last = Signal(), Signal()
        by_row = op.order == Order.ROW
        ends = (act + 1 == op.acts, acc + 1 == op.accs)
        if self._early:
            ends = (self._ends(m, running & (by_row | acc_last), "acts", act, act_last),
                    self._ends(m, running & (~by_row | act_last), "accs", acc, acc_last))
        m.d.comb += [
            self.op.eq(op), self.active.eq(running),
            act_last.eq(ends[0]), acc_last.eq(ends[1]),
            self.last.eq(running & act_last & acc_last),
            self.conflict.eq(self.start & running & ~self.last),
            self.act.eq(act_at), self.acc.eq(acc_at), self.first.eq(act == 0),
        ]
        with m.If(self.start):
            m.d.sync += [op.eq(self.word), running.eq(1), act.eq(0), acc.eq(0), act_at.eq(self.word.act),
                         acc_at.eq(self.word.acc)]
        with m.Elif(running):
            m.d.sync += running.eq(~self.last)
            with m.If(by_row | acc_last):
                m.d.sync += [act.eq(Mux(act_last, 0, act + 1)), act_at.eq(Mux(act_last, op.act, act_at + 1))]
            with m.If(~by_row | act_last):
                m.d.sync += [acc.eq(Mux(acc_last, 0, acc + 1)), acc_at.eq(Mux(acc_last, op.acc, acc_at + 1))]
        return m

    def _ends(self, m: Module, steps: Value, name: str, at: Signal, last: Signal) -> Signal:
        """Whether a loop of `name` turns is in its last one. `at` counts them and advances where `steps` is set."""
        ends, single = (Signal(name=f"{name}_{what}", reset_less=True) for what in ("end", "single"))
        turns = getattr(self.op, name)
        with m.If(self.start):
            m.d.sync += [ends.eq(getattr(self.word, name) == 1), single.eq(getattr(self.word, name) == 1)]
        with m.Elif(steps):
            m.d.sync += ends.eq(Mux(last, single, at + 2 == turns))
        return ends


class Mxm(wiring.Component):
    """The matrix unit: R = 4 * weight_groups rows x lanes of int8 x int8, or 2 R rows of int4 x int8.

    Three engines that work independently. Outward is E for MXM_E and W for MXM_W.
    LOAD: samples one plane of the outward vector stream in e; a MAC step in e + MXM_LOAD sees the entry.
    MAC: samples the weights (row r is byte plane r of `weights`) and the activation entry in e; the accumulators hold
    the sum for a DRAIN element in e + `Latencies.mxm_acc` (5). Accumulator entry n is part n % p of vector n // p
    (modulo the file), where a vector has p = lanes // rows parts. INT4 exists only where its 2 R rows fit a vector.
    DRAIN: reads a vector in e, drives it inward in e + MXM_DRAIN. With `drain_max`, a register holds the greatest value
    of each lane of what was drained: see `arch.isa.DrainMax`. It compares a vector in the cycle in which it drives it.

    Each row and lane has one 18 x 8 multiplier. In both formats it multiplies an activation by high * 2**14 + low: the
    signed upper nibble and the unsigned lower nibble (0..15) of a weight byte. So one product holds two, and four
    packed products can be added as they are. An int8 sum is 16 * high + low. An int4 weight's lower nibble is sampled
    plus 8, so 8 times the sum of the activations is subtracted from the low sum. A chip without INT4 has 8 x 8
    multipliers and none of this.
    Pipeline of MAC: e factors; e + 1 multiply; e + 2 add fours; e + 3 split high and low, add all; e + 4 accumulate.
    With the optional register "accumulate", a step's sums are split in e + 3, added in e + 4, accumulated in e + 5.

    word, valid: the instruction and its dispatch pulse. e_in, w_in / e_data, e_drive, w_data, w_drive: streams.
    weights: the weight groups of the hemisphere's outward streams.
    busy: an engine is; sums may still be in flight.
    Debug builds: e_driven, w_driven, weights_driven, traps, probe.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        self._last = latencies(config).mxm_acc - 1  # the stage that accumulates
        self._eastern = queue.position == MXM_E
        ports = {**unit_ports(config, "MXM", probe_layout(config)), "weights": In(config.plane_bits * config.rows)}
        if config.debug:
            ports["weights_driven"] = In(config.rows)
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        config = self._config
        early = "control" in config.registers
        m.submodules.load = load = Burst(Op.LOAD, early=early)
        m.submodules.mac = mac = MacLoops(early=early)
        m.submodules.drain = drain = Burst(Op.DRAIN, config=config, early=early)
        m.submodules.act = act = Memory(shape=config.plane_bits, depth=config.act_depth, init=[],
                                        attrs={"ram_style": "distributed"})  # too shallow for block RAMs
        m.submodules.acc = acc = Memory(shape=ACC_BITS * config.lanes, depth=config.acc_depth, init=[])
        for engine, op in ((load, Op.LOAD), (mac, Op.MAC), (drain, Op.DRAIN)):
            word = fields(op, self.word, config)
            m.d.comb += [engine.word.eq(word), engine.start.eq(self.valid & (word.op == op))]
        m.d.comb += self.busy.eq(load.busy | mac.active | drain.busy)

        act_write = self._load(m, load, act)
        acc_write = self._mac(m, mac, act, acc)
        self._drain(m, drain, acc)
        if config.debug:
            self._check(m, load, mac, drain)
            m.d.comb += [
                self.probe.act_we.eq(act_write.en), self.probe.act_index.eq(act_write.addr),
                self.probe.act_data.eq(act_write.data), self.probe.acc_we.eq(acc_write.en),
                self.probe.acc_index.eq(acc_write.addr), self.probe.acc_data.eq(acc_write.data),
            ]
        return m

    def _load(self, m: Module, engine: Burst, act: Memory):
        """LOAD; returns the write port."""
        port = act.write_port()
        outward = self.e_in if self._eastern else self.w_in
        m.d.comb += [
            port.en.eq(engine.active), port.addr.eq(stepping(m, engine, engine.word.act, Const(1), "loaded")[0]),
            port.data.eq(outward.word_select(engine.op.plane, self._config.plane_bits)),
        ]
        return port

    def _mac(self, m: Module, mac: MacLoops, act: Memory, acc: Memory):
        """MAC; returns the write port of the accumulator file."""
        nibbles = self._nibbles(m, mac)
        port = act.read_port(domain="comb")
        m.d.comb += port.addr.eq(mac.act)
        lanes = range(self._config.lanes)
        held = [register(m, port.data[8 * lane : 8 * lane + 8], f"act1_{lane}").as_signed() for lane in lanes]
        excess = self._between(m, self._excess(m, held), "excess4") if self._config.int4 else Const(0)
        low, high = [], []
        for row in range(self._config.rows):
            weights = self.weights.word_select(row, self._config.plane_bits)
            products = []
            for lane in lanes:
                weight = weights[8 * lane : 8 * lane + 8] ^ (nibbles[0] << 3)
                factor = register(m, weight[:8], f"factor1_{row}_{lane}")
                packed = Cat(factor[:4], Const(0, HIGH - 4 if self._config.int4 else 0), factor[4:]).as_signed()
                products.append(register(m, packed * held[lane], f"product2_{row}_{lane}"))
            fours = [register(m, four, f"four3_{row}") for four in _fours(m, products, "products")]
            lower, upper = self._part(m, fours, nibbles[self._last - 1], excess)
            low.append(lower)
            high.append(upper)
        sums = [register(m, total, "sum4").as_signed() for total in self._outputs(low, high, nibbles[self._last - 1])]
        return self._accumulate(m, mac, acc, sums)

    def _nibbles(self, m: Module, mac: MacLoops) -> list[Value]:
        """Whether the weights are INT4, in all stages but the last."""
        if not self._config.int4:
            return [Const(0)] * self._last
        stages = [mac.op.wfmt == Wfmt.INT4]
        for k in range(1, self._last):
            stages.append(register(m, stages[-1], f"nibbles{k}"))
        return stages

    def _excess(self, m: Module, held: list[Value]) -> Value:
        """Stage 3: the sum of the activations. The low sums of an INT4 step exceed their value by 8 times this sum."""
        fours = [register(m, four, "acts2") for four in _fours(m, held, "acts")]
        return register(m, _total(m, fours, "act_fours"), "excess3").as_signed()

    def _part(self, m: Module, fours: list[Value], nibbles: Value, excess: Value) -> tuple[Value, Value]:
        """Stage 3: a row's sum of bytes or low nibbles, and its sum of high nibbles (0 without INT4).

        The high part of four packed products is too small by 1 where their low part is negative. These corrections
        enter the adders as carries; the last one has no adder left and is added by itself.
        """
        if not self._config.int4:
            return self._between(m, named(m, _total(m, fours, "rows"), "total3").as_signed(), "total4"), Const(0)
        low = named(m, _total(m, [four[:HIGH] for four in fours], "lows"), "low3")
        upper, carries = [four[HIGH:] for four in fours], [four[HIGH - 1] for four in fours]
        while len(upper) > 1:
            upper = [_add_carry(a, b, carries.pop(0)) for a, b in zip(upper[::2], upper[1::2], strict=True)]
        high = named(m, (upper[0] + carries[0])[:-1], "high3").as_signed()
        low, high = self._between(m, low, "low4"), self._between(m, high, "high4")
        rest = Mux(nibbles, low[3:].as_signed() - excess, low[3:].as_signed() + (high << 1))
        return named(m, Cat(low[:3], rest), "total3").as_signed(), high

    def _between(self, m: Module, value: Value, name: str) -> Value:
        """A value of stage 3, behind the optional register."""
        if "accumulate" not in self._config.registers:
            return value
        later = register(m, value, name)
        return later.as_signed() if value.shape().signed else later

    def _outputs(self, low: list[Value], high: list[Value], nibbles: Value) -> list[Value]:
        """Stage 3: a step's sums by output row. Int8 rows repeat where an int4 step has more rows."""
        if not self._config.int4:
            return low
        packed = [total for pair in zip(low, high, strict=True) for total in pair]
        return [Mux(nibbles, packed[j], low[j % len(low)]) for j in range(len(packed))]

    def _accumulate(self, m: Module, mac: MacLoops, acc: Memory, sums: list[Value]):
        """The last stage: read, add, write the lanes of one step's rows; returns the write port."""
        lanes, rows = self._config.lanes, self._config.rows
        control = [Signal(data.StructLayout({"valid": 1, "clear": 1, "vector": 6, "lanes": lanes}), name=f"control{k}")
                   for k in range(self._last + 1)]
        here, now = control[0], control[self._last]
        part8, vector8 = _split(mac.acc, lanes // rows)
        lanes8 = Cat(part8 == lane // rows for lane in range(lanes))
        if self._config.int4:
            size = 2 * rows
            part4, vector4 = _split(mac.acc, lanes // size)
            lanes4 = Cat(part4 == lane // size for lane in range(lanes))
            nibbles = mac.op.wfmt == Wfmt.INT4
            lanes8, vector8 = Mux(nibbles, lanes4, lanes8), Mux(nibbles, vector4, vector8)
        m.d.comb += [here.valid.eq(mac.active), here.clear.eq(mac.op.clear & mac.first), here.vector.eq(vector8),
                     here.lanes.eq(Mux(mac.active, lanes8, 0))]
        m.d.sync += [after.eq(before) for before, after in pairwise(control)]
        read, write = acc.read_port(domain="comb"), acc.write_port(granularity=ACC_BITS)
        m.d.comb += [read.addr.eq(now.vector), write.addr.eq(now.vector), write.en.eq(now.lanes)]
        for lane in range(lanes):
            bits = slice(ACC_BITS * lane, ACC_BITS * (lane + 1))
            m.d.comb += write.data[bits].eq(Mux(now.clear, 0, read.data[bits]) + sums[lane % len(sums)])
        return write

    def _drain(self, m: Module, engine: Burst, acc: Memory) -> None:
        port = acc.read_port(domain="comb")
        vector = self._greatest(m, engine, port.data) if self._config.drain_max else register(m, port.data, "drained")
        lanes = [vector.word_select(lane, ACC_BITS) for lane in range(self._config.lanes)]
        data, drive = (self.w_data, self.w_drive) if self._eastern else (self.e_data, self.e_drive)
        m.d.comb += [
            port.addr.eq(stepping(m, engine, engine.word.acc, Const(1), "drained_at")[0]), data.eq(lanes_group(lanes)),
            drive.eq(register(m, engine.active, "drain_drive").replicate(PLANES)),
        ]

    def _greatest(self, m: Module, engine: Burst, read: Value) -> Value:
        """The vector to drive: what is `read`, or the greatest values so far. The next cycle counts it among them."""
        mode, first = engine.op.max, engine.index == 0
        names = [f"greatest_{lane}" for lane in range(self._config.lanes)]
        greatest = [Signal(signed(ACC_BITS), name=name, reset_less=True) for name in names]
        vector = register(m, Mux(mode == DrainMax.DRIVE, Cat(greatest), read), "drained")
        counts = register(m, engine.active & ((mode == DrainMax.FIRST) | (mode == DrainMax.MORE)), "drain_counts")
        begins = register(m, (mode == DrainMax.FIRST) & first, "drain_begins")
        for lane, best in enumerate(greatest):
            value = vector.word_select(lane, ACC_BITS).as_signed()
            with m.If(counts & (begins | (value > best))):
                m.d.sync += best.eq(value)
        return vector

    def _check(self, m: Module, load: Burst, mac: MacLoops, drain: Burst) -> None:
        """The traps of a debug build."""
        config = self._config
        driven = self.e_driven if self._eastern else self.w_driven
        trap(m, self, Trap.EMPTY_READ, (load.active & ~driven.bit_select(load.op.plane, 1))
             | (mac.active & ~self.weights_driven.all()))
        trap(m, self, Trap.ENGINE_BUSY, load.conflict | mac.conflict | drain.conflict)
        wrong = [(self.word[:4] != op.value) | illegal(op, fields(op, self.word, config))
                 for op in (Op.LOAD, Op.MAC, Op.DRAIN)]
        if not self._config.int4:
            wrong[1] |= fields(Op.MAC, self.word).wfmt == Wfmt.INT4
        trap(m, self, Trap.OPCODE, self.valid & wrong[0] & wrong[1] & wrong[2])
        trap(m, self, Trap.ADDRESS, (load.active & (load.op.act + load.index >= config.act_depth))
             | (mac.active & (mac.act >= config.act_depth)))


def _fours(m: Module, values: list[Value], name: str) -> list[Value]:
    """Sums of each four neighbours, signed and two bits wider.

    The last sign comes from the carry explicitly. Yosys would merge two adders of which one feeds only the other into
    one adder of many operands, made of LUTs.
    """
    pairs = [named(m, a.as_signed() + b.as_signed(), f"{name}_pair")
             for a, b in zip(values[::2], values[1::2], strict=True)]
    totals = [named(m, a + b, f"{name}_total") for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    return [Cat(total[:-1], total[-1] ^ a[-1] ^ b[-1])
            for total, a, b in zip(totals, pairs[::2], pairs[1::2], strict=True)]


def _total(m: Module, values: list[Value], name: str) -> Value:
    """The sum of four values, of two, or of one alone, signed."""
    if len(values) == 4:
        return _fours(m, values, name)[0]
    first, *rest = (value.as_signed() for value in values)
    return sum(rest, first)


def _add_carry(a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry, signed, one bit wider. The carry enters below the lowest bit."""
    return (Cat(Const(1, 1), a, a[-1]) + Cat(carry, b, b[-1]))[1:-1]


def _split(entry: Value, parts: int) -> tuple[Value, Value]:
    """(part, vector) of an accumulator entry; `parts` is a power of two."""
    bits = parts.bit_length() - 1
    return entry[:bits] if bits else Const(0), entry[bits:]
