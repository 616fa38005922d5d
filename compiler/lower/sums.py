"""W2 divided by its input columns: each chip multiplies its own inputs, for all outputs, and the chips add up the sums.

Sums of chips are joined before they are scaled, so every bit is that of one chip. Where a group of inputs has an
exponent, its sums are joined by themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arch.config import PLANES
from arch.isa import Alu, DrainMax, Func, Order
from arch.vectors import SIDES
from compiler.ir import Acc, Act, Mem
from compiler.place.share import SUMS

from .builder import Builder
from .collectives import reduce_scatter
from .product import write_residual
from .state import TokenState

Pieces = list[tuple[range, dict[str, Act]]]
"""Vectors of the inner layer, and the activation entries that they are in."""


def add_sums(b: Builder, state: TokenState, sources: Sequence[int], pieces: Pieces, *, by_chips: bool = False,
             complete: bool = True, **fields: Any) -> None:
    """residual += W2's product with what some chips have of the inner layer, scaled. fields: the shift behind.

    sources: these chips. pieces: what this chip has. by_chips: the product with the last piece is computed chip by
    chip, so that the first sums are on their way while it goes on. That takes an instruction for each input and chip.
    complete: this is the last addition between two norms.
    """
    share, label = b.geometry.share, "w2 residual"
    assert share
    planes, sums = share.planes[SUMS], _Sums(b) if pieces else None
    if sums:
        sums.add(pieces[:-1] if by_chips else pieces)

    def own(rows: range) -> None:
        assert sums
        if by_chips:
            sums.add_rows(*pieces[-1], rows)
        sums.drain(rows)

    done, x = reduce_scatter(b, sources, planes, own), state.residual
    scaled = {"a": done, "func": Func.MUL, "b": b.placement.halves[SUMS](0, done.count), "n": done.count,
              "pre": b.shifts.w2_pre + 8 * (PLANES - planes), "post": b.shifts.w2, **fields}
    if isinstance(x, Mem):
        part = b.tensor("x_part")
        b.op(label, **scaled, dst=part)
        scaled = {"a": part, "n": done.count}
    write_residual(b, label, [scaled | {"alu": Alu.ADD, "c": x, "dst": x}], state.shift if complete else None)


class _Sums:
    """The accumulators of W2's product with this chip's inputs, for all outputs."""

    def __init__(self, b: Builder) -> None:
        self._b, self._matrix, self._fresh = b, b.placement.matrices["w2"], True
        counts = {side: len(vectors) for side, vectors in self._matrix.vectors.items() if vectors}
        self._accs = {side: Acc(side, b.accumulators[side].take(count), count) for side, count in counts.items()}

    def add(self, pieces: Pieces) -> None:
        """Add the products of some inputs, for all outputs."""
        for part, acts in pieces:
            for side, acc in self._accs.items():
                self._multiply(part.start, acts[side], acc, 0, clear=self._fresh)
            self._fresh = False

    def add_rows(self, part: range, acts: Mapping[str, Act], rows: range) -> None:
        """Add the products of the last inputs, for some outputs."""
        for side, at, acc in self._rows(rows):
            for n, vector in enumerate(part):
                self._multiply(vector, acts[side].entries(n, 1), acc, at, clear=self._fresh and not n)

    def drain(self, rows: range) -> None:
        """The sums of some outputs into the tensor "parts"."""
        for side, at, acc in self._rows(rows):
            cluster = self._b.cluster("w2 sums")
            cluster.write(cluster.drain(acc, DrainMax.NONE),
                          self._b.tensor("parts", self._matrix.vectors[side][0] + at, acc.count))

    def _rows(self, rows: range) -> Iterator[tuple[str, int, Acc]]:
        """(side, number of the first among the side's, accumulators) of some outputs."""
        for side in SIDES:
            if acc := self._accs.get(side):
                first = self._matrix.vectors[side][0]
                start, stop = max(rows.start - first, 0), min(rows.stop - first, acc.count)
                if start < stop:
                    yield side, start, Acc(side, acc.vector + start, stop - start)

    def _multiply(self, vector: int, act: Act, acc: Acc, at: int, *, clear: bool) -> None:
        """The product of inputs from a vector of the inner layer on, of a side's outputs from number `at` on."""
        matrix, entries = self._matrix, self._matrix.vector_entries
        step = len(matrix.vectors[act.side]) * entries
        start = (vector - self._b.geometry.down.start) * step + at * entries
        count = (act.count - 1) * step + acc.count * entries
        weights = [t.mem(start, count, cells=()) for t in matrix.tensors[act.side]]
        self._b.cluster("w2 product").mac(weights, act, acc, vector_entries=entries, wfmt=matrix.wfmt,
                                          order=Order.TILE, clear=int(clear))
