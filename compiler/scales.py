"""Static or dynamic scales: which inputs of matrices need an exponent of each token, by measured quality.

A dynamic scale costs each token the cycles in which the greatest magnitude of a whole vector is found before any of it
can be quantised; a static one costs what the calibrated range does not foresee. Which weighs more is the model's
(docs/decisions/0018-scales-are-measured.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .float_model import FloatModel
from .integer import SITES, IntegerModel
from .quality import kl_top1
from .quantize import integer_logits

SCALES = {"measured": None, "static": frozenset[str](), "dynamic": frozenset(SITES)}
"""What --scales may say: the dynamic inputs, or that they are to be chosen."""
TOLERANCE = 0.0025
"""What a site's static scale may add to the KL, as a part of the float model's cross-entropy: all of them, 1 %."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Two scales of some sites: KL over cross-entropy with exponents and with static scales, all else being equal."""

    sites: tuple[str, ...]
    dynamic: float
    static: float

    @property
    def takes_static(self) -> bool:
        """Whether the static scales are good enough."""
        return self.static - self.dynamic <= TOLERANCE * len(self.sites)

    def __str__(self) -> str:
        name = "all" if self.sites == SITES else " ".join(self.sites)
        return f"{name} {self.dynamic:.2%} / {self.static:.2%} -> {'static' if self.takes_static else 'dynamic'}"


def choose(make: Callable[[frozenset[str]], IntegerModel], reference: FloatModel,
           tokens: Sequence[int]) -> tuple[IntegerModel, list[Trial]]:
    """The model with as many static scales as cost little, and what was measured on the way.

    make: the integer model with these dynamic inputs (`quantize.quantiser`). reference: the float model. tokens: a text
    that the scales were not calibrated on. Compares all inputs dynamic with all static; if that is too much, tries one
    site after the other, each with what was chosen before.
    """
    logits = reference.sequence_logits(tokens)

    def loss(model: IntegerModel) -> float:
        return kl_top1(logits, integer_logits(model, tokens)).ratio

    model = make(frozenset(SITES))
    best, trials = loss(model), []
    for sites in (SITES, *((site,) for site in SITES)):
        static = make(model.dynamic.difference(sites))
        trials.append(Trial(sites=tuple(sites), dynamic=best, static=loss(static)))
        if trials[-1].takes_static:
            model, best = static, trials[-1].static
        if not model.dynamic:
            break
    return model, trials
