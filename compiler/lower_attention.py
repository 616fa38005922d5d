"""Lowering of attention: projections, rotation, cache, scores, softmax, values, output projection."""

import itertools
from typing import Any

from arch.isa import Alu, ErUse, Fmt, Func, Op, Order, Red, Rep, Sat
from arch.lanes import SIDES
from compiler.place.geometry import CHUNK, Head
from compiler.place.placement import Matrix, qkv_words
from program.integer import Q_SHIFT, ROPE_FRACTION

from .ir import BURST_SLOT, Acc, Act, As, Cluster, Mem, Reg, Stream
from .lower_base import FRAC, INDEX_K, INDEX_SCALE, INDEX_V, SWAP_MAP, Base

SUM_SLOT = {"W": 2, "E": 3}
"""Reduction slots of a side's softmax; its scores have slots 0 and 1."""


class Attention(Base):
    """First half of segment "layer"."""

    def _attention(self) -> None:
        acts, er = self._normed_acts("attention norm", self._gain("g_layer", 0), "att_norm", self.s.norm_att)
        queries = self._qkv(acts, er)
        self._give(er)
        outputs = {side: self._heads(side, queries) for side in SIDES}
        order = [step for pair in _interleave(outputs["W"], outputs["E"]) for step in pair]
        for step in order:
            step()
        for reg in queries.values():
            self._free(reg)
        self._output_projection()

    def _qkv(self, acts: dict[str, Act], er: int | None) -> dict[tuple[int, int], Reg]:
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
                self._value(matrix, unit, [(accs[place], place[1]) for place in places], er)
                continue
            reg = self._rotated(matrix, kind, [(accs[place], place[1]) for place in places], er)
            if kind == "q":
                queries[unit, rep] = reg
            else:
                self._key(unit, reg)
        return queries

    def _rotated(self, matrix: Matrix, kind: str, places: list[tuple[Acc, int]], er: int | None) -> Reg:
        """Requantised words of a head, rotated if it is a query (a key is by `_key`)."""
        label, s = f"{kind} rotate", self.s
        y = self._regs(self.g.words)
        for w, (acc, start) in enumerate(places):
            self._requantise(self._cluster(label), matrix, acc, start, s.qkv_pre, s.qk, Sat.S16, dst=_one(y, w),
                             **self._less(er))
        if kind == "q":
            self._rotate(self._cluster(label), y)
        return y

    def _rotate(self, cluster: Cluster, y: Reg, **fields: Any) -> Stream:
        """RoPE of a head's words in place: y * cos + swap(y * sin); returns the reduction that `fields` ask for."""
        turn = {"a": y, "func": Func.MUL, "post": ROPE_FRACTION, "n": self.g.words}
        product, _ = cluster.alu(**turn, b=self.sin)
        swapped = cluster.sxm(product, Op.PERMUTE, map=SWAP_MAP)
        return self._put(cluster, **turn, b=self.cos, alu=Alu.ADD, c=swapped, sat=Sat.S16, dst=y, **fields)[1]

    def _key(self, unit: int, y: Reg) -> None:
        """Scale of a token and head, int8 keys into the cache, the scale into its table."""
        label, g, r, er = "key", self.g, self._regs(1), self.er.take()
        temp = self._mem("mtemp", unit % 2, 1)
        cluster = self._cluster(label)
        largest = self._rotate(cluster, y, red=Red.MAXABS, red_slot=BURST_SLOT)
        spread = self._lanes(cluster, largest, Red.MAX, min(self.m.head_size, g.lanes).bit_length() - 1)
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
                lanes = cluster.sxm(both, Op.SHIFT, lane=part * self.m.head_size % g.lanes, distribute=1)
                cluster.write(lanes, self._scales_of(kv, 0, 1, True, INDEX_SCALE).loc)
        self._free(y, r)
        self.er.give(er)

    def _scales_of(self, kv: int, start: int, count: int, now: bool, index: int = 0) -> As:
        """Scales of keys; now: the present token's is written, or may be read. Two heads share a quad."""
        side = SIDES[kv // self.g.per_word % 2]
        pair, half = divmod(self.g.kv_heads(side).index(kv), 2)
        table = self.p.tensors[f"kscale_{side}"]
        mem = table.mem(pair * self.g.chunks + start, count, planes=3 << 2 * half, index=index,
                        cells=(("kscale", side, pair),) if now else ())
        return As(mem, (Fmt.LO16, Fmt.HI16)[half])

    def _value(self, matrix: Matrix, unit: int, places: list[tuple[Acc, int]], er: int | None) -> None:
        """int8 values of a unit into SRAM, each byte on all planes."""
        for w, (acc, start) in enumerate(places):
            self._requantise(self._cluster("value"), matrix, acc, start, self.s.qkv_pre, self.s.v, Sat.S8,
                             rep=Rep.REP8, dst=self._value_temp(unit, w), **self._less(er))

    def _value_temp(self, unit: int, word: int) -> Mem:
        return self._mem("vtemp", unit * self.g.words + word, 1)

    def _spread_values(self, unit: int) -> None:
        """Lane by lane into the transposed cache; a burst fills one plane of one weight group."""
        g, rows = self.g, self.config.rows
        span = min(self.m.head_size, g.lanes)
        for w in range(g.words):
            for part in range(g.per_word):
                kv = unit * g.per_word + part
                if kv >= self.m.kv_heads:
                    continue
                cluster = self._cluster("value")
                copies = cluster.read(self._value_temp(unit, w), "SXM_E", span)
                for row in range(rows):
                    lanes = cluster.sxm(copies, Op.SHIFT, first=row * (span // rows), count=span // rows,
                                        lane=part * span + row, lane_inc=rows % g.lanes, distribute=1)
                    group, plane = row // 4 + 1, row % 4
                    tensor = self.p.v[kv, group]
                    cluster.write(lanes, Mem(tensor.slice, tensor.addr + w * g.steps, span // rows, 1, 1 << plane,
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
        """q.k of all positions of the bucket, scaled and masked, in SRAM; their maximum in a register.

        Positions before the bucket's first do not wait for this token's key.
        """
        label, g, s, side = "score", self.g, self.s, head.side
        act = Act(side, self.act[side].take(g.words), g.words)
        cluster = self._cluster(label)
        part = {"alu": Alu.AND, "c": self.parts[head.part]} if self.parts else {}
        q8, _ = cluster.alu(a=query, pre=Q_SHIFT, sat=Sat.S8, n=g.words, **part)
        cluster.load(q8, act)
        scores, largest = self._mem(f"t_{side}{number % 2}"), self._regs(1)
        slot = SIDES.index(side)
        for start, count in self._score_bursts():
            acc = Acc(side, self.acc[side].take(count, g.burst), count)
            per_chunk, now = g.steps * g.words, start >= self.valid
            keys = [self.p.k[head.unit, group].mem(start * per_chunk, count * per_chunk,
                                                   cells=(("K", head.unit, group),) if now else ())
                    for group in range(1, self.config.weight_groups + 1)]
            self._cluster(label).mac(keys, act, acc, steps=g.steps)
            part = scores[start : start + count]
            scaled = {"a": acc, "b": self._scales_of(head.kv, start, count, now), "func": Func.MUL,
                      "pre": s.score_pre, "post": s.score, "sat": Sat.S24, "n": count, "dst": part}
            if now:
                scaled = self._masked(label, scaled, start - self.valid, count)
            cluster = self._cluster(label)
            _, top = self._put(cluster, **scaled, red=Red.MAX, red_slot=slot, red_keep=int(start > 0))
        self._put(cluster, a=self._lanes(cluster, top, Red.MAX), dst=largest)
        return {"scores": scores, "largest": largest}

    def _masked(self, label: str, scaled: dict[str, Any], first: int, count: int) -> dict[str, Any]:
        """The operation that ends `scaled` scores with mask vectors first.. added; what it needs goes before."""
        if self.mask:
            return scaled | {"alu": Alu.ADD, "c": self.mask[first : first + count]}
        part = scaled["dst"]
        self._op(label, **scaled | {"sat": Sat.S32})
        add = {"a": part, "alu": Alu.ADD, "sat": Sat.S24, "n": count, "dst": part}
        if self.g.words > 1:
            return add | {"c": self._mem("mask_W0" if part.slice == "E0" else "mask_E0", first, count)}
        mask = self._regs(count)
        self._op(label, a=self._mem("mask_W0", first, count), n=count, dst=mask)
        self._free(mask)
        return add | {"c": mask}

    def _score_bursts(self) -> list[tuple[int, int]]:
        """(first chunk, chunks) of the bursts that scores are computed in, masked or not. Few masks are in registers,
        and all applied at once; others come from SRAM, a few at a time."""
        masked = max(CHUNK, self.mask.count) if self.mask else CHUNK
        edges = sorted({*range(0, self.valid, CHUNK), self.valid, *range(self.valid, self.chunks, masked),
                        self.chunks})
        return [(start, end - start) for start, end in itertools.pairwise(edges)]

    def _softmax(self, head: Head, state: dict) -> None:
        """Numerators into the activation buffer, value product, division by their sum, output word."""
        label, g, side, n = "softmax", self.g, head.side, self.chunks
        act = Act(side, self.act[side].take(n, g.burst), n)
        r, er = self._regs(1), self.er.take()
        for start in range(0, n, g.burst):
            count = min(g.burst, n - start)
            cluster = self._cluster(label)
            p, total = cluster.alu(a=state["scores"][start : start + count], func=Func.EXP2, c=state["largest"], post=7,
                                   sat=Sat.S8, n=count, red=Red.SUM, red_slot=SUM_SLOT[side], red_keep=int(start > 0))
            cluster.load(p, act.part(start, count))
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
            self._op(label, **op, dst=self._mem(f"part_{head.side}"))
            return
        if head.part:
            op |= {"alu": Alu.ADD, "c": self._mem(f"part_{head.side}")}
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
                    act = acts[side].part(w, 1)
                    self._cluster("wo product").mac(weights, act, acc, steps=matrix.steps, wfmt=matrix.wfmt,
                                                    clear=int(n == 0 and w == 0))
        self._words = {}
        self._add_to_residual(matrix, accs, self.s.wo_pre, {"post": self.s.wo})


def _one(reg: Reg, number: int) -> Reg:
    return Reg(reg.base + number, 1)


def _interleave(west: list, east: list) -> list[list]:
    """Pairs of steps of both sides, in turn."""
    longest = max(len(west), len(east))
    return [[side[i] for side in (west, east) if i < len(side)] for i in range(longest)]
