"""First half of a layer: attention of each head, and the output projection.

The heads of a side follow each other in a software pipeline, and both sides take turns: see `attention`.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from arch.isa import Alu, DrainMax, ErUse, Func, Order, Red, Sat
from arch.vectors import SIDES, ceil_div
from compiler.ir import Acc, Act, Cluster, Mem, Reg, Stream
from compiler.place.geometry import DRAIN_BURST, Geometry, Head
from compiler.place.masks import MASKED_TOGETHER
from compiler.place.placement import ACROSS
from program.integer import Q_SHIFT

from .builder import FRAC, Builder
from .by_sides import project_by_sides
from .collectives import all_gather
from .exchange import sent_interval
from .masks import first_masked, mask_accumulators
from .norm import gain_of, norm
from .product import add_to_residual, last_of
from .qkv import Queries, key_scales, keys, project, spread_values, values
from .state import TokenState

SUM_SLOT = 2
"""First of the two reduction slots of the softmax; scores have slots 0 and 1."""

Outputs = dict[int, dict[str, Act]]
"""Vectors of attention's output in both activation buffers, by the number of a head's first vector among all."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The vectors of positions of a bucket that one side computes of a head: all, or every other one.

    cache, kv: numbers of their head set and K/V head, or of the halves of these. first, step: which of all vectors they
    are. count: how many. valid: how many of them need no mask.
    """

    side: str
    cache: int
    kv: int
    first: int
    step: int
    count: int
    valid: int

    def masks(self, b: Builder, name: str, start: int, count: int) -> Mem:
        """The masks, in a tensor, of vectors from `start` on."""
        first = self.first + self.step * start - b.valid
        return b.tensor(name, first, self.step * (count - 1) + 1)[:: self.step]


def _parts(b: Builder, head: Head) -> list[Part]:
    """Who computes which positions of a head. Without any, a side is left out."""
    caches = b.geometry.halves(head.head_set)
    step = len(caches)
    parts = [Part(side=SIDES[cache % 2], cache=cache, first=first, step=step,
                  kv=head.kv + (cache - head.head_set) * b.geometry.heads_per_vector,
                  count=ceil_div(b.chunks - first, step), valid=ceil_div(b.valid - first, step))
             for first, cache in enumerate(caches)]
    return [part for part in parts if part.count]


@dataclass(frozen=True)
class Scores:
    """Of a head: scores of all positions of the bucket in SRAM, by who computes them, and the largest, in every lane of
    a register. slot: 0 or 1, that of the head's reductions.

    With static keys, SRAM has the products of query and key, which EXP2 shifts to scores.
    """

    scores: list[tuple[Part, Mem]]
    largest: Reg
    slot: int


def attention(b: Builder, state: TokenState) -> None:
    """residual += attention(norm(residual)), with the token's keys and values added to the cache."""
    queries, outputs = Queries(), Outputs()
    share, projects = b.geometry.share, bool(b.model.heads or b.model.wk.size or b.model.wv.size)
    if projects or (share and share.scattered):  # some chips of a rack have no heads, but all exchange what they norm
        acts, er = norm(b, state, "attention norm", gain=gain_of(b, "g_layer", 0), site="att_norm",
                        post=b.shifts.norm_att)
        if projects:
            queries = (project_by_sides if b.geometry.by_sides else project)(b, state, acts, er)
        b.free_exponent(er)
    does = {side: _heads(b, state, side, queries, outputs) for side in SIDES}
    for side, step, n in _in_turn(b.geometry):
        does[side][step](n)
    if b.geometry.share:
        for k in range(len(_output_order(b.geometry)), _most_outputs(b.geometry)):
            _share_outputs(b, outputs, k)
    b.free(*(query for query in queries.values() if not isinstance(query, Act)))
    _project_outputs(b, state, outputs)


def _in_turn(g: Geometry) -> Iterator[tuple[str, str, int]]:
    """(side, step, number of the side's head) of all heads, in program order: the sides take turns."""
    for steps in itertools.zip_longest(*([(side, *step) for step in _steps(len(g.heads(side)))] for side in SIDES)):
        yield from filter(None, steps)


def _steps(heads: int) -> list[tuple[str, int]]:
    """Steps of one side's heads: scores of the next head go before the softmax and the value product of this one, the
    token's values behind the first scores."""
    steps = [("scores", 0), ("spread", 0)] if heads else []
    for n in range(heads):
        if n + 1 < heads:
            steps.append(("scores", n + 1))
        steps.append(("values", n))
    return steps


def _heads(b: Builder, state: TokenState, side: str, queries: Queries, outputs: Outputs,
           ) -> dict[str, Callable[[int], None]]:
    """What the steps of one side's heads write."""
    heads, found = b.geometry.heads(side), dict[int, Scores]()

    def scores(n: int) -> None:
        found[n] = _scores(b, state, heads[n], queries[heads[n].head_set, heads[n].query], n)

    def rest(n: int) -> None:
        _values(b, state, heads[n], found.pop(n), outputs)

    def spread(_: int) -> None:
        for head_set in sorted({head.head_set for head in heads}):
            spread_values(b, head_set)

    return {"scores": scores, "spread": spread, "values": rest}


# --- scores --------------------------------------------------------------------------------------------------------


def _scores(b: Builder, state: TokenState, head: Head, query: Reg | Mem | Act, number: int) -> Scores:
    """q.k of all positions of the bucket, scaled and masked; number: of the head on its side.

    Positions before the bucket's first do not wait for this token's key.
    """
    parts = _parts(b, head)
    acts = {head.side: query} if isinstance(query, Act) else _int8_query(b, state, head, query, parts)
    largest, slot = b.regs(1), number % 2 if b.geometry.halved else SIDES.index(head.side)
    scores = {part.side: b.tensor(f"t_{part.side}{number % 2}") for part in parts}
    cluster, top = (_drained if b.masked else _scaled)(b, state, parts, acts, scores, slot)
    shift: dict[str, Any] = {"pre": b.shifts.score} if b.geometry.static_keys else {}
    b.alu(cluster, a=b.across_lanes(cluster, top, Red.MAX), **shift, dst=largest)
    return Scores(scores=[(part, scores[part.side]) for part in parts], largest=largest, slot=slot)


def _drained(b: Builder, state: TokenState, parts: list[Part], acts: dict[str, Act], scores: dict[str, Mem], slot: int,
             ) -> tuple[Cluster, Stream]:
    """Products of all positions, masked in the matrix unit, which finds the greatest: (cluster, stream of it)."""
    (part,), label, first = parts, "score", first_masked(b)
    edges = [*range(0, first, b.geometry.position_burst), *range(first, b.chunks + 1, MASKED_TOGETHER)]
    for start, end in itertools.pairwise(edges):
        acc = _accumulators(b, part.side, end - start)
        if start >= first:
            mask_accumulators(b, state.masking[part.side], acc, start)
        _multiply_keys(b, part, acts[part.side], acc, start, now=end > b.valid, clear=int(start < first))
        cluster = b.cluster(label)
        products = cluster.drain(acc, DrainMax.MORE if start else DrainMax.FIRST)
        cluster.write(products, scores[part.side][start:end])
    cluster = b.cluster(label)
    greatest = cluster.drain(Acc(part.side, 0), DrainMax.DRIVE)
    return cluster, cluster.alu(a=greatest, red=Red.MAX, red_slot=slot)[1]


def _scaled(b: Builder, state: TokenState, parts: list[Part], acts: dict[str, Act], scores: dict[str, Mem], slot: int,
            ) -> tuple[Cluster, Stream]:
    """Scores, or products of static keys, which the VXM masks; those without a mask are drained, if the matrix unit
    finds the greatest of them: (cluster, stream of the greatest)."""
    label, g, s, begun = "score", b.geometry, b.shifts, 0
    drains = g.static_keys and b.config.drain_max and b.valid > 0
    top = None
    for part, start, count in _bursts(b, parts, state.mask, drains):
        acc = _accumulators(b, part.side, count)
        now, to = start >= part.valid, scores[part.side][start : start + count]
        _multiply_keys(b, part, acts[part.side], acc, start, now=now)
        if drains and not now:
            cluster = b.cluster(label)
            cluster.write(cluster.drain(acc, DrainMax.MORE if start else DrainMax.FIRST), to)
        if drains and (start == part.valid or start + count == part.count == part.valid):
            cluster = b.cluster(label)
            greatest = cluster.drain(Acc(part.side, 0), DrainMax.DRIVE)
            _, top = cluster.alu(a=greatest, red=Red.MAX, red_slot=slot, red_keep=begun)
            begun = 1
        if drains and not now:
            continue
        scaled = {"a": acc, "n": count, "dst": to, "sat": Sat.S32}
        if not g.static_keys:
            scaled |= {"b": key_scales(b, part.kv, start, count, now=now), "func": Func.MUL, "pre": s.score_pre,
                       "post": s.score, "sat": Sat.S24}
        if now:
            scaled = _masked(b, state.mask, label, scaled, part, start)
        cluster = b.cluster(label)
        _, top = b.alu(cluster, **scaled, red=Red.MAX, red_slot=slot, red_keep=begun)
        begun = 1
    assert top
    return cluster, top


def _accumulators(b: Builder, side: str, count: int) -> Acc:
    return Acc(side, b.accumulators[side].take(count, b.geometry.position_burst), count)


def _multiply_keys(b: Builder, part: Part, act: Act, acc: Acc, start: int, *, now: bool, clear: int = 1) -> None:
    """Products of a query and the keys of some vectors of positions from `start` on; see `keys`."""
    weights = [keys(b, part.cache, group, start, acc.count, now=now) for group in range(1, b.config.groups)]
    b.cluster("score").mac(weights, act, acc, vector_entries=b.geometry.vector_entries, clear=clear)


def _int8_query(b: Builder, state: TokenState, head: Head, query: Reg | Mem, parts: list[Part]) -> dict[str, Act]:
    """A head's query in the activation buffers of its sides, with 0 in the lanes of others."""
    vectors = b.geometry.head_vectors
    acts = {part.side: Act(part.side, b.activations[part.side].take(vectors), vectors) for part in parts}
    cluster = b.cluster("score")
    own = {"alu": Alu.AND, "c": state.head_lanes[head.member]} if state.head_lanes else {}
    q8, _ = cluster.alu(a=query, pre=Q_SHIFT, sat=Sat.S8, n=vectors, **own)
    b.load(cluster, q8, acts)
    return acts


def _bursts(b: Builder, parts: list[Part], mask: Reg | None, drains: bool) -> Iterator[tuple[Part, int, int]]:
    """(part, first, count) of the vectors of positions whose scores are computed in a burst, all masked or none; the
    parts take turns. Few masks are in registers, and applied at once; others come from SRAM, a few at a time. drains:
    those without a mask take no operation of the VXM."""
    most = b.geometry.position_burst if b.geometry.masks_on_both_sides else DRAIN_BURST
    masked = max(most, mask.count) if mask else most
    free = b.geometry.position_burst if drains else most
    found = []
    for part in parts:
        edges = sorted({*range(0, part.valid, free), part.valid, *range(part.valid, part.count, masked), part.count})
        found.append([(part, start, end - start) for start, end in itertools.pairwise(edges)])
    for turn in itertools.zip_longest(*found):
        yield from filter(None, turn)


def _masked(b: Builder, mask: Reg | None, label: str, scaled: dict[str, Any], part: Part, start: int,
            ) -> dict[str, Any]:
    """The operation that ends `scaled` scores of vectors start.. of a part with masks added; what it needs is written
    before."""
    g, scores, count = b.geometry, scaled["dst"], scaled["n"]
    if mask:
        return scaled | {"alu": Alu.ADD, "c": mask[start - part.valid : start - part.valid + count]}
    if "b" not in scaled and (g.together > 1 or g.halved):
        return scaled | {"alu": Alu.ADD, "c": part.masks(b, f"mask_{ACROSS[part.side]}", start, count)}
    b.op(label, **scaled | {"sat": Sat.S32})
    add = {"a": scores, "alu": Alu.ADD, "sat": scaled["sat"], "n": count, "dst": scores}
    if g.masks_on_both_sides:
        return add | {"c": part.masks(b, "mask_W0" if scores.slice == "E0" else "mask_E0", start, count)}
    copy = b.regs(count)
    b.op(label, a=part.masks(b, "mask_W0", start, count), n=count, dst=copy)
    b.free(copy)
    return add | {"c": copy}


# --- softmax, values and output ------------------------------------------------------------------------------------


def _values(b: Builder, state: TokenState, head: Head, found: Scores, outputs: Outputs) -> None:
    """Numerators of the softmax, their value product, and its division by their sum into `outputs`."""
    g, parts = b.geometry, [part for part, _ in found.scores]
    acts = {part.side: Act(part.side, b.activations[part.side].take(part.count, g.position_burst), part.count)
            for part in parts}
    r, er = b.regs(1), b.exponents.take()
    _numerators(b, found, acts, r, er)
    accs = []
    for part in parts:
        vector = (b.head_accumulator(part.side, head.member) if state.head_lanes
                  else b.accumulators[part.side].take(g.head_vectors))
        accs.append(Acc(part.side, vector, g.head_vectors))
        weights = [values(b, part.kv, group, part.count) for group in range(1, b.config.weight_groups + 1)]
        b.cluster("value product").mac(weights, acts[part.side], accs[-1], vector_entries=g.vector_entries,
                                       first_entry=head.member * g.head_entries, accs=g.head_entries, order=Order.TILE)
    _output(b, head, _whole(b, accs), r, er, outputs)
    b.free(found.largest, r)
    b.exponents.give(er)


def _numerators(b: Builder, found: Scores, acts: dict[str, Act], r: Reg, er: int) -> None:
    """2**(score - largest) of all positions in the activation buffers; r, er: the reciprocal of their sum."""
    label, most, begun = "softmax", b.geometry.position_burst, 0
    shift: dict[str, Any] = {"pre": b.shifts.score} if b.geometry.static_keys else {}
    bursts = [[(part, scores, start, min(most, part.count - start)) for start in range(0, part.count, most)]
              for part, scores in found.scores]
    for part, scores, start, count in filter(None, itertools.chain(*itertools.zip_longest(*bursts))):
        cluster = b.cluster(label)
        p, total = cluster.alu(a=scores[start : start + count], func=Func.EXP2, c=found.largest, post=7, **shift,
                               sat=Sat.S8, n=count, red=Red.SUM, red_slot=SUM_SLOT + found.slot, red_keep=begun)
        cluster.load(p, acts[part.side].entries(start, count))
        begun = 1
    b.alu(cluster, a=b.across_lanes(cluster, total, Red.SUM), func=Func.RECIP, post=FRAC[Func.RECIP], alu=Alu.ADD,
          dst=r, er_dst=er)


def _whole(b: Builder, accs: list[Acc]) -> Acc | Reg:
    """The sum of the products of both sides; it needs no more than 31 bits (`check_products`)."""
    if len(accs) == 1:
        return accs[0]
    west, east = accs
    total = b.regs(west.count)
    b.op("attention output", a=west, alu=Alu.ADD, c=east, n=west.count, dst=total)
    b.free(total)
    return total


def _output(b: Builder, head: Head, acc: Acc | Reg, r: Reg, er: int, outputs: Outputs) -> None:
    """The head's int8 output. The last head of a vector loads the vector, and adds it to `outputs`; other ones leave
    their lanes in SRAM."""
    label, g, s = "attention output", b.geometry, b.shifts
    op = {"a": acc, "pre": s.av_pre, "func": Func.MUL, "b": r, "post": s.av, "er_use": ErUse.POST, "er": er,
          "sat": Sat.S8, "n": g.head_vectors}
    if not _ends_vector(g, head):
        b.op(label, **op, dst=b.tensor(f"part_{head.side}"))
        return
    if head.member:
        op |= {"alu": Alu.ADD, "c": b.tensor(f"part_{head.side}")}
    number = g.first_vector(b.chip) + g.query_vectors().index((head.head_set, head.query, 0))
    outputs[number] = _output_acts(b, number)

    def load(cluster: Cluster) -> Stream:
        stream, _ = cluster.alu(**op)
        b.load(cluster, stream, outputs[number])
        return stream

    if b.geometry.share:
        op["interval"] = sent_interval(b, g.head_vectors)
        _share_outputs(b, outputs, _output_order(g).index(number - g.first_vector(b.chip)), load)
    else:
        load(b.cluster(label))


def _ends_vector(g: Geometry, head: Head) -> bool:
    """Whether a head is the last one of its vector."""
    return head.member == g.heads_per_vector - 1 or head.kv == g.model.kv_heads - 1


def _output_acts(b: Builder, number: int) -> dict[str, Act]:
    """The activation entries of a head's vectors, from vector `number` on."""
    first = b.outputs[number]
    return b.placement.matrices["wo"].inputs({side: Act(side, first, b.geometry.head_vectors) for side in SIDES})


def _output_order(g: Geometry) -> list[int]:
    """Numbers of the first vectors of a chip's heads, among the chip's vectors, in the order in which they are done."""
    heads = [g.heads(side)[n] for side, step, n in _in_turn(g) if step == "values"]
    return [g.query_vectors().index((head.head_set, head.query, 0)) for head in heads if _ends_vector(g, head)]


def _chips(g: Geometry) -> list[Geometry]:
    return [g.of_chip(heads) for heads in g.share.heads] if g.share else [g]


def _most_outputs(g: Geometry) -> int:
    """Outputs of the chip that has the most."""
    return max(len(_output_order(chip)) for chip in _chips(g))


def _share_outputs(b: Builder, outputs: Outputs, k: int, own: Callable[[Cluster], Stream] | None = None) -> None:
    """Exchange output number k of each chip that has so many. Those of others join `outputs`.

    own: makes this chip's.
    """
    g = b.geometry
    parts, acts = [], dict[int, dict[str, Act]]()
    for chip, geometry in enumerate(_chips(g)):
        order = _output_order(geometry)
        first = g.first_vector(chip) + order[k] if k < len(order) else 0
        parts.append(range(first, first + g.head_vectors) if k < len(order) else range(0))
        if chip != b.chip and k < len(order):
            outputs[first] = acts[chip] = _output_acts(b, first)
    all_gather(b, "outputs", parts, acts=acts, own=own or _nothing)


def _nothing(cluster: Cluster) -> Stream:
    raise ValueError(f"{cluster.label}: this chip has nothing to send")


def _project_outputs(b: Builder, state: TokenState, outputs: Outputs) -> None:
    """residual += Wo times the outputs, vector by vector as they come: only the last head's vectors are waited for."""
    matrix = b.placement.matrices["wo"]
    accs = {side: Acc(side, b.accumulators[side].take(len(matrix.vectors[side])), len(matrix.vectors[side]))
            for side in SIDES if matrix.vectors[side]}
    last = dict[str, Acc]()
    for n, (number, acts) in enumerate(_as_they_come(b, outputs)):
        for v in range(b.geometry.head_vectors):
            for side, acc in accs.items():
                quads = acc.count * matrix.vector_entries
                weights = [t.mem((number + v) * quads, quads, cells=()) for t in matrix.tensors[side]]
                b.cluster("wo product").mac(weights, acts[side].entries(v, 1), acc, wfmt=matrix.wfmt,
                                            vector_entries=matrix.vector_entries, clear=int(n == 0 and v == 0))
        last_of(b, matrix, acts, number, SIDES[n % 2], last)
    add_to_residual(b, state, matrix, accs, pre=b.shifts.wo_pre, post=b.shifts.wo, last=last)


def _as_they_come(b: Builder, outputs: Outputs) -> list[tuple[int, dict[str, Act]]]:
    """Outputs in the order in which they are computed, or sent by all chips."""
    if not b.exchange:
        return list(outputs.items())
    orders = {chip: [b.geometry.first_vector(chip) + n for n in _output_order(of)]
              for chip, of in enumerate(_chips(b.geometry))}
    ranks = {number: (k, b.exchange.order.index(chip))
             for chip, order in orders.items() for k, number in enumerate(order)}
    return sorted(outputs.items(), key=lambda output: ranks[output[0]])
