"""Logits and sampling scores of all tokens, and the search for the greatest score."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

from arch.isa import Alu, Func, Red, Sat
from arch.vectors import SIDES
from compiler.ir import BURST_SLOT, Acc, Act, Cluster, Imm, Iota, Mem, Reg, Stream
from compiler.place.layout import Halves
from compiler.place.placement import Matrix

from .builder import Builder, less
from .noise import every_other, gumbel, made_by_layers, made_for, noise, rest_of_noise
from .product import product

LOWEST = {"a": Imm(-1), "pre": 1 - 32, "red": Red.MAX, "red_slot": 0}
"""Fields of an operation that reduces INT_MIN into the slot of the greatest score."""
AHEAD = 2
"""Matrix products that run ahead of the one whose logits are computed."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """What the scores come to.

    score: the greatest score of all, at least the threshold, in every lane. turns: of the classifier's loop, if there
    is one: the scores of its turns are yet to be searched, see `turn_greatest`. unsearched: how many vectors of scores,
    from the first on, are yet to be searched without a loop. early: the choice among the others, if there are any.
    """

    score: Reg
    turns: int
    unsearched: int
    early: Reg | None


def classify(b: Builder, acts: dict[str, Act], er: int | None, threshold: Reg) -> Best:
    """Logits in "logits", scores in "z", of a chip that shares the vocabulary its greatest score in "best"; the caller
    returns the registers of the result.

    acts, er: the normed residual and the register of its exponent. threshold: the least score that is searched for, in
    every lane. A large vocabulary takes a loop of its own, block "classifier"; what its turns leave over is straight
    code, and its tokens are searched at once. Without a loop the first tokens come last, so that the others are
    searched while these are computed.
    """
    g, loop, score, early = b.geometry, b.placement.vocabulary, b.regs(1), None
    b.cluster("sample").alu(**LOWEST)
    ready: dict[str, Acc] = {}
    if loop.turns:
        ready = _turn(b, acts, er)
        b.open("choose")
    first, end = loop.turns * loop.body, len(b.placement.matrices["classifier"].vectors["W"])
    if not made_by_layers(b) and first < end:
        noise(b, 2 * first, g.vocab - 2 * first, rel=0)
    rest_of_noise(b)
    split = end
    for start in () if loop.turns else _borders(b, end):
        last = _vectors(b, acts, er, range(start, split), {})
        _greatest(b, last, alu=Alu.Q, dst=score)
        early = _choice(b, score, threshold, 2 * start, min(2 * split, g.vocab) - 2 * start, early)
        split = start
    last = _vectors(b, acts, er, range(first, split), ready)
    _greatest(b, last, b.tensor("best", b.chip, 1) if g.share else None, alu=Alu.MAX, c=threshold, dst=score)
    if loop.turns and 2 * first < g.vocab:
        early = _choice(b, score, threshold, 2 * first, g.vocab - 2 * first)
    return Best(score=score, turns=loop.turns, unsearched=min(2 * split, g.vocab), early=early)


def turn_greatest(b: Builder) -> Mem:
    """Where the first turn of the loop leaves the greatest score so far, in every lane; the other turns follow at the
    loop's stride. It is the last vector of the turn's noise, which nobody needs any more."""
    return b.tensor("gumbel", 2 * b.placement.vocabulary.body - 1, 1)


def _greatest(b: Builder, last: tuple[Cluster, Stream] | None, place: Mem | None = None, **fields: Any) -> None:
    """An operation on the greatest score so far. last: the cluster that finds it, and its reduction; None if that is
    one of the loop. place: where the operation's result goes besides."""
    cluster, top = last or (cluster := b.cluster("sample"), cluster.alu(**LOWEST, red_keep=1)[1])
    result, _ = b.alu(cluster, a=b.across_lanes(cluster, top, Red.MAX), **fields)
    if place:
        cluster.write(result, place)


def _choice(b: Builder, greatest: Reg, threshold: Reg, first: int, count: int, later: Reg | None = None) -> Reg:
    """The first token whose score is `greatest` among `count` vectors from `first` on, at least `threshold`, which no
    token is if the next one is known; or else `later`, which is freed."""
    label, cluster, chosen = "choose", b.cluster("choose"), b.regs(1)
    _, least = cluster.alu(a=b.tensor("z", first, count), alu=Alu.INDEX, b=Iota(), c=greatest, n=count, red=Red.MIN,
                           red_slot=BURST_SLOT)
    b.alu(cluster, a=b.across_lanes(cluster, least, Red.MIN), alu=Alu.ADD, c=Imm(b.geometry.lanes * first), dst=chosen)
    b.op(label, a=chosen, alu=Alu.MAX, c=threshold, dst=chosen)
    if later:
        b.op(label, a=chosen, alu=Alu.MIN, c=later, dst=chosen)
        b.free(later)
    return chosen


def _borders(b: Builder, end: int) -> list[int]:
    """The first vectors of the parts of each side's vectors, from the last part to the second: each is searched while
    those before it are computed."""
    starts = [start for start, _ in _bursts(b, range(end))]
    found = (max((start for start in starts if start <= late < end), default=0) for late in b.geometry.late_logits)
    return sorted({border for border in found if border}, reverse=True)


def _turn(b: Builder, acts: dict[str, Act], er: int | None) -> dict[str, Acc]:
    """A turn of the classifier's loop. Returns each side's accumulators of the burst behind the last turn.

    The matrix units are a burst ahead: a turn finds the scores of its bursts, and multiplies all but the first of them
    and the next turn's first. So they never wait, and the instructions of a turn are issued before it ends.
    """
    matrix, most, body = b.placement.matrices["classifier"], b.geometry.burst, b.placement.vocabulary.body
    accs = {side: [Acc(side, b.accumulators[side].take(most), most) for _ in range(2)] for side in SIDES}
    for side in SIDES:
        product(b, matrix, acts[side], 0, most, into=accs[side][0])
    b.open("classifier", b.placement.vocabulary.turns, b.placement.vocabulary.strides)
    for start in range(0, body, most):
        now, following = (start // most % 2, start // most % 2 ^ 1)
        for side in SIDES:
            product(b, matrix, acts[side], start + most, most, rel=1, into=accs[side][following])
        noise(b, 2 * start, 2 * most, rel=1)
        found = [_token_scores(b, matrix, accs[side][now], start, er, 1) for side in SIDES]
    cluster, top = found[-1]
    cluster.write(b.across_lanes(cluster, top, Red.MAX), replace(turn_greatest(b), rel=1))
    return {side: accs[side][0] for side in SIDES}


def _vectors(b: Builder, acts: dict[str, Act], er: int | None, vectors: range, ready: dict[str, Acc],
             ) -> tuple[Cluster, Stream] | None:
    """Product, logits and scores of some vectors of each side. ready: accumulators of the first bursts, if their
    products are computed. Returns the cluster of the last scores and its reduction, if there are any."""
    matrix = b.placement.matrices["classifier"]
    todo = [(side, start, min(count, len(matrix.vectors[side]) - start))
            for start, count in _bursts(b, vectors) for side in SIDES]
    todo = [item for item in todo if item[2] > 0]

    def computed(side: str, start: int, count: int) -> Acc:
        return ready.pop(side) if side in ready else product(b, matrix, acts[side], start, count)

    accs, last = [computed(*item) for item in todo[: 2 * AHEAD]], None
    for n, (_, start, _) in enumerate(todo):
        if n >= AHEAD and n + AHEAD < len(todo):
            accs.append(computed(*todo[n + AHEAD]))
        last = _token_scores(b, matrix, accs[n], start, er, 0)
    return last


def _bursts(b: Builder, vectors: range) -> list[tuple[int, int]]:
    """(first, count) of the bursts of some vectors of a side. On a chip of a rack the last of all is halved: what
    follows it is waited for. Of several sequences, the noise of a burst is of one layer, or of the end, and its scales
    lie in one half."""
    g, loop = b.geometry, b.placement.vocabulary
    if g.together == 1 or loop.turns:
        most = g.burst if loop.turns else g.logit_burst
        starts = [*vectors[::most], vectors.stop]
        if g.share and not loop.turns and not vectors.start and len(vectors) > 1:
            starts.insert(-1, (starts[-2] + starts[-1] + 1) // 2)
        return [(start, stop - start) for start, stop in itertools.pairwise(starts)]
    scale, end = b.placement.matrices["classifier"].scale["W"], len(b.placement.matrices["classifier"].vectors["W"])
    assert isinstance(scale, Halves)
    edges = {*vectors[:1], vectors.stop, scale.tensor.quads, *range(made_for(b), end, g.logit_burst)}
    if made_for(b):
        edges |= {*range(0, made_for(b), g.noise_of_layers())}
    starts = sorted(edge for edge in edges if edge in vectors or edge == vectors.stop)
    return [(start, stop - start) for start, stop in itertools.pairwise(starts)]


def _token_scores(b: Builder, matrix: Matrix, acc: Acc, start: int, er: int | None, rel: int) -> tuple[Cluster, Stream]:
    """Logits and scores of an accumulator's tokens; the greatest score in reduction slot 0. start: the side's first
    vector. Returns the last cluster and its reduction."""
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
    cluster = b.cluster("sample")
    _, top = b.alu(cluster, a=gumbel(b, first, count, rel=rel), pre=5, func=Func.MUL, b=b.tensor("temperature"),
                   post=15, alu=Alu.RSUB, c=scores, n=count, dst=z, red=Red.MAX, red_slot=0, red_keep=1)
    b.free(scores)
    return cluster, top
