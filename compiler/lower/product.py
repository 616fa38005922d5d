"""Matrix products, and what becomes of their accumulators: requantised vectors, or additions to the residual."""

from dataclasses import replace
from typing import Any

from arch.isa import Alu, Func, Sat
from compiler.ir import Acc, Act, Cluster, Mem, Reg, Stream
from compiler.place.geometry import DRAIN_BURST
from compiler.place.layout import Halves
from compiler.place.placement import Matrix

from .builder import Builder
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


def requantise(b: Builder, cluster: Cluster, matrix: Matrix, acc: Acc, start: int, *, pre: int, post: int, sat: Sat,
               **fields: Any) -> tuple[Stream, Stream]:
    """Accumulators * channel scales, between two shifts: (results, reduction) as `Builder.alu`.

    start: the side's output vector that is first in `acc`.
    """
    return b.alu(cluster, a=acc, b=matrix.scales(acc.side, start, acc.count), func=Func.MUL, pre=pre, post=post,
                 sat=sat, n=acc.count, **fields)


def add_to_residual(b: Builder, state: TokenState, matrix: Matrix, accs: dict[str, Acc], *, pre: int,
                    complete: bool = True, together: bool = False, **fields: Any) -> None:
    """residual += accumulators * channel scales, those of each side to its vectors. fields: the shift behind. complete:
    this is the last addition before a norm. together: both sides' products are ready at about the same time.

    An operation takes three operands, and two of them from streams: a residual in SRAM is added to in a second one.
    """
    label, residual, whole = f"{matrix.name} residual", state.residual, []
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
    if isinstance(residual, Mem) and together:
        whole = [{"a": b.tensor("x_part"), "n": residual.count, "alu": Alu.ADD, "c": residual, "dst": residual}]
    shift = state.shift if complete else None
    for n, addition in enumerate(whole):
        cluster = b.cluster(label)
        _, largest = b.alu(cluster, **addition, **({} if shift is None else largest_so_far(n == 0)))
        if shift is not None and n == len(whole) - 1:
            operand_shift(b, cluster, largest, shift)


def _bursts(residual: Reg | Mem, matrix: Matrix, side: str, count: int) -> list[tuple[int, int]]:
    """(first, count) of the vectors of a side that are added at once: few to registers, to SRAM as many as have their
    scales together."""
    scales = matrix.scale[side]
    most = scales.tensor.quads if isinstance(residual, Mem) and isinstance(scales, Halves) else DRAIN_BURST
    return [(start, min(most, count - start)) for start in range(0, count, most)]
