"""Small models with a sequence for each chip of a rack."""

import functools

from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer
from rack_programs import EVEN

from arch.rack import RACKS, RackConfig
from compiler.rack.compile import compile_rack
from program.rack import RackProgram

PAIR = RACKS["pair"]
SMALL = {**EVEN, "seq_len": 24}
"""Sizes of a model that is compiled in a second or two."""


@functools.cache
def in_flight(rack: RackConfig, scales: str = "static", buckets: int | None = None, weights: str = "int8",
              sequences: int | None = None, **sizes: int) -> RackProgram:
    """A random model of the sizes `TINY`, some changed, with a sequence for each chip of a rack, or for each
    of so many groups of its chips."""
    model = small_config(**(TINY | sizes))
    return compile_rack(random_checkpoint(model), random_tokenizer(model.vocab_size), rack=rack, scales=scales,
                        weights=weights, sequences=sequences or len(rack.chips), buckets=buckets, measure=False)
