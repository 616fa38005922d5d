"""Ways to divide a model among the chips of a rack, and the choice between them by predicted cycles."""

from collections.abc import Callable
from dataclasses import dataclass

from arch.rack import RackConfig
from base.errors import TspError
from program.shape import ModelConfig

TENSOR = "tensor"
"""All chips compute each layer together, each its rows of the matrices."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A partition.

    kind: a key of `KINDS`.
    whole: matrices that every chip holds in full, see `compiler.place.share.Share`. They cost SRAM and cycles of the
    matrix units, and save the transfers of the residual.
    """

    kind: str
    whole: frozenset[str] = frozenset()

    def __str__(self) -> str:
        kept = f", {' and '.join(sorted(self.whole))} whole on each chip" if self.whole else ""
        return f"{KINDS[self.kind]}{kept}"


KINDS = {TENSOR: "rows of the matrices"}
"""Partitions by name, in words."""


def plans(kind: str | None) -> list[Plan]:
    """The plans of a kind, or all. Raises TspError that names the kinds."""
    if kind is not None and kind not in KINDS:
        raise TspError(f"partition must be one of {', '.join(KINDS)}, not {kind!r}")
    every = [Plan(kind=TENSOR, whole=frozenset(whole)) for whole in (("wo", "w2"), ("wo",), ("w2",), ())]
    return [plan for plan in every if kind in (None, plan.kind)]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The plan that is taken. context: positions served. limit: what keeps them below what is wanted; "" if nothing
    does. cycles: of the token at the last position, without search for a short schedule."""

    plan: Plan
    context: int
    limit: str
    cycles: int


def choose(model: ModelConfig, rack: RackConfig, kind: str | None,
           fitting: Callable[[Plan], tuple[int, str]], cycles: Callable[[Plan, int], int]) -> Choice:
    """The plan with the greatest context and, of several, the fewest cycles.

    fitting: context that a plan serves, or 0, and what limits it. cycles: of a token of a plan with this context.

    Raises TspError that names what does not fit any plan.
    """
    found = [(plan, *fitting(plan)) for plan in plans(kind)]
    most = max(context for _, context, _ in found)
    if not most:
        raise TspError(f"rack {rack.name}: {found[-1][2]}")
    able = [(cycles(plan, context), n) for n, (plan, context, _) in enumerate(found) if context == most]
    least, n = min(able)
    return Choice(plan=found[n][0], context=most, limit=found[n][2], cycles=least)
