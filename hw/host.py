"""The host port: host accesses become strobes that the parts of the chip see one cycle later."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.config import ChipConfig
from arch.host_map import COUNTER, PARTS, WORD, Control, Space, offset
from arch.isa import ADDR_BITS, HOST_READ, PC_BITS
from arch.row import queues

from .idioms import one_hot


class HostPort(wiring.Component):
    """Decodes host accesses, one a cycle. The parts of the chip see strobes one cycle later.

    config: the chip.

    host_*: the port of the chip. `host_rdata` is valid HOST_READ (4) cycles after `host_read`, and 0 in all other
    cycles. MEM and CONTROL can be read; other spaces read as 0.

    Strobes, in the cycle after the access:
    mem_we, mem_re: one bit per slice. mem_addr, mem_planes (one-hot), mem_wdata (0 without mem_we).
    mem_rdata: the OR of all slices, taken in the third cycle after a mem_re.
    mem_write: a mem_we follows in the next cycle.
    wdata: the data of all other strobes.
    icu_we: one bit per queue. icu_addr, icu_number, icu_data: a whole instruction word. Its upper parts were written
    before and kept.
    table_we: one bit per queue. table_addr: the bucket; the start PC is in the low bits of wdata.
    bucket_we, map_we, small_addr: an entry of the bucket table, a permutation map.
    control_we: one bit per register. control: the current value of each register.
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
        at_slice, at_queue = at[offset(Space.MEM, "slice") :], at[offset(Space.ICU, "queue") :]
        at_table, part = at[offset(Space.START, "queue") :], at[: offset(Space.ICU, "instruction")]
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
            self.mem_addr.eq(addr[offset(Space.MEM, "quad") :]),
            self.icu_addr.eq(addr[offset(Space.ICU, "instruction") :]),
            self.icu_number.eq(addr[offset(Space.ICU, "number") :]),
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

