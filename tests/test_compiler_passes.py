"""What each pass of the compiler makes of one small model, as text: a change of a pass shows what it changes.

`pytest tests/test_compiler_passes.py --update-golden` writes the texts again; `git diff tests/golden` is the review.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import TINY

from arch import isa
from arch.config import CONFIGS
from compiler.capacity import rope_rate
from compiler.ir import Block
from compiler.lower.token import lower_token
from compiler.place import placement
from compiler.quantize import quantizer
from compiler.schedule.assemble import Code
from compiler.schedule.buckets import build
from program.integer import IntegerModel, to_arrays

GOLDEN = Path(__file__).with_name("golden")
CONFIG = CONFIGS["tiny"]
MODEL = small_config(**TINY)
DYNAMIC = frozenset({"silu"})


@functools.cache
def quantised() -> IntegerModel:
    """Every kind of scale: static ones, and exponents of each token."""
    tokens = [[1, *range(3, 30)]]
    return quantizer.quantiser(random_checkpoint(MODEL), context=MODEL.seq_len, calibration_tokens=tokens,
                              four_bit=frozenset(), lanes=CONFIG.lanes)(DYNAMIC)


@functools.cache
def placed() -> placement.Placement:
    return placement.place(CONFIG, quantised(), rope_rate(MODEL, quantised()))


@functools.cache
def lowered() -> list[Block]:
    return lower_token(placed(), placed().geometry.chunks)


@functools.cache
def built() -> Code:
    return build(CONFIG, lowered(), placed().geometry.chunks)


def fields_text(fields: Mapping[str, Any]) -> str:
    """Those that are not zero, which is what a field is that is not given."""
    return "".join(f" {name}={getattr(value, 'name', value)}" for name, value in sorted(fields.items())
                   if getattr(value, "value", value))


def quantize_text() -> Iterator[str]:
    for name, value in vars(quantised().shifts).items():
        yield f"shift {name} {value}"
    for name, array in sorted(to_arrays(quantised()).items()):
        flat = np.asarray(array).ravel()
        if flat.size and np.issubdtype(flat.dtype, np.integer):
            begins = " ".join(map(str, flat[:8]))
            yield f"{name} {array.dtype} {list(array.shape)}, {flat.min()}..{flat.max()}: {begins}"


def place_text() -> Iterator[str]:
    for tensor in sorted(placed().layout.tensors, key=lambda t: (t.slice, t.addr, t.name)):
        extent = "a layer" if tensor.per_layer else "in all"
        yield f"{tensor.slice} {tensor.addr:4} {tensor.quads:3} {extent} {tensor.name}"


def lower_text() -> Iterator[str]:
    for block in lowered():
        yield f"{block.name}: {block.turns} turns, strides {dict(sorted(block.strides.items()))}"
        for number, cluster in enumerate(block.clusters):
            yield f"  {number} {cluster.label}"
            origin = min(burst.at for burst in cluster.bursts)
            for b in cluster.bursts:
                yield f"    +{b.at - origin} {b.queue.name} {b.op.name}{fields_text(b.fields)}"


def schedule_text() -> Iterator[str]:
    for schedule in built().schedules:
        yield f"{schedule.block.name}: {schedule.length} cycles, {schedule.block.turns} turns"
        for p in sorted(schedule.placed, key=lambda p: (p.at, p.burst.queue.name, p.burst.engine)):
            yield f"  {p.at:4} {p.burst.queue.name} {p.burst.op.name} {p.label}"


def assemble_text() -> Iterator[str]:
    bucket = built().bucket
    starts = [segment.start - isa.START for segment in bucket.segments]
    yield f"period {bucket.period}, up to position {bucket.limit}, segments from {starts} on"
    for queue, words in built().words.items():
        yield queue
        for instr in map(isa.decode, words):
            yield f"  {instr.op.name} {instr.delay}{fields_text(instr.fields)}"


PASSES: dict[str, Callable[[], Iterator[str]]] = {
    "quantize": quantize_text, "place": place_text, "lower": lower_text, "schedule": schedule_text,
    "assemble": assemble_text}
"""In order of execution."""


@pytest.mark.parametrize("name", PASSES)
def test_golden(name: str, request: pytest.FixtureRequest):
    path = GOLDEN / f"{name}.txt"
    text = "".join(f"{line}\n" for line in PASSES[name]())
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text.splitlines() == path.read_text().splitlines()
