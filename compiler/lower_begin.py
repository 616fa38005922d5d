"""Lowering, first part of a token: position and token become index registers, rotations, masks, the embedding."""


from hw.config import LANES
from hw.isa import Alu, Fmt, Func, Red

from .integer import ROPE_FRACTION
from .ir import Acc, As, Imm, Iota, Reg
from .layout import SIDES
from .lower_base import INDEX_EMB_SCALE, INDEX_EMBEDDING, INDEX_HIGH, INDEX_K, INDEX_LOW, INDEX_SCALE, INDEX_V, Base
from .place import CHUNK, Matrix

MASK_SHIFT = 23
"""A masked score is at least 2**23 below: see `integer.MASKED`."""


class Begin(Base):
    """Segment "begin"."""

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
        self._index(label, position, 4, "one", t2, ["E0", "W0"], INDEX_SCALE)
        slices = sorted(set().union(*self._weight_slices(self.p.v).values()))
        self._index(label, position, 4, "steps", t2, slices, INDEX_V)
        self._free(t1, t2)

    def _rotation(self, position: Reg) -> None:
        """cos and sin of the position, as the product of two rotations; sin is negated in odd lanes, for products that
        are swapped."""
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
        """What masked scores are added to: 0, or at least 2**23 below.

        A few stay in registers, where heads of one word leave room for them; heads of several words have them in both
        inner slices.
        """
        label, n, start = "mask", self.chunks - self.valid, self._regs(1)
        few = self.g.words == 1 and n <= CHUNK
        mask = self._regs(n) if few else self._mem("mask_W0", 0, n)
        self._op(label, a=position, alu=Alu.SUB, c=Imm(self.valid * LANES), dst=start)
        self._op(label, a=Iota(), alu=Alu.GT, c=start, n=n, dst=mask)
        cluster = self._cluster(label)
        stream, _ = self._put(cluster, a=mask, pre=-MASK_SHIFT, n=n, dst=mask)
        if isinstance(mask, Reg):
            self.mask = mask
        elif self.g.words > 1:
            cluster.write(stream, self._mem("mask_E0", 0, n))
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
        label = "embedding"
        work, part = (self._mem("xg"), self._mem("h16")) if kt > 6 else (self._regs(kt), self._regs(kt))
        for group in range(self.config.weight_groups):
            west, east = (table.tensors[side][group].mem(0, kt, index=INDEX_EMBEDDING, cells=()) for side in SIDES)
            self._op(label, a=west, alu=Alu.OR, c=east, n=kt, dst=part if group else work)
            if group:
                self._op(label, a=work, alu=Alu.OR, c=part, n=kt, dst=work)
        self._op(label, a=As(work, Fmt.HI16), alu=Alu.OR, c=As(work, Fmt.LO16), n=kt, dst=work)
        self._op(label, a=work, pre=-8, alu=Alu.OR, c=work, n=kt, dst=work)  # one of both bytes is 0
        self._op(label, a=As(work, Fmt.B1), func=Func.MUL, b=scale, post=self.s.emb, n=kt, dst=self.x)
        for reg in (work, part):
            if isinstance(reg, Reg):
                self._free(reg)
