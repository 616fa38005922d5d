"""Divides a model among the chips of a rack into consecutive layers (a pipeline)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from arch.rack import RackConfig
from base.errors import TspError
from compiler.place.stage import Stage
from program.integer import IntegerModel, array_shapes, first_shapes


def stages(rack: RackConfig, model: IntegerModel, sequences: int = 1, counts: Sequence[int] = ()) -> list[Stage]:
    """What each chip holds: consecutive layers, so that all chips hold about as many bytes with their keys and values,
    the embedding (on the first chip) and the classifier (on the last).

    sequences: independent ones in flight. counts: how many layers each chip has, in place of that.

    Raises TspError if there are fewer layers than chips.
    """
    chips, layers = len(rack.chips), model.layers
    if layers < chips:
        raise TspError(f"rack {rack.name}: {layers} layers cannot be divided among {chips} chips: use fewer chips, or "
                       "the partition by rows")
    table = model.vocab * model.dim
    matrices = sum(math.prod(shape[1:]) for shape in array_shapes(vars(model)).values() if len(shape) == 3)
    layer = matrices + 2 * model.context * model.kv_heads * model.head_size * sequences
    each = (layers * layer + 2 * table) / chips
    ends = [round((chip * each - table) / layer) for chip in range(1, chips)]
    ends = [max(chip, min(end, layers - chips + chip)) for chip, end in enumerate(ends, start=1)]
    ends = list(itertools.accumulate(counts))[:-1] or ends
    parts = tuple(range(start, end) for start, end in zip([0, *ends], [*ends, layers], strict=True))
    return [Stage(chip=chip, layers=parts, tokens=model.vocab, sequences=sequences) for chip in range(chips)]


def layers_of(model: IntegerModel, stage: Stage) -> IntegerModel:
    """The layers of a model that a chip holds. Only the last chip has tokens to choose from."""
    part = stage.layers[stage.chip]
    shapes = {name: shape for name, shape in array_shapes(vars(model)).items() if len(shape) == 3}
    names = [*shapes, *("m" + name[1] for name in shapes), "g_att", "g_ffn", "key_offset", *first_shapes(vars(model))]
    found: dict[str, Any] = {name: getattr(model, name)[part.start : part.stop] for name in names}
    if not stage.last:
        found |= {"vocab": 0, "classifier": model.classifier[:0], "mc": model.mc[:0]}
    return replace(model, layers=len(part), **found)


def stage_channels(stage: Stage) -> dict[str, np.ndarray]:
    """What `Program.channels` says of a chip that holds some layers."""
    layers = {"layers": np.array(stage.layers[stage.chip], "<i4")}
    return layers if stage.last else layers | {"logits": np.empty(0, "<i4")}
