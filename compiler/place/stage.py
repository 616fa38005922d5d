"""What the chips of a rack compute of a model that is divided into consecutive layers (a pipeline)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The part of one stage: a chip, or a group of chips that divide its rows (`share.Share`). Every chip has the
    tables of positions; the residual goes from stage to stage.

    number: of the stage. The first one has the embedding, the last one the classifier.
    layers: by stage, its layers.
    tokens: tokens of the vocabulary.
    sequences: independent sequences in flight, each on another stage; 1, or as many as stages.
    """

    number: int
    layers: tuple[range, ...]
    tokens: int
    sequences: int = 1

    @property
    def first(self) -> bool:
        """Whether the stage has the embedding."""
        return not self.number

    @property
    def last(self) -> bool:
        """Whether the stage has the classifier."""
        return self.number == len(self.layers) - 1
