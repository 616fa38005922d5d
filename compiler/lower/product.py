"""Matrix products, and what becomes of their accumulators: requantised vectors, or additions to the residual."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from arch.config import PLANES
from arch.isa import Alu, Func, Order, Sat
from compiler.ir import Acc, Act, Cluster, Mem, Reg, Stream
from compiler.place.geometry import DRAIN_BURST
from compiler.place.layout import Halves
from compiler.place.placement import LAST, Matrix

from .builder import Builder
from .collectives import all_gather
from .norm import largest_so_far, operand_shift
from .state import TokenState


def product(b: Builder, matrix: Matrix, act: Act, start: int, count: int, rel: int = 0, into: Acc | None = None,
            ) -> Acc:
    """Accumulators of `count` output vectors of the side of `act`, from its vector `start` on.

    rel: loop level whose offset the weights' addresses get, besides that of layers. into: the accumulators, by default
    the next ones of the side's ring.
    """
    side = act.side
    acc = into or Acc(side, b.accumulators[side].take(count), count)
    per_vector = matrix.vector_entries * matrix.acts
    weights = [t.mem(start * per_vector, count * per_vector, cells=()) for t in matrix.tensors[side]]
    weights = [replace(mem, rel=mem.rel or rel) for mem in weights]
    b.cluster(f"{matrix.name} product").mac(weights, act, acc, vector_entries=matrix.vector_entries, wfmt=matrix.wfmt)
    return acc


def product_as_it_comes(b: Builder, matrix: Matrix, acts: Mapping[str, Act]) -> dict[str, Acc]:
    """Accumulators of all output vectors, by side, for an input whose parts come from the chips of a rack. Each part is
    multiplied as soon as it and those before it are there: this chip's first, then of each port."""
    share, exchange = b.geometry.share, b.exchange
    assert share and exchange
    accs = {side: Acc(side, b.accumulators[side].take(len(vectors)), len(vectors))
            for side, vectors in matrix.vectors.items() if vectors}
    for n, chip in enumerate(exchange.order):
        part = share.residual[chip]
        for side, acc in accs.items():
            quads = acc.count * matrix.vector_entries
            weights = [t.mem(part.start * quads, len(part) * quads, cells=()) for t in matrix.tensors[side]]
            b.cluster(f"{matrix.name} product").mac(
                weights, acts[side].entries(part.start, len(part)), acc, vector_entries=matrix.vector_entries,
                wfmt=matrix.wfmt, order=Order.TILE, clear=int(not n))
    return accs


def requantise(b: Builder, cluster: Cluster, matrix: Matrix, acc: Acc, start: int, *, pre: int, post: int, sat: Sat,
               **fields: Any) -> tuple[Stream, Stream]:
    """Accumulators * channel scales, between two shifts: (results, reduction) as `Builder.alu`.

    start: the side's output vector that is first in `acc`.
    """
    return b.alu(cluster, a=acc, b=matrix.scales(acc.side, start, acc.count), func=Func.MUL, pre=pre, post=post,
                 sat=sat, n=acc.count, **fields)


def add_to_residual(b: Builder, state: TokenState, matrix: Matrix, accs: dict[str, Acc], *, pre: int,
                    fresh: bool = True, complete: bool = True, together: bool = False,
                    last: Mapping[str, Acc] | None = None, **fields: Any) -> None:
    """residual += accumulators * channel scales, those of each side to its vectors. fields: the shift behind. fresh,
    complete: this is the first, or the last addition between two norms. together: both sides' products are ready at
    about the same time. last: accumulators of the last vector, see `last_of`.

    An operation takes three operands, and two of them from streams: a residual in SRAM is added to in a second one.
    """
    label, residual, whole = f"{matrix.name} residual", state.residual, []
    share = b.geometry.share
    if share and not share.scattered and matrix.name not in share.whole:
        _add_to_part(b, residual, matrix, accs, pre=pre, fresh=fresh, complete=complete, **fields)
        if complete:
            _add_of_all(b, state, matrix)
        return
    for side, acc in accs.items():
        first = matrix.vectors[side][0]
        for start, count in _bursts(residual, matrix, side, acc.count):
            scaled = {"a": Acc(side, acc.vector + start, count), "b": matrix.scales(side, start, count),
                      "func": Func.MUL, "pre": pre, **fields, "n": count}
            x = residual[first + start : first + start + count]
            if isinstance(residual, Mem):
                part = b.tensor("x_part", first + start, count)
                b.op(label, **scaled, dst=part)
                scaled = {"a": part, "n": count}
            whole.append(scaled | {"alu": Alu.ADD, "c": x, "dst": x})
    if last:
        whole.append(_last_addition(b, state, matrix, last, pre=pre, **fields))
    if isinstance(residual, Mem) and together:
        whole = [{"a": b.tensor("x_part"), "n": residual.count, "alu": Alu.ADD, "c": residual, "dst": residual}]
    write_residual(b, label, whole, state.shift if complete else None)


def last_of(b: Builder, matrix: Matrix, acts: Mapping[str, Act], first: int, side: str, accs: dict[str, Acc]) -> None:
    """The last vector of a matrix that both sides share: a side multiplies some vectors of its input, from `first` on,
    and adds the product to its accumulator. Without one it takes a new one. Nothing, if all vectors have a side."""
    last = b.placement.matrices.get(f"{matrix.name}{LAST}")
    if last is None:
        return
    fresh = side not in accs
    if fresh:
        accs[side] = Acc(side, b.accumulators[side].take(1))
    act, quads = acts[side], last.vector_entries
    weights = [t.mem(first * quads, act.count * quads, cells=()) for t in last.tensors[side]]
    b.cluster(f"{matrix.name} product").mac(weights, act, accs[side], vector_entries=last.vector_entries,
                                            wfmt=last.wfmt, order=Order.TILE, clear=int(fresh))


def _last_addition(b: Builder, state: TokenState, matrix: Matrix, accs: Mapping[str, Acc], **fields: Any,
                   ) -> dict[str, Any]:
    """The operation that adds the last vector to the residual; what it needs is written before."""
    last, label, residual = b.placement.matrices[f"{matrix.name}{LAST}"], f"{matrix.name} residual", state.residual
    side, *others = accs
    a: Acc | Reg = accs[side]
    if others:
        a = b.regs(1)
        b.op(label, a=accs[side], alu=Alu.ADD, c=accs[others[0]], dst=a)
        b.free(a)
    scaled = {"a": a, "b": last.scales(side, 0, 1), "func": Func.MUL, **fields}
    x = residual[residual.count - 1 : residual.count]
    if isinstance(x, Mem):
        part = b.tensor("x_part", residual.count - 1, 1)
        b.op(label, **scaled, dst=part)
        scaled = {"a": part}
    return scaled | {"alu": Alu.ADD, "c": x, "dst": x, "n": 1}


def write_residual(b: Builder, label: str, operations: Sequence[dict[str, Any]], shift: int | None) -> None:
    """The operations that write all of the residual, and its shift; None if it has none, or not yet."""
    for n, operation in enumerate(operations):
        found = partial(_found, operation | ({} if shift is None else largest_so_far(n == 0)))
        if shift is not None and n == len(operations) - 1:
            operand_shift(b, label, found, shift)
        else:
            found(b.cluster(label))


def _found(operation: dict[str, Any], cluster: Cluster) -> Stream:
    """An operation's reduction."""
    return Builder.alu(cluster, **operation)[1]


def _add_to_part(b: Builder, residual: Reg | Mem, matrix: Matrix, accs: dict[str, Acc], *, fresh: bool, complete: bool,
                 **fields: Any) -> None:
    """Sums of the addends of this chip's vectors: the last addition writes them to "addends"."""
    share, label = b.geometry.share, f"{matrix.name} addends"
    assert share
    for side, acc in accs.items():
        for start, count in _bursts(residual, matrix, side, acc.count):
            at = matrix.vectors[side][0] + start
            done = b.tensor("addends", share.residual[b.chip].start + at, count) if complete else None
            scaled = {"a": Acc(side, acc.vector + start, count), "func": Func.MUL,
                      "b": matrix.scales(side, start, count), **fields, "n": count}
            if fresh and done:
                b.op(label, **scaled, dst=done)
                continue
            sums = b.tensor("part_sums", at, count)
            part = sums if fresh else b.tensor("part", at, count)
            b.op(label, **scaled, dst=part)
            if not fresh:
                b.op(label, a=part, alu=Alu.ADD, c=sums, n=count, dst=done or sums)


def _add_of_all(b: Builder, state: TokenState, matrix: Matrix) -> None:
    """The addends of this chip's vectors go to all chips, and each adds those of all."""
    share, residual, whole = b.geometry.share, state.residual, []
    assert share
    lift = PLANES - share.planes[matrix.name]
    all_gather(b, "addends", share.residual, share.planes[matrix.name], lift=lift)
    for chip in sorted(range(len(share.residual)), key=lambda chip: chip != b.chip):
        part = share.residual[chip]
        x, sign = residual[part.start : part.stop], 0 if chip == b.chip else 8 * lift
        whole.append({"a": b.tensor("addends", part.start, len(part)), "pre": sign, "round": 0, "alu": Alu.ADD, "c": x,
                      "n": len(part), "dst": x})
    write_residual(b, f"{matrix.name} residual", whole, state.shift)


def _bursts(residual: Reg | Mem, matrix: Matrix, side: str, count: int) -> list[tuple[int, int]]:
    """(first, count) of the vectors of a side that are added at once: few to registers, to SRAM as many as have their
    scales together."""
    scales = matrix.scale[side]
    most = scales.tensor.quads if isinstance(residual, Mem) and isinstance(scales, Halves) else DRAIN_BURST
    return [(start, min(most, count - start)) for start in range(0, count, most)]
