"""Ways to divide a model among the chips of a rack, and the choice between them by predicted cycles."""

from dataclasses import dataclass

from arch.rack import RackConfig
from base.errors import TspError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A partition: consecutive groups of chips hold consecutive layers, and the chips of a group each their rows of the
    matrices.

    tensor: chips of a group. pipeline: groups.
    whole: matrices that every chip of a group holds in full, see `compiler.place.share.Share`. They cost SRAM and
    cycles of the matrix units, and save the transfers of the residual.
    scattered: each chip has its vectors of the residual only, see `Share`. It pays in large groups.
    halve: both hemispheres of a chip with one K/V head work on each of its query heads, see `Geometry.halved`.
    sequences: independent ones in flight, as many as groups; or 1.
    layers: how many each group has; () if all chips are to hold about as many bytes.
    """

    tensor: int
    pipeline: int
    whole: frozenset[str] = frozenset()
    scattered: bool = False
    halve: bool = False
    sequences: int = 1
    layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        kinds = ["consecutive layers"] if self.pipeline > 1 or self.tensor == 1 else []
        if kinds and self.tensor > 1:
            kinds[0] += f" among {self.pipeline} groups of {self.tensor} chips, within them"
        kind = " by ".join([*kinds, "rows of the matrices"] if self.tensor > 1 else kinds)
        kept = f", {' and '.join(sorted(self.whole))} whole on each chip" if self.whole else ""
        parts = ", and the residual" if self.scattered else ""
        halved = ", both hemispheres on each head of a chip with one K/V head" if self.halve else ""
        flight = f", {self.sequences} sequences in flight" if self.sequences > 1 else ""
        return f"{kind}{parts}{kept}{halved}{flight}"

    @property
    def groups(self) -> list[range]:
        """The chips of each group."""
        return [range(first, first + self.tensor) for first in range(0, self.tensor * self.pipeline, self.tensor)]


FEW = 2
"""In groups of up to so many chips, a residual that every chip holds takes fewer cycles than one in parts."""


def plans(rack: RackConfig, tensor: int | None = None, pipeline: int | None = None, sequences: int = 1) -> list[Plan]:
    """The plans for a rack with groups of `tensor` chips, and `pipeline` groups; None stands for any number.

    Raises TspError that names what cannot be.
    """
    chips = len(rack.chips)
    for what, count in (("tensor", tensor), ("pipeline", pipeline)):
        if count is not None and (count < 1 or chips % count):
            raise TspError(f"rack {rack.name}: --{what} must divide its {chips} chips, not be {count}")
    if tensor and pipeline and tensor * pipeline != chips:
        raise TspError(f"rack {rack.name}: --tensor times --pipeline must be its {chips} chips, not {tensor} * "
                       f"{pipeline} = {tensor * pipeline}")
    wanted = chips // tensor if tensor else pipeline
    able = [count for count in range(1, chips + 1) if chips % count == 0 and wanted in (None, count)]
    if sequences != 1:
        if sequences not in able or sequences < 1:
            raise TspError(f"rack {rack.name}: sequences in flight must be as many as groups of chips, "
                           f"{' or '.join(map(str, able))}, not {sequences}")
        able = [sequences]
    return [plan for count in able for plan in _variants(chips // count, count, sequences)]


def _variants(tensor: int, pipeline: int, sequences: int) -> list[Plan]:
    """The plans for so many groups of so many chips."""
    if tensor == 1:
        return [Plan(tensor=1, pipeline=pipeline, sequences=sequences)]
    parts = [Plan(tensor=tensor, pipeline=pipeline, scattered=True, sequences=sequences)] if tensor > FEW else []
    return parts + [Plan(tensor=tensor, pipeline=pipeline, whole=frozenset(whole), sequences=sequences)
                    for whole in (("wo", "w2"), ("wo",), ("w2",), ())]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The plan that is taken.

    context: positions served; 0 if the model does not fit.
    limit: what keeps them below what is wanted; "" if nothing does.
    """

    plan: Plan
    context: int
    limit: str
