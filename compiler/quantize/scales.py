"""Static or dynamic scales: which inputs of matrices need an exponent of each token, by measured quality.

A dynamic scale costs each token the cycles in which the greatest magnitude of a whole vector is found before any of it
can be quantised; a static one costs what the calibrated range does not foresee. Which weighs more is the model's
(docs/decisions/0018-scales-are-measured.md).
"""

from collections.abc import Callable, Sequence

import numpy as np

from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from program.integer import KEYS, RESIDUAL, SITES, IntegerModel
from program.quality import Trial

from .distance import kl_top1
from .float_model import FloatModel
from .quantizer import ROBUST_RECIPE, integer_logits, quantize
from .rotate import rotated

ROBUST = frozenset({RESIDUAL, "silu", KEYS})
"""Dynamic inputs of a robust model, see `robust`."""
SCALES = {"measured": None, "static": frozenset[str](), "dynamic": frozenset(SITES), "robust": ROBUST}
"""What --scales may say: the dynamic inputs, or that they are to be chosen."""
ROBUST_ABOVE = 0.02
"""KL over cross-entropy of all inputs dynamic, above which a robust model is tried: more than any scales mend."""


def robust(checkpoint: Checkpoint, texts: Sequence[Sequence[int]], *, context: int, lanes: int) -> IntegerModel:
    """An integer model that survives massive activations (docs/reference/numerics.md).

    Its residual is rotated, its norms' operands and groups of W2's input have exponents of each token, and the first
    token of all texts is a constant. It costs cycles and the SRAM of an embedding beside the classifier.
    """
    return quantize(rotated(checkpoint), context=context, calibration_tokens=texts, dynamic=ROBUST,
                    recipe=ROBUST_RECIPE, lanes=lanes, first=texts[0][0])


def choose(make: Callable[[frozenset[str]], IntegerModel], reference: FloatModel, *texts: Sequence[int],
           make_robust: Callable[[], IntegerModel | None] = lambda: None) -> tuple[IntegerModel, list[Trial]]:
    """The model with as many static scales as cost little, and what was measured on the way.

    make: the integer model with these dynamic inputs (`quantizer.quantiser`). reference: the float model. texts: some
    that the scales were not calibrated on. Compares all inputs dynamic with all static; if that is too much, tries one
    site after the other, each with what was chosen before. Where even dynamic scales lose ROBUST_ABOVE, the robust
    model is taken, if there is one and it loses less (make_robust: that model, or None). Sites whose shifts have no
    room for exponents are static, and a trial of each says so. Raises TspError if even static scales are impossible.
    """
    logits = np.concatenate([reference.sequence_logits(tokens) for tokens in texts])

    def loss(model: IntegerModel) -> float:
        return kl_top1(logits, np.concatenate([integer_logits(model, tokens) for tokens in texts])).ratio

    model, trials = _dynamic(make)
    best = loss(model)
    if best > ROBUST_ABOVE and (other := make_robust()):
        trials.append(Trial(sites=(RESIDUAL,), dynamic=loss(other), static=best))
        if not trials[-1].takes_static:
            return other, trials
    able = tuple(site for site in SITES if site in model.dynamic)
    for sites in (able, *((site,) for site in able)) if able else ():
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
