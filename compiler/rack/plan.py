"""Ways to divide a model among the chips of a rack, and the choice between them by predicted cycles."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from arch.rack import RackConfig
from base.errors import TspError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A partition: consecutive groups of chips hold consecutive layers, and the chips of a group each their rows of the
    matrices.

    tensor: chips of a group. pipeline: groups.
    whole: matrices that every chip of a group holds in full, see `compiler.place.share.Share`. They cost SRAM and
    cycles of the matrix units, and save the transfers of the residual. "embedding" saves that of a token's row.
    scattered: each chip has its vectors of the residual only, see `Share`. It pays in large groups.
    summed: W2 is divided by its input columns, see `Share`. It pays where the inner layer is wide, above all where
    it is longer than an activation buffer.
    halve: both hemispheres of a chip with one K/V head work on each of its query heads, see `Geometry.halved`.
    sequences: independent ones in flight, as many as groups; or 1.
    layers: how many each group has; () if all chips are to hold about as many bytes.
    """

    tensor: int
    pipeline: int
    whole: frozenset[str] = frozenset()
    scattered: bool = False
    summed: bool = False
    halve: bool = False
    sequences: int = 1
    layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        kinds = ["consecutive layers"] if self.pipeline > 1 or self.tensor == 1 else []
        if kinds and self.tensor > 1:
            kinds[0] += f" among {self.pipeline} groups of {self.tensor} chips, within them"
        kind = " by ".join([*kinds, "rows of the matrices"] if self.tensor > 1 else kinds)
        kept = f", {_enumerated(sorted(self.whole))} whole on each chip" if self.whole else ""
        parts = ", and the residual" if self.scattered else ""
        parts += ", columns of w2" if self.summed else ""
        halved = ", both hemispheres on each head of a chip with one K/V head" if self.halve else ""
        flight = f", {self.sequences} sequences in flight" if self.sequences > 1 else ""
        return f"{kind}{parts}{kept}{halved}{flight}"

    @property
    def groups(self) -> list[range]:
        """The chips of each group."""
        return [range(first, first + self.tensor) for first in range(0, self.tensor * self.pipeline, self.tensor)]


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


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
    return [plan for count in able for plan in _variants(rack, chips // count, count, sequences)]


def _variants(rack: RackConfig, tensor: int, pipeline: int, sequences: int) -> list[Plan]:
    """The plans for so many groups of so many chips."""
    if tensor == 1:
        return [Plan(tensor=1, pipeline=pipeline, sequences=sequences)]
    scattered = Plan(tensor=tensor, pipeline=pipeline, scattered=True, sequences=sequences)
    return [*([scattered] if tensor > FEW else []),
            *(Plan(tensor=tensor, pipeline=pipeline, whole=frozenset(whole), sequences=sequences)
              for whole in (("wo", "w2"), ("wo",), ("w2",), ())),
            *([replace(scattered, summed=True)] if _meshed(rack, scattered.groups) else [])]


def _meshed(rack: RackConfig, groups: list[range]) -> bool:
    """Whether each chip of a group is linked with each other one of it."""
    try:
        return all(rack.part(group).meshed for group in groups)
    except TspError:
        return False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The plan that is taken.

    context: positions served; 0 if the model does not fit.
    limit: what keeps them below what is wanted; "" if nothing does.
    """

    plan: Plan
    context: int
    limit: str
