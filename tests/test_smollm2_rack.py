"""A model of SmolLM2-135M's shape on the eighteen chips of `rack`: a token, alike on the reference and the RTL.

Its weights are random: `tsp get smollm2` is not needed. Compiling and loading take minutes.
"""

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import random_tokenizer

from arch.rack import RACKS
from compiler.rack.compile import compile_rack
from plan.shapes import PRESETS
from program.check import check_any
from run.devices import open_device

CONTEXT, TOKENS = 32, 2
MOST = 92_000
"""Most cycles of a token; its scales are all dynamic."""


@pytest.mark.nightly
def test_eighteen_chips_by_rows():
    shape = PRESETS["smollm2-135m"]
    model = small_config(dim=shape.dim, hidden_dim=shape.hidden, n_layers=shape.layers, n_heads=shape.heads,
                         n_kv_heads=shape.kv_heads, vocab_size=shape.vocab, seq_len=CONTEXT, head_dim=shape.head_dim)
    program = compile_rack(random_checkpoint(model), random_tokenizer(shape.vocab), rack=RACKS["rack"],
                           scales="dynamic", pipeline=1, buckets=1, measure=False)
    check_any(program)
    assert program.cycles(0) < MOST
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
