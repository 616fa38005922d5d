"""Static or dynamic scales: which inputs of matrices need an exponent of each token, by measured quality.

A dynamic scale costs each token the cycles in which the greatest magnitude of a whole vector is found before any of it
can be quantised; a static one costs what the calibrated range does not foresee. Which weighs more is the model's
(docs/decisions/0018-scales-are-measured.md).
"""

from collections.abc import Callable, Sequence

from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from program.integer import SITES, IntegerModel
from program.quality import Trial

from .float_model import FloatModel
from .quality import kl_top1
from .quantizer import integer_logits

SCALES = {"measured": None, "static": frozenset[str](), "dynamic": frozenset(SITES)}
"""What --scales may say: the dynamic inputs, or that they are to be chosen."""


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
    """The model with as many dynamic inputs as its shifts have room for, and a trial of each other one."""
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
            reason = str(error).rsplit(": ", 1)[0]  # less the remedy
            refused.append(Trial(sites=(site,), dynamic=0.0, static=0.0, refused=reason))
    return model if model and model.dynamic == able else make(able), refused
