"""Logits and sampling scores of all tokens, and the search for the greatest score."""

from dataclasses import dataclass
from typing import Any

from arch.isa import Alu, Func, Red, Sat
from arch.vectors import SIDES
from compiler.ir import BURST_SLOT, Acc, Act, Imm, Iota, Reg
from compiler.place.placement import Matrix

from .builder import Builder, less
from .noise import every_other, gumbel, made_by_layers, noise
from .product import product

LOWEST = {"a": Imm(-1), "pre": 1 - 32, "red": Red.MAX, "red_slot": 0}
"""Fields of an operation that reduces INT_MIN into the slot of the greatest score."""
AHEAD = 2
"""Matrix products that run ahead of the one whose logits are computed."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """What the scores come to.

    score: the greatest score of all, at least the threshold, in every lane. unsearched: how many vectors of scores,
    from the first on, are yet to be searched for it. early: the choice among the others, if there are any.
    """

    score: Reg
    unsearched: int
    early: Reg | None


def classify(b: Builder, acts: dict[str, Act], er: int | None, threshold: Reg) -> Best:
    """Logits in "logits", scores in "z"; the caller returns the registers of the result.

    acts, er: the normed residual and the register of its exponent. threshold: the least score that is searched for, in
    every lane. A large vocabulary takes a loop of its own, block "classifier"; what its turns leave over is straight
    code. Without a loop the first tokens come last, so that the others are searched while these are computed.
    """
    g, loop, score, early = b.geometry, b.placement.vocabulary, b.regs(1), None
    b.cluster("sample").alu(**LOWEST)
    if loop.turns:
        b.open("classifier", loop.turns, loop.strides)
        _vectors(b, acts, er, range(loop.body), rel=1)
        b.open("choose")
    first, end = loop.turns * loop.body, len(b.placement.matrices["classifier"].vectors["W"])
    if not made_by_layers(b) and first < end:
        noise(b, 2 * first, g.vocab - 2 * first, rel=0)
    split = 0 if loop.turns or end <= g.burst else g.burst
    if split:
        _vectors(b, acts, er, range(split, end), rel=0)
        greatest = b.regs(1)
        _greatest(b, alu=Alu.Q, dst=greatest)
        early = _choice(b, greatest, threshold, 2 * split, g.vocab - 2 * split)
        b.free(greatest)
    _vectors(b, acts, er, range(first, split or end), rel=0)
    _greatest(b, alu=Alu.MAX, c=threshold, dst=score)
    return Best(score=score, unsearched=2 * split or g.vocab, early=early)


def _greatest(b: Builder, **fields: Any) -> None:
    """An operation on the greatest score so far."""
    cluster = b.cluster("sample")
    _, top = cluster.alu(**LOWEST, red_keep=1)
    b.alu(cluster, a=b.across_lanes(cluster, top, Red.MAX), **fields)


def _choice(b: Builder, greatest: Reg, threshold: Reg, first: int, count: int) -> Reg:
    """The first token whose score is `greatest` among `count` vectors from `first` on; at least `threshold`, which no
    token is if the next one is known."""
    label, cluster, chosen = "choose", b.cluster("choose"), b.regs(1)
    _, least = cluster.alu(a=b.tensor("z", first, count), alu=Alu.INDEX, b=Iota(), c=greatest, n=count, red=Red.MIN,
                           red_slot=BURST_SLOT)
    b.alu(cluster, a=b.across_lanes(cluster, least, Red.MIN), alu=Alu.ADD, c=Imm(b.geometry.lanes * first), dst=chosen)
    b.op(label, a=chosen, alu=Alu.MAX, c=threshold, dst=chosen)
    return chosen


def _vectors(b: Builder, acts: dict[str, Act], er: int | None, vectors: range, *, rel: int) -> None:
    """Product, logits and scores of some vectors of each side, in a loop also noise. rel: loop level of addresses."""
    matrix, most = b.placement.matrices["classifier"], b.geometry.burst
    todo = [(side, start, min(most, vectors.stop - start, len(matrix.vectors[side]) - start))
            for start in vectors[::most] for side in SIDES]
    todo = [item for item in todo if item[2] > 0]
    accs = [product(b, matrix, acts[side], start, count, rel) for side, start, count in todo[: 2 * AHEAD]]
    for n, (side, start, _) in enumerate(todo):
        if n >= AHEAD and n + AHEAD < len(todo):
            next_side, first, count = todo[n + AHEAD]
            accs.append(product(b, matrix, acts[next_side], first, count, rel))
        if rel and side == SIDES[0]:
            noise(b, 2 * start, 2 * accs[n].count, rel=rel)
        _token_scores(b, matrix, accs[n], start, er, rel)


def _token_scores(b: Builder, matrix: Matrix, acc: Acc, start: int, er: int | None, rel: int) -> None:
    """Logits and scores of an accumulator's tokens; the greatest score in reduction slot 0. start: the side's first
    vector."""
    g, s, count, first = b.geometry, b.shifts, acc.count, 2 * start + SIDES.index(acc.side)
    logits, z = (every_other(b, name, first, count, rel=rel) for name in ("logits", "z"))
    scores = b.regs(count)
    cluster = b.cluster("logits")
    result, _ = b.alu(cluster, a=acc, b=matrix.scales(acc.side, start, count, rel), func=Func.MUL, pre=s.cls_pre,
                      post=s.cls, **less(er), sat=Sat.S24, n=count, dst=scores)
    cluster.write(result, logits)
    if b.model.vocab % g.lanes and not rel and first + 2 * count - 1 >= g.vocab:
        tail = scores[count - 1 : count]
        b.op("logits", a=tail, alu=Alu.ADD, c=b.constant("padding"), dst=tail)
    b.op("sample", a=gumbel(b, first, count, rel=rel), pre=5, func=Func.MUL, b=b.tensor("temperature"), post=15,
         alu=Alu.RSUB, c=scores, n=count, dst=z, red=Red.MAX, red_slot=0, red_keep=1)
    b.free(scores)
