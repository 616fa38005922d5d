"""What each chip of a rack computes of a model that is divided into consecutive layers (a pipeline)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The part of one chip. Every chip has the tables of positions; the residual goes from chip to chip.

    chip: number of the chip. The first one has the embedding, the last one the classifier.
    layers: by chip, its layers.
    tokens: tokens of the vocabulary.
    sequences: independent sequences in flight, each on another chip; 1, or as many as chips.
    """

    chip: int
    layers: tuple[range, ...]
    tokens: int
    sequences: int = 1

    @property
    def first(self) -> bool:
        """Whether the chip has the embedding."""
        return not self.chip

    @property
    def last(self) -> bool:
        """Whether the chip has the classifier."""
        return self.chip == len(self.layers) - 1
