"""Bounds of speed: what a step of a batch must read and compute, against what a machine can.

A bound is not a prediction: links between chips, the host, and everything but matrices count for nothing.
"""

from dataclasses import dataclass

from .machines import Machine
from .need import WEIGHT_BYTES, Tiling, kv_bytes
from .shapes import Shape

MOST_BATCH = 1 << 24
"""Sequences beyond which no batch is looked for."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A model at a context and a precision: what one step of a batch reads and computes."""

    shape: Shape
    precision: str
    context: int

    def experts(self, batch: int) -> float:
        """Experts of a layer that a batch uses, on average, if each token chooses evenly and for itself."""
        s = self.shape
        return s.experts * (1 - (1 - s.active_experts / s.experts) ** batch)

    def weights(self, batch: int) -> float:
        """Bytes of weights that a step reads, each once."""
        s, width = self.shape, WEIGHT_BYTES[self.precision]
        layer = s.attention + s.router + self.experts(batch) * s.expert
        return s.layers * layer * width + s.vocab * s.dim * max(1, width)

    def bytes(self, batch: int) -> float:
        """Bytes that a step reads: the weights once, and the cache of each sequence, full."""
        return self.weights(batch) + batch * self.kv

    @property
    def kv(self) -> int:
        """Bytes of one sequence's full cache."""
        return kv_bytes(Tiling(self.shape, 1), self.precision, self.context)

    @property
    def operations(self) -> float:
        """Operations of one token: two a weight that it uses, two a number of the cache and query head."""
        s = self.shape
        matrices = s.layers * (s.attention + s.router + s.active_experts * s.expert) + s.vocab * s.dim
        return 2 * matrices + 4 * s.heads * s.head_dim * s.cached(self.context)

    def intensity(self, batch: int) -> float:
        """Operations a byte."""
        return batch * self.operations / self.bytes(batch)


def tokens_per_second(work: Work, machine: Machine, batch: int, count: int = 1) -> float:
    """No more than so many tokens a second, of a whole batch, on `count` machines that all work on each token."""
    memory = batch * machine.bandwidth.value / work.bytes(batch)
    compute = machine.operations(work.precision) / work.operations
    return count * min(memory, compute)


def compute_bound_batch(work: Work, machine: Machine) -> int | None:
    """The least batch for which the multipliers limit and not the memory; None if there is none, because the caches,
    which no other sequence shares, are read at too few operations a byte."""
    ridge, high = machine.ridge(work.precision), 1
    while work.intensity(high) < ridge:
        high *= 2
        if high > MOST_BATCH:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if work.intensity(middle) >= ridge else (middle, high)
    return high
