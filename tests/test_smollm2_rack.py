"""A model of SmolLM2-135M's shape on the eighteen chips of `rack`: a token, alike on the reference and the RTL.

Its weights are random: `tsp get smollm2` is not needed. Compiling and loading take minutes.
"""

import functools

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import random_tokenizer

from arch.rack import RACKS
from compiler.rack.compile import compile_rack
from plan.shapes import PRESETS
from program.rack import RackProgram
from run.devices import open_device

CONTEXT, TOKENS = 32, 2
MOST = {(18, 1): 92_000, (6, 3): 130_000}
"""Most cycles of a token, by chips of a group and groups."""

pytestmark = pytest.mark.nightly


@functools.cache
def compiled(tensor: int, pipeline: int) -> RackProgram:
    shape = PRESETS["smollm2-135m"]
    model = small_config(dim=shape.dim, hidden_dim=shape.hidden, n_layers=shape.layers, n_heads=shape.heads,
                         n_kv_heads=shape.kv_heads, vocab_size=shape.vocab, seq_len=CONTEXT, head_dim=shape.head_dim)
    return compile_rack(random_checkpoint(model), random_tokenizer(shape.vocab), rack=RACKS["rack"], scales="dynamic",
                        tensor=tensor, pipeline=pipeline, buckets=1, measure=False)


@pytest.mark.parametrize(("tensor", "pipeline"), MOST)
def test_eighteen_chips(tensor: int, pipeline: int):
    program = compiled(tensor, pipeline)
    assert program.cycles(0) < MOST[tensor, pipeline]
    device, reference = (open_device(name, program.rack) for name in ("rtl", "reference"))
    for each in (device, reference):
        each.load(program)
        each.start([1], 0.8, 3)
    for position in range(TOKENS):
        (found,), (wanted,) = device.run(1), reference.run(1)
        assert (found.token, found.cycles) == (wanted.token, program.cycles(position))
        assert np.array_equal(device.logits(), reference.logits())
    assert not device.errors
    device.close()
