"""The host's side of the chip: the host port, and the sequencer that starts token after token."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .config import ChipConfig
from .identity import chip_digest
from .isa import ADDR_BITS, HOST_READ, ICU_NUMBER, ICU_QUEUE, PC_BITS, Control, Space, Trap, queues, width
from .slice import one_hot

WORD = 128
"""Bits of a host word."""
COUNTER = 64
"""Bits of the widest CONTROL register."""
PARTS = -(-max(width(unit) for unit in ("MEM", "MXM", "VXM", "SXM")) // WORD)
"""Host words of the widest instruction."""


class HostPort(wiring.Component):
    """Decodes host accesses: one a cycle, of which the parts of the chip see strobes one cycle later.

    config: the chip.

    host_*: the port of the chip; `host_rdata` is valid HOST_READ (4) cycles after `host_read`, and 0 in cycles that
    belong to no read. Only MEM and CONTROL can be read; other spaces read as 0.

    Strobes, each in the cycle after the access:
    mem_we, mem_re (a bit each slice), mem_addr, mem_planes (one-hot), mem_wdata (0 without mem_we); mem_rdata is the OR
    of all slices, and counts in the third cycle behind a mem_re. mem_write: a mem_we follows in the next cycle.
    wdata: for everything else.
    icu_we (a bit each queue), icu_addr, icu_number, icu_data: a whole instruction word; its upper part was kept when
    it was written. table_we (a bit each queue), table_addr: start PC in the low bits of wdata.
    bucket_we, map_we, small_addr: entry of the bucket table, permutation map.
    control_we (a bit each register); control: present value of each register.
    """

    def __init__(self, *, config: ChipConfig):
        self._config = config
        self._queues = len(queues(config))
        self._slices = 2 * len(config.mem_depths)
        super().__init__({
            "host_space": In(Space), "host_addr": In(32), "host_wdata": In(WORD), "host_write": In(1),
            "host_read": In(1), "host_rdata": Out(WORD),
            "wdata": Out(WORD), "mem_wdata": Out(config.plane_bits), "mem_write": Out(1),
            "mem_we": Out(self._slices), "mem_re": Out(self._slices), "mem_addr": Out(ADDR_BITS),
            "mem_planes": Out(4), "mem_rdata": In(config.plane_bits),
            "icu_we": Out(self._queues), "icu_addr": Out(PC_BITS), "icu_number": Out(PC_BITS),
            "icu_data": Out(PARTS * WORD),
            "table_we": Out(self._queues), "table_addr": Out(8),
            "bucket_we": Out(1), "map_we": Out(1), "small_addr": Out(8),
            "control_we": Out(len(Control)), "control": In(COUNTER).array(len(Control)),
        })

    def elaborate(self, platform):
        m = Module()
        space, at, write, read = self.host_space, self.host_addr, self.host_write, self.host_read
        is_mem, is_icu, is_control = space == Space.MEM, space == Space.ICU, space == Space.CONTROL
        at_slice, at_queue, at_table, part = at[ADDR_BITS + 2 :], at[ICU_QUEUE:], at[8:], at[:2]
        addr, part_we = Signal(32, reset_less=True), Signal(PARTS)
        m.d.comb += self.mem_write.eq(write & is_mem)
        m.d.sync += [
            addr.eq(at), self.wdata.eq(self.host_wdata), self.mem_wdata.eq(Mux(self.mem_write, self.host_wdata, 0)),
            self.mem_planes.eq(_decode(part, 4, Const(1))),
            self.mem_we.eq(_decode(at_slice, self._slices, write & is_mem)),
            self.mem_re.eq(_decode(at_slice, self._slices, read & is_mem)),
            part_we.eq(_decode(part, PARTS, write & is_icu)),
            self.icu_we.eq(_decode(at_queue, self._queues, write & is_icu & (part == 0))),
            self.table_we.eq(_decode(at_table, self._queues, write & (space == Space.START))),
            self.bucket_we.eq(write & (space == Space.BUCKET)),
            self.map_we.eq(write & (space == Space.MAP)),
            self.control_we.eq(_decode(at, len(Control), write & is_control)),
        ]
        upper = [Signal(WORD, name=f"part{n}", reset_less=True) for n in range(1, PARTS)]
        for n, held in enumerate(upper, 1):
            with m.If(part_we[n]):
                m.d.sync += held.eq(self.wdata)
        m.d.comb += [
            self.mem_addr.eq(addr[2:]), self.icu_addr.eq(addr[2:]), self.icu_number.eq(addr[ICU_NUMBER:]),
            self.icu_data.eq(Cat(self.wdata, *upper)), self.table_addr.eq(addr), self.small_addr.eq(addr),
        ]
        picked = Cat(_decode(at, len(Control), read & is_control), read & is_mem)
        for n in range(HOST_READ - 1):
            later = Signal(len(Control) + 1, name=f"picked{n}")
            m.d.sync += later.eq(picked)
            picked = later
        register, from_mem = Signal(COUNTER), Signal()
        m.d.sync += [register.eq(one_hot(picked, list(self.control))), from_mem.eq(picked[len(Control)])]
        m.d.comb += self.host_rdata.eq(Mux(from_mem, self.mem_rdata, 0) | register)
        return m


def _decode(number: Value, count: int, enable: Value) -> Value:
    """One-hot, all 0 unless enabled."""
    return Cat((number == n) & enable for n in range(count))


class Sequencer(wiring.Component):
    """Runs tokens: start pulses whose distances are the periods of the static bucket table.

    RUN := n starts n tokens. A token's bucket is the first table entry whose limit is beyond the token's position; the
    next start pulse, or the end of the run, comes exactly `period` cycles after the token's. At that moment every queue
    must have parked and every engine have finished (Trap.NOT_PARKED). A position beyond all buckets ends the run with
    Trap.ADDRESS. The entry for the next token is looked up while a token runs, and no period shorter than
    this may take (`hw.isa.least_period`) is legal.

    config: the chip.

    wdata, bucket_we, bucket_addr, control_we, control: as of `HostPort`.
    start, bucket: start pulse, and the token's bucket in that cycle.
    running: from RUN to the end of the last token's period.
    idle: all queues are parked and no engine is busy. traps: trap pulses of all units. errors: sticky.
    """

    def __init__(self, *, config: ChipConfig):
        self._config = config
        super().__init__({
            "wdata": In(WORD), "bucket_we": In(1), "bucket_addr": In(8),
            "control_we": In(len(Control)), "control": Out(COUNTER).array(len(Control)),
            "start": Out(1), "bucket": Out(range(config.buckets)), "running": Out(1),
            "idle": In(1), "traps": In(len(Trap)), "errors": Out(len(Trap)),
        })

    def elaborate(self, platform):
        m = Module()
        left, position, timer = Signal(32), Signal(32), Signal(32)
        count, cycles, token_cycles = Signal(32), Signal(COUNTER), Signal(32)
        waiting = Signal()  # a start pulse is due as soon as its bucket is known
        ends = Signal()  # the token's period ends with this cycle
        over = Signal()  # ... ended with the last cycle
        launch = Signal()
        entry, period, found, lost = self._look_up(m, position, launch)
        run_we, position_we = self.control_we[Control.RUN.value], self.control_we[Control.POSITION.value]
        due = waiting | (ends & (left != 1))
        m.d.comb += [ends.eq(timer == 1), launch.eq(due & found)]
        m.d.sync += [
            self.start.eq(launch), self.bucket.eq(entry), over.eq(ends), waiting.eq(due & ~found & ~lost),
            cycles.eq(cycles + 1), count.eq(Mux(self.start, 1, count + 1)),
        ]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.If(launch):
            m.d.sync += [timer.eq(period), position.eq(position + 1)]
        with m.If(ends):
            m.d.sync += left.eq(left - 1)
        with m.If((ends & (left == 1)) | (due & lost)):
            m.d.sync += [self.running.eq(0), left.eq(0)]
        with m.If(over):
            m.d.sync += token_cycles.eq(count)
        with m.If(run_we & ~self.running):
            some = self.wdata[:32] != 0
            m.d.sync += [left.eq(self.wdata), self.running.eq(some), waiting.eq(some)]
        with m.If(position_we):
            m.d.sync += position.eq(self.wdata)
        self._errors(m, over, due & lost)
        values = {Control.RUN: left, Control.POSITION: position, Control.CYCLES: cycles,
                  Control.TOKEN_CYCLES: token_cycles, Control.ERRORS: self.errors,
                  Control.IDENTITY: Const(int(chip_digest(self._config), 16), COUNTER)}
        m.d.comb += [self.control[register.value].eq(value) for register, value in values.items()]
        return m

    def _errors(self, m: Module, over: Value, lost: Value) -> None:
        own = Signal(len(Trap))
        m.d.comb += [own[Trap.NOT_PARKED.value].eq(over & ~self.idle), own[Trap.ADDRESS.value].eq(lost)]
        kept = Mux(self.control_we[Control.ERRORS.value], 0, self.errors)
        m.d.sync += self.errors.eq(kept | own | self.traps)

    def _look_up(self, m: Module, position: Value, launch: Value) -> tuple[Value, Value, Value, Value]:
        """(entry, period, found, lost) for `position`. Positions grow, so the search goes on from the last token's."""
        m.submodules.table = table = Memory(shape=64, depth=self._config.buckets, init=[])
        read, write = table.read_port(), table.write_port()
        entry = Signal(range(self._config.buckets))
        reading, looking, found, lost = Signal(), Signal(), Signal(), Signal()
        period = Signal(32, reset_less=True)
        m.d.comb += [read.addr.eq(entry), write.addr.eq(self.bucket_addr), write.data.eq(self.wdata),
                     write.en.eq(self.bucket_we)]
        m.d.sync += [reading.eq(0), looking.eq(reading)]
        with m.If(looking):
            m.d.sync += period.eq(read.data[:32])
            with m.If(read.data[32:] > position):
                m.d.sync += found.eq(1)
            with m.Elif(entry == self._config.buckets - 1):
                m.d.sync += lost.eq(1)
            with m.Else():
                m.d.sync += [entry.eq(entry + 1), reading.eq(1)]
        restart = self.bucket_we | self.control_we[Control.POSITION.value] | self.control_we[Control.RUN.value]
        with m.If(launch | restart):
            m.d.sync += [reading.eq(1), looking.eq(0), found.eq(0), lost.eq(0)]
        with m.If(restart):
            m.d.sync += entry.eq(0)
        return entry, period, found, lost
