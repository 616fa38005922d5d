"""The SXM: what moves between lanes - permutations, rotations, broadcasts, reductions over lanes, transposition."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from .config import LANES, PLANES, ChipConfig
from .isa import Op, Queue, Red, Trap
from .slice import (
    PLANE_BITS,
    Burst,
    any_of,
    drive,
    fields,
    group_lanes,
    group_of,
    group_select,
    illegal,
    lanes_group,
    named,
    one_hot,
    register,
    slots_of,
    trap,
    unit_ports,
)

LANE_OPS = (Op.PERMUTE, Op.SHIFT, Op.REDUCE)
"""Operations of the lane engine."""
LANE_BITS = 4
MAP_BITS = LANES * LANE_BITS


def probe_layout() -> data.StructLayout:
    """State writes of this cycle: a row of the transpose buffer."""
    return data.StructLayout({"row_we": 1, "row_index": LANE_BITS, "row_data": PLANE_BITS})


class Sxm(wiring.Component):
    """The lane switch.

    Three engines that work independently: lanes (PERMUTE, SHIFT, REDUCE), TRANSPOSE_IN and TRANSPOSE_OUT. What an
    element samples in e it drives in e + SXM_DRIVE, on all planes; a row that TRANSPOSE_IN samples in e is in the
    columns of a TRANSPOSE_OUT element that executes in e + SXM_TRANSPOSE.

    One crossbar serves PERMUTE and SHIFT: in its stage k every lane takes its own value or that of the lane whose
    number differs in bit k, which does all maps that are `isa.routable`. A reduction combines up to four lanes in e + 1
    and these fours in e + 2. The byte of row r and column c lies in bank (r + c) % 16 of the transpose buffer at
    address r, so that a row, and a column, touch each bank once.

    word, valid: the instruction and its dispatch pulse. e_in, w_in / e_data, e_drive, w_data, w_drive: streams.
    map_we, map_index, map_data: the host writes a permutation map (nibble l: the lane that output lane l takes).
    busy: an engine is.
    Debug builds: e_driven, w_driven, traps, probe.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        super().__init__({
            **unit_ports("SXM", config.streams, probe_layout() if config.debug else None),
            "map_we": In(1), "map_index": In(range(config.sxm_maps)), "map_data": In(MAP_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.lanes = lanes = Burst(Op.SHIFT)
        m.submodules.rows = rows = Burst(Op.TRANSPOSE_IN)
        m.submodules.columns = columns = Burst(Op.TRANSPOSE_OUT)
        op = fields(Op.PERMUTE, self.word).op
        m.d.comb += [
            lanes.word.eq(self.word), lanes.start.eq(self.valid & any_of([op == one for one in LANE_OPS])),
            rows.word.eq(self.word), rows.start.eq(self.valid & (op == Op.TRANSPOSE_IN)),
            columns.word.eq(self.word), columns.start.eq(self.valid & (op == Op.TRANSPOSE_OUT)),
            self.busy.eq(lanes.busy | rows.busy | columns.busy),
        ]
        lane_select, sampled = self._sample(m, lanes, "lane")
        row_select, row_group = self._sample(m, rows, "row")
        plane = Signal(PLANES, name="row_plane", reset_less=True)
        with m.If(rows.start):
            m.d.sync += plane.eq(1 << rows.word.plane)
        row = one_hot(plane, [row_group[PLANE_BITS * p : PLANE_BITS * (p + 1)] for p in range(PLANES)])
        column = self._transpose(m, rows, columns, row)
        result = self._lanes(m, lanes, sampled)
        collision = drive(m, self, [(self._slots(m, lanes, "lane"), result),
                                    (self._slots(m, columns, "column"), Cat(column for _ in range(PLANES)))])
        if self._config.debug:
            self._check(m, lanes, rows, columns, (lane_select, row_select, plane))
            trap(m, self, Trap.COLLISION, collision)
            m.d.comb += [self.probe.row_we.eq(rows.active), self.probe.row_index.eq(rows.index),
                         self.probe.row_data.eq(row)]
        return m

    def _sample(self, m: Module, engine: Burst, name: str) -> tuple[Value, Value]:
        """The group that an engine samples: one-hot select (set at dispatch), and the group."""
        groups, word = self._config.groups, engine.word
        select = Signal(2 * groups, name=f"{name}_select", reset_less=True)
        with m.If(engine.start):
            m.d.sync += select.eq(group_select(word.src_dir, word.src_group, groups))
        return select, one_hot(select, [group_of(streams, g) for streams in (self.e_in, self.w_in)
                                        for g in range(groups)])

    def _slots(self, m: Module, engine: Burst, name: str) -> Value:
        """One-hot slots that an engine's element drives, two cycles later."""
        active, west = engine.active, engine.op.dst_dir.as_value()[0]
        slots = slots_of(active & ~west, active & west, engine.op.dst_group, self._config.groups)
        return register(m, register(m, slots, f"{name}_slots1"), f"{name}_slots2")

    # --- the lane engine -------------------------------------------------------------------------------------------

    def _lanes(self, m: Module, engine: Burst, sampled: Value) -> Value:
        """PERMUTE, SHIFT and REDUCE: the group to drive in e + 2."""
        lanes = [register(m, lane, "sampled1") for lane in group_lanes(sampled)]
        picks = [register(m, pick, "pick1") for pick in self._picks(m, engine)]
        reduce = fields(Op.REDUCE, engine.op.as_value())
        reducing = reduce.op == Op.REDUCE
        mode = [register(m, value, name) for name, value in (
            ("summing1", reduce.red == Red.SUM), ("least1", reduce.red == Red.MIN),
            ("pairs1", reducing & (reduce.segment == 1)), ("fours1", reducing & (reduce.segment >= 2)),
            ("crossing1", ~reducing | (reduce.segment == 0)))]
        later = [register(m, register(m, value, f"{name}1"), f"{name}2") for name, value in (
            ("summing", reduce.red == Red.SUM), ("least", reduce.red == Red.MIN),
            ("eights", reducing & (reduce.segment == 3)), ("all", reducing & (reduce.segment == 4)))]

        pairs = [_combine(m, mode, a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        fours = [_combine(m, mode, a, b) for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
        routed = self._cross(m, lanes, picks)
        crossed = [register(m, Mux(mode[4], routed[n], 0) | Mux(mode[2], pairs[n // 2], 0)
                            | Mux(mode[3], fours[n // 4], 0), "crossed2") for n in range(LANES)]
        eights = [_combine(m, later, crossed[n], crossed[n + 4]) for n in (0, 8)]
        everything = _combine(m, later, *eights)
        return lanes_group([named(m, Mux(later[3], everything, Mux(later[2], eights[n // 8], crossed[n])), "out2")
                            for n in range(LANES)])

    def _picks(self, m: Module, engine: Burst) -> list[Value]:
        """For each lane, whether it takes the other lane's value in stage 0, 1, 2 and 3 of the crossbar."""
        m.submodules.maps = maps = Memory(shape=MAP_BITS, depth=self._config.sxm_maps, init=[])
        write, read = maps.write_port(), maps.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.map_we), write.addr.eq(self.map_index), write.data.eq(self.map_data),
            read.addr.eq(fields(Op.PERMUTE, engine.op.as_value()).map),
        ]
        shift, first = engine.op, engine.word
        lane = Signal(LANE_BITS, reset_less=True)
        with m.If(engine.start):
            m.d.sync += lane.eq(Mux(first.op == Op.SHIFT, first.lane, 0))
        with m.Elif(engine.active):
            m.d.sync += lane.eq(Mux(shift.op == Op.SHIFT, lane + shift.lane_inc, 0))
        permuting = named(m, shift.op == Op.PERMUTE, "permuting")
        spread = named(m, (shift.op == Op.SHIFT) & shift.distribute, "spread")
        picks = []
        for n in range(LANES):
            index = Signal(LANE_BITS, name="index")
            m.d.comb += index.eq(Mux(permuting, read.data[LANE_BITS * n : LANE_BITS * (n + 1)],
                                     Mux(spread, lane, lane + n)))
            picks.append(index ^ n)
        return picks

    def _cross(self, m: Module, lanes: list[Value], picks: list[Value]) -> list[Value]:
        """The crossbar."""
        for stage in range(LANE_BITS):
            lanes = [named(m, Mux(picks[n][stage], lanes[n ^ 1 << stage], lanes[n]), f"crossing{stage}")
                     for n in range(LANES)]
        return lanes

    # --- transposition ---------------------------------------------------------------------------------------------

    def _transpose(self, m: Module, rows: Burst, columns: Burst, row: Value) -> Value:
        """The byte plane of a column, in e + 2 of a TRANSPOSE_OUT element."""
        turned = _rotate(m, row, 0 - rows.index[:LANE_BITS], "row")
        column = columns.index[:LANE_BITS]
        banks = []
        for b in range(LANES):
            m.submodules[f"bank{b}"] = bank = Memory(shape=8, depth=LANES, init=[])
            write, read = bank.write_port(), bank.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(rows.active), write.addr.eq(rows.index), write.data.eq(turned[8 * b : 8 * b + 8]),
                read.addr.eq(b - column),
            ]
            banks.append(read.data)
        gathered = register(m, Cat(banks), "column1")
        amount = register(m, column, "column_index1")
        return register(m, _rotate(m, gathered, amount, "column"), "column2")

    # --- debug builds ----------------------------------------------------------------------------------------------

    def _check(self, m: Module, lanes: Burst, rows: Burst, columns: Burst, taps: tuple[Value, Value, Value]) -> None:
        """Everything a debug build traps."""
        groups = self._config.groups
        lane_select, row_select, plane = taps
        empty = [~streams[PLANES * g : PLANES * (g + 1)] for streams in (self.e_driven, self.w_driven)
                 for g in range(groups)]
        trap(m, self, Trap.EMPTY_READ, (lanes.active & one_hot(lane_select, empty).any())
             | (rows.active & (one_hot(row_select, empty) & plane).any()))
        trap(m, self, Trap.ENGINE_BUSY, lanes.conflict | rows.conflict | columns.conflict)
        reduce = fields(Op.REDUCE, self.word)
        no_reduction = (reduce.op == Op.REDUCE) & ((reduce.red == Red.NONE) | (reduce.red == Red.MAXABS))
        wrong = [(reduce.op != op) | illegal(op, fields(op, self.word)) for op in
                 (*LANE_OPS, Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT)]
        trap(m, self, Trap.OPCODE, self.valid & (Cat(wrong).all() | no_reduction))
        permute, running = (fields(op, lanes.op.as_value()) for op in (Op.PERMUTE, Op.REDUCE))
        trap(m, self, Trap.ADDRESS, any_of([
            lanes.active & ((lanes.op.src_group >= groups) | (lanes.op.dst_group >= groups)),
            lanes.active & (permute.op == Op.PERMUTE) & (permute.map >= self._config.sxm_maps),
            lanes.active & (running.op == Op.REDUCE) & (running.segment > 4),
            rows.active & ((rows.op.src_group >= groups) | (rows.index >= LANES)),
            columns.active & ((columns.op.dst_group >= groups) | (columns.index >= LANES)),
        ]))


def _combine(m: Module, mode: list[Value], a: Value, b: Value) -> Value:
    """Sum, maximum or minimum of two int32 lanes; mode is (summing, least, ...)."""
    summing, least = mode[:2]
    x, y, less = a.as_signed(), b.as_signed(), Signal(name="less")
    out = Signal(signed(32), name="combined")
    m.d.comb += [less.eq(x < y), out.eq(Mux(summing, x + y, Mux(less == least, x, y)))]
    return out


def _rotate(m: Module, lanes: Value, amount: Value, name: str) -> Value:
    """Byte lane l of the result is lane (l + amount) % 16."""
    for bit in range(LANE_BITS):
        out = Signal(PLANE_BITS, name=f"{name}_rotated{bit}")
        m.d.comb += out.eq(Mux(amount[bit], lanes.rotate_right(8 << bit), lanes))
        lanes = out
    return lanes
