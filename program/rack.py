"""A compiled model for a rack: a program for each chip, and what all of them have in common."""

from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from arch.rack import RackConfig

from .integer import IntegerModel, from_arrays, model_sizes
from .predicted import Bucket, Predicted
from .program import Program
from .quality import Quality, Trial
from .shape import ModelConfig
from .weights import join

COMMON = ("model", "context", "four_bit", "trials", "quality", "tokenizer", "arrays", "sequences")
"""Fields of `Program` that are the same on all chips of a rack."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RackProgram(Predicted):
    """A compiled model for the chips of a rack.

    All chips start a token in the same cycle and take the same period for it, bucket by bucket. Each of them is told
    every token. Each holds a part of the weights, and chooses the same next token as the others.

    With a sequence for each chip, a bucket has the program of a period, in which chip i works on another sequence than
    chip i + 1, and one token leaves the last chip (docs/decisions/0027-sequences-in-flight.md). Limits of buckets are
    positions of the longest sequence in flight.

    rack: the only rack that it runs on.
    chips: the program of each chip, in the order of the rack's. The fields in `COMMON` are those of the whole model.
    """

    rack: RackConfig
    chips: tuple[Program, ...] = field(repr=False)

    @property
    def config(self) -> RackConfig:
        """The machine, as `Program.config` is: it has a name, a digest, `macs` and `sram_bytes`."""
        return self.rack

    @property
    def macs(self) -> int:
        """Weight bytes that the matrix units of all chips could take in a cycle."""
        return self.rack.macs

    @property
    def model(self) -> ModelConfig:
        return self.chips[0].model

    @property
    def context(self) -> int:
        return self.chips[0].context

    @property
    def sequences(self) -> int:
        """Independent sequences in flight."""
        return self.chips[0].sequences

    @property
    def periods_a_token(self) -> int:
        """Periods that a token of one sequence takes: it passes all chips."""
        return self.chips[0].periods_a_token

    @property
    def four_bit(self) -> tuple[str, ...]:
        return self.chips[0].four_bit

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Those of chip 0. On other chips limits and periods are the same; segments may differ."""
        return self.chips[0].buckets

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.chips[0].trials

    @property
    def quality(self) -> Quality | None:
        return self.chips[0].quality

    @property
    def tokenizer(self) -> bytes:
        return self.chips[0].tokenizer

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return self.chips[0].arrays

    def integer_model(self) -> IntegerModel:
        """The integer model, with its weights from the images of all chips."""
        parts = chain.from_iterable(chip.shares() for chip in self.chips)
        return from_arrays(self.arrays | join(parts, model_sizes(self.arrays)))


AnyProgram = Program | RackProgram
"""What a program file may hold."""
