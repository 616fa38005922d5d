"""Lowering of the feed-forward half of a layer."""

from hw.isa import Alu, ErUse, Func, Red, Sat

from .ir import Acc, Act, Mem
from .layout import SIDES
from .lower_base import FRAC, Base
from .place import CHUNK, Matrix


class FeedForward(Base):
    """Second half of segment "layer"."""

    def _feed_forward(self) -> None:
        s, g = self.s, self.g
        acts = self._normed_acts("ffn norm", self._gain("g_layer", 1))
        matrix, f = self.p.matrices["w13"], self._mem("f")
        accs: list[tuple[int, list]] = []
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
