"""The SXM moves values between lanes: permutation, rotation, broadcast, reduction over lanes, transposition."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from arch.config import MAX_LANES, PLANES, SXM_E, ChipConfig
from arch.host_map import Trap
from arch.isa import SXM_DRIVE, Op, Red
from arch.row import Queue

from .burst import Burst, fields, latched
from .idioms import any_of, delayed, group_lanes, lanes_group, named, register
from .unit import illegal, trap, unit_ports

LANE_OPS = (Op.PERMUTE, Op.SHIFT, Op.REDUCE)
"""Operations of the lane engine."""
LANE_BITS = (MAX_LANES - 1).bit_length()
"""Bits of a lane in instructions and in the maps that the host writes."""


def probe_layout(config: ChipConfig) -> data.StructLayout:
    """State writes of this cycle: a row of the transpose buffer."""
    return data.StructLayout({"row_we": 1, "row_index": LANE_BITS, "row_data": config.plane_bits})


class Sxm(wiring.Component):
    """The lane switch.

    Three engines work independently: lanes (PERMUTE, SHIFT, REDUCE), TRANSPOSE_IN and TRANSPOSE_OUT. Outward is E for
    SXM_E and W for SXM_W. An element samples the outward stream in e and drives inward, on all planes, in
    e + SXM_DRIVE. A TRANSPOSE_OUT element that executes in e + SXM_TRANSPOSE, or later, has the row that TRANSPOSE_IN
    sampled in e.

    One crossbar makes all that is driven, in e + 4. In its stage k each lane takes its own value or the value of the
    lane whose number differs in bit k; this makes every map that is `isa.routable`. Before the crossbar, a reduction
    combines pairs of lanes in e, pairs of these in e + 1, and so on, into the lowest lane of each segment. The crossbar
    broadcasts that lane. The byte of row r and column c is in bank r ^ c of the transpose buffer, at address r, so a
    row and a column each touch every bank once. A column enters the crossbar before its last two stages.

    word, valid: the instruction and its dispatch pulse. e_in, w_in / e_data, e_drive, w_data, w_drive: streams.
    map_we, map_index, map_data: the host writes a permutation map (nibble l: the lane that output lane l takes).
    busy: an engine is busy. Without `ChipConfig.sxm_transpose` only the lanes' engine exists.
    Debug builds: e_driven, w_driven, traps, probe.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        self._eastern = queue.position == SXM_E
        super().__init__({
            **unit_ports(config, "SXM", probe_layout(config)),
            "map_we": In(1), "map_index": In(range(config.sxm_maps)), "map_data": In(config.lanes * LANE_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        early = "control" in self._config.registers
        m.submodules.lanes = lanes = Burst(Op.SHIFT, early=early)
        m.submodules.rows = rows = Burst(Op.TRANSPOSE_IN, early=early)
        m.submodules.columns = columns = Burst(Op.TRANSPOSE_OUT, early=early)
        op, transposes = fields(Op.PERMUTE, self.word).op, self.valid & int(self._config.sxm_transpose)
        m.d.comb += [
            lanes.word.eq(self.word), lanes.start.eq(self.valid & any_of([op == one for one in LANE_OPS])),
            rows.word.eq(self.word), rows.start.eq(transposes & (op == Op.TRANSPOSE_IN)),
            columns.word.eq(self.word), columns.start.eq(transposes & (op == Op.TRANSPOSE_OUT)),
            self.busy.eq(lanes.busy | rows.busy | columns.busy),
        ]
        outward = self.e_in if self._eastern else self.w_in
        row = named(m, outward.word_select(rows.op.plane, self._config.plane_bits), "row")
        none = [Const(0, 8)] * self._config.lanes
        column = self._transpose(m, rows, columns, row) if self._config.sxm_transpose else none
        levels = self._levels(m, lanes)
        reduced = self._reduce(m, lanes, levels, group_lanes(outward))
        routed = self._cross(m, reduced, self._picks(m, lanes, columns, levels), column)
        lane_drives, column_drives = (delayed(m, engine.active, SXM_DRIVE, f"{name}_active")
                                      for engine, name in ((lanes, "lane"), (columns, "column")))
        data, drive = (self.w_data, self.w_drive) if self._eastern else (self.e_data, self.e_drive)
        m.d.comb += [data.eq(lanes_group(routed)), drive.eq((lane_drives | column_drives).replicate(PLANES))]
        if self._config.debug:
            self._check(m, lanes, rows, columns)
            trap(m, self, Trap.COLLISION, lane_drives & column_drives)
            m.d.comb += [self.probe.row_we.eq(rows.active), self.probe.row_index.eq(rows.index),
                         self.probe.row_data.eq(row)]
        return m

    # --- the lane engine -------------------------------------------------------------------------------------------

    def _levels(self, m: Module, engine: Burst) -> list[Value]:
        """Whether the elements of a burst reduce pairs, fours, eights, and all lanes."""
        reduce = fields(Op.REDUCE, engine.word.as_value())
        reducing, levels = reduce.op == Op.REDUCE, range(self._config.lane_bits)
        return [latched(m, engine, reducing & (reduce.segment > level), f"level{level}") for level in levels]

    def _reduce(self, m: Module, engine: Burst, levels: list[Value], lanes: list[Value]) -> list[Value]:
        """The crossbar's inputs in e + 4: the lanes as sampled, and in the lowest lane of a segment its reduction.

        Chips of fewer than 16 lanes have spare stages. They are in front, where the wires are longest.
        """
        red = fields(Op.REDUCE, engine.word.as_value()).red
        summing, least = latched(m, engine, red == Red.SUM, "summing"), latched(m, engine, red == Red.MIN, "least")
        modes = [Cat(level & summing, level & ~summing, least) for level in levels]
        spare = SXM_DRIVE - self._config.lane_bits
        lanes = [delayed(m, lane, spare, f"sampled{n}") for n, lane in enumerate(lanes)]
        for level, now in enumerate(modes):
            mode, step = delayed(m, now, spare + level, f"mode{level}"), 1 << level
            lanes = [register(m, lane if n % (2 * step) else _combine(m, mode, lane, lanes[n + step]),
                              f"lane{level + 1}_{n}") for n, lane in enumerate(lanes)]
        return lanes

    def _picks(self, m: Module, engine: Burst, columns: Burst, levels: list[Value]) -> list[Value]:
        """For each lane, in e + 4: whether it takes its own value in stage 0 of the crossbar, and whether it takes the
        other lane's value in stages 0, 1, 2 and 3. Without an element it takes neither in stage 0."""
        bits = self._config.lane_bits
        m.submodules.maps = maps = Memory(shape=self._config.lanes * bits, depth=self._config.sxm_maps, init=[])
        write, read = maps.write_port(), maps.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.map_we), write.addr.eq(self.map_index),
            write.data.eq(Cat(nibble[:bits] for nibble in _split(self.map_data, LANE_BITS))),
            read.addr.eq(fields(Op.PERMUTE, engine.op.as_value()).map),
        ]
        shift, first = engine.op, engine.word
        lane = Signal(bits, reset_less=True)
        with m.If(engine.start):
            m.d.sync += lane.eq(Mux(first.op == Op.SHIFT, first.lane, 0))
        with m.Elif(engine.active):
            m.d.sync += lane.eq(Mux(shift.op == Op.SHIFT, lane + shift.lane_inc, 0))
        permuting = latched(m, engine, first.op == Op.PERMUTE, "permuting")
        spread = latched(m, engine, (first.op == Op.SHIFT) & first.distribute, "spread")
        active = delayed(m, engine.active, SXM_DRIVE - 1, "routing")
        turning, turn = (delayed(m, value, SXM_DRIVE - 1, name)
                         for value, name in ((columns.active, "turning"), (columns.index[:bits], "turn")))
        picks = []
        for n, mapped in enumerate(_split(read.data, bits)):
            index = Signal(bits, name="index")
            m.d.comb += index.eq(Mux(permuting, mapped,
                                     Mux(spread, lane, lane + n)))
            lowest = Cat(level if n >> bit & 1 else 0 for bit, level in enumerate(levels))
            pick = delayed(m, (index ^ n) | lowest, SXM_DRIVE - 1, f"pick{n}")
            picks.append(register(m, Cat(active & ~pick[0], active & pick[0], Mux(turning, turn[1:], pick[1:])),
                                  f"picks{n}"))
        return picks

    def _cross(self, m: Module, lanes: list[Value], picks: list[Value], column: list[Value]) -> list[Value]:
        """The crossbar. A column joins after stage 1, where the lanes are 0 if no lane element is driven."""
        lanes = [named(m, Mux(pick[0], lanes[n], 0) | Mux(pick[1], lanes[n ^ 1], 0), f"crossing0_{n}")
                 for n, pick in enumerate(picks)]
        lanes = _exchange(m, lanes, 1, [pick[2] for pick in picks], "crossing1")
        lanes = [lane | byte.replicate(PLANES) for lane, byte in zip(lanes, column, strict=True)]
        for stage in range(2, self._config.lane_bits):
            lanes = _exchange(m, lanes, stage, [pick[stage + 1] for pick in picks], f"crossing{stage}")
        return lanes

    # --- transposition ---------------------------------------------------------------------------------------------

    def _transpose(self, m: Module, rows: Burst, columns: Burst, row: Value) -> list[Value]:
        """The bytes of a column in e + 4 of a TRANSPOSE_OUT element, otherwise 0. Row r is byte r ^ (column & 12)."""
        turned = _split(row, 8)
        for stage in range(self._config.lane_bits):
            turned = _exchange(m, turned, stage, [rows.index[stage]] * len(turned), f"row{stage}")
        gathered = []
        for b, byte in enumerate(turned):
            m.submodules[f"bank{b}"] = bank = Memory(shape=8, depth=len(turned), init=[])
            write, read = bank.write_port(), bank.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(rows.active), write.addr.eq(rows.index), write.data.eq(byte),
                read.addr.eq(columns.index[: self._config.lane_bits] ^ b),
            ]
            gathered.append(delayed(m, read.data, SXM_DRIVE - 1, f"gathered{b}"))
        active, turn = (delayed(m, value, SXM_DRIVE - 1, name)
                        for value, name in ((columns.active, "gathering"), (columns.index[:2], "gathering_turn")))
        for stage in range(2):
            gathered = _exchange(m, gathered, stage, [turn[stage]] * len(gathered), f"column{stage}")
        return [register(m, Mux(active, byte, 0), f"column{n}") for n, byte in enumerate(gathered)]

    # --- debug builds ----------------------------------------------------------------------------------------------

    def _check(self, m: Module, lanes: Burst, rows: Burst, columns: Burst) -> None:
        """The traps of a debug build."""
        driven = self.e_driven if self._eastern else self.w_driven
        trap(m, self, Trap.EMPTY_READ, (lanes.active & ~driven.all())
             | (rows.active & ~driven.bit_select(rows.op.plane, 1)))
        trap(m, self, Trap.ENGINE_BUSY, lanes.conflict | rows.conflict | columns.conflict)
        reduce = fields(Op.REDUCE, self.word)
        no_reduction = (reduce.op == Op.REDUCE) & ((reduce.red == Red.NONE) | (reduce.red == Red.MAXABS))
        legal = (*LANE_OPS, *((Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT) if self._config.sxm_transpose else ()))
        wrong = [(reduce.op != op) | illegal(op, fields(op, self.word)) for op in legal]
        trap(m, self, Trap.OPCODE, self.valid & (Cat(wrong).all() | no_reduction))
        permute, running = (fields(op, lanes.op.as_value()) for op in (Op.PERMUTE, Op.REDUCE))
        trap(m, self, Trap.ADDRESS, any_of([
            lanes.active & (permute.op == Op.PERMUTE) & (permute.map >= self._config.sxm_maps),
            lanes.active & (running.op == Op.REDUCE) & (running.segment > self._config.lane_bits),
            rows.active & (rows.index >= self._config.lanes),
            columns.active & (columns.index >= self._config.lanes),
        ]))


def _split(value: Value, width: int) -> list[Value]:
    """Neighbouring parts of a value, lowest first."""
    return [value[at : at + width] for at in range(0, len(value), width)]


def _combine(m: Module, mode: Value, a: Value, b: Value) -> Value:
    """Combine two int32 lanes. mode is (sum, choose, least): a + b, the greater or the lesser, or a alone.

    The greater is a + max(b - a, 0), so one adder with a LUT4 in front of it serves all modes.
    """
    summing, choosing, least = mode
    above, take, added = Signal(33, name="above"), Signal(name="take"), Signal(32, name="added")
    m.d.comb += [
        above.eq(b.as_signed() - a.as_signed()),
        take.eq(choosing & (above[32] == least)),
        added.eq(Mux(take, above, 0) | Mux(summing, b, 0)),
    ]
    return named(m, (a + added)[:32], "combined")


def _exchange(m: Module, lanes: list[Value], stage: int, picks: list[Value], name: str) -> list[Value]:
    """Every lane's own value, or that of the lane whose number differs in bit `stage`."""
    return [named(m, Mux(pick, lanes[n ^ 1 << stage], lanes[n]), f"{name}_{n}") for n, pick in enumerate(picks)]
