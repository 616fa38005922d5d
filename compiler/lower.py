"""From an integer model to clusters: the program of one token, in order of priority, without time.

Three segments: *begin* (position, embedding, masks), *layer* (once a layer, looped) and *finish* (final norm,
classifier, choice of the next token). Every operation is a line of `integer.py`; the comments there hold here.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hw import tables
from hw.config import LANES, ChipConfig
from hw.isa import Alu, ErUse, Fmt, Func, Op, Order, Red, Rep, Sat

from .errors import TspError
from .geometry import Geometry, Head
from .integer import MASKED, Q_SHIFT, ROPE_FRACTION, IntegerModel
from .ir import BURST_SLOT, Acc, Act, As, Cluster, Imm, Iota, Mem, Reg, Stream
from .layout import SIDES
from .place import Matrix, Placement, qkv_words
from .schedule import Segment

FRAC = {func: table.frac_bits for func, table in tables.TABLES.items()}
SWAP_MAP = 0
"""Permutation map that exchanges neighbouring lanes (RoPE pairs)."""
PERMUTATIONS = {SWAP_MAP: [lane ^ 1 for lane in range(LANES)]}
CHUNK = 4
"""Vectors drained from an accumulator file in one burst."""
INDEX_K, INDEX_V, INDEX_EMBEDDING = 1, 2, 3
"""Index registers of the weight slices."""
INDEX_SCALE, INDEX_EMB_SCALE, INDEX_HIGH = 4, 5, 6
"""Index registers of E0."""
INDEX_LOW, INDEX_TOKENS = 4, 5
"""Index registers of W0."""
MASK_SHIFT = 23


class Pool:
    """Registers (or exponents, buffer entries) given out first-freed-first, so that reuse seldom waits."""

    def __init__(self, size: int, what: str) -> None:
        self._free = deque(range(size))
        self._what = what

    def take(self, count: int = 1) -> int:
        """First of `count` neighbouring entries."""
        free = set(self._free)
        for base in self._free:
            if all(base + i in free for i in range(count)):
                for i in range(count):
                    self._free.remove(base + i)
                return base
        raise TspError(f"compiler: {count} {self._what} needed at once, {len(free)} free: the heads are too wide")

    def give(self, base: int, count: int = 1) -> None:
        """Return entries."""
        self._free.extend(range(base, base + count))


class Ring:
    """Neighbouring entries of a buffer, in turn."""

    def __init__(self, size: int) -> None:
        self._size, self._next = size, 0

    def take(self, count: int) -> int:
        """First of `count` neighbouring entries."""
        if count > self._size:
            raise TspError(f"compiler: {count} buffer entries needed, the chip has {self._size}: use a larger config")
        if self._next + count > self._size:
            self._next = 0
        base, self._next = self._next, self._next + count
        return base


class Lower:
    """Builds the segments of one token for `chunks` vectors of positions (a context bucket)."""

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
        self.acc = {side: Ring(self.config.acc_depth - reserved) for side in SIDES}
        self.act = {side: Ring(self.config.act_depth - len(self.g.q_words())) for side in SIDES}
        self.cos, self.sin = self._regs(self.g.words), self._regs(self.g.words)
        self.parts = [self._regs(1) for _ in range(self.g.per_word)] if self.g.per_word > 1 else []
        self._words: dict[tuple[int, int], dict[str, Act]] = {}
        self._first_part: dict[str, Reg] = {}
        self._swapped = Reg(0)
        self.x: Reg | Mem = self._regs(self.g.dim) if self.g.dim <= 6 else placement.tensors["x"].mem()

    def run(self) -> list[Segment]:
        """The token's segments."""
        self._open("begin")
        self._begin()
        self._open("layer", self.m.layers, self.p.layout.strides)
        self._attention()
        self._feed_forward()
        self._open("finish")
        self._finish()
        return self.segments

    def _open(self, name: str, passes: int = 1, strides: Mapping[str, int] | None = None) -> None:
        """Begin a segment; `strides` are the quads that relative addresses advance a pass, by slice."""
        self.segment = Segment(name, passes=passes, strides=strides or {})
        self.segments.append(self.segment)

    # -- small words --

    def _regs(self, count: int) -> Reg:
        return Reg(self.rf.take(count), count)

    def _free(self, *regs: Reg) -> None:
        for reg in regs:
            self.rf.give(reg.base, reg.count)

    def _cluster(self, label: str) -> Cluster:
        cluster = Cluster(label)
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

    def _lanes(self, cluster: Cluster, stream: Stream, red: Red, segment: int = 4) -> Stream:
        return cluster.sxm(stream, Op.REDUCE, red=red, segment=segment)

    def _exponent(self, cluster: Cluster, largest: Stream, er: int) -> None:
        """Exponent that brings the greatest of all lanes to 7 bits."""
        self._put(cluster, a=self._lanes(cluster, largest, Red.MAX), func=Func.BITLEN, alu=Alu.ADD, c=Imm(-7),
                  er_dst=er)

    def _load_both(self, cluster: Cluster, stream: Stream, count: int) -> dict[str, Act]:
        acts = {side: Act(side, self.act[side].take(count), count) for side in SIDES}
        for act in acts.values():
            cluster.load(stream, act)
        return acts

    # -- begin: position and token -> index registers, masks, rotations, embedding --

    def _begin(self) -> None:
        position, token = self._regs(1), self._regs(1)
        self._op("token", a=self._mem("token"), dst=token)
        self._op("position", a=self._mem("position"), dst=position)
        self._embedding(token)
        self._free(token)
        self._position_indices(position)
        self._rotation(position)
        self._masks(position)
        for part, reg in enumerate(self.parts):
            self._op("constants", a=self._constant(f"part{part}"), dst=reg)
        if self.parts:
            self._clear_parts()
        self._free(position)

    def _one_hot(self, label: str, value: Any, mask: int, dst: Reg) -> None:
        """dst = 1 << (value & mask)."""
        er = self.er.take()
        self._op(label, a=value, alu=Alu.AND, c=Imm(mask), er_dst=er)
        self._op(label, a=Imm(1), er_use=ErUse.PRE, er=er, er_neg=1, dst=dst)
        self.er.give(er)

    def _index(self, label: str, value: Any, shift: int, scale: str, rest: Any, slices: Iterable[str],
               register: int) -> None:
        """Index register = (value >> shift) * scale in lane 0, with the lane and plane masks of `rest`."""
        cluster = self._cluster(label)
        stream, _ = cluster.alu(a=value, pre=shift, round=0, func=Func.MUL, b=self._constant(scale), alu=Alu.OR, c=rest)
        cluster.index(stream, slices, register)

    def _weight_slices(self, kind: dict) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for (_, group), tensor in kind.items():
            found.setdefault(group, set()).add(tensor.slice)
        return found

    def _position_indices(self, position: Reg) -> None:
        rows, t1, t2 = self.config.rows, self._regs(1), self._regs(1)
        label = "index vectors"
        self._one_hot(label, position, rows - 1, t1)
        for group, slices in self._weight_slices(self.p.k).items():
            self._op(label, a=t1, pre=4 * (group - 1), round=0, alu=Alu.AND, c=self._constant("planes"), dst=t2)
            self._op(label, a=t2, alu=Alu.OR, c=self._constant("lanes"), dst=t2)
            self._index(label, position, rows.bit_length() - 1, "words", t2, sorted(slices), INDEX_K)
        self._one_hot(label, position, LANES - 1, t1)
        self._op(label, a=t1, alu=Alu.AND, c=self._constant("lanes"), dst=t2)
        self._op(label, a=t2, alu=Alu.OR, c=self._constant("planes"), dst=t2)
        self._index(label, position, 4, "one", t2, ["E0"], INDEX_SCALE)
        slices = sorted(set().union(*self._weight_slices(self.p.v).values()))
        self._index(label, position, 4, "steps", t2, slices, INDEX_V)
        self._free(t1, t2)

    def _next_token_index(self, following: Reg) -> None:
        """W0's index register for the table of tokens, at the next position."""
        label, hot = "next position", self._regs(1)
        self._one_hot(label, following, LANES - 1, hot)
        self._op(label, a=hot, alu=Alu.AND, c=self._constant("lanes"), dst=hot)
        self._op(label, a=hot, alu=Alu.OR, c=self._constant("planes"), dst=hot)
        self._index(label, following, 4, "one", hot, ["W0"], INDEX_TOKENS)
        self._free(hot)

    def _rotation(self, position: Reg) -> None:
        """cos and sin of the position, as the product of two rotations; sin is negated in even lanes."""
        label, words = "rotation", self.g.words
        low_index, t = self._regs(1), self._regs(words)
        self._op(label, a=position, alu=Alu.AND, c=Imm(15), dst=low_index)
        self._index(label, low_index, 0, "words", self._constant("planes"), ["W0"], INDEX_LOW)
        self._index(label, position, 4, "words", self._constant("planes"), ["E0"], INDEX_HIGH)
        low = self.p.tensors["rope_low"].mem(0, words, index=INDEX_LOW, cells=())
        high = self.p.tensors["rope_high"].mem(0, words, index=INDEX_HIGH, cells=())
        cl, sl, ch, sh = As(low, Fmt.LO16), As(low, Fmt.HI16), As(high, Fmt.LO16), As(high, Fmt.HI16)
        product = {"func": Func.MUL, "post": ROPE_FRACTION, "n": words}
        self._op(label, a=sl, b=sh, **product, dst=t)
        self._op(label, a=cl, b=ch, **product, alu=Alu.SUB, c=t, dst=self.cos)
        self._op(label, a=cl, b=sh, **product, dst=t)
        self._op(label, a=sl, b=ch, **product, alu=Alu.ADD, c=t, dst=t)
        self._op(label, a=t, func=Func.MUL, b=self._constant("sign"), n=words, dst=self.sin)
        self._free(low_index, t)

    def _masks(self, position: Reg) -> None:
        label, n, start = "mask", self.chunks - self.valid, self._regs(1)
        mask = self._mem("mask", 0, n)
        self._op(label, a=position, alu=Alu.SUB, c=Imm(self.valid * LANES), dst=start)
        self._op(label, a=Iota(), alu=Alu.GT, c=start, n=n, dst=mask)
        self._op(label, a=mask, pre=-MASK_SHIFT, n=n, dst=mask)
        self._free(start)

    def _clear_parts(self) -> None:
        """Zero the accumulator vectors of which each head of a shared word writes only its own lanes."""
        cluster = self._cluster("clear")
        zero, _ = cluster.alu(a=Imm(0))
        acts = self._load_both(cluster, zero, 1)
        weights = self.p.matrices["wo"]
        for side in SIDES:
            for vector in self.parts_acc[side]:
                mac = self._cluster("clear")
                mac.mac([t.mem(0, self.g.steps, cells=()) for t in weights.tensors[side]], acts[side],
                        Acc(side, vector), steps=self.g.steps)

    def _embedding(self, token: Reg) -> None:
        """x = embedding row of the token: every side and plane that may hold the row is gathered, one is not masked."""
        label, table, kt, rows = "embedding", self.p.matrices["embedding"], self.g.dim, self.config.rows
        low, hot, side_e, offset, planes = (self._regs(1) for _ in range(5))
        self._one_hot(label, token, rows - 1, hot)
        self._op(label, a=token, pre=4, round=0, alu=Alu.AND, c=Imm(1), dst=side_e)
        self._op(label, a=token, alu=Alu.AND, c=Imm(LANES - 1), dst=low)
        self._op(label, a=side_e, alu=Alu.EQ, c=Imm(1), dst=side_e)
        self._op(label, a=token, pre=5, round=0, func=Func.MUL, b=self._constant("emb_vector"), dst=offset)
        self._op(label, a=low, pre=rows.bit_length() - 1, round=0, func=Func.MUL, b=self._constant("emb_step"),
                 alu=Alu.ADD, c=offset, dst=offset)
        for group in range(1, self.config.weight_groups + 1):
            self._op(label, a=hot, pre=4 * (group - 1), round=0, alu=Alu.AND, c=self._constant("planes"), dst=planes)
            for side, keep in zip(SIDES, (Alu.ANDN, Alu.AND), strict=True):
                mine = self._regs(1)
                self._op(label, a=planes, alu=keep, c=side_e, dst=mine)
                cluster = self._cluster(label)
                stream, _ = cluster.alu(a=mine, alu=Alu.OR, c=offset)
                cluster.index(stream, [table.tensors[side][group - 1].slice], INDEX_EMBEDDING)
                self._free(mine)
        scale = self._embedding_scale(token, low)
        self._unpack_embedding(table, kt, scale)
        self._free(low, hot, side_e, offset, planes, scale)

    def _embedding_scale(self, token: Reg, low: Reg) -> Reg:
        """The row's scale in every lane."""
        label, mine, scale = "embedding", self._regs(1), self._regs(1)
        self._index(label, token, 4, "one", self._constant("planes"), ["E0"], INDEX_EMB_SCALE)
        self._op(label, a=Iota(), alu=Alu.EQ, c=low, dst=mine)
        cluster = self._cluster(label)
        table = self.p.tensors["emb_scale"].mem(0, 1, index=INDEX_EMB_SCALE, cells=())
        picked, _ = cluster.alu(a=table, alu=Alu.AND, c=mine)
        self._put(cluster, a=self._lanes(cluster, picked, Red.SUM), dst=scale)
        self._free(mine)
        return scale

    def _unpack_embedding(self, table: Matrix, kt: int, scale: Reg) -> None:
        label, work = "embedding", self._mem("xg") if kt > 6 else self._regs(kt)
        for group in range(self.config.weight_groups):
            west, east = (table.tensors[side][group].mem(0, kt, index=INDEX_EMBEDDING, cells=()) for side in SIDES)
            if group:
                self._op(label, a=work, alu=Alu.OR, c=west, n=kt, dst=work)
                self._op(label, a=work, alu=Alu.OR, c=east, n=kt, dst=work)
            else:
                self._op(label, a=west, alu=Alu.OR, c=east, n=kt, dst=work)
        self._op(label, a=As(work, Fmt.HI16), alu=Alu.OR, c=As(work, Fmt.LO16), n=kt, dst=work)
        part = self._mem("h16") if kt > 6 else self._regs(kt)
        post = {"func": Func.MUL, "b": scale, "post": self.s.emb, "n": kt}
        self._op(label, a=As(work, Fmt.B0), **post, dst=part)
        self._op(label, a=As(work, Fmt.B1), **post, alu=Alu.ADD, c=part, dst=self.x)
        for reg in (work, part):
            if isinstance(reg, Reg):
                self._free(reg)

    # -- norms --

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

    def _normed_acts(self, label: str, gain: As) -> dict[str, Act]:
        """int8 norm output in both activation buffers."""
        r, er = self._norm(label, gain)
        cluster = self._cluster(label)
        h, _ = cluster.alu(a=self._mem("xg"), func=Func.MUL, b=r, post=self.s.norm_h, er_use=ErUse.POST, er=er,
                           sat=Sat.S8, n=self.g.dim)
        acts = self._load_both(cluster, h, self.g.dim)
        self._free(r)
        self.er.give(er)
        return acts

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

    # -- attention --

    def _attention(self) -> None:
        acts = self._normed_acts("attention norm", self._gain("g_layer", 0))
        queries = self._qkv(acts)
        outputs = {side: self._heads(side, queries) for side in SIDES}
        order = [step for pair in _interleave(outputs["W"], outputs["E"]) for step in pair]
        for step in order:
            step()
        for reg in queries.values():
            self._free(reg)
        self._output_projection()

    def _qkv(self, acts: dict[str, Act]) -> dict[tuple[int, int], Reg]:
        """Projections, RoPE, cache writes; returns the registers of the query words of every (unit, rep)."""
        matrix, words = self.p.matrices["qkv"], qkv_words(self.g)
        by_side = {side: [word for s, word in words if s == side] for side in SIDES}
        heads: dict[tuple, dict[int, tuple[str, int]]] = {}
        order: list[tuple] = []
        for side, word in words:
            kind, unit, rep, w = word
            key = (kind, unit, rep)
            if key not in heads:
                heads[key] = {}
                order.append(key)
            heads[key][w] = (side, by_side[side].index(word))
        accs: dict[tuple[str, int], Acc] = {}
        queries: dict[tuple[int, int], Reg] = {}
        for key in order:
            for side, start in heads[key].values():
                accs[side, start] = self._product(matrix, side, acts[side], start, 1)
        for key in order:
            kind, unit, rep = key
            places = [heads[key][w] for w in range(self.g.words)]
            if kind == "v":
                self._value(matrix, unit, [(accs[place], place[1]) for place in places])
                continue
            reg = self._rotated(matrix, kind, [(accs[place], place[1]) for place in places])
            if kind == "q":
                queries[unit, rep] = reg
            else:
                self._key(unit, reg)
        return queries

    def _rotated(self, matrix: Matrix, kind: str, places: list[tuple[Acc, int]]) -> Reg:
        """Requantised and rotated words of a head (before the last sum for keys, see `_key`)."""
        label, s, words = f"{kind} rotate", self.s, self.g.words
        y, swapped = self._regs(words), self._regs(words)
        for w, (acc, start) in enumerate(places):
            cluster = self._cluster(label)
            stream, _ = self._requantise(cluster, matrix, acc, start, s.qkv_pre, s.qk, Sat.S16, dst=_one(y, w))
            other = cluster.sxm(stream, Op.PERMUTE, map=SWAP_MAP)
            self._put(cluster, a=other, func=Func.MUL, b=_one(self.sin, w), post=ROPE_FRACTION, dst=_one(swapped, w))
        if kind == "q":
            self._op(label, **self._rotation_sum(y, swapped), dst=y)
            self._free(swapped)
            return y
        self._swapped = swapped
        return y

    def _rotation_sum(self, y: Reg, swapped: Reg) -> dict[str, Any]:
        return {"a": y, "func": Func.MUL, "b": self.cos, "post": ROPE_FRACTION, "alu": Alu.ADD, "c": swapped,
                "sat": Sat.S16, "n": self.g.words}

    def _key(self, unit: int, y: Reg) -> None:
        """Scale of a token and head, int8 keys into the cache, the scale into its table."""
        label, g, swapped, r, er = "key", self.g, self._swapped, self._regs(1), self.er.take()
        temp = self._mem("mtemp", unit % 2, 1)
        cluster = self._cluster(label)
        _, largest = cluster.alu(**self._rotation_sum(y, swapped), dst=y, red=Red.MAXABS, red_slot=BURST_SLOT)
        spread = self._lanes(cluster, largest, Red.MAX, min(self.m.head_size, LANES).bit_length() - 1)
        cluster.write(spread, temp)
        self._put(cluster, a=spread, func=Func.RECIP, post=FRAC[Func.RECIP], alu=Alu.ADD, dst=r, er_dst=er)
        cluster = self._cluster(label)
        k8, _ = cluster.alu(a=y, func=Func.MUL, b=r, post=8, er_use=ErUse.POST, er=er, sat=Sat.S8, rep=Rep.REP8,
                            n=g.words)
        for group in range(1, self.config.weight_groups + 1):
            tensor = self.p.k[unit, group]
            cells = (("K", unit, group),)
            cluster.write(k8, tensor.mem(0, g.words, index=INDEX_K, cells=cells))
        for part in range(g.per_word):
            kv = unit * g.per_word + part
            if kv < self.m.kv_heads:
                cluster = self._cluster(label)
                both, _ = cluster.alu(a=temp, rep=Rep.REP16)
                lanes = cluster.sxm(both, Op.SHIFT, lane=part * self.m.head_size % LANES, distribute=1)
                cluster.write(lanes, self._scales_of(kv, 0, 1, index=INDEX_SCALE).loc)
        self._free(y, swapped, r)
        self.er.give(er)

    def _scales_of(self, kv: int, start: int, count: int, index: int = 0) -> As:
        tensor, half = self.p.tensors["kscale"], kv % 2
        mem = tensor.mem(kv // 2 * self.g.chunks + start, count, planes=3 << 2 * half, index=index,
                         cells=(("kscale", kv),))
        return As(mem, (Fmt.LO16, Fmt.HI16)[half])

    def _value(self, matrix: Matrix, unit: int, places: list[tuple[Acc, int]]) -> None:
        """int8 values of a unit into SRAM, each byte on all planes."""
        for w, (acc, start) in enumerate(places):
            self._requantise(self._cluster("value"), matrix, acc, start, self.s.qkv_pre, self.s.v, Sat.S8,
                             rep=Rep.REP8, dst=self._value_temp(unit, w))

    def _value_temp(self, unit: int, word: int) -> Mem:
        return self._mem("vtemp", unit * self.g.words + word, 1)

    def _spread_values(self, unit: int) -> None:
        """Lane by lane into the transposed cache; a burst fills one plane of one weight group."""
        g, rows = self.g, self.config.rows
        span = min(self.m.head_size, LANES)
        for w in range(g.words):
            for part in range(g.per_word):
                kv = unit * g.per_word + part
                if kv >= self.m.kv_heads:
                    continue
                for row in range(rows):
                    cluster = self._cluster("value")
                    copies = cluster.read(self._value_temp(unit, w), "SXM_E", span // rows)
                    lanes = cluster.sxm(copies, Op.SHIFT, lane=part * span + row, lane_inc=rows % LANES, distribute=1)
                    group, plane = row // 4 + 1, row % 4
                    tensor = self.p.v[kv, group]
                    cluster.write(lanes, Mem(tensor.slice, tensor.addr + w * LANES // rows, span // rows, 1, 1 << plane,
                                             1, INDEX_V, (("V", kv, w, row),)))

    def _value_cells(self, kv: int, group: int) -> tuple:
        return tuple(("V", kv, w, row) for w in range(self.g.words) for row in range(4 * (group - 1), 4 * group))

    def _heads(self, side: str, queries: dict[tuple[int, int], Reg]) -> list:
        """Steps that emit the attention of one side's heads, software-pipelined: scores of the next head before the
        softmax and the value product of this one."""
        heads = self.g.heads(side)
        state: dict[int, dict] = {}

        def scores(i: int) -> None:
            state[i] = self._scores(heads[i], queries[heads[i].unit, heads[i].rep], i)

        def rest(i: int) -> None:
            self._softmax(heads[i], state.pop(i))

        def spread() -> None:
            for unit in sorted({head.unit for head in heads}):
                self._spread_values(unit)

        steps = [lambda: scores(0), spread] if heads else []
        for i in range(len(heads)):
            if i + 1 < len(heads):
                steps.append(lambda i=i: scores(i + 1))
            steps.append(lambda i=i: rest(i))
        return steps

    def _scores(self, head: Head, query: Reg, number: int) -> dict:
        """q.k of all positions of the bucket, scaled and masked, in SRAM; their maximum in a register."""
        label, g, s, side = "score", self.g, self.s, head.side
        act = Act(side, self.act[side].take(g.words), g.words)
        cluster = self._cluster(label)
        part = {"alu": Alu.AND, "c": self.parts[head.part]} if self.parts else {}
        q8, _ = cluster.alu(a=query, pre=Q_SHIFT, sat=Sat.S8, n=g.words, **part)
        cluster.load(q8, act)
        scores, largest = self._mem(f"t_{side}{number % 2}"), self._regs(1)
        slot = SIDES.index(side)
        for start, count in self._score_bursts():
            acc = Acc(side, self.acc[side].take(count), count)
            per_chunk = g.steps * g.words
            keys = [self.p.k[head.unit, group].mem(start * per_chunk, count * per_chunk,
                                                   cells=(("K", head.unit, group),))
                    for group in range(1, self.config.weight_groups + 1)]
            self._cluster(label).mac(keys, act, acc, steps=g.steps)
            masked = start >= self.valid
            mask = {"alu": Alu.ADD, "c": self._mem("mask", start - self.valid, count)} if masked else {}
            cluster = self._cluster(label)
            _, top = self._put(
                cluster, a=acc, b=self._scales_of(head.kv, start, count), func=Func.MUL, pre=s.score_pre, post=s.score,
                sat=Sat.S24, n=count, dst=scores[start : start + count], red=Red.MAX, red_slot=slot,
                red_keep=int(start > 0), **mask)
        self._put(cluster, a=self._lanes(cluster, top, Red.MAX), dst=largest)
        return {"scores": scores, "largest": largest}

    def _score_bursts(self) -> list[tuple[int, int]]:
        """(first chunk, chunks) of the bursts that scores are computed in: at most CHUNK, masked or not."""
        edges = sorted({*range(0, self.valid, CHUNK), self.valid, *range(self.valid, self.chunks, CHUNK), self.chunks})
        return [(start, end - start) for start, end in itertools.pairwise(edges)]

    def _softmax(self, head: Head, state: dict) -> None:
        """Numerators into the activation buffer, value product, division by their sum, output word."""
        label, g, side, n = "softmax", self.g, head.side, self.chunks
        act = Act(side, self.act[side].take(n), n)
        r, er = self._regs(1), self.er.take()
        cluster = self._cluster(label)
        p, total = cluster.alu(a=state["scores"][0:n], func=Func.EXP2, c=state["largest"], post=7, sat=Sat.S8, n=n,
                               red=Red.SUM, red_slot=BURST_SLOT)
        cluster.load(p, act)
        self._put(cluster, a=self._lanes(cluster, total, Red.SUM), func=Func.RECIP, post=FRAC[Func.RECIP], alu=Alu.ADD,
                  dst=r, er_dst=er)
        values = [self.p.v[head.kv, group].mem(0, n * g.head_steps, cells=self._value_cells(head.kv, group))
                  for group in range(1, self.config.weight_groups + 1)]
        vector = self.parts_acc[side][head.part] if self.parts else self.acc[side].take(g.words)
        acc = Acc(side, vector, g.words)
        self._cluster("value product").mac(values, act, acc, steps=g.steps, first_step=head.part * g.head_steps,
                                           accs=g.head_steps, order=Order.TILE)
        self._head_output(head, acc, r, er)
        self._free(state["largest"], r)
        self.er.give(er)

    def _head_output(self, head: Head, acc: Acc, r: Reg, er: int) -> None:
        """The head's int8 output; the last head of a word loads the word and adds its part of the projection."""
        label, g, s = "attention output", self.g, self.s
        op = {"a": acc, "pre": s.av_pre, "func": Func.MUL, "b": r, "post": s.av, "er_use": ErUse.POST, "er": er,
              "sat": Sat.S8, "n": g.words}
        last = head.part == g.per_word - 1 or head.kv == self.m.kv_heads - 1
        if not last:
            self._first_part[head.side] = self._regs(1)
            self._op(label, **op, dst=self._first_part[head.side])
            return
        if head.part:
            first = self._first_part.pop(head.side)
            op |= {"alu": Alu.ADD, "c": first}
            self._free(first)
        cluster = self._cluster(label)
        stream, _ = cluster.alu(**op)
        base = self.config.act_depth - len(g.q_words()) + g.q_words().index((head.unit, head.rep, 0))
        acts = {side: Act(side, base, g.words) for side in SIDES}
        for act in acts.values():
            cluster.load(stream, act)
        self._words[head.unit, head.rep] = acts

    def _output_projection(self) -> None:
        """Wo word by word as the words come, so that only the last head's word is waited for."""
        matrix, g = self.p.matrices["wo"], self.g
        accs = {side: Acc(side, self.acc[side].take(len(matrix.vectors[side])), len(matrix.vectors[side]))
                for side in SIDES if matrix.vectors[side]}
        order = {word: i for i, word in enumerate(g.q_words())}
        for n, ((unit, rep), acts) in enumerate(self._words.items()):
            for w in range(g.words):
                for side, acc in accs.items():
                    quads = acc.count * matrix.steps
                    weights = [t.mem(order[unit, rep, w] * quads, quads, cells=()) for t in matrix.tensors[side]]
                    act = Act(side, acts[side].base + w, 1)
                    self._cluster("wo product").mac(weights, act, acc, steps=matrix.steps, wfmt=matrix.wfmt,
                                                    clear=int(n == 0 and w == 0))
        self._words = {}
        self._add_to_residual(matrix, accs, self.s.wo_pre, {"post": self.s.wo})

    def _add_to_residual(self, matrix: Matrix, accs: dict[str, Acc], pre: int, post: dict[str, Any]) -> None:
        for side, acc in accs.items():
            first = matrix.vectors[side][0]
            for start in range(0, acc.count, CHUNK):
                count = min(CHUNK, acc.count - start)
                x = self.x[first + start : first + start + count]
                self._op(f"{matrix.name} residual", a=Acc(side, acc.vector + start, count),
                         b=matrix.scales(side, start, count), func=Func.MUL, pre=pre, **post, alu=Alu.ADD, c=x, n=count,
                         dst=x)

    # -- feed-forward --

    def _feed_forward(self) -> None:
        s, g = self.s, self.g
        acts = self._normed_acts("ffn norm", self._gain("g_layer", 1))
        matrix, f = self.p.matrices["w13"], self._mem("f")
        accs = []
        for start in range(0, g.hidden, CHUNK):
            count = min(CHUNK, g.hidden - start)
            accs.append((start, [self._product(matrix, side, acts[side], start, count) for side in SIDES]))
            if len(accs) > 1:
                self._gate(matrix, *accs[-2], f, first=len(accs) == 2, last=False)
        er = self._gate(matrix, *accs[-1], f, first=len(accs) == 1, last=True)
        cluster = self._cluster("ffn quantise")
        f8, _ = cluster.alu(a=f, er_use=ErUse.PRE, er=er, sat=Sat.S8, n=g.hidden)
        acts = self._load_both(cluster, f8, g.hidden)
        down = self.p.matrices["w2"]
        products = {}
        for side in SIDES:
            if down.vectors[side]:
                products[side] = self._products(down, side, acts[side])
        self._add_to_residual(down, products, s.w2_pre, {"post": s.w2, "er_use": ErUse.POST, "er": er, "er_neg": 1})
        self.er.give(er)

    def _products(self, matrix: Matrix, side: str, act: Act) -> Acc:
        """All output vectors of a side in one MAC."""
        return self._product(matrix, side, act, 0, len(matrix.vectors[side]))

    def _gate(self, matrix: Matrix, start: int, accs: list[Acc], f: Mem, *, first: bool, last: bool) -> int:
        """silu(gate) * up of some vectors into f; after the last, the exponent of the greatest (else -1)."""
        label, s, n = "gate", self.s, accs[0].count
        a, b, sg = self._regs(n), self._regs(n), self._regs(n)
        cluster = self._cluster(label)
        self._requantise(cluster, matrix, accs[0], start, s.ffn_pre, s.gate, Sat.S18, dst=a)
        cluster = self._cluster(label)
        self._requantise(cluster, matrix, accs[1], start, s.ffn_pre, s.up, Sat.S16, dst=b)
        self._op(label, a=a, func=Func.SIGMOID, post=FRAC[Func.SIGMOID], alu=Alu.ADD, n=n, dst=sg)
        self._op(label, a=a, func=Func.MUL, b=sg, post=15, sat=Sat.S18, n=n, dst=a)
        cluster = self._cluster(label)
        _, largest = self._put(cluster, a=a, func=Func.MUL, b=b, post=s.f, n=n, dst=f[start : start + n],
                               red=Red.MAXABS, red_slot=3, red_keep=int(not first))
        self._free(a, b, sg)
        if not last:
            return -1
        er = self.er.take()
        self._exponent(cluster, largest, er)
        return er

    # -- finish --

    def _finish(self) -> None:
        s, g = self.s, self.g
        halves = self.p.halves["g_final"]
        r, er_norm = self._norm("final norm", halves(0, g.dim))
        h16, er = self._mem("h16"), self.er.take()
        cluster = self._cluster("final norm")
        _, largest = self._put(cluster, a=self._mem("xg"), func=Func.MUL, b=r, post=s.norm_f, er_use=ErUse.POST,
                               er=er_norm, sat=Sat.S16, n=g.dim, dst=h16, red=Red.MAXABS, red_slot=BURST_SLOT)
        self._exponent(cluster, largest, er)
        cluster = self._cluster("final norm")
        h8, _ = cluster.alu(a=h16, er_use=ErUse.PRE, er=er, sat=Sat.S8, n=g.dim)
        acts = self._load_both(cluster, h8, g.dim)
        best = self._logits(acts, er)
        self._choose(best)
        self._free(r, best)
        self.er.give(er)
        self.er.give(er_norm)

    def _logits(self, acts: dict[str, Act], er: int) -> Reg:
        """Logits and sampling scores of all tokens in SRAM; the greatest score in every lane of a register.

        A large vocabulary takes a loop of its own; what its passes leave over is straight code.
        """
        loop = self.p.vocabulary
        temperature, best = self._regs(1), self._regs(1)
        self._op("sample", a=self._mem("temperature"), dst=temperature)
        lowest = {"a": Imm(-1), "pre": 1 - 32, "red": Red.MAX, "red_slot": 0}
        self._cluster("sample").alu(**lowest)
        if loop.passes:
            self._open("classifier", loop.passes, loop.strides)
            self._vocabulary(acts, er, temperature, range(loop.body), rel=1)
            self._open("choose")
        rest = range(loop.passes * loop.body, len(self.p.matrices["classifier"].vectors["W"]))
        self._vocabulary(acts, er, temperature, rest, rel=0)
        cluster = self._cluster("sample")
        _, top = cluster.alu(**lowest, red_keep=1)
        self._put(cluster, a=self._lanes(cluster, top, Red.MAX), dst=best)
        self._free(temperature)
        return best

    def _vocabulary(self, acts: dict[str, Act], er: int, temperature: Reg, part: range, rel: int) -> None:
        """Vectors `part` of each side: product, logits, noise, scores; two products of a side run ahead."""
        matrix = self.p.matrices["classifier"]
        todo = [(side, start, min(CHUNK, part.stop - start, len(matrix.vectors[side]) - start))
                for start in part[::CHUNK] for side in SIDES]
        todo = [item for item in todo if item[2] > 0]
        if todo and not rel:
            self._noise(2 * part.start, self.g.vocab - 2 * part.start, rel)
        accs = [self._product(matrix, side, acts[side], start, count, rel) for side, start, count in todo[:4]]
        for n, (side, start, _) in enumerate(todo):
            if n >= 2 and n + 2 < len(todo):
                ahead, *where = todo[n + 2]
                accs.append(self._product(matrix, ahead, acts[ahead], *where, rel))
            if rel and side == SIDES[0]:
                self._noise(2 * start, 2 * accs[n].count, rel)
            self._token_scores(matrix, accs[n], start, er, temperature, rel)

    def _tokens_of(self, name: str, first: int, count: int, rel: int) -> Mem:
        """Every other vector of a tensor over the vocabulary, from `first` on: one side's share."""
        return replace(self._mem(name)[first : first + 2 * count - 1 : 2], rel=rel)

    def _token_scores(self, matrix: Matrix, acc: Acc, start: int, er: int, temperature: Reg, rel: int) -> None:
        g, s, count, first = self.g, self.s, acc.count, 2 * start + SIDES.index(acc.side)
        logits, gumbel, z = (self._tokens_of(name, first, count, rel) for name in ("logits", "gumbel", "z"))
        self._put(self._cluster("logits"), a=acc, b=matrix.scales(acc.side, start, count, rel), func=Func.MUL,
                  pre=s.cls_pre, post=s.cls, er_use=ErUse.POST, er=er, er_neg=1, sat=Sat.S24, n=count, dst=logits)
        if self.m.vocab % LANES and not rel and first + 2 * count - 1 >= g.vocab:
            tail = self._mem("logits", g.vocab - 1, 1)
            self._op("logits", a=tail, alu=Alu.ADD, c=self._constant("padding"), dst=tail)
        self._op("sample", a=gumbel, pre=5, func=Func.MUL, b=temperature, post=15, alu=Alu.RSUB, c=logits, n=count,
                 dst=z, red=Red.MAX, red_slot=0, red_keep=1)

    def _noise(self, first: int, count: int, rel: int) -> None:
        """xorshift32 of the tokens' states, then -log2 of an exponential variate into "gumbel"; vectors from `first`."""
        label, n = "noise", count
        state, work = (replace(self._mem(name, first, count), rel=rel) for name in ("noise", "gumbel"))
        self._op(label, a=state, pre=-13, alu=Alu.XOR, c=state, n=n, dst=state)
        self._op(label, a=state, pre=17, logical=1, alu=Alu.XOR, c=state, n=n, dst=state)
        self._op(label, a=state, pre=-5, alu=Alu.XOR, c=state, n=n, dst=state)
        log2 = {"func": Func.LOG2, "post": FRAC[Func.LOG2], "alu": Alu.ADD, "n": n}
        self._op(label, a=state, pre=8, logical=1, **log2, dst=work)
        self._op(label, a=work, alu=Alu.RSUB, c=self._constant("gumbel_one"), n=n, dst=work)
        self._op(label, a=work, **log2, dst=work)

    def _choose(self, best: Reg) -> None:
        """First index of the greatest score, unless the table of tokens holds the next one; the position advances."""
        label, n = "choose", self.g.vocab
        position, low, mine, known, keep, chosen = (self._regs(1) for _ in range(6))
        self._op(label, a=self._mem("position"), alu=Alu.ADD, c=Imm(1), dst=position)
        self._next_token_index(position)
        self._op(label, a=position, alu=Alu.AND, c=Imm(LANES - 1), dst=low)
        self._op(label, a=Iota(), alu=Alu.EQ, c=low, dst=mine)
        cluster = self._cluster(label)
        tokens = self.p.tensors["tokens"].mem(0, 1, index=INDEX_TOKENS, cells=("tokens",))
        picked, _ = cluster.alu(a=tokens, alu=Alu.AND, c=mine)
        self._put(cluster, a=self._lanes(cluster, picked, Red.SUM), dst=known)
        self._op(label, a=known, alu=Alu.LT, c=Imm(0), dst=keep)
        self._op(label, a=known, alu=Alu.ANDN, c=keep, dst=known)
        z = self._mem("z")
        cluster = self._cluster(label)
        _, first = cluster.alu(a=z, alu=Alu.INDEX, b=Iota(), c=best, n=n, red=Red.MIN, red_slot=BURST_SLOT)
        self._put(cluster, a=self._lanes(cluster, first, Red.MIN), alu=Alu.AND, c=keep, dst=chosen)
        cluster = self._cluster(label)
        token, _ = self._put(cluster, a=chosen, alu=Alu.OR, c=known, dst=self._mem("token"))
        cluster.write(token, tokens)
        self._op(label, a=position, dst=self._mem("position"))
        self._free(position, low, mine, known, keep, chosen)


def _one(reg: Reg, number: int) -> Reg:
    return Reg(reg.base + number, 1)


def _interleave(west: list, east: list) -> list[list]:
    """Pairs of steps of both sides, in turn."""
    longest = max(len(west), len(east))
    return [[side[i] for side in (west, east) if i < len(side)] for i in range(longest)]


__all__ = ["PERMUTATIONS", "Lower", "MASKED", "np"]
