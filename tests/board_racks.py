"""A rack of two small boards, and a model for it."""

import functools
from dataclasses import replace

from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer

from arch.config import CONFIGS
from arch.rack import Link, Oscillators, Port, RackConfig
from compiler.rack.compile import compile_rack
from program.rack import RackProgram

CHIP = replace(CONFIGS["small"], name="small_linked", ports=(0, 1), slot=4)
ROOT, OTHER = Port(0, "E", 0), Port(1, "E", 0)
BOARDS = RackConfig(name="twins", chips=(CHIP, CHIP), links=(Link(ports=(ROOT, OTHER), latency=15),))
OWN_CLOCKS = replace(BOARDS, oscillators=Oscillators(ppm=100.0, slack=2),
                     links=(Link(ports=(ROOT, OTHER), latency=18),))
SIZES = TINY | {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "vocab_size": 128}


@functools.cache
def shared(rack: RackConfig = BOARDS) -> RackProgram:
    """A model that both chips share."""
    return compile_rack(random_checkpoint(small_config(**SIZES)), random_tokenizer(SIZES["vocab_size"]), rack=rack,
                        pipeline=1, measure=False)
