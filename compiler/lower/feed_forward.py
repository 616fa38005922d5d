"""Second half of a layer: the gated feed-forward network.

The inner layer's channels are computed vector by vector, in groups (`integer.groups`): W2's product with a group runs
while the next group is computed.
"""

from dataclasses import dataclass
from typing import Any

from arch.isa import Alu, ErUse, Func, Order, Red, Sat
from arch.vectors import SIDES, ceil_div
from compiler.ir import Acc, Act, Mem, Reg
from compiler.place.geometry import DRAIN_BURST
from compiler.place.placement import Matrix
from program.integer import groups

from .builder import FRAC, Builder, less
from .norm import gain_of, norm
from .product import add_to_residual, product, requantise
from .state import TokenState


@dataclass(frozen=True, kw_only=True)
class Inner:
    """What all vectors of the inner layer need.

    state: its residual is what W2's product is added to. matrix: W1 on the west side and W3 on the east side. er:
    register of the input's exponent, if it has one. gated: the activation entries of the whole inner layer, if they all
    fit.
    """

    state: TokenState
    matrix: Matrix
    er: int | None
    gated: dict[str, Act] | None


def feed_forward(b: Builder, state: TokenState) -> None:
    """residual += W2 (silu(W1 x) * W3 x), x = norm(residual).

    A static input of W2 goes straight into the activation buffers if they hold all of it beside W1's and W3's;
    otherwise into SRAM, and from there group by group.
    """
    g = b.geometry
    straight = "silu" not in b.model.dynamic and g.dim + g.hidden <= b.most_acts()
    block = b.all_acts(g.dim + g.hidden) if straight else b.acts(g.dim)
    inputs = {side: act.entries(0, g.dim) for side, act in block.items()}
    _, er = norm(b, state, "ffn norm", gain=gain_of(b, "g_layer", 1), site="ffn_norm",
                 post=b.shifts.norm_ffn, acts=inputs)
    inner = Inner(state=state, matrix=b.placement.matrices["w13"], er=er,
                   gated={side: act.entries(g.dim, g.hidden) for side, act in block.items()} if straight else None)
    sums: dict[str, Acc] = {}
    ready: list[tuple[int, list[Acc]]] = []
    for start in range(0, g.hidden, DRAIN_BURST):
        count = min(DRAIN_BURST, g.hidden - start)
        ready.append((start, [product(b, inner.matrix, inputs[side], start, count) for side in SIDES]))
        if len(ready) > 1:
            sums = _channels(b, inner, *ready[-2], sums)
    _channels(b, inner, *ready[-1], sums)
    b.free_exponent(er)


def vector_groups(b: Builder) -> list[tuple[int, int]]:
    """(first vector, end) of the groups of channels."""
    lanes, parts = b.geometry.lanes, groups(b.geometry.inner * b.geometry.lanes, b.model.group)
    return [(part.start // lanes, ceil_div(part.stop, lanes)) for part in parts]


def _channels(b: Builder, inner: Inner, start: int, accs: list[Acc], sums: dict[str, Acc]) -> dict[str, Acc]:
    """Gate of some vectors; where they end a group of channels, its share of W2's product.

    accs: W1's and W3's products from vector `start` on. sums: accumulators of W2's product so far; returned with the
    group's share.
    """
    begin, end = next(group for group in vector_groups(b) if group[0] <= start < group[1])
    count = accs[0].count
    last = start + count == end
    if inner.gated:
        op = gate(b, inner, start, accs, sat=Sat.S8)
        cluster = b.cluster("gate")
        f8, _ = b.alu(cluster, **op)
        b.load(cluster, f8, {side: act.entries(start, count) for side, act in inner.gated.items()})
        acts = {side: act.entries(begin, end - begin) for side, act in inner.gated.items()}
        return _down(b, inner.state, begin, acts, None, sums) if last else sums
    f = b.tensor("f", begin, end - begin)
    part = f[start - begin : start - begin + count]
    exponent = None
    if "silu" in b.model.dynamic:
        op = gate(b, inner, start, accs, dst=part, sat=Sat.S32, red=Red.MAXABS, red_slot=3, red_keep=int(start > begin))
        cluster = b.cluster("gate")
        _, largest = b.alu(cluster, **op)
        if last:
            exponent = b.exponents.take()
            b.exponent(cluster, largest, exponent)
    else:
        op = gate(b, inner, start, accs, dst=part, sat=Sat.S8)
        b.op("gate", **op)
    if last:
        sums = _down(b, inner.state, begin, _quantised(b, f, exponent), exponent, sums)
        b.free_exponent(exponent)
    return sums


def gate(b: Builder, inner: Inner, start: int, accs: list[Acc], **fields: Any) -> dict[str, Any]:
    """The operation, with these fields, that ends silu(gate) * up of some vectors; what it needs is written before."""
    label, s, n = "gate", b.shifts, accs[0].count
    gate, up, sigmoid = (_place(b, name, start, n) for name in ("gate", "up", "sigmoid"))
    for acc, post, sat, dst in ((accs[0], s.gate, Sat.S18, gate), (accs[1], s.up, Sat.S16, up)):
        requantise(b, b.cluster(label), inner.matrix, acc, start, pre=s.ffn_pre, post=post, sat=sat, dst=dst,
                   **less(inner.er))
    b.op(label, a=gate, pre=s.sigmoid, func=Func.SIGMOID, post=FRAC[Func.SIGMOID], alu=Alu.ADD, n=n, dst=sigmoid)
    b.op(label, a=gate, func=Func.MUL, b=sigmoid, post=15, sat=Sat.S18, n=n, dst=gate)
    b.free(gate, up, sigmoid)
    return {"a": gate, "func": Func.MUL, "b": up, "post": s.f, "n": n, **fields}


def _place(b: Builder, name: str, start: int, count: int) -> Reg | Mem:
    """Where some vectors are on their way to the inner layer: in registers, to be returned, or in SRAM, where several
    sequences leave too few of these."""
    return b.regs(count) if b.geometry.together == 1 else b.tensor(name, start, count)


def _quantised(b: Builder, f: Mem, er: int | None) -> dict[str, Act]:
    """A group's channels, less their exponent, in the activation buffers."""
    cluster = b.cluster("ffn quantise")
    shift = {} if er is None else {"er_use": ErUse.PRE, "er": er}
    f8, _ = cluster.alu(a=f, **shift, sat=Sat.S8, n=f.count)
    return b.load_both(cluster, f8)


def _down(b: Builder, state: TokenState, begin: int, acts: dict[str, Act], er: int | None, sums: dict[str, Acc],
          ) -> dict[str, Acc]:
    """W2 times the group of vectors `begin`.., added to the residual: at once if the group has an exponent, otherwise
    when the last group is in the sums. Returns the sums."""
    s, matrix = b.shifts, b.placement.matrices["w2"]
    fresh = begin == 0 or er is not None
    if fresh:
        sums = {side: Acc(side, b.accumulators[side].take(count), count)
                for side in acts if (count := len(matrix.vectors[side]))}
    multiply_down(b, begin, acts, sums, fresh)
    last = begin == vector_groups(b)[-1][0]
    if er is not None or last:
        add_to_residual(b, state, matrix, sums, pre=s.w2_pre, post=s.w2, complete=last, together=True, **less(er))
    return sums


def multiply_down(b: Builder, begin: int, acts: dict[str, Act], sums: dict[str, Acc], fresh: bool) -> None:
    """W2 times the vectors of the inner layer from `begin` on, which are in `acts`, added to sums or in their place."""
    matrix = b.placement.matrices["w2"]
    for side, acc in sums.items():
        quads = acc.count * matrix.vector_entries
        weights = [t.mem(begin * quads, acts[side].count * quads, cells=()) for t in matrix.tensors[side]]
        b.cluster("w2 product").mac(weights, acts[side], acc, vector_entries=matrix.vector_entries, wfmt=matrix.wfmt,
                                    order=Order.TILE, clear=int(fresh))
