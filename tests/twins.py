"""A rack whose chips run the same one-chip program side by side, without a flit: what host and devices do with it."""

import functools
from dataclasses import replace

from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer

from arch.config import CONFIGS
from arch.rack import Link, Port, RackConfig
from compiler.compile import compile_checkpoint
from program.program import Program
from program.rack import RackProgram

CHIP = replace(CONFIGS["tiny"], name="tiny_linked", ports=(0, 1), slot=4)
PAIR = RackConfig(name="twins", chips=(CHIP, CHIP), links=(Link(ports=(Port(0, "E", 0), Port(1, "E", 0)), latency=9),))


@functools.cache
def alone() -> Program:
    """The model of `TINY` on one chip with a port."""
    return compile_checkpoint(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]),
                              config=CHIP, measure=False)


@functools.cache
def twins() -> RackProgram:
    """The same on both chips of a pair."""
    return RackProgram(rack=PAIR, chips=(alone(), alone()))
