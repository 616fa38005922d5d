"""What all parts of a token's program are written with: registers and buffers, operations, norms, products."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from arch import tables
from arch.config import ChipConfig
from arch.isa import Alu, ErUse, Func, Op, Red, Sat
from arch.lanes import SIDES, ceil_div
from base.errors import TspError
from compiler.place.geometry import CHUNK, Geometry
from compiler.place.placement import Matrix, Placement
from compiler.schedule.scheduler import Segment
from program.integer import IntegerModel

from .ir import BURST_SLOT, Acc, Act, As, Cluster, Imm, Mem, Reg, Stream

FRAC = {func: table.frac_bits for func, table in tables.TABLES.items()}
SWAP_MAP = 0
"""Permutation map that exchanges neighbouring lanes (RoPE pairs)."""
INDEX_K, INDEX_V, INDEX_EMBEDDING = 1, 2, 3
"""Index registers of the weight slices."""
INDEX_SCALE = 4
"""Index register of the K scales, in E0 and W0."""
INDEX_EMB_SCALE, INDEX_HIGH = 5, 6
"""Index registers of E0."""
INDEX_LOW, INDEX_TOKENS = 5, 6
"""Index registers of W0."""



def permutations(config: ChipConfig) -> dict[int, list[int]]:
    """The permutation maps of all programs."""
    return {SWAP_MAP: [lane ^ 1 for lane in range(config.lanes)]}


class Pool:
    """Registers (or exponents, buffer entries) given out first-freed-first, so that reuse seldom waits."""

    def __init__(self, size: int, what: str) -> None:
        self._free = deque(range(size))
        self._size, self._what = size, what

    def take(self, count: int = 1) -> int:
        """First of `count` neighbouring entries."""
        free = set(self._free)
        for base in self._free:
            if all(base + i in free for i in range(count)):
                for i in range(count):
                    self._free.remove(base + i)
                return base
        raise TspError(f"{count} neighbouring {self._what} of the VXM are needed, and of its {self._size} the model's "
                       f"residual and heads leave {len(free)}: use a model with narrower or fewer heads")

    def give(self, base: int, count: int = 1) -> None:
        """Return entries."""
        self._free.extend(range(base, base + count))


class Ring:
    """Neighbouring entries of a buffer, in turn."""

    def __init__(self, size: int, what: str) -> None:
        self.size, self._what, self._next = size, what, 0

    def take(self, count: int, align: int = 1) -> int:
        """First of `count` neighbouring entries, a multiple of `align`: from few places come few distinct words."""
        self._next = ceil_div(self._next, align) * align
        if count > self.size:
            raise TspError(f"{count} {self._what} are needed at once, the chip has {self.size} for it: use a larger "
                           "config")
        if self._next + count > self.size:
            self._next = 0
        base, self._next = self._next, self._next + count
        return base


class Base:
    """State of the lowering of one token for `chunks` vectors of positions (a context bucket)."""

    def __init__(self, placement: Placement, chunks: int, valid: int = 0) -> None:
        """chunks: vectors of positions that the bucket attends to; the first `valid` of them hold real positions at
        every token of the bucket (the limit of the bucket before), so that they need no mask."""
        self.p, self.chunks, self.valid = placement, chunks, valid
        self.g: Geometry = placement.geometry
        self.m: IntegerModel = self.g.model
        self.config: ChipConfig = self.g.config
        self.s = self.m.shifts
        self.segments: list[Segment] = []
        self.segment: Segment
        self.rf = Pool(self.config.rf_depth, "registers")
        self.er = Pool(self.config.er_depth, "exponents")
        reserved = 2 if self.g.per_word > 1 else 0
        self.parts_acc = {side: [self.config.acc_depth - 2, self.config.acc_depth - 1] for side in SIDES}
        self.acc = {side: Ring(self.config.acc_depth - reserved, f"accumulators of MXM_{side}") for side in SIDES}
        self.act = {side: Ring(self.config.act_depth - len(self.g.q_words()), f"activation entries of MXM_{side}")
                    for side in SIDES}
        self.cos, self.sin = self._regs(self.g.words), self._regs(self.g.words)
        self.mask: Reg | None = None
        self.parts = [self._regs(1) for _ in range(self.g.per_word)] if self.g.per_word > 1 else []
        self._words: dict[tuple[int, int], dict[str, Act]] = {}
        self._sums: dict[str, Acc] = {}
        self.x: Reg | Mem = self._regs(self.g.dim) if self.g.residual_in_registers else placement.tensors["x"].mem()

    def _open(self, name: str, passes: int = 1, strides: Mapping[str, int] | None = None) -> None:
        """Begin a segment; `strides` are the quads that relative addresses advance a pass, by slice."""
        self.segment = Segment(name, passes=passes, strides=strides or {})
        self.segments.append(self.segment)

    def _regs(self, count: int) -> Reg:
        return Reg(self.rf.take(count), count)

    def _free(self, *regs: Reg) -> None:
        for reg in regs:
            self.rf.give(reg.base, reg.count)

    def _give(self, exponent: int | None) -> None:
        if exponent is not None:
            self.er.give(exponent)

    def _cluster(self, label: str) -> Cluster:
        cluster = Cluster(label, self.config)
        self.segment.clusters.append(cluster)
        return cluster

    def _constant(self, name: str) -> Mem:
        return self.p.tensors[f"c_{name}"].mem(cells=())

    def _mem(self, name: str, start: int = 0, count: int = 0) -> Mem:
        return self.p.tensors[name].mem(start, count)

    def _op(self, label: str, **kwargs: Any) -> Stream:
        """A cluster of one VXM operation; `dst` may be a register, an SRAM location or None."""
        cluster = self._cluster(label)
        return self._put(cluster, **kwargs)[0]

    def _put(self, cluster: Cluster, **kwargs: Any) -> tuple[Stream, Stream]:
        home = kwargs.pop("dst", None)
        result, reduced = cluster.alu(**kwargs, dst=home if isinstance(home, Reg) else None)
        if isinstance(home, Mem):
            cluster.write(result, home)
        return result, reduced

    def _lanes(self, cluster: Cluster, stream: Stream, red: Red, segment: int | None = None) -> Stream:
        segment = self.config.lane_bits if segment is None else segment
        return cluster.sxm(stream, Op.REDUCE, red=red, segment=segment)

    def _exponent(self, cluster: Cluster, largest: Stream, er: int) -> None:
        """Exponent that brings the greatest of all lanes to 7 bits."""
        self._put(cluster, a=self._lanes(cluster, largest, Red.MAX), func=Func.BITLEN, alu=Alu.ADD, c=Imm(-7),
                  er_dst=er)

    def _acts(self, count: int) -> dict[str, Act]:
        """Entries of both activation buffers."""
        return {side: Act(side, self.act[side].take(count), count) for side in SIDES}

    @staticmethod
    def _load(cluster: Cluster, stream: Stream, acts: dict[str, Act]) -> None:
        for act in acts.values():
            cluster.load(stream, act)

    def _load_both(self, cluster: Cluster, stream: Stream, count: int) -> dict[str, Act]:
        acts = self._acts(count)
        self._load(cluster, stream, acts)
        return acts

    def _one_hot(self, label: str, value: Any, mask: int, one: str, pre: int, rest: Any, dst: Reg) -> None:
        """dst = the constant `one`, 1 in a lane, << (value & mask) - pre, with `rest`."""
        er = self.er.take()
        self._op(label, a=value, alu=Alu.AND, c=Imm(mask), er_dst=er)
        self._op(label, **self._shifted_one(one, er, pre), alu=Alu.OR, c=rest, dst=dst)
        self.er.give(er)

    def _shifted_one(self, one: str, er: int, pre: int) -> dict[str, Any]:
        """The constant `one` << exponent - pre; nothing is left of it if that is negative."""
        return {"a": self._constant(one), "pre": pre, "er_use": ErUse.PRE, "er": er, "er_neg": 1, "round": 0}

    def _index(self, label: str, value: Any, shift: int, scale: str, rest: Any, slices: Iterable[str],
               register: int) -> None:
        """Index register = (value >> shift) * scale in lane 0, with the lane and plane masks of `rest`."""
        cluster = self._cluster(label)
        stream, _ = cluster.alu(a=value, pre=shift, round=0, func=Func.MUL, b=self._constant(scale), alu=Alu.OR, c=rest)
        cluster.index(stream, slices, register)

    def _gain(self, name: str, part: int) -> As:
        halves = self.p.halves[name]
        return halves(part * halves.tensor.quads, self.g.dim)

    def _norm(self, label: str, gain: As) -> tuple[Reg, int]:
        """Starts a norm: gained operands in "xg"; returns (rsqrt register, exponent)."""
        s, n = self.s, self.g.dim
        r, er = self._regs(1), self.er.take()
        cluster = self._cluster(label)
        _, total = cluster.alu(a=self.x, pre=s.norm_x, func=Func.SQUARE, post=s.norm_sq, alu=Alu.ADD, c=Imm(self.m.eps),
                               n=n, red=Red.SUM, red_slot=BURST_SLOT)
        self._put(cluster, a=self._lanes(cluster, total, Red.SUM), func=Func.RSQRT, post=FRAC[Func.RSQRT], alu=Alu.ADD,
                  dst=r, er_dst=er)
        self._op(label, a=self.x, pre=s.norm_x, func=Func.MUL, b=gain, post=s.norm_g, sat=Sat.S18, n=n,
                 dst=self._mem("xg"))
        return r, er

    def _normed_acts(self, label: str, gain: As, site: str, post: int,
                     acts: dict[str, Act] | None = None) -> tuple[dict[str, Act], int | None]:
        """int8 norm output in both activation buffers (in `acts`, or in entries of its own), and the
        exponent if it is dynamic."""
        n, (r, er), exponent = self.g.dim, self._norm(label, gain), None
        cluster = self._cluster(label)
        scaled = {"a": self._mem("xg"), "func": Func.MUL, "b": r, "post": post, "er_use": ErUse.POST, "er": er, "n": n}
        if site in self.m.dynamic:
            h16, exponent = self._mem("h16"), self.er.take()
            _, largest = self._put(cluster, **scaled, sat=Sat.S16, dst=h16, red=Red.MAXABS, red_slot=BURST_SLOT)
            self._exponent(cluster, largest, exponent)
            cluster = self._cluster(label)
            scaled = {"a": h16, "er_use": ErUse.PRE, "er": exponent, "n": n}
        h8, _ = cluster.alu(**scaled, sat=Sat.S8)
        acts = acts or self._acts(n)
        self._load(cluster, h8, acts)
        self._free(r)
        self.er.give(er)
        return acts, exponent

    @staticmethod
    def _less(exponent: int | None) -> dict[str, Any]:
        """Fields of a product's requantisation whose post shift is less an exponent of its input, if that has one."""
        return {} if exponent is None else {"er_use": ErUse.POST, "er": exponent, "er_neg": 1}

    # -- matrix products --

    def _product(self, matrix: Matrix, side: str, act: Act, start: int, count: int, rel: int = 0) -> Acc:
        """MAC of output vectors start.. of a side; returns where the accumulators are."""
        acc = Acc(side, self.acc[side].take(count), count)
        per_vector = matrix.steps * matrix.acts
        weights = [t.mem(start * per_vector, count * per_vector, cells=()) for t in matrix.tensors[side]]
        weights = [replace(mem, rel=mem.rel or rel) for mem in weights]
        self._cluster(f"{matrix.name} product").mac(weights, act, acc, steps=matrix.steps, wfmt=matrix.wfmt)
        return acc

    def _requantise(self, cluster: Cluster, matrix: Matrix, acc: Acc, start: int, pre: int, post: int, sat: Sat,
                    **kwargs: Any) -> tuple[Stream, Stream]:
        return self._put(cluster, a=acc, b=matrix.scales(acc.side, start, acc.count), func=Func.MUL, pre=pre, post=post,
                         sat=sat, n=acc.count, **kwargs)

    def _add_to_residual(self, matrix: Matrix, accs: dict[str, Acc], pre: int, post: dict[str, Any]) -> None:
        for side, acc in accs.items():
            first = matrix.vectors[side][0]
            for start in range(0, acc.count, CHUNK):
                count = min(CHUNK, acc.count - start)
                x = self.x[first + start : first + start + count]
                product = {"a": Acc(side, acc.vector + start, count), "b": matrix.scales(side, start, count),
                           "func": Func.MUL, "pre": pre, **post}
                label = f"{matrix.name} residual"
                if isinstance(x, Reg):
                    self._op(label, **product, alu=Alu.ADD, c=x, n=count, dst=x)
                    continue
                part = self._regs(count)
                self._op(label, **product, n=count, dst=part)
                self._op(label, a=part, alu=Alu.ADD, c=x, n=count, dst=x)
                self._free(part)
