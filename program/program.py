"""A compiled program: everything that a device needs to run it, and everything that is known before it runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from arch import row
from arch.config import ChipConfig

from .integer import IntegerModel, from_arrays, model_sizes
from .predicted import DEFAULT_CLOCK_MHZ, Bucket, Predicted, Segment, bytes_read
from .quality import Quality, Trial
from .shape import ModelConfig
from .weights import Share, Stored, shares, unpack_all

__all__ = ["DEFAULT_CLOCK_MHZ", "EVENT_COLUMNS", "STATE", "Bucket", "Event", "Program", "Segment", "Symbol",
           "bytes_read"]


@dataclass(frozen=True)
class Symbol:
    """The place of a tensor.

    slice: name of its slice ("E0").
    addr: first quad.
    quads: quads in each layer.
    stride: quads from layer to layer; 0 if the tensor is global.
    """

    slice: str
    addr: int
    quads: int
    stride: int


class Event(NamedTuple):
    """One burst of a token's program, in the first turn of its segment. Cycles count from the start pulse."""

    label: str
    queue: str
    engine: str
    op: str
    segment: str
    first: int
    last: int


STATE = ("noise", "position", "temperature", "tokens")
"""Tensors of the host of which each sequence has its own, see `Program.quad`."""
TOGETHER = 2
"""Most sequences that a program of one chip advances in each of its periods."""
WORKED_ON = ("logits", "noise_rest", "token")
"""The same, if a program works on all sequences at once."""
EVENT_COLUMNS = ("bucket", *Event._fields)
"""Columns of `Program.schedule`: the bucket, then an event's fields. Texts are indices into `Program.texts`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program(Predicted):
    """A compiled model.

    config: the only chip that it runs on.
    model: the checkpoint's sizes.
    context: positions served; of each sequence.
    sequences: independent sequences whose states it holds. On one chip, all of them advance in each period; on a rack,
    each chip works on another one, see `RackProgram`.
    four_bit: names of matrices streamed as int4.
    starts: start PC of every queue in every bucket.
    maps: lane permutations by number.
    symbols: places of all tensors, including those that the host touches.
    texts, schedule: the bursts, int32 [events, EVENT_COLUMNS]. See `events`.
    trials: how static and dynamic scales were chosen, if they were.
    queues: instruction words by queue name.
    image: uint8 [quad, plane, lane] by slice name.
    tokenizer: `Tokenizer.to_bytes`.
    arrays: `integer.to_arrays` of the integer model without its weights, for the reference device.
    stored, channels: places of the weights in the image. See `weights`. A chip of a rack holds a part of them.
    """

    config: ChipConfig
    model: ModelConfig
    context: int
    four_bit: tuple[str, ...]
    buckets: tuple[Bucket, ...]
    starts: dict[str, tuple[int, ...]]
    maps: dict[int, tuple[int, ...]]
    symbols: dict[str, Symbol]
    texts: tuple[str, ...]
    stored: dict[str, Stored]
    trials: tuple[Trial, ...] = ()
    quality: Quality | None = None
    sequences: int = 1
    queues: dict[str, tuple[int, ...]] = field(repr=False)
    image: dict[str, np.ndarray] = field(repr=False)
    schedule: np.ndarray = field(repr=False)
    tokenizer: bytes = field(repr=False)
    arrays: dict[str, np.ndarray] = field(repr=False)
    channels: dict[str, np.ndarray] = field(repr=False)

    @property
    def periods_a_token(self) -> int:
        """Periods that a token of one sequence takes. A chip of a rack has a table of which sequence is next."""
        return self.sequences if "next" in self.symbols else 1

    def copies(self, name: str) -> int:
        """How many sequences have a tensor of the host of their own."""
        return self.sequences if name in STATE or (self.periods_a_token == 1 and name in WORKED_ON) else 1

    def quad(self, name: str, quad: int, sequence: int) -> int:
        """Where a quad of a sequence's tensor is in the tensor, or in its part of a layer.

        On a rack quads of sequences alternate. In one program the tensor of each sequence is whole.
        """
        copies = self.copies(name)
        if copies == 1 or self.periods_a_token == 1:
            return quad + sequence % copies * (self.symbols[name].quads // copies)
        return quad * copies + sequence

    @property
    def macs(self) -> int:
        """Weight bytes that the matrix units could take in a cycle."""
        return self.config.macs

    def integer_model(self) -> IntegerModel:
        """The integer model, with its weights from the image."""
        sizes = model_sizes(self.arrays)
        return from_arrays(self.arrays | unpack_all(self.stored, self.image, self.channels, self.config, sizes))

    def shares(self) -> Iterator[Share]:
        """What the image holds of each matrix, if the chip is one of a rack."""
        return shares(self.stored, self.image, self.channels, self.config, model_sizes(self.arrays))

    def logit_tokens(self) -> np.ndarray:
        """The token of each entry of the tensor `logits`, and of `noise`; -1 of padding.

        A chip of a rack holds some of them, or none, as `channels["logits"]` says.
        """
        return self.channels.get("logits", np.arange(self.model.vocab_size))

    def sram_use(self) -> dict[str, tuple[int, int]]:
        """(quads used, quads in all) by slice."""
        depths = row.slice_depths(self.config)
        return {name: (len(data), depths[name]) for name, data in self.image.items()}

    def queue_use(self) -> dict[str, tuple[int, int]]:
        """(instructions used, instructions that fit) by queue."""
        return {queue.name: (len(self.queues[queue.name]), row.queue_depth(self.config, queue))
                for queue in row.queues(self.config)}

    def events(self, bucket: int) -> list[Event]:
        """All bursts of bucket number `bucket`, in the order of their first cycles."""
        rows = self.schedule[self.schedule[:, 0] == bucket, 1:].tolist()
        return [Event(*(self.texts[n] for n in row[:5]), *row[5:]) for row in rows]
