"""Small models on a pair of small chips."""

import functools
from dataclasses import replace

from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer

from arch.config import CONFIGS
from arch.rack import Link, Port, RackConfig
from compiler.compile import compile_checkpoint
from compiler.rack.compile import compile_rack
from program.program import Program
from program.rack import RackProgram

CHIP = replace(CONFIGS["tiny"], name="tiny_linked", ports=(0, 1), slot=4)
PAIR = RackConfig(name="twins", chips=(CHIP, CHIP), links=(Link(ports=(Port(0, "E", 0), Port(1, "E", 0)), latency=9),))
SHARED = TINY | {"dim": 64, "hidden_dim": 72, "n_heads": 4, "n_kv_heads": 2}
"""Sizes of a model that two chips share."""


@functools.cache
def alone() -> Program:
    """The model of `TINY` on one chip with a port."""
    return compile_checkpoint(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]),
                              config=CHIP, measure=False)


@functools.cache
def twins() -> RackProgram:
    """The same on both chips of a pair, side by side, without a flit."""
    return RackProgram(rack=PAIR, chips=(alone(), alone()))


@functools.cache
def shared() -> RackProgram:
    """The model of `SHARED` on a pair of chips."""
    return compile_rack(random_checkpoint(small_config(**SHARED)), random_tokenizer(SHARED["vocab_size"]), rack=PAIR,
                        pipeline=1, measure=False)


@functools.cache
def in_line() -> RackProgram:
    """The model of `TINY`, a layer on each chip of a pair."""
    return compile_rack(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]), rack=PAIR,
                        tensor=1, measure=False)
