"""Lowering of the feed-forward half of a layer."""

from typing import Any

from arch.isa import Alu, ErUse, Func, Order, Red, Sat
from arch.lanes import SIDES, ceil_div
from compiler.place.geometry import CHUNK
from compiler.place.placement import Matrix
from program.integer import groups

from .ir import Acc, Act, Cluster, Mem, Stream
from .lower_base import FRAC, Base


class FeedForward(Base):
    """Second half of segment "layer"."""

    def _feed_forward(self) -> None:
        """A static input of W2 goes straight into the activation buffers if they hold all of it beside W1's and W3's;
        otherwise into SRAM, and from there group by group."""
        g = self.g
        straight = "silu" not in self.m.dynamic and g.dim + g.hidden <= min(ring.size for ring in self.act.values())
        block = self._acts(g.dim + g.hidden * straight)
        inputs = {side: act.part(0, g.dim) for side, act in block.items()}
        _, er = self._normed_acts("ffn norm", self._gain("g_layer", 1), "ffn_norm", self.s.norm_ffn, inputs)
        gated = {side: act.part(g.dim, g.hidden) for side, act in block.items()} if straight else None
        matrix = self.p.matrices["w13"]
        accs: list[tuple[int, list]] = []
        for start in range(0, g.hidden, CHUNK):
            count = min(CHUNK, g.hidden - start)
            accs.append((start, [self._product(matrix, side, inputs[side], start, count) for side in SIDES]))
            if len(accs) > 1:
                self._channels(matrix, *accs[-2], er, gated)
        self._channels(matrix, *accs[-1], er, gated)
        self._give(er)

    def _channels(self, matrix: Matrix, start: int, accs: list[Acc], er: int | None,
                  gated: dict[str, Act] | None) -> None:
        """Gate of some vectors; where they end a group of channels, its part of W2's product goes to the residual."""
        begin, end = next(group for group in self._groups() if group[0] <= start < group[1])
        count = accs[0].count
        last = start + count == end
        if gated:
            cluster, f8, _ = self._gate(matrix, start, accs, er, sat=Sat.S8)
            self._load(cluster, f8, {side: act.part(start, count) for side, act in gated.items()})
            if last:
                self._down(begin, {side: act.part(begin, end - begin) for side, act in gated.items()}, None)
            return
        f = self._mem("f", begin, end - begin)
        part = f[start - begin : start - begin + count]
        exponent = None
        if "silu" in self.m.dynamic:
            cluster, _, largest = self._gate(matrix, start, accs, er, dst=part, sat=Sat.S32, red=Red.MAXABS, red_slot=3,
                                             red_keep=int(start > begin))
            if last:
                exponent = self.er.take()
                self._exponent(cluster, largest, exponent)
        else:
            self._gate(matrix, start, accs, er, dst=part, sat=Sat.S8)
        if last:
            self._down(begin, self._quantised(f, exponent), exponent)
            self._give(exponent)

    def _groups(self) -> list[tuple[int, int]]:
        """(first vector, end) of the groups of channels."""
        return [(part.start // self.g.lanes, ceil_div(part.stop, self.g.lanes)) for part in groups(self.m.hidden)]

    def _gate(self, matrix: Matrix, start: int, accs: list[Acc], er: int | None,
              **fields: Any) -> tuple[Cluster, Stream, Stream]:
        """silu(gate) * up of some vectors by an operation with these fields: its cluster, results and reduction."""
        label, s, n = "gate", self.s, accs[0].count
        a, b, sg = self._regs(n), self._regs(n), self._regs(n)
        cluster = self._cluster(label)
        self._requantise(cluster, matrix, accs[0], start, s.ffn_pre, s.gate, Sat.S18, dst=a, **self._less(er))
        cluster = self._cluster(label)
        self._requantise(cluster, matrix, accs[1], start, s.ffn_pre, s.up, Sat.S16, dst=b, **self._less(er))
        self._op(label, a=a, func=Func.SIGMOID, post=FRAC[Func.SIGMOID], alu=Alu.ADD, n=n, dst=sg)
        self._op(label, a=a, func=Func.MUL, b=sg, post=15, sat=Sat.S18, n=n, dst=a)
        cluster = self._cluster(label)
        result, largest = self._put(cluster, a=a, func=Func.MUL, b=b, post=s.f, n=n, **fields)
        self._free(a, b, sg)
        return cluster, result, largest

    def _quantised(self, f: Mem, er: int | None) -> dict[str, Act]:
        """A group's channels, less their exponent, in the activation buffers."""
        cluster = self._cluster("ffn quantise")
        less = {} if er is None else {"er_use": ErUse.PRE, "er": er}
        f8, _ = cluster.alu(a=f, **less, sat=Sat.S8, n=f.count)
        return self._load_both(cluster, f8, f.count)

    def _down(self, begin: int, acts: dict[str, Act], er: int | None) -> None:
        """W2 times the group of vectors begin.., added to the residual; without an exponent of the group's own, when
        the last group is in the sums."""
        s, down = self.s, self.p.matrices["w2"]
        if begin == 0 or er is not None:
            self._sums = {side: Acc(side, self.acc[side].take(count), count)
                          for side in acts if (count := len(down.vectors[side]))}
        for side, acc in self._sums.items():
            quads = acc.count * down.steps
            weights = [t.mem(begin * quads, acts[side].count * quads, cells=()) for t in down.tensors[side]]
            self._cluster("w2 product").mac(weights, acts[side], acc, steps=down.steps, wfmt=down.wfmt,
                                            order=Order.TILE, clear=int(begin == 0 or er is not None))
        if er is not None or begin == self._groups()[-1][0]:
            self._add_to_residual(down, self._sums, s.w2_pre, {"post": s.w2, **self._less(er)})
