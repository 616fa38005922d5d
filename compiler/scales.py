"""Static or dynamic scales: which inputs of matrices need an exponent of each token, by measured quality.

A dynamic scale costs each token the cycles in which the greatest magnitude of a whole vector is found before any of it
can be quantised; a static one costs what the calibrated range does not foresee. Which weighs more is the model's
(docs/decisions/0018-scales-are-measured.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .checkpoint import Checkpoint
from .errors import TspError
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
    """Two scales of some sites: KL over cross-entropy with exponents and with static scales, all else being equal.

    refused: why the sites cannot be dynamic, if they cannot; then nothing was measured, and both losses are 0.
    """

    sites: tuple[str, ...]
    dynamic: float
    static: float
    refused: str = ""

    @property
    def takes_static(self) -> bool:
        """Whether the static scales are good enough, or all that there is."""
        return bool(self.refused) or self.static - self.dynamic <= TOLERANCE * len(self.sites)

    def __str__(self) -> str:
        name = "all" if self.sites == SITES else " ".join(self.sites)
        if self.refused:
            return f"{name} -> static, for dynamic scales are impossible ({self.refused})"
        return f"{name} {self.dynamic:.2%} / {self.static:.2%} -> {'static' if self.takes_static else 'dynamic'}"


def choose(make: Callable[[frozenset[str]], IntegerModel], checkpoint: Checkpoint,
           tokens: Sequence[int]) -> tuple[IntegerModel, list[Trial]]:
    """The model with as many static scales as cost little, and what was measured on the way.

    make: the integer model with these dynamic inputs (`quantize.quantiser`). tokens: a text that the scales were not
    calibrated on. Compares all inputs dynamic with all static; if that is too much, tries one site after the other,
    each with what was chosen before. Sites whose shifts have no room for exponents are static, and a trial of each says
    so. Raises TspError if even static scales are impossible.
    """
    logits = FloatModel(checkpoint).sequence_logits(tokens)

    def loss(model: IntegerModel) -> float:
        return kl_top1(logits, integer_logits(model, tokens)).ratio

    model, trials = _dynamic(make)
    if not model.dynamic:
        return model, trials
    best = loss(model)
    able = tuple(site for site in SITES if site in model.dynamic)
    for sites in (able, *((site,) for site in able)):
        static = make(model.dynamic.difference(sites))
        trials.append(Trial(sites=tuple(sites), dynamic=best, static=loss(static)))
        if trials[-1].takes_static:
            model, best = static, trials[-1].static
        if not model.dynamic:
            break
    return model, trials


def _dynamic(make: Callable[[frozenset[str]], IntegerModel]) -> tuple[IntegerModel, list[Trial]]:
    """The model with as many dynamic inputs as its shifts have room for, and a trial of each that they have none for."""
    try:
        return make(frozenset(SITES)), []
    except TspError:
        make(frozenset())  # raises what is wrong with any scales
    able, refused = frozenset[str](), []
    model = None
    for site in SITES:
        try:
            model = make(able | {site})
            able |= {site}
        except TspError as error:
            refused.append(Trial(sites=(site,), dynamic=0.0, static=0.0, refused=str(error).rsplit(": ", 1)[0]))  # less the remedy
    return model if model and model.dynamic == able else make(able), refused
