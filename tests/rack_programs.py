"""Small models for racks of small chips."""

import functools

from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer

from arch.rack import RackConfig
from compiler.rack.compile import compile_rack
from program.rack import RackProgram

EVEN = {"dim": 32, "head_dim": 8, "n_heads": 4, "n_kv_heads": 2}
"""Four vectors of the residual, and a K/V head for each of two chips."""
UNEVEN = {"dim": 40, "hidden_dim": 56, "head_dim": 8, "n_heads": 3, "n_kv_heads": 3, "vocab_size": 108}
"""Odd numbers of vectors and K/V heads."""


@functools.cache
def rack_program(rack: RackConfig, scales: str, tensor: int | None = None, **sizes: int) -> RackProgram:
    """A random model of the sizes `TINY`, some changed, compiled for a rack. tensor: chips of a group; by default
    all."""
    model = small_config(**(TINY | sizes))
    return compile_rack(random_checkpoint(model), random_tokenizer(model.vocab_size), rack=rack, scales=scales,
                        tensor=tensor or len(rack.chips), measure=False)
