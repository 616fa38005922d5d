"""Lowering, last part of a token: final norm, classifier, noise, choice of the next token."""

from dataclasses import replace

from hw.config import LANES
from hw.isa import Alu, ErUse, Func, Red, Sat

from .ir import BURST_SLOT, Acc, Act, Imm, Iota, Mem, Reg
from .layout import SIDES
from .lower_base import FRAC, INDEX_TOKENS, Base
from .place import CHUNK, Matrix


class Finish(Base):
    """Segment "finish", or "finish", "classifier" (a loop) and "choose" of a large vocabulary."""

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
                ahead, first, vectors = todo[n + 2]
                accs.append(self._product(matrix, ahead, acts[ahead], first, vectors, rel))
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
        """xorshift32 of vectors of token states, then -log2 of exponential variates into "gumbel"."""
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

    def _next_token_index(self, following: Reg) -> None:
        """W0's index register for the table of tokens, at the next position."""
        label, hot = "next position", self._regs(1)
        self._one_hot(label, following, LANES - 1, hot)
        self._op(label, a=hot, alu=Alu.AND, c=self._constant("lanes"), dst=hot)
        self._op(label, a=hot, alu=Alu.OR, c=self._constant("planes"), dst=hot)
        self._index(label, following, 4, "one", hot, ["W0"], INDEX_TOKENS)
        self._free(hot)
