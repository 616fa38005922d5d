"""Lowering of the feed-forward half of a layer."""

from hw.isa import Alu, ErUse, Func, Order, Red, Sat

from .integer import groups
from .ir import Acc, Mem
from .layout import SIDES, ceil_div
from .lower_base import FRAC, Base
from .place import CHUNK, Matrix


class FeedForward(Base):
    """Second half of segment "layer"."""

    def _feed_forward(self) -> None:
        g = self.g
        acts = self._normed_acts("ffn norm", self._gain("g_layer", 1))
        matrix = self.p.matrices["w13"]
        accs: list[tuple[int, list]] = []
        for start in range(0, g.hidden, CHUNK):
            count = min(CHUNK, g.hidden - start)
            accs.append((start, [self._product(matrix, side, acts[side], start, count) for side in SIDES]))
            if len(accs) > 1:
                self._gated(matrix, *accs[-2])
        self._gated(matrix, *accs[-1])

    def _gated(self, matrix: Matrix, start: int, accs: list[Acc]) -> None:
        """Gate of some vectors; where they end a group of channels, its part of W2's product goes to the residual."""
        begin, end = next(group for group in self._groups() if group[0] <= start < group[1])
        last = start + accs[0].count == end
        er = self._gate(matrix, start, accs, self._mem("f"), first=start == begin, last=last)
        if last:
            self._down(begin, end, er)

    def _groups(self) -> list[tuple[int, int]]:
        """(first vector, end) of the groups of channels that share an exponent."""
        return [(part.start // self.g.lanes, ceil_div(part.stop, self.g.lanes)) for part in groups(self.m.hidden)]

    def _down(self, begin: int, end: int, er: int) -> None:
        """W2 times vectors begin..end - 1, added to the residual."""
        s, down, label = self.s, self.p.matrices["w2"], "ffn quantise"
        cluster = self._cluster(label)
        f8, _ = cluster.alu(a=self._mem("f", begin, end - begin), er_use=ErUse.PRE, er=er, sat=Sat.S8, n=end - begin)
        acts = self._load_both(cluster, f8, end - begin)
        products = {}
        for side in SIDES:
            if count := len(down.vectors[side]):
                products[side] = acc = Acc(side, self.acc[side].take(count), count)
                quads = count * down.steps
                weights = [t.mem(begin * quads, acts[side].count * quads, cells=()) for t in down.tensors[side]]
                self._cluster("w2 product").mac(weights, acts[side], acc, steps=down.steps, wfmt=down.wfmt,
                                                order=Order.TILE)
        self._add_to_residual(down, products, s.w2_pre, {"post": s.w2, "er_use": ErUse.POST, "er": er, "er_neg": 1})
        self.er.give(er)

    def _gate(self, matrix: Matrix, start: int, accs: list[Acc], f: Mem, *, first: bool, last: bool) -> int:
        """silu(gate) * up of some vectors into f; after a group's last, the exponent of the greatest (else -1)."""
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
