"""Static or dynamic scales: which inputs of matrices need an exponent of each token, by measured quality.

A dynamic scale costs each token the cycles in which the greatest magnitude of a whole vector is found before any of it
can be quantised; a static one costs what the calibrated range does not foresee. Which weighs more is the model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .checkpoint import Checkpoint
from .float_model import FloatModel
from .integer import SITES, IntegerModel
from .quality import kl_top1
from .quantize import integer_logits

SCALES = {"measured": None, "static": frozenset[str](), "dynamic": frozenset(SITES)}
"""What --scales may say: the dynamic inputs, or that they are to be chosen."""
TOLERANCE = 0.0025
"""What a static scale may add to the KL, as a part of the float model's cross-entropy: all four together, 1 %."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A site's two scales: KL over cross-entropy with its exponent and with its static scale, all else being equal."""

    site: str
    dynamic: float
    static: float

    @property
    def takes_static(self) -> bool:
        """Whether the static scale is good enough."""
        return self.static - self.dynamic <= TOLERANCE


def choose(make: Callable[[frozenset[str]], IntegerModel], checkpoint: Checkpoint,
           tokens: Sequence[int]) -> tuple[IntegerModel, list[Trial]]:
    """The model with as many static scales as cost little, and what was measured on the way.

    make: the integer model with these dynamic inputs (`quantize.quantiser`). tokens: a text that the scales were not
    calibrated on. Begins with all inputs dynamic and tries one site after the other, each with what was chosen before.
    """
    logits = FloatModel(checkpoint).sequence_logits(tokens)

    def loss(model: IntegerModel) -> float:
        return kl_top1(logits, integer_logits(model, tokens)).ratio

    model = make(frozenset(SITES))
    best, trials = loss(model), []
    for site in SITES:
        static = make(model.dynamic - {site})
        trials.append(Trial(site=site, dynamic=best, static=loss(static)))
        if trials[-1].takes_static:
            model, best = static, trials[-1].static
    return model, trials
