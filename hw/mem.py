"""MEM: a slice of on-chip memory beside the streams, with a read and a write engine."""

from itertools import accumulate

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from arch.config import MEM_E, PLANES, ChipConfig
from arch.host_map import Trap
from arch.isa import ADDR_BITS, LOOP_LEVELS, Dir, Op
from arch.row import Queue

from .burst import Burst, fields
from .idioms import any_of, group_lanes, lanes_group, one_hot, register
from .unit import trap, unit_ports

DEEP = 4096
"""Deeper banks are instances of hw/ram.v. Amaranth would write out each of their initial words: 100 MB of Verilog."""


def index_layout(config: ChipConfig) -> data.StructLayout:
    """An index register."""
    return data.StructLayout({"offset": config.index_bits, "lanes": config.lanes, "planes": PLANES})


def probe_layout(config: ChipConfig) -> data.StructLayout:
    """State writes of this cycle: a quad (a write enable each byte), an index register."""
    return data.StructLayout({"we": config.quad_bytes, "addr": ADDR_BITS, "data": config.group_bits,
                              "index_we": 1, "index": 3, "index_data": index_layout(config)})


def banks(depth: int) -> list[int]:
    """`depth` as a sum of falling powers of two."""
    return [1 << bit for bit in reversed(range(depth.bit_length())) if depth >> bit & 1]


class Banked(wiring.Component):
    """A memory of any depth, made of power-of-two banks so that block RAMs are full.

    width, depth: of the memory; the write port enables bytes.

    `r_data` is the word at `r_addr`, one cycle later. A write commits the bytes of `w_we` at the end of its cycle. A
    read and a write must not have the same address in one cycle. A write beyond `depth` is lost; a read beyond it has
    no defined value. Amaranth's simulator does not know the module "ram" of banks above `DEEP` words.
    """

    def __init__(self, *, width: int, depth: int):
        self._width, self._banks = width, banks(depth)
        super().__init__({
            "r_addr": In(range(depth)), "r_data": Out(width),
            "w_addr": In(range(depth)), "w_data": In(width), "w_we": In(width // 8),
        })

    def elaborate(self, platform):
        m = Module()
        picks, words = [], []
        for n, (depth, end) in enumerate(zip(self._banks, accumulate(self._banks), strict=True)):
            read = self._bank(m, n, depth, Mux(self._in_bank(self.w_addr, depth, end), self.w_we, 0))
            pick = Signal(name=f"pick{n}")
            m.d.sync += pick.eq(self._in_bank(self.r_addr, depth, end))
            picks.append(pick)
            words.append(read)
        m.d.comb += self.r_data.eq(words[0] if len(words) == 1 else one_hot(Cat(picks), words))
        return m

    def _bank(self, m: Module, n: int, depth: int, we: Value) -> Value:
        """Bank n, its bytes written where `we` is set; returns the word read."""
        if depth > DEEP:
            bits = (depth - 1).bit_length()
            word = Signal(self._width, name=f"word{n}")
            m.submodules[f"bank{n}"] = Instance(
                "ram", p_DEPTH=depth, p_WIDTH=self._width, i_clk=ClockSignal(), i_r_addr=self.r_addr[:bits],
                o_r_data=word, i_w_addr=self.w_addr[:bits], i_w_data=self.w_data, i_w_we=we)
            return word
        m.submodules[f"bank{n}"] = bank = Memory(shape=self._width, depth=depth, init=[])
        read, write = bank.read_port(), bank.write_port(granularity=8)
        m.d.comb += [read.addr.eq(self.r_addr), write.addr.eq(self.w_addr), write.data.eq(self.w_data),
                     write.en.eq(we)]
        return read.data

    def _in_bank(self, addr: Value, depth: int, end: int) -> Value:
        """Whether the address lies in the bank of `depth` words before `end` (a multiple of `depth`)."""
        low = depth.bit_length() - 1
        return addr[low:] == (end - depth) >> low if low < len(addr) else Const(1)


class Mem(wiring.Component):
    """A MEM slice: quads of 4 planes x lanes, one read and one write engine that work independently.

    READ: element i executes in e(i) and drives its quad in e(i) + MEM_READ (2).
    WRITE: element i samples in e(i) and commits its quad at the end of e(i) + 1.
    INDEX: samples one cycle after its dispatch. A word dispatched later uses the new value.
    The address and the masks of a burst are fixed at its dispatch. In a bank the four bytes of a lane are neighbours,
    so a block RAM of up to 32 bits serves one lane.

    config, queue: the chip, and which of its MEM slices this is. Slice 0 drives the vector group in both directions,
    and any weight group. Other slices drive the vector group inward, and one weight group.

    Ports of every unit (`hw.idioms.unit_ports`), and
    weights_data, weights_drive: what the slice drives outward on a weight group; a drive bit each group and plane.
    offsets: the loop offsets of the slice's queue, at dispatch.
    host_addr, host_planes (one-hot), host_we, host_re, host_wdata: a host access to one plane of a quad, while no burst
    runs. e_in and w_in are 0 with host_we, host_wdata is 0 without it. An access in the next cycle sees what was
    written.
    host_rdata: the data of a read, three cycles after host_re. It is 0 in all other cycles, unless a burst reads.
    """

    def __init__(self, *, config: ChipConfig, queue: Queue):
        self._config = config
        self._depth = config.mem_depths[queue.slice]
        inward = Dir.W if queue.position == MEM_E else Dir.E
        self._ways = (Dir.E, Dir.W) if queue.slice == 0 else (inward,)
        self._groups = config.weight_groups_of(queue.slice)
        super().__init__({
            **unit_ports(config, "MEM", probe_layout(config)),
            "weights_data": Out(config.group_bits), "weights_drive": Out(PLANES * config.weight_groups),
            "offsets": In(ADDR_BITS).array(LOOP_LEVELS),
            "host_addr": In(ADDR_BITS), "host_planes": In(PLANES), "host_we": In(1), "host_re": In(1),
            "host_wdata": In(config.plane_bits), "host_rdata": Out(config.plane_bits),
        })

    def elaborate(self, platform):
        m = Module()
        early = "control" in self._config.registers
        m.submodules.banks = memory = Banked(width=self._config.group_bits, depth=self._depth)
        m.submodules.reader = reader = Burst(Op.READ, early=early)
        m.submodules.writer = writer = Burst(Op.WRITE, early=early)
        word = fields(Op.READ, self.word)
        index = self._index_registers(m, word)
        base = Signal(self._addr_bits())
        offsets = [Mux(word.rel[k], self.offsets[k], 0) for k in range(LOOP_LEVELS)]
        m.d.comb += [
            base.eq(sum(offsets, word.addr) + index.offset),
            reader.word.eq(word), reader.start.eq(self.valid & (word.op == Op.READ)),
            writer.word.eq(word), writer.start.eq(self.valid & (word.op == Op.WRITE)),
            self.busy.eq(reader.busy | writer.busy),
        ]
        r_addr = self._address(m, "r_addr", reader, base, host=early)
        w_addr = self._address(m, "w_addr", writer, base)
        self._read(m, memory, reader, r_addr, index)
        self._drive(m, reader)
        commit = self._write(m, memory, writer, w_addr, index)
        if self._config.debug:
            self._traps(m, reader, writer, (r_addr, w_addr, commit))
        return m

    def _addr_bits(self) -> int:
        """Addresses wrap. Only a debug build checks the bits above the memory's depth."""
        return ADDR_BITS if self._config.debug else (self._depth - 1).bit_length()

    def _address(self, m: Module, name: str, engine: Burst, base: Value, *, host: bool = False) -> Signal:
        """The address of the element that an engine executes in this cycle. With `host`, that of host reads, too."""
        addr = Signal.like(base, name=name, reset_less=True)
        if host:
            with m.If(self.host_re):
                m.d.sync += addr.eq(self.host_addr)
        with m.If(engine.start):
            m.d.sync += addr.eq(base)
        with m.Elif(engine.active):
            m.d.sync += addr.eq(addr + engine.op.stride)
        return addr

    def _index_registers(self, m: Module, word: data.View) -> data.View:
        """Execute INDEX; return the index register that the word at dispatch names."""
        shape, plane_bits = index_layout(self._config), self._config.plane_bits
        regs = Memory(shape=shape, depth=self._config.index_regs,
                      init=[{"offset": 0, "lanes": -1, "planes": -1}] * self._config.index_regs)
        m.submodules.index = regs
        read, write = regs.read_port(domain="comb"), regs.write_port()
        load = fields(Op.INDEX, self.word)
        loading = Signal()
        m.d.sync += loading.eq(self.valid & (load.op == Op.INDEX))
        number, way = register(m, load.index, "number"), register(m, load.dir.as_value(), "way")
        sample = Mux(way, self.w_in, self.e_in)
        lane_bytes = -(-self._config.index_bits // 8)
        lane = [Cat(sample[plane_bits * p + 8 * n :][:8] for p in range(lane_bytes)) for n in range(3)]
        m.d.comb += [
            read.addr.eq(word.index), write.addr.eq(number), write.en.eq(loading),
            write.data.offset.eq(lane[0]), write.data.lanes.eq(lane[1]), write.data.planes.eq(lane[2]),
        ]
        index = Signal(shape)
        m.d.comb += index.eq(Mux(word.index == 0, shape.const({"offset": 0, "lanes": -1, "planes": -1}), read.data))
        if self._config.debug:
            m.d.comb += [self.probe.index_we.eq(loading), self.probe.index.eq(number),
                         self.probe.index_data.eq(write.data)]
            self._loads = loading, self._undriven(way)
        return index

    def _undriven(self, way: Value) -> Value:
        """Planes of the vector group that were not driven, in the direction `way`."""
        return ~Mux(way, self.w_driven, self.e_driven)

    def _read(self, m: Module, memory: Banked, engine: Burst, addr: Signal, index: data.View) -> None:
        """All outputs share one register. Planes that were not read, or are masked, are cleared."""
        visible = Signal(PLANES, reset_less=True)
        with m.If(engine.start):
            m.d.sync += visible.eq(index.planes)
        early = "control" in self._config.registers
        host_addr = Signal.like(memory.r_addr, reset_less=True)
        host_planes, hidden = Signal(PLANES), Signal(PLANES, init=(1 << PLANES) - 1)
        m.d.sync += [host_addr.eq(self.host_addr), host_planes.eq(Mux(self.host_re, self.host_planes, 0)),
                     hidden.eq(~Mux(engine.active, visible, host_planes))]
        m.d.comb += memory.r_addr.eq(addr if early else Mux(host_planes.any(), host_addr, addr))
        quad = Signal(self._config.group_bits, reset_less=True)
        read = lanes_group([memory.r_data.word_select(lane, 8 * PLANES) for lane in range(self._config.lanes)])
        planes, stored = ([word.word_select(p, self._config.plane_bits) for p in range(PLANES)]
                          for word in (quad, read))
        for p, plane in enumerate(planes):
            # The flip-flops' synchronous reset clears a plane without a LUT per bit.
            m.d.sync += plane.eq(Mux(hidden[p], 0, stored[p]))
        m.d.comb += [self.e_data.eq(quad), self.w_data.eq(quad), self.weights_data.eq(quad),
                     self.host_rdata.eq(any_of(planes))]

    def _drive(self, m: Module, engine: Burst) -> None:
        """The drive bits, two cycles after the element."""
        op = engine.op
        planes = register(m, Mux(engine.active, op.planes, 0), "planes")
        weights = [self.weights_drive.word_select(group - 1, PLANES) for group in self._groups]
        for name, drive, chosen in (
            *((way.name.lower(), getattr(self, f"{way.name.lower()}_drive"), (op.weights == 0) & (op.dir == way))
              for way in self._ways),
            *((f"weights{group}", drive, op.weights == group)
              for group, drive in zip(self._groups, weights, strict=True)),
        ):
            m.d.sync += drive.eq(Mux(register(m, chosen, f"{name}_drives"), planes, 0))

    def _write(self, m: Module, memory: Banked, engine: Burst, addr: Signal, index: data.View) -> tuple[Value, Value]:
        """Sample a stream, write it one cycle later. Returns whether a burst commits in this cycle, and its address."""
        n_lanes = self._config.lanes
        lanes, planes = Signal(n_lanes, reset_less=True), Signal(PLANES, reset_less=True)
        with m.If(engine.start):
            m.d.sync += [lanes.eq(index.lanes), planes.eq(index.planes & engine.word.planes)]
        c_addr = Signal.like(addr, name="c_addr", reset_less=True)
        c_data = Signal(self._config.group_bits, reset_less=True)
        c_we = Signal(self._config.quad_bytes)
        way = engine.op.dir.as_value()
        sample = Mux(way, self.w_in, self.e_in)
        m.d.sync += [c_addr.eq(Mux(self.host_we, self.host_addr, addr)),
                     c_data.eq(sample | self.host_wdata.replicate(PLANES))]
        for p in range(PLANES):
            bursts, host = engine.active & planes[p], self.host_we & self.host_planes[p]
            m.d.sync += c_we[n_lanes * p :][:n_lanes].eq(Mux(bursts, lanes, 0) | host.replicate(n_lanes))
        m.d.comb += [memory.w_addr.eq(c_addr), memory.w_data.eq(Cat(group_lanes(c_data))),
                     memory.w_we.eq(Cat(c_we[lane::n_lanes] for lane in range(n_lanes)))]
        committing = Signal()
        if self._config.debug:
            m.d.sync += committing.eq(engine.active)
            m.d.comb += [self.probe.we.eq(c_we), self.probe.addr.eq(c_addr), self.probe.data.eq(c_data)]
            self._samples = engine.active, self._undriven(way) & engine.op.planes
        return committing, c_addr

    def _traps(self, m: Module, reader: Burst, writer: Burst, addresses: tuple) -> None:
        r_addr, w_addr, (committing, c_addr) = addresses
        word = fields(Op.READ, self.word)
        index = fields(Op.INDEX, self.word)
        is_index = index.op == Op.INDEX
        loading, unloaded = self._loads
        writing, unwritten = self._samples
        number = Mux(is_index, index.index, word.index)
        no_way = ~any_of([*((word.weights == 0) & (word.dir == way) for way in self._ways),
                          *(word.weights == group for group in self._groups)])
        trap(m, self, Trap.EMPTY_READ, (loading & unloaded.any()) | (writing & unwritten.any()))
        trap(m, self, Trap.ENGINE_BUSY, reader.conflict | writer.conflict)
        trap(m, self, Trap.BANK_CONFLICT, reader.active & committing & (r_addr == c_addr))
        trap(m, self, Trap.ADDRESS, any_of([
            reader.active & (r_addr >= self._depth), writer.active & (w_addr >= self._depth),
            reader.start & no_way, self.valid & (number >= self._config.index_regs),
        ]))
        empty = (word.count == 0) | (word.interval == 0)
        trap(m, self, Trap.OPCODE, self.valid & Mux(is_index, index.index == 0, empty))
