"""Lowering, last part of a token: final norm, classifier, noise, choice of the next token."""

from dataclasses import replace
from typing import Any

from arch.isa import Alu, Func, Red, Sat
from arch.lanes import SIDES
from compiler.place.placement import Matrix
from program.integer import GUMBEL_ONE

from .ir import BURST_SLOT, Acc, Act, Imm, Iota, Mem, Reg
from .lower_base import FRAC, INDEX_TOKENS, Base


class Finish(Base):
    """Segment "finish", or "finish", "classifier" (a loop) and "choose" of a large vocabulary."""

    def _finish(self) -> None:
        acts, er = self._normed_acts("final norm", self._gain("g_final", 0), "final_norm", self.s.norm_f)
        self._free(*(reg for reg in (self.x, self.cos, self.sin, self.mask) if isinstance(reg, Reg)))
        position, huge = self._known_token()
        self._choose(*self._logits(acts, er, huge), position)
        self._free(huge, position)
        self._give(er)

    def _logits(self, acts: dict[str, Act], er: int | None, huge: Reg) -> tuple[Reg, int, Reg | None]:
        """Logits and sampling scores of all tokens in SRAM. Returns the greatest score, or `huge` if that is more, in
        every lane of a register; how many vectors of scores are left to search for it; and the rest's `_choice`.

        A large vocabulary takes a loop of its own; what its passes leave over is straight code. Without a loop the
        first tokens come last, so that the others are searched while these are computed.
        """
        loop, best, early = self.p.vocabulary, self._regs(1), None
        lowest = {"a": Imm(-1), "pre": 1 - 32, "red": Red.MAX, "red_slot": 0}
        self._cluster("sample").alu(**lowest)
        if loop.passes:
            self._open("classifier", loop.passes, loop.strides)
            self._vocabulary(acts, er, range(loop.body), rel=1)
            self._open("choose")
        first, end = loop.passes * loop.body, len(self.p.matrices["classifier"].vectors["W"])
        if not self.p.tensors["noise"].per_layer and first < end:
            self._noise(2 * first, self.g.vocab - 2 * first, 0)
        split = 0 if loop.passes or end <= self.g.burst else self.g.burst
        if split:
            self._vocabulary(acts, er, range(split, end), rel=0)
            greatest = self._regs(1)
            self._greatest(lowest, alu=Alu.Q, dst=greatest)
            early = self._choice(greatest, huge, 2 * split, self.g.vocab - 2 * split)
            self._free(greatest)
        self._vocabulary(acts, er, range(first, split or end), rel=0)
        self._greatest(lowest, alu=Alu.MAX, c=huge, dst=best)
        return best, 2 * split or self.g.vocab, early

    def _greatest(self, lowest: dict[str, Any], **fields: Any) -> None:
        """An operation on the greatest score so far."""
        cluster = self._cluster("sample")
        _, top = cluster.alu(**lowest, red_keep=1)
        self._put(cluster, a=self._lanes(cluster, top, Red.MAX), **fields)

    def _vocabulary(self, acts: dict[str, Act], er: int | None, part: range, rel: int) -> None:
        """Vectors `part` of each side: product, logits, scores, in a loop also noise; two products run ahead."""
        matrix = self.p.matrices["classifier"]
        most = self.g.burst
        todo = [(side, start, min(most, part.stop - start, len(matrix.vectors[side]) - start))
                for start in part[::most] for side in SIDES]
        todo = [item for item in todo if item[2] > 0]
        accs = [self._product(matrix, side, acts[side], start, count, rel) for side, start, count in todo[:4]]
        for n, (side, start, _) in enumerate(todo):
            if n >= 2 and n + 2 < len(todo):
                ahead, first, vectors = todo[n + 2]
                accs.append(self._product(matrix, ahead, acts[ahead], first, vectors, rel))
            if rel and side == SIDES[0]:
                self._noise(2 * start, 2 * accs[n].count, rel)
            self._token_scores(matrix, accs[n], start, er, rel)

    def _tokens_of(self, name: str, first: int, count: int, rel: int) -> Mem:
        """Every other vector of a tensor over the vocabulary, from `first` on: one side's share."""
        return replace(self._mem(name)[first : first + 2 * count - 1 : 2], rel=rel)

    def _token_scores(self, matrix: Matrix, acc: Acc, start: int, er: int | None, rel: int) -> None:
        g, s, count, first = self.g, self.s, acc.count, 2 * start + SIDES.index(acc.side)
        logits, z = (self._tokens_of(name, first, count, rel) for name in ("logits", "z"))
        scores = self._regs(count)
        cluster = self._cluster("logits")
        result, _ = self._put(cluster, a=acc, b=matrix.scales(acc.side, start, count, rel), func=Func.MUL,
                              pre=s.cls_pre, post=s.cls, **self._less(er), sat=Sat.S24, n=count, dst=scores)
        cluster.write(result, logits)
        if self.m.vocab % g.lanes and not rel and first + 2 * count - 1 >= g.vocab:
            tail = scores[count - 1 : count]
            self._op("logits", a=tail, alu=Alu.ADD, c=self._constant("padding"), dst=tail)
        self._op("sample", a=self._gumbel(first, count, rel), pre=5, func=Func.MUL, b=self._mem("temperature"), post=15,
                 alu=Alu.RSUB, c=scores, n=count, dst=z, red=Red.MAX, red_slot=0, red_keep=1)
        self._free(scores)

    def _gumbel(self, first: int, count: int, rel: int) -> Mem:
        """Noise of `_tokens_of`; that of a burst lies in the block of one layer."""
        tensor = self.p.tensors["gumbel"]
        if not tensor.per_layer:
            return self._tokens_of("gumbel", first, count, rel)
        layer, within = divmod(first, tensor.quads)
        return Mem(tensor.slice, tensor.addr + layer * self.p.layout.strides[tensor.slice] + within, count, 2)

    def _layer_noise(self) -> None:
        """A layer's share of the noise."""
        tensor = self.p.tensors["noise"]
        if tensor.per_layer:
            self._noise(0, tensor.quads, 1)

    def _noise(self, first: int, count: int, rel: int) -> None:
        """xorshift32 of vectors of token states, then -log2 of exponential variates into "gumbel"."""
        label, n = "noise", count
        state, work = (replace(self._mem(name, first, count), rel=rel) for name in ("noise", "gumbel"))
        self._op(label, a=state, pre=-13, alu=Alu.XOR, c=state, n=n, dst=state)
        self._op(label, a=state, pre=17, logical=1, alu=Alu.XOR, c=state, n=n, dst=state)
        self._op(label, a=state, pre=-5, alu=Alu.XOR, c=state, n=n, dst=state)
        log2 = {"func": Func.LOG2, "post": FRAC[Func.LOG2], "alu": Alu.ADD, "n": n}
        self._op(label, a=state, pre=8, logical=1, **log2, dst=work)
        self._op(label, a=Imm(GUMBEL_ONE >> 15), pre=-15, alu=Alu.SUB, c=work, n=n, dst=work)
        self._op(label, a=work, **log2, dst=work)

    def _known_token(self) -> tuple[Reg, Reg]:
        """The next position, and what no score is greater than: INT_MAX if the table of tokens holds the next one.

        That token, or INT_MAX, begins the least of reduction slot 3, which the choice is.
        """
        label = "choose"
        position, low, mine, known, huge = (self._regs(1) for _ in range(5))
        self._op(label, a=self._mem("position"), alu=Alu.ADD, c=Imm(1), dst=position)
        self._next_token_index(position)
        self._op(label, a=position, alu=Alu.AND, c=Imm(self.g.lanes - 1), dst=low)
        self._op(label, a=Iota(), alu=Alu.EQ, c=low, dst=mine)
        cluster = self._cluster(label)
        picked, _ = cluster.alu(a=self._next_token(), alu=Alu.AND, c=mine)
        self._put(cluster, a=self._lanes(cluster, picked, Red.SUM), dst=known)
        greatest = {"a": Imm(-1), "pre": 1, "logical": 1}
        self._cluster(label).alu(**greatest, alu=Alu.AND, c=known, red=Red.MIN, red_slot=3)
        self._op(label, a=known, alu=Alu.LT, c=Imm(0), dst=huge)
        self._op(label, **greatest, alu=Alu.XOR, c=huge, dst=huge)
        self._free(low, mine, known)
        return position, huge

    def _next_token(self) -> Mem:
        return self.p.tensors["tokens"].mem(0, 1, index=INDEX_TOKENS, cells=("tokens",))

    def _choice(self, greatest: Reg, huge: Reg, first: int, count: int) -> Reg:
        """The first token of the greatest score among `count` vectors, or `huge` if that is more."""
        cluster, chosen = self._cluster("choose"), self._regs(1)
        _, least = cluster.alu(a=self._mem("z", first, count), alu=Alu.INDEX, b=Iota(), c=greatest, n=count,
                               red=Red.MIN, red_slot=BURST_SLOT)
        self._put(cluster, a=self._lanes(cluster, least, Red.MIN), alu=Alu.ADD, c=Imm(self.g.lanes * first), dst=chosen)
        self._op("choose", a=chosen, alu=Alu.MAX, c=huge, dst=chosen)
        return chosen

    def _choose(self, best: Reg, count: int, early: Reg | None, position: Reg) -> None:
        """The known token, or the first of the greatest score.

        That is in the first `count` vectors, or else the choice among the others: the least of the two.
        """
        label, fields = "choose", {}
        if early:
            fields = {"alu": Alu.MIN, "c": early}
            self._free(early)
        cluster = self._cluster(label)
        _, least = cluster.alu(a=self._mem("z", 0, count), alu=Alu.INDEX, b=Iota(), c=best, n=count, red=Red.MIN,
                               red_slot=3, red_keep=1)
        token, _ = self._put(cluster, a=self._lanes(cluster, least, Red.MIN), **fields, dst=self._mem("token"))
        cluster.write(token, self._next_token())
        self._op(label, a=position, dst=self._mem("position"))
        self._free(best)

    def _next_token_index(self, following: Reg) -> None:
        """W0's index register for the table of tokens, at the next position."""
        label, hot = "next position", self._regs(1)
        self._one_hot(label, following, self.g.lanes - 1, "one_lane", 0, self._constant("planes"), hot)
        self._index(label, following, self.config.lane_bits, "one", hot, ["W0"], INDEX_TOKENS)
        self._free(hot)
