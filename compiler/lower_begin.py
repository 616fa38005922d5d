"""Lowering, first part of a token: position and token become index registers, rotations, masks, the embedding."""


from arch.config import PLANES
from arch.isa import Alu, ErUse, Fmt, Func, Red
from arch.lanes import SIDES
from compiler.place.placement import Matrix
from program.integer import ROPE_FRACTION, ROPE_STEP

from .ir import Acc, As, Imm, Iota, Reg
from .lower_base import INDEX_EMB_SCALE, INDEX_EMBEDDING, INDEX_HIGH, INDEX_K, INDEX_LOW, INDEX_SCALE, INDEX_V, Base

MASKS = 6
"""Masks that registers are spared for."""
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
        half = self.g.lanes // 2  # of each of two heads that share a word
        for reg, alu, border in zip(self.parts, (Alu.LT, Alu.GT), (half, half - 1), strict=False):
            self._op("constants", a=Iota(), alu=alu, c=Imm(border), dst=reg)
        if self.parts:
            self._clear_parts()
        self._free(position)

    def _weight_slices(self, kind: dict) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for (_, group), tensor in kind.items():
            found.setdefault(group, set()).add(tensor.slice)
        return found

    def _position_indices(self, position: Reg) -> None:
        rows, label = self.config.rows, "index vectors"
        for group, slices in self._weight_slices(self.p.k).items():
            masks = self._regs(1)
            self._one_hot(label, position, rows - 1, "one_plane", PLANES * (group - 1), self._constant("lanes"), masks)
            self._index(label, position, rows.bit_length() - 1, "words", masks, sorted(slices), INDEX_K)
            self._free(masks)
        masks = self._regs(1)
        self._one_hot(label, position, self.g.lanes - 1, "one_lane", 0, self._constant("planes"), masks)
        self._index(label, position, self.config.lane_bits, "one", masks, ["E0", "W0"], INDEX_SCALE)
        slices = sorted(set().union(*self._weight_slices(self.p.v).values()))
        self._index(label, position, self.config.lane_bits, "steps", masks, slices, INDEX_V)
        self._free(masks)

    def _rotation(self, position: Reg) -> None:
        """cos and sin of the position, as the product of two rotations; sin is negated in odd lanes, for products that
        are swapped."""
        label, words = "rotation", self.g.words
        low_index, t = self._regs(1), self._regs(words)
        self._op(label, a=self._mem("position"), alu=Alu.AND, c=Imm(ROPE_STEP - 1), dst=low_index)
        self._index(label, low_index, 0, "words", self._constant("planes"), ["W0"], INDEX_LOW)
        self._index(label, position, ROPE_STEP.bit_length() - 1, "words", self._constant("planes"), ["E0"], INDEX_HIGH)
        low = self.p.tensors["rope_low"].mem(0, words, index=INDEX_LOW, cells=())
        high = self.p.tensors["rope_high"].mem(0, words, index=INDEX_HIGH, cells=())
        cl, sl, ch, sh = As(low, Fmt.LO16), As(low, Fmt.HI16), As(high, Fmt.LO16), As(high, Fmt.HI16)
        product = {"func": Func.MUL, "post": ROPE_FRACTION, "n": words}
        self._op(label, a=cl, b=sh, **product, dst=t)
        self._op(label, a=sl, b=ch, **product, alu=Alu.ADD, c=t, dst=t)
        self._op(label, a=t, func=Func.MUL, b=self._constant("sign"), n=words, dst=self.sin)
        self._op(label, a=sl, b=sh, **product, dst=t)
        self._op(label, a=cl, b=ch, **product, alu=Alu.SUB, c=t, dst=self.cos)
        self._free(low_index, t)

    def _masks(self, position: Reg) -> None:
        """What masked scores are added to: 0, or at least 2**23 below.

        A few stay in registers, where heads of one word leave room for them; heads of several words have them in both
        inner slices.
        """
        label, n, start = "mask", self.chunks - self.valid, self._regs(1)
        few = self.g.words == 1 and n <= MASKS
        mask = self._regs(n) if few else self._mem("mask_W0", 0, n)
        self._op(label, a=position, alu=Alu.SUB, c=Imm(self.valid * self.g.lanes), dst=start)
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
        weights = self.p.matrices["qkv"]
        for side in SIDES:
            for vector in self.parts_acc[side]:
                mac = self._cluster("clear")
                mac.mac([t.mem(0, self.g.steps, cells=()) for t in weights.tensors[side]], acts[side],
                        Acc(side, vector), steps=self.g.steps)

    def _embedding(self, token: Reg) -> None:
        """x = embedding row of the token: every side and plane that may hold the row is gathered, one is not masked."""
        label, table, kt, rows = "embedding", self.p.matrices["embedding"], self.g.dim, self.config.rows
        low, offset, er = self._regs(1), self._regs(1), self.er.take()
        side = self.config.lane_bits  # the bit of a token that names its side
        self._op(label, a=self._mem("token"), pre=side + 1, round=0, func=Func.MUL, b=self._constant("emb_vector"),
                 dst=offset)
        self._op(label, a=self._mem("token"), alu=Alu.AND, c=Imm(self.g.lanes - 1), dst=low)
        self._op(label, a=low, pre=rows.bit_length() - 1, round=0, func=Func.MUL, b=self._constant("emb_step"),
                 alu=Alu.ADD, c=offset, dst=offset)
        self._op(label, a=self._mem("token"), alu=Alu.AND, c=Imm(self.g.lanes | rows - 1), er_dst=er)
        for group in range(1, self.config.weight_groups + 1):
            for side, pre in zip(SIDES, (0, self.g.lanes), strict=True):  # a token of the other side leaves no plane
                cluster = self._cluster(label)
                stream, _ = cluster.alu(**self._shifted_one("one_plane", er, pre + PLANES * (group - 1)), alu=Alu.OR,
                                        c=offset)
                cluster.index(stream, [table.tensors[side][group - 1].slice], INDEX_EMBEDDING)
        self._unpack_embedding(table, kt, token, self._embedding_scale(token, low))
        self._free(low, offset)
        self.er.give(er)

    def _embedding_scale(self, token: Reg, low: Reg) -> Reg:
        """The row's scale in every lane."""
        label, mine, scale = "embedding", self._regs(1), self._regs(1)
        self._index(label, token, self.config.lane_bits, "one", self._constant("planes"), ["E0"], INDEX_EMB_SCALE)
        self._op(label, a=Iota(), alu=Alu.EQ, c=low, dst=mine)
        cluster = self._cluster(label)
        table = self.p.tensors["emb_scale"].mem(0, 1, index=INDEX_EMB_SCALE, cells=())
        picked, _ = cluster.alu(a=table, alu=Alu.AND, c=mine)
        self._put(cluster, a=self._lanes(cluster, picked, Red.SUM), dst=scale)
        self._free(mine)
        return scale

    def _unpack_embedding(self, table: Matrix, kt: int, token: Reg, scale: Reg) -> None:
        label, er = "embedding", self.er.take()
        self._op(label, a=token, pre=-3, alu=Alu.AND, c=Imm(8 * (PLANES - 1)), er_dst=er)
        work, part = (self._mem("xg"), self._mem("h16")) if kt > 6 else (self._regs(kt), self._regs(kt))
        for group in range(self.config.weight_groups):
            west, east = (table.tensors[side][group].mem(0, kt, index=INDEX_EMBEDDING, cells=()) for side in SIDES)
            self._op(label, a=west, alu=Alu.OR, c=east, n=kt, dst=part if group else work)
            if group:
                self._op(label, a=work, alu=Alu.OR, c=part, n=kt, dst=work)
        self._op(label, a=work, pre=-8 * (PLANES - 1), er_use=ErUse.PRE, er=er, n=kt, dst=work)  # into the upper plane
        self._op(label, a=As(work, Fmt.B3), func=Func.MUL, b=scale, post=self.s.emb, n=kt, dst=self.x)
        self._free(scale)
        self.er.give(er)
        for reg in (work, part):
            if isinstance(reg, Reg):
                self._free(reg)
