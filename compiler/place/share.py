"""What each chip of a rack computes of a model whose matrices are divided by their output rows (tensor parallel)."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of one chip. All chips of the rack know the parts of all.

    Every chip holds the whole residual and computes the norms in full. Parts follow each other in the order of chips.

    chip: number of the chip.
    tokens: tokens of the whole vocabulary.
    heads: by chip, its K/V heads.
    planes: by matrix ("wo", "w2"), the byte planes that every addend of the residual that it makes fits.
    residual, hidden, vocab: by chip, its vectors of the residual (rows of Wo and W2), of the inner layer (rows of W1
    and W3) and of the logits.
    """

    chip: int
    tokens: int
    planes: Mapping[str, int]
    heads: tuple[range, ...]
    residual: tuple[range, ...]
    hidden: tuple[range, ...]
    vocab: tuple[range, ...]
