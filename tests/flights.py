"""Small models of several sequences: one for each chip of a rack, or two on a chip."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer
from rack_programs import EVEN

from arch.config import ChipConfig
from arch.rack import RACKS, RackConfig
from compiler.compile import compile_checkpoint
from compiler.rack.compile import compile_rack
from program.program import Program
from program.rack import AnyProgram, RackProgram
from sim.device.in_flight import InFlight
from sim.device.reference_device import ReferenceDevice

PAIR = RACKS["pair"]
SMALL = {**EVEN, "seq_len": 24}
"""Sizes of a model that is compiled in a second or two."""
ALONE = {"seq_len": 24, "dim": 32, "hidden_dim": 48, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8}
"""The same, of two sequences on one chip."""


@functools.cache
def in_flight(rack: RackConfig, scales: str = "static", buckets: int | None = None, weights: str = "int8",
              sequences: int | None = None, **sizes: int) -> RackProgram:
    """A random model of the sizes `TINY`, some changed, with a sequence for each chip of a rack, or for each
    of so many groups of its chips."""
    model = small_config(**(TINY | sizes))
    return compile_rack(random_checkpoint(model), random_tokenizer(model.vocab_size), rack=rack, scales=scales,
                        weights=weights, sequences=sequences or len(rack.chips), buckets=buckets, measure=False)


@functools.cache
def together(config: ChipConfig, scales: str = "static", buckets: int | None = None, weights: str = "int8",
             **sizes: int) -> Program:
    """The same, of two sequences on one chip."""
    model = small_config(**(TINY | sizes))
    return compile_checkpoint(random_checkpoint(model), random_tokenizer(model.vocab_size), config=config,
                              scales=scales, weights=weights, sequences=2, buckets=buckets, measure=False)


def one(program: AnyProgram) -> AnyProgram:
    """The same model as if it served one sequence, for the reference device."""
    if isinstance(program, RackProgram):
        return replace(program, chips=tuple(replace(chip, sequences=1) for chip in program.chips))
    return replace(program, sequences=1)


@dataclass(frozen=True, kw_only=True)
class Begin:
    """A sequence that is told to begin before a period."""

    period: int
    sequence: int
    prompt: Sequence[int] = (1,)
    temperature: float = 0.0
    seed: int = 0


@dataclass
class Alone:
    """Each sequence by itself, on the reference device for one sequence."""

    program: AnyProgram
    devices: dict[int, ReferenceDevice] = field(default_factory=dict)

    def start(self, begin: Begin) -> None:
        device = self.devices.setdefault(begin.sequence, ReferenceDevice())
        device.load(one(self.program))
        device.start(begin.prompt, begin.temperature, begin.seed)


def fly(program: AnyProgram, device: InFlight, begins: Sequence[Begin], periods: int,
        ends: Mapping[int, int] | None = None) -> int:
    """Run periods one by one. ends: a sequence that ends before a period. Returns how many tokens were compared."""
    alone, compared = Alone(program), 0
    device.load(program)
    for period in range(periods):
        for begin in (begin for begin in begins if begin.period == period):
            device.start(begin.sequence, begin.prompt, begin.temperature, begin.seed)
            alone.start(begin)
        if ends and period in ends:
            device.end(ends[period])
        (found,) = device.run(1)
        assert found.cycles == found.predicted
        for told in found.tokens:
            own = alone.devices[told.sequence]
            (wanted,) = own.run(1)
            assert (told.token, told.position + 1) == (wanted.token, own.counters.tokens)
            assert np.array_equal(device.logits(told.sequence), own.logits())
            compared += 1
    assert not device.errors
    device.close()
    return compared


def some(sequences: int) -> list[Begin]:
    """Sequences of all kinds: a prompt or none, greedy or sampled, each begun at another time, and one begun anew."""
    first = [Begin(period=3 * n % 5, sequence=n, prompt=[1, 5 + n, 7][: 1 + n % 3], temperature=0.8 * (n % 2), seed=n)
             for n in range(sequences)]
    return [*first, Begin(period=17, sequence=sequences - 1, prompt=[1, 9], temperature=0.5, seed=77)]
