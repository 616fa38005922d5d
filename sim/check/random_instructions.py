"""Random instructions of every operation, with fields that are legal at their place."""

from random import Random
from typing import Any

from arch.config import PLANES, ChipConfig
from arch.isa import (
    C2C_RECEIVE,
    DELAY_BITS,
    ENGINE,
    FIELDS,
    HALVES,
    SXM_TRANSPOSE,
    Alu,
    Dir,
    DrainMax,
    Fmt,
    Func,
    Instr,
    LinkOp,
    Op,
    Order,
    Red,
    Src,
    Wfmt,
    vxm_late,
)
from arch.row import Queue

from .random_placement import Placement, Program, Stock, outward
from .random_schedule import Instance, Loop, Window, layout, random_phases

INDEX_QUADS = 8
"""First quads of every slice, which hold index vectors. No program writes them."""
MAX_DELAY = (1 << DELAY_BITS) - 1
MAX_OFFSET = 7
"""Greatest offset of an index vector."""


class Builder(Placement):
    """Makes one bucket's program.

    across: by port (end of the row, number), the other end of its link: the builder of that chip, the queue and the
    port there, and the latency (see `sim.check.racks`).
    """

    def __init__(self, config: ChipConfig, rng: Random, stocks: dict[str, Stock]):
        super().__init__(config, rng, stocks)
        self.across: dict[tuple[str, int], tuple[Builder, Queue, int, int]] = {}
        self.kinds = {
            self.add_read: 10, self.add_write: 8, self.add_index: 3, self.add_load: 5, self.add_mac: 5,
            self.add_drain: 4, self.add_alu: 14, self.add_lanes: 8,
        }
        if any(config.ports):
            self.kinds |= {self.add_flits: 30}
        if config.sxm_transpose:
            self.kinds |= {self.add_transpose_in: 4, self.add_transpose_out: 2}

    def build(self, attempts: int) -> Program | None:
        """The program; None if the queues' stores have no room for its loops."""
        if self.lay_out():
            for kind in self.rng.choices(list(self.kinds), list(self.kinds.values()), k=attempts):
                kind()
            return self.program
        return None

    def add_one(self) -> None:
        """Try to place one instruction."""
        self.rng.choices(list(self.kinds), list(self.kinds.values()))[0]()

    def lay_out(self) -> Program | None:
        """A program with only loops and windows; None if the queues' stores have no room for the loops."""
        rng = self.rng
        start = self.latencies.start
        phases = random_phases(rng, self.latencies.min_delay_jump)
        nodes = {}
        for queue in self.queues:
            depth = self.depth(queue) if queue.unit == "MEM" else 1 << 12
            nodes[queue.name] = layout(rng, phases, [Instance(start, (0, 0))], (), depth)
            own = [Instr(Op.SYNC), *(instr for node in nodes[queue.name] for instr in node.emit(MAX_DELAY))]
            if not self.stocks[queue.name].add(own):
                return None
        windows = {name: [w for node in tree for w in (node.windows() if isinstance(node, Loop) else [node])]
                   for name, tree in nodes.items()}
        self.program = Program(nodes, windows, start + sum(phase.length for phase in phases))
        return self.program

    # --- MEM -----------------------------------------------------------------------------------------------------

    def addresses(self, queue: Queue, window: Window, offset: int, burst: dict, write: bool) -> dict | None:
        """Address fields that keep all elements of all turns within the slice and after the index vectors."""
        rng, depth = self.rng, self.depth(queue)
        rel = rng.randrange(4)
        stride = rng.choice([0, 1, 1, -1, rng.randint(-8, 8)])
        moves = [i * stride + sum(window.strides[k] * instance.turns[k] for k in (0, 1) if rel >> k & 1)
                 for instance in window.instances(offset) for i in range(burst["count"])]
        index = rng.randrange(self.config.index_regs) if self.bit(0.4) else 0
        low = (INDEX_QUADS if write else 0) - min(moves)
        high = depth - 1 - max(moves) - (MAX_OFFSET if index else 0)
        if low > high or high < 0:
            return None
        near = min(high, max(low, 0) + 12) if self.bit(0.7) else high  # often the same few quads
        return {"addr": rng.randint(max(low, 0), near), "stride": stride, "rel": rel, "index": index}

    def accesses(self, window: Window, offset: int, instr: Instr, delay: int) -> list[tuple[int, int, int]]:
        """(cycle, lowest quad, highest quad) of every element."""
        found = []
        spread = MAX_OFFSET if instr.index else 0
        for instance, cycles in self.elements(window, offset, instr.count, instr.interval):
            base = instr.addr + sum(window.strides[k] * instance.turns[k] for k in (0, 1) if instr.rel >> k & 1)
            found += [(cycle + delay, base + i * instr.stride, base + i * instr.stride + spread)
                      for i, cycle in enumerate(cycles)]
        return found

    def banks_free(self, queue: Queue, read: bool, accesses: list[tuple[int, int, int]]) -> bool:
        return all(self.program.taken.bank_free(queue, read, *access) for access in accesses)

    def book(self, queue: Queue, read: bool, accesses: list[tuple[int, int, int]]) -> None:
        for access in accesses:
            self.program.taken.access(queue, read, *access)

    def add_read(self) -> bool:
        queue = self.some("MEM")
        window, offset = self.place(queue)
        weights = self.rng.choice(self.config.weight_groups_of(queue.slice)) if self.bit(0.2) else 0
        away = Dir(outward(queue)) if weights else self.rng.choice(list(Dir))
        if queue.slice and not weights:
            away = Dir(1 - outward(queue))
        fields = self.burst() | {"dir": away, "weights": weights,
                                 "planes": 15 if self.bit(0.7) else self.rng.randrange(16)}
        return self.read(queue, window, offset, fields)

    def read(self, queue: Queue, window: Window, offset: int, fields: dict) -> bool:
        address = self.addresses(queue, window, offset, fields, write=False)
        if not address:
            return False
        instr = Instr(Op.READ, fields=fields | address)
        accesses = self.accesses(window, offset, instr, 0)
        if not self.banks_free(queue, True, accesses) or not self.produce(
                queue, window, offset, instr, self.latencies.mem_read, instr.dir.value, instr.planes, instr.weights):
            return False
        self.book(queue, True, accesses)
        return True

    def add_write(self) -> bool:
        target = self.target("MEM")
        if not target:
            return False
        queue, run, window, offset, burst = target
        planes = run.planes if self.bit(0.8) else run.planes & self.rng.randrange(16)
        address = self.addresses(queue, window, offset, burst, write=True)
        if not address:
            return False
        stream = {"dir": Dir(run.direction), "planes": planes}
        instr = Instr(Op.WRITE, fields=burst | address | stream)
        accesses = self.accesses(window, offset, instr, 1)
        if not (self.fits(queue, window, offset, instr) and self.banks_free(queue, False, accesses)
                and self.sampled(queue, window, offset, instr, run.direction, planes)):
            return False
        self.keep(queue, window, offset, instr)
        self.book(queue, False, accesses)
        return True

    def add_index(self) -> bool:
        """A READ of an index vector, and an INDEX of it in another slice. Both are placed, or neither."""
        queue = self.some("MEM")
        others = [other for other in self.queues if other.unit == "MEM" and other.position != queue.position]
        target = self.rng.choice(others)
        direction = Dir.E if target.position > queue.position else Dir.W
        window, offset = self.place(queue)
        vector = Instr(Op.READ, fields={"addr": self.rng.randrange(INDEX_QUADS), "dir": direction,
                                        "planes": 15})
        read = self.latencies.mem_read
        hops = read + abs(target.position - queue.position)
        found = self.window_at(target, window.starts[0].cycle + offset + hops)
        load = Instr(Op.INDEX, fields={"index": self.rng.randint(1, self.config.index_regs - 1), "dir": direction})
        if not found or not self.fits(target, *found, load):
            return False
        cycles = [instance.cycle + ENGINE for instance in found[0].instances(found[1])]
        if cycles != [instance.cycle + ENGINE + hops for instance in window.instances(offset)]:
            return False
        between = range(min(queue.position, target.position) + 1, max(queue.position, target.position))
        if not all(self.program.taken.drivable(direction.value, 0, 15, queue.position, cycle - hops + read)
                   and not self._driven_between(direction.value, target.position, cycle, between)
                   for cycle in cycles):
            return False
        accesses = self.accesses(window, offset, vector, 0)
        if not self.produce(queue, window, offset, vector, self.latencies.mem_read, direction.value):
            return False
        self.book(queue, True, accesses)
        self.keep(target, *found, load)
        for cycle in cycles:
            self.program.taken.freeze(direction.value, 0, queue.position, target.position, cycle)
        return True

    def _driven_between(self, direction: int, position: int, cycle: int, between: range) -> bool:
        sources = [self.program.taken.source(direction, 0, plane, position, cycle) for plane in range(4)]
        return any(source in between for source in sources)

    # --- MXM -----------------------------------------------------------------------------------------------------

    def add_load(self) -> bool:
        target = self.target("MXM")
        if not target:
            return False
        queue, run, window, offset, burst = target
        plane = self.rng.randrange(4)
        burst["count"] = min(burst["count"], self.config.act_depth)
        act = self.rng.randint(0, self.config.act_depth - burst["count"])
        instr = Instr(Op.LOAD, fields=burst | {"act": act, "plane": plane})
        if not (self.fits(queue, window, offset, instr)
                and self.sampled(queue, window, offset, instr, run.direction, 1 << plane)):
            return False
        self.keep(queue, window, offset, instr)
        return True

    def add_mac(self) -> bool:
        """READs of weights from different slices that arrive together, and the MAC that takes them."""
        rng, config = self.rng, self.config
        queue = self.some("MXM")
        direction = 0 if queue.position else 1
        mine = [q for q in self.queues if q.unit == "MEM" and outward(q) == direction]
        slices = []
        for group in range(1, config.groups):
            left = [q for q in mine if group in config.weight_groups_of(q.slice) and q not in slices]
            slices.append(rng.choice(left))
        acts = rng.choice([1, 2, 3, rng.randint(1, config.act_depth)])
        accs = rng.choice([1, 2, 4, rng.randint(1, 20)])
        if acts * accs > 80:
            return False
        window, offset = self.place(queue)
        arrival = window.starts[0].cycle + offset + ENGINE
        formats = list(Wfmt) if config.int4 else [Wfmt.INT8]
        instr = Instr(Op.MAC, fields={
            "act": rng.randint(0, config.act_depth - acts), "acc": rng.randrange(4 * config.acc_depth), "acts": acts,
            "accs": accs, "order": rng.choice(list(Order)), "wfmt": rng.choice(formats), "clear": self.bit()})
        if not self.fits(queue, window, offset, instr):
            return False
        for group, source in enumerate(slices, 1):
            cycle = arrival - abs(queue.position - source.position) - self.latencies.mem_read - ENGINE
            found = self.window_at(source, cycle)
            fields = {"count": acts * accs, "interval": 1, "dir": Dir(direction), "weights": group, "planes": 15}
            if not found or not self.read(source, *found, fields):
                return False
        if not all(self.sampled(queue, window, offset, instr, direction, 15, group)
                   for group in range(1, config.groups)):
            return False
        self.keep(queue, window, offset, instr)
        return True

    def add_drain(self) -> bool:
        queue = self.some("MXM")
        own: dict[str, Any] = {"acc": self.rng.randrange(self.config.acc_depth)}
        if self.config.drain_max:
            own["max"] = self.rng.choice(list(DrainMax))
        instr = Instr(Op.DRAIN, fields=self.burst() | own)
        return self.produce(queue, *self.place(queue), instr, self.latencies.mxm_drain, 1 - outward(queue))

    # --- SXM -----------------------------------------------------------------------------------------------------

    def add_lanes(self) -> bool:
        target = self.target("SXM")
        if not target:
            return False
        rng = self.rng
        queue, run, window, offset, burst = target
        op, own = rng.choice([
            (Op.PERMUTE, {"map": rng.randrange(self.config.sxm_maps)}),
            (Op.SHIFT, {"lane": rng.randrange(16), "lane_inc": rng.randrange(16), "distribute": self.bit()}),
            (Op.REDUCE, {"red": rng.choice([Red.SUM, Red.MAX, Red.MIN]),
                         "segment": rng.randint(0, self.config.lane_bits)}),
        ])
        instr = Instr(op, fields=burst | own)
        return (self.sampled(queue, window, offset, instr, run.direction, 15)
                and self.produce(queue, window, offset, instr, self.latencies.sxm_drive, 1 - outward(queue)))

    def add_flits(self) -> bool:
        """A SEND, and the RECEIVE at the other end of the link."""
        target = self.target("C2C")
        if not target:
            return False
        queue, run, window, offset, burst = target
        number, plane = self.rng.randrange(self.config.ports_of(queue.side)), self.rng.randrange(PLANES)
        burst["interval"] = self.config.slot * self.rng.randint(1, 3)
        send = Instr(LinkOp.SEND, fields=burst | {"plane": plane, "ports": 1 << number})
        if (queue.side, number) not in self.across or not self._slots_free(window, offset, send):
            return False
        if not (self.fits(queue, window, offset, send)
                and self.sampled(queue, window, offset, send, run.direction, 1 << plane)):
            return False
        far, there, port, latency = self.across[queue.side, number]
        found = far.window_at(there, window.starts[0].cycle + offset + latency)
        if not found or len(found[0].starts) > 1:
            return False
        receive = Instr(LinkOp.RECEIVE, fields=burst | {"port": port, "planes": self.rng.randint(1, 15)})
        if not far.produce(there, *found, receive, C2C_RECEIVE, 1 - outward(there), receive.planes):
            return False
        self.keep(queue, window, offset, send)
        return True

    def _slots_free(self, window: Window, offset: int, send: Instr) -> bool:
        """Whether each element of a SEND begins a slot that the link does not use itself. The window must not be in a
        loop."""
        slot = self.config.slot
        _, cycles = next(self.elements(window, offset, send.count, send.interval))
        return (len(window.starts) == 1 and not any(cycle % slot for cycle in cycles)
                and cycles[0] >= slot * self.config.quiet_slots and cycles[-1] < self.program.end - slot)

    def add_transpose_in(self) -> bool:
        target = self.target("SXM")
        if not target:
            return False
        queue, run, window, offset, burst = target
        burst["count"] = min(burst["count"], self.config.lanes)
        plane = self.rng.randrange(4)
        instr = Instr(Op.TRANSPOSE_IN, fields=burst | {"plane": plane})
        if not (self.fits(queue, window, offset, instr)
                and self.sampled(queue, window, offset, instr, run.direction, 1 << plane)):
            return False
        self.keep(queue, window, offset, instr)
        last = instr.interval * (instr.count - 1) + SXM_TRANSPOSE
        found = self.window_at(queue, window.starts[0].cycle + offset + last)
        return self.transpose_out(queue, *found) if found and self.bit(0.7) else True

    def add_transpose_out(self) -> bool:
        queue = self.some("SXM")
        return self.transpose_out(queue, *self.place(queue))

    def transpose_out(self, queue: Queue, window: Window, offset: int) -> bool:
        instr = Instr(Op.TRANSPOSE_OUT, fields=self.burst(self.config.lanes))
        return self.produce(queue, window, offset, instr, self.latencies.sxm_drive, 1 - outward(queue))

    # --- VXM -----------------------------------------------------------------------------------------------------

    def add_alu(self) -> bool:
        rng = self.rng
        queue = self.some("VXM")
        target = self.target("VXM") if self.bit(0.8) else None
        window, offset, burst = target[2:] if target else (*self.place(queue), self.burst())
        burst["interval"] = max(burst["interval"], self.config.vxm_fold)
        fields = {name: _random(rng, spec) for name, spec in FIELDS[Op.ALU].items()} | burst
        every = list(self.elements(window, offset, burst["count"], burst["interval"]))
        samples = [cycle for _, cycles in every for cycle in cycles]
        for name in "abc":
            fields |= self.operand(name, queue, samples, burst["count"])
        if fields["b_src"] is fields["c_src"] is Src.RF:
            fields |= {"c_rf": fields["b_rf"], "c_inc": fields["b_inc"]}
        fields |= {
            "er": rng.randrange(self.config.er_depth), "er_dst": rng.randrange(self.config.er_depth),
            "rf_we": self.bit(), "red": rng.choice([Red.NONE, *Red]), "red_keep": 0,
        }
        fields["rf"], fields["rf_inc"] = self.registers(self.bit(), burst["count"])
        if fields["red"] is Red.NONE:
            fields["red_e"] = 0
        else:
            # Slot 3 holds absolute values only, so that MAXABS never continues from a negative one.
            fields["red_slot"] = 3 if fields["red"] is Red.MAXABS else rng.randrange(3)
            fields["red_keep"] = self.bit()
        if fields["alu"] is Alu.INDEX:
            fields |= {"func": Func.PASS, "b_src": Src.IOTA, "b_fmt": Fmt.I32}
        elif fields["func"] is Func.EXP2:
            fields["alu"] = Alu.Q
        instr = Instr(Op.ALU, fields=fields)
        return self.fits(queue, window, offset, instr) and self._place_alu(queue, window, offset, instr, every)

    def _place_alu(self, queue: Queue, window: Window, offset: int, instr: Instr, every: list) -> bool:
        drives, late = [], vxm_late(self.config)
        for _, cycles in every:
            last = cycles[-1] + self.latencies.vxm_reduce_drive + late
            results = [cycle + self.latencies.vxm_drive + late for cycle in cycles]
            drives += [(d, 0, 15, results) for d, on in enumerate((instr.dst_e, instr.dst_w)) if on]
            drives += [(Dir.E.value, 0, 15, [last])] * instr.red_e
        if not self.drivable(queue, drives):
            return False
        self.keep(queue, window, offset, instr)
        self.drive(queue, drives)
        return True

    def operand(self, name: str, queue: Queue, samples: list[int], count: int) -> dict:
        """Fields of one operand. It comes from a stream if one may be sampled."""
        stream = self.readable_operand(queue, samples, formats_of(name)) if self.bit(0.8) else None
        if stream:
            direction, formats = stream
            return {f"{name}_src": Src.stream(Dir(direction)), f"{name}_fmt": self.rng.choice(formats)}
        register, inc = self.registers(self.bit(), count)
        return {f"{name}_src": self.rng.choice([Src.IMM, Src.RF, Src.RF, Src.IOTA]), f"{name}_rf": register,
                f"{name}_inc": inc, f"{name}_fmt": self.rng.choice(formats_of(name))}

    def registers(self, inc: int, count: int) -> tuple[int, int]:
        """A first register, and whether it advances. All registers are within the file."""
        depth = self.config.rf_depth
        inc = inc if count <= depth else 0
        return self.rng.randint(0, depth - (count if inc else 1)), inc


def formats_of(operand: str) -> list[Fmt]:
    """Legal formats of a VXM operand."""
    return [fmt for fmt in Fmt if operand == "a" or fmt in HALVES]


def _random(rng: Random, spec) -> object:
    """Any value of a field."""
    if spec.kind:
        return rng.choice(list(spec.kind))
    return rng.randint(*spec.range)
