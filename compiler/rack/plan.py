"""Ways to divide a model among the chips of a rack, and the choice between them by predicted cycles."""

from dataclasses import dataclass

from base.errors import TspError

TENSOR = "tensor"
"""All chips compute each layer together, each its rows of the matrices."""
LAYERS = "layers"
"""Each chip computes consecutive layers, one chip after the other."""
KINDS = {TENSOR: "rows of the matrices", LAYERS: "consecutive layers"}
"""Partitions by name, in words."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A partition.

    kind: a key of `KINDS`.
    whole: matrices that every chip holds in full, see `compiler.place.share.Share`. They cost SRAM and cycles of the
    matrix units, and save the transfers of the residual.
    scattered: each chip has its vectors of the residual only, see `Share`. It pays on many chips.
    sequences: independent ones in flight, as many as chips; or 1.
    layers: how many each chip has, by layers; () if all chips are to hold about as many bytes.
    """

    kind: str
    whole: frozenset[str] = frozenset()
    scattered: bool = False
    sequences: int = 1
    layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.scattered:
            return f"{KINDS[self.kind]}, and the residual"
        kept = f", {' and '.join(sorted(self.whole))} whole on each chip" if self.whole else ""
        flight = f", {self.sequences} sequences in flight" if self.sequences > 1 else ""
        return f"{KINDS[self.kind]}{kept}{flight}"


FEW = 2
"""Up to so many chips, a residual that every chip holds takes fewer cycles than one in parts."""


def plans(kind: str | None, chips: int, sequences: int = 1) -> list[Plan]:
    """The plans of a kind, or all, for so many chips. Raises TspError that names the kinds."""
    if kind is not None and kind not in KINDS:
        raise TspError(f"partition must be one of {', '.join(KINDS)}, not {kind!r}")
    if sequences > 1:
        if kind == TENSOR:
            raise TspError(f"{sequences} sequences in flight need the partition {LAYERS}, not {TENSOR}")
        return [Plan(kind=LAYERS, sequences=sequences)]
    every = [Plan(kind=TENSOR, whole=frozenset(whole)) for whole in (("wo", "w2"), ("wo",), ("w2",), ())]
    if chips > FEW:
        every.insert(0, Plan(kind=TENSOR, scattered=True))
    return [plan for plan in [*every, Plan(kind=LAYERS)] if kind in (None, plan.kind)]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The plan that is taken.

    context: positions served; 0 if the model does not fit.
    limit: what keeps them below what is wanted; "" if nothing does.
    """

    plan: Plan
    context: int
    limit: str
