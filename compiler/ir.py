"""The compiler's intermediate form: bursts, the streams that tie them together, and clusters of them.

- A *burst* is one instruction: a queue, an operation, and the cycle of its first element.
- A *stream* ties a producing burst to its consumers. The chip's latencies (`arch.latencies`) and the hops between
  their positions fix their distance in time.
- A *cluster* is a set of bursts that streams tie together. It has one freedom, its start cycle. Only `schedule` chooses
  that cycle.
- A *cell* is a storage place: a register, a plane of an SRAM quad, an entry of a buffer or of an accumulator file.
  Clusters depend on each other through cells.
- A *block* is a straight sequence of clusters, issued once or as the body of a loop.
"""

import builtins
import itertools
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from arch import config as cfg
from arch import isa, row
from arch.isa import AnyOp, Dir, Fmt, LinkOp, Op, Red, Src
from arch.latencies import Latencies, latencies

Cell = Hashable
BURST_SLOT = 2
"""Reduction slot of a burst whose reduction is complete in itself."""


# --- locations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reg:
    """`count` vectors of the VXM's register file from `base` on."""

    base: int
    count: int = 1

    def __getitem__(self, part: slice) -> "Reg":
        start, stop, _ = part.indices(self.count)
        return Reg(self.base + start, stop - start)


@dataclass(frozen=True)
class Mem:
    """`count` quads of a MEM slice from `addr` on, `stride` apart.

    planes: mask of the planes that are read or written.
    rel: loop levels whose offset is added.
    index: index register that is applied.
    cells: hazard cells. By default, each plane of each quad is a cell. Constants have none: ().
    """

    slice: str
    addr: int
    count: int = 1
    stride: int = 1
    planes: int = 15
    rel: int = 0
    index: int = 0
    cells: tuple[Cell, ...] | None = None

    def __getitem__(self, part: builtins.slice) -> "Mem":
        start, stop, step = part.indices(self.count)
        count = max(0, -(-(stop - start) // step))
        return Mem(self.slice, self.addr + start * self.stride, count, self.stride * step, self.planes, self.rel,
                   self.index, self.cells)

    def touched(self, element: int) -> Iterable[Cell]:
        """Hazard cells of one element."""
        if self.cells is not None:
            return self.cells
        addr = self.addr + element * self.stride
        return [("mem", self.slice, addr, plane) for plane in range(cfg.PLANES) if self.planes >> plane & 1]


@dataclass(frozen=True)
class Act:
    """A value in `count` entries, from `base` on, of the activation buffer of the MXM on `side`.

    Every new `Act` is a new value. The parts of an `Act` keep its value.
    """

    side: str
    base: int
    count: int = 1
    value: int = field(default_factory=itertools.count(1).__next__)

    def entries(self, start: int, count: int) -> "Act":
        """Entries start..start + count - 1."""
        return replace(self, base=self.base + start, count=count)


@dataclass(frozen=True)
class Acc:
    """`count` vectors of the accumulator file of the MXM on `side`."""

    side: str
    vector: int
    count: int = 1


@dataclass(frozen=True)
class Imm:
    """The same immediate in every lane."""

    value: int


@dataclass(frozen=True)
class Iota:
    """lane + lanes * element."""


@dataclass(frozen=True)
class As:
    """An operand location read in a narrower format."""

    loc: Any
    fmt: Fmt


# --- bursts and streams --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Stream:
    """Values on one stream group. Value i < count is driven from `source` in cycle `drive` + i * interval.

    group: the vector group (0) or a weight group.
    reach: for each direction used, the farthest position at which the stream is sampled.
    chip: number of its chip in a rack.
    """

    source: int
    drive: int
    count: int
    interval: int
    group: int = 0
    reach: dict[Dir, int] = field(default_factory=dict)
    chip: int = 0

    def arrival(self, at: int) -> tuple[Dir, int]:
        """(direction, cycle) of the first value's arrival at position `at`. Extends the stream to that position."""
        if at == self.source:
            raise ValueError(f"a unit at position {at} cannot sample its own drive")
        direction = Dir.E if at > self.source else Dir.W
        known = self.reach.get(direction, self.source)
        self.reach[direction] = max(known, at) if direction is Dir.E else min(known, at)
        return direction, self.drive + abs(at - self.source)


@dataclass(eq=False)
class Burst:
    """One instruction with the cycle `at` of its first element.

    taken: cycles that an element occupies the engine.
    samples: streams that it samples, without weights.
    drives: streams that it drives, by their field prefix in the VXM.
    chip: number of its chip in a rack.
    """

    queue: row.Queue
    op: AnyOp
    engine: str
    at: int
    count: int
    interval: int
    fields: dict[str, Any]
    taken: int = 1
    samples: list[Stream] = field(default_factory=list)
    drives: dict[str, Stream] = field(default_factory=dict)
    chip: int = 0

    @property
    def last(self) -> int:
        """Cycle of the last element."""
        return self.at + (self.count - 1) * self.interval

    @property
    def end(self) -> int:
        """First cycle in which the engine is free again."""
        return self.last + self.taken


@dataclass(frozen=True)
class Read:
    """A read of a cell in cycles first..last.

    value: the value of the `Act` that is read, if it is one.
    """

    cell: Cell
    first: int
    last: int
    value: int = 0


@dataclass(frozen=True)
class Write:
    """A write to a cell. The new value appears in cycle `first` at the earliest, and is complete in cycle `last`.

    value: the value of the `Act` that is written, if it is one.
    """

    cell: Cell
    first: int
    last: int
    value: int = 0


@dataclass(eq=False)
class Cluster:
    """Bursts tied together by streams. Times are relative to the cluster's start.

    The methods add bursts and return the streams that these drive.

    label: its name in reports.
    config: the chip's config.
    sequence: the one that it is of, of several in one program.
    """

    label: str
    config: cfg.ChipConfig
    bursts: list[Burst] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    weight_quads: int = 0
    sequence: int = 0

    @property
    def latencies(self) -> Latencies:
        """The chip's latencies."""
        return latencies(self.config)

    # -- producers and consumers --

    def _slice(self, name: str) -> row.Queue:
        return row.slices(self.config)[name]

    def _drive(self, source: row.Queue, drive: int, count: int, interval: int, group: int = 0) -> Stream:
        stream = Stream(source.position, drive, count, interval, group)
        self.streams.append(stream)
        return stream

    def _operand(self, name: str, operand: Any, at: int, count: int, interval: int, burst: Burst,
                 fetched: dict[Any, Stream]) -> None:
        loc, fmt = (operand.loc, operand.fmt) if isinstance(operand, As) else (operand, Fmt.I32)
        burst.fields[f"{name}_fmt"] = fmt
        match loc:
            case Imm(value):
                burst.fields[f"{name}_src"] = Src.IMM
                if burst.fields.setdefault("imm", value) != value:
                    raise ValueError(f"{self.label}: an operation has only one immediate")
            case Iota():
                burst.fields[f"{name}_src"] = Src.IOTA
            case Reg(base, size):
                inc = int(size > 1)
                burst.fields |= {f"{name}_src": Src.RF, f"{name}_rf": base, f"{name}_inc": inc}
                for i in range(count):
                    self.reads.append(Read(("rf", base + i * inc), at + i * interval, at + i * interval))
            case Stream():
                direction, cycle = loc.arrival(cfg.VXM)
                if cycle != at or (count > 1 and loc.interval != interval):
                    raise ValueError(f"{self.label}: operand {name} arrives in cycle {cycle}, then every "
                                     f"{loc.interval} "
                                     f"cycles, not in cycle {at}, then every {interval}")
                burst.fields[f"{name}_src"] = Src.stream(direction)
                burst.samples.append(loc)
            case _:
                if loc not in fetched:
                    fetched[loc] = self._fetch(loc, cfg.VXM, at, count, interval)
                stream = fetched[loc]
                burst.fields[f"{name}_src"] = Src.stream(stream.arrival(cfg.VXM)[0])
                burst.samples.append(stream)

    def _fetch(self, loc: Mem | Acc, to: int, at: int, count: int, interval: int, group: int = 0) -> Stream:
        """Add a READ or DRAIN whose values are sampled at position `to` from cycle `at` on."""
        if isinstance(loc, Acc):
            queue, latency = row.MXM[loc.side], self.latencies.mxm_drain
        else:
            queue, latency = self._slice(loc.slice), self.latencies.mem_read
        drive = at - abs(queue.position - to)
        stream = self._drive(queue, drive, count, interval, group)
        direction, _ = stream.arrival(to)
        start = drive - latency
        if isinstance(loc, Acc):
            burst = Burst(queue, Op.DRAIN, "drain", start, count, interval,
                          {"acc": loc.vector, "count": count, "interval": interval}, drives={"": stream})
            self.reads += [Read(("acc", loc.side, loc.vector + i), start + i * interval, start + i * interval)
                           for i in range(count)]
        else:
            stride = loc.stride if loc.count > 1 else 0
            burst = Burst(queue, Op.READ, "read", start, count, interval,
                          {"addr": loc.addr, "stride": stride, "count": count, "interval": interval, "rel": loc.rel,
                           "index": loc.index, "planes": loc.planes, "dir": direction, "weights": group},
                          drives={"": stream})
            self._read_mem(loc, start, count, interval)
        self.bursts.append(burst)
        return stream

    def _read_mem(self, loc: Mem, start: int, count: int, interval: int) -> None:
        for i in range(count if loc.cells is None else 1):
            first = start + i * interval
            last = first if loc.cells is None else start + (count - 1) * interval
            element = i if loc.count > 1 else 0
            self.reads += [Read(cell, first, last + 1) for cell in loc.touched(element)]
        if loc.index:
            self.reads.append(Read(("index", loc.slice, loc.index), start, start))

    def drain(self, acc: Acc, what: isa.DrainMax) -> Stream:
        """DRAIN accumulators, the first in cycle 0. what: becomes of the greatest values of each lane.

        With DRIVE the stream is the greatest values, and `acc` only says of which side.
        """
        queue, last = row.MXM[acc.side], acc.count - 1
        stream = self._drive(queue, self.latencies.mxm_drain, acc.count, 1)
        fields = {"acc": acc.vector, "count": acc.count, "interval": 1, "max": what}
        self.bursts.append(Burst(queue, Op.DRAIN, "drain", 0, acc.count, 1, fields, drives={"": stream}))
        cell = ("greatest", acc.side)
        if what is isa.DrainMax.DRIVE:
            self.reads.append(Read(cell, 0, last))
            return stream
        self.reads += [Read(("acc", acc.side, acc.vector + i), i, i) for i in range(acc.count)]
        if what is isa.DrainMax.MORE:
            self.reads.append(Read(cell, isa.MXM_MAX - 1, isa.MXM_MAX - 1 + last))
        self.writes.append(Write(cell, isa.MXM_MAX, isa.MXM_MAX + last))
        return stream

    def write(self, stream: Stream, loc: Mem) -> None:
        """WRITE the values of a stream to SRAM."""
        queue = self._slice(loc.slice)
        direction, at = stream.arrival(queue.position)
        count, interval = stream.count, stream.interval
        stride = loc.stride if loc.count > 1 else 0
        self.bursts.append(Burst(
            queue, Op.WRITE, "write", at, count, interval,
            {"addr": loc.addr, "stride": stride, "count": count, "interval": interval, "rel": loc.rel,
             "index": loc.index, "planes": loc.planes, "dir": direction}, samples=[stream]))
        visible = at + isa.MEM_WRITE_TO_READ
        for i in range(count if loc.cells is None else 1):
            first = visible + i * interval
            last = first if loc.cells is None else visible + (count - 1) * interval
            self.writes += [Write(cell, first, last) for cell in loc.touched(i if loc.count > 1 else 0)]
        if loc.index:
            self.reads.append(Read(("index", loc.slice, loc.index), at, at))

    def index(self, stream: Stream, slices: Iterable[str], register: int) -> None:
        """Load an index register of several slices from the single vector of a stream."""
        for name in slices:
            queue = self._slice(name)
            direction, at = stream.arrival(queue.position)
            fields = {"index": register, "dir": direction}
            self.bursts.append(Burst(queue, Op.INDEX, "index", at, 1, 1, fields, samples=[stream]))
            visible = at + isa.MEM_INDEX
            self.writes.append(Write(("index", name, register), visible, visible))

    def load(self, stream: Stream, act: Act) -> None:
        """LOAD a stream into an activation buffer (plane 0)."""
        queue = row.MXM[act.side]
        _, at = stream.arrival(queue.position)
        count, interval = stream.count, stream.interval
        self.bursts.append(Burst(queue, Op.LOAD, "load", at, count, interval,
                                 {"act": act.base, "count": count, "interval": interval}, samples=[stream]))
        for i in range(count):
            visible = at + i * interval + isa.MXM_LOAD
            self.writes.append(Write(("act", act.side, act.base + i), visible, visible, act.value))

    def read(self, loc: Mem, to: row.Queue, count: int = 0, interval: int = 1) -> Stream:
        """Fetch SRAM quads for a unit, which samples the first in cycle 0. A single quad is fetched `count` times."""
        return self._fetch(loc, to.position, 0, count or loc.count, interval)

    # -- C2C --

    def send(self, stream: Stream, side: str, ports: int, plane: int) -> None:
        """SEND a plane of a stream from the ports (a bit each) at one end of the row.

        The scheduler starts the cluster in a cycle that lets its SENDs begin with a slot.
        """
        queue = row.C2C[side]
        _, at = stream.arrival(queue.position)
        count, interval = stream.count, stream.interval
        fields = {"plane": plane, "ports": ports, "count": count, "interval": interval}
        self.bursts.append(Burst(queue, LinkOp.SEND, "send", at, count, interval, fields, samples=[stream]))

    def receive(self, side: str, port: int, planes: int, count: int, interval: int, at: int = 0) -> Stream:
        """RECEIVE flits of a port, the first in cycle `at`, and drive each on the planes of a mask, inward."""
        queue = row.C2C[side]
        result = self._drive(queue, at + isa.C2C_RECEIVE, count, interval)
        fields = {"port": port, "planes": planes, "count": count, "interval": interval}
        self.bursts.append(Burst(queue, LinkOp.RECEIVE, "receive", at, count, interval, fields, drives={"": result}))
        return result

    # -- VXM --

    def alu(self, *, a: Any, b: Any = None, c: Any = None, n: int = 1, at: int = 0, dst: Reg | None = None,
            er_dst: int | None = None, red: Red = Red.NONE, interval: int = 0, **fields: Any,
            ) -> tuple[Stream, Stream]:
        """Add a VXM burst of n elements, which samples from cycle `at` on, or when an operand's stream arrives.

        interval: cycles from element to element; by default, as few as the VXM takes.

        Further fields are those of `arch.isa.FIELDS[Op.ALU]`.

        Returns the stream of results and the stream of the burst's reduction. A stream that is not sampled costs
        nothing.
        """
        for operand in (a, b, c):
            loc = operand.loc if isinstance(operand, As) else operand
            if isinstance(loc, Stream):
                at = loc.arrival(cfg.VXM)[1]
        fields = {"round": 1, **fields}
        fold = self.config.vxm_fold
        step = interval or fold
        burst = Burst(row.VXM, Op.ALU, "alu", at, n, step, {**fields, "count": n, "interval": step, "red": red}, fold)
        fetched: dict[Any, Stream] = {}
        for name, operand in (("a", a), ("b", b), ("c", c)):
            if operand is not None:
                self._operand(name, operand, at, n, step, burst, fetched)
        self.bursts.append(burst)
        if dst is not None:
            burst.fields |= {"rf_we": 1, "rf": dst.base, "rf_inc": int(dst.count > 1)}
            self._write_rf(dst, at + self.latencies.vxm_rf, n, step)
        if er_dst is not None:
            burst.fields |= {"er_we": 1, "er_dst": er_dst}
            self.writes.append(Write(("er", er_dst), *[at + self.latencies.vxm_rf] * 2))
        if "er_use" in fields:
            self.reads.append(Read(("er", fields["er"]), at, burst.last))
        result = self._drive(row.VXM, at + self.latencies.vxm_drive + isa.vxm_late(self.config), n, step)
        burst.drives["dst"] = result
        reduced = self._reduction(burst, red)
        return result, reduced

    def _reduction(self, burst: Burst, red: Red) -> Stream:
        if red is not Red.NONE:
            slot = ("red", burst.fields.get("red_slot", 0))
            if burst.fields.get("red_keep"):
                self.reads.append(Read(slot, burst.at, burst.last))
            self.writes.append(Write(slot, burst.at + 1, burst.last + 1))
        reduced = self._drive(row.VXM, burst.last + self.latencies.vxm_reduce_drive + isa.vxm_late(self.config), 1, 1)
        burst.drives["red"] = reduced
        return reduced

    def _write_rf(self, dst: Reg, visible: int, n: int, interval: int) -> None:
        if dst.count > 1:
            self.writes += [Write(("rf", dst.base + i), *[visible + i * interval] * 2) for i in range(n)]
        else:
            self.writes.append(Write(("rf", dst.base), visible, visible + (n - 1) * interval))

    # -- SXM --

    def sxm(self, stream: Stream, op: Op, *, first: int = 0, count: int | None = None, **fields: Any) -> Stream:
        """Add a burst of the eastern SXM on a stream from the west (VXM or MEM). It drives its results westward.

        first: first value of the stream that it takes.
        count: values that it takes; by default, all to the end.
        """
        at = stream.arrival(cfg.SXM_E)[1] + first * stream.interval
        count = stream.count - first if count is None else count
        result = self._drive(row.SXM["E"], at + self.latencies.sxm_drive, count, stream.interval)
        self.bursts.append(Burst(
            row.SXM["E"], op, "sxm", at, count, stream.interval,
            {**fields, "count": count, "interval": stream.interval}, samples=[stream], drives={"": result}))
        return result

    # -- MXM --

    def mac(self, weights: list[Mem], act: Act, acc: Acc, *, vector_entries: int, first_entry: int = 0, accs: int = 0,
            order: isa.Order = isa.Order.ROW, wfmt: isa.Wfmt = isa.Wfmt.INT8, clear: int = 1) -> None:
        """Add a matrix product of act.count activation entries for accs accumulator entries, one MAC element a cycle.

        weights: for each weight group, the quads in order of use.
        vector_entries: accumulator entries of a vector.
        first_entry: first accumulator entry, counted from the beginning of acc.
        accs: accumulator entries; by default, all of acc.
        """
        accs = accs or acc.count * vector_entries
        acts, total, side = act.count, act.count * accs, act.side
        queue, entry = row.MXM[side], acc.vector * vector_entries + first_entry
        self.bursts.append(Burst(queue, Op.MAC, "mac", 0, total, 1, {
            "act": act.base, "acc": entry, "acts": acts, "accs": accs, "order": order, "wfmt": wfmt, "clear": clear}))
        for group, mem in enumerate(weights, start=1):
            self._fetch(mem, queue.position, 0, total, 1, group)
        act_step, acc_step = (1, acts) if order is isa.Order.ROW else (accs, 1)
        self.reads += [Read(("act", side, act.base + k), k * act_step, k * act_step + (accs - 1) * acc_step,
                            act.value) for k in range(acts)]
        for i in range(accs):
            first = i * acc_step + self.latencies.mxm_acc
            cell = ("acc", side, (entry + i) // vector_entries)
            self.writes.append(Write(cell, first, first + (acts - 1) * act_step))
        self.weight_quads += total * len(weights)


@dataclass(eq=False)
class Part(Cluster):
    """One chip's part of a transfer between chips: its SEND or its RECEIVE, and what feeds or takes the flits.

    key: what all parts of a transfer have in common.
    chips: chips that have a part in it.
    late: cycles from the SEND to this chip's RECEIVE; 0 for the part of the sender.
    """

    key: Hashable = None
    chips: frozenset[int] = frozenset()
    late: int = 0

    @property
    def anchor(self) -> int:
        """Cycle of the part's SEND or RECEIVE."""
        return next(burst.at for burst in self.bursts if isinstance(burst.op, LinkOp))


@dataclass(eq=False)
class Block:
    """A straight piece of a token's program.

    turns: how often it is issued.
    strides: by slice, the quads that relative addresses advance with each turn.
    clusters: its clusters in program order.
    """

    name: str
    turns: int = 1
    strides: Mapping[str, int] = field(default_factory=dict)
    clusters: list[Cluster] = field(default_factory=list)

    @property
    def weight_quads(self) -> int:
        """Quads that the matrix units consume in all turns."""
        return self.turns * sum(cluster.weight_quads for cluster in self.clusters)
