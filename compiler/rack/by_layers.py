"""Divides a model among groups of a rack's chips into consecutive layers (a pipeline)."""

import itertools
import math
from dataclasses import replace
from typing import Any

from base.errors import TspError
from compiler.place.stage import Stage
from program.integer import IntegerModel, array_shapes, first_shapes

from .plan import Plan


def stages(name: str, model: IntegerModel, plan: Plan) -> list[Stage]:
    """What each group of chips holds: consecutive layers, so that all hold about as many bytes with their keys and
    values, the embedding (in the first one) and the classifier (in the last).

    name: of the rack, for messages.

    Raises TspError if there are fewer layers than groups.
    """
    count, layers = plan.pipeline, model.layers
    if layers < count:
        what = "chips" if plan.tensor == 1 else "groups of chips"
        raise TspError(f"rack {name}: {layers} layers cannot be divided among {count} {what}: use fewer, with a "
                       "smaller --pipeline")
    table = model.vocab * model.dim
    matrices = sum(math.prod(shape[1:]) for shape in array_shapes(vars(model)).values() if len(shape) == 3)
    layer = matrices + 2 * model.context * model.kv_heads * model.head_size * plan.sequences
    each = (layers * layer + 2 * table) / count
    ends = [round((stage * each - table) / layer) for stage in range(1, count)]
    ends = [max(stage, min(end, layers - count + stage)) for stage, end in enumerate(ends, start=1)]
    ends = list(itertools.accumulate(plan.layers))[:-1] or ends
    parts = tuple(range(start, end) for start, end in zip([0, *ends], [*ends, layers], strict=True))
    return [Stage(number=stage, layers=parts, tokens=model.vocab, sequences=plan.sequences) for stage in range(count)]


def layers_of(model: IntegerModel, stage: Stage) -> IntegerModel:
    """The layers of a model that a stage holds. Only the last one has tokens to choose from."""
    part = stage.layers[stage.number]
    shapes = {name: shape for name, shape in array_shapes(vars(model)).items() if len(shape) == 3}
    names = [*shapes, *("m" + name[1] for name in shapes), "g_att", "g_ffn", "key_offset", *first_shapes(vars(model))]
    found: dict[str, Any] = {name: getattr(model, name)[part.start : part.stop] for name in names}
    if not stage.last:
        found |= {"vocab": 0, "classifier": model.classifier[:0], "mc": model.mc[:0]}
    return replace(model, layers=len(part), **found)
