"""What each chip of a rack computes of a model whose matrices are divided by their output rows (tensor parallel)."""

from collections.abc import Mapping
from dataclasses import dataclass

SUMS = "sums of w2"
"""Key of `Share.planes`."""


@dataclass(frozen=True)
class Heads:
    """The heads of one chip, which numbers them by itself.

    kv: of each of its K/V heads, the number of that head in the model. A head may be there twice, once in each
    hemisphere, and on several chips. queries: the same of its query heads: equally many for each K/V head, one after
    the other. keys, values: the K/V heads of the model whose keys or values this chip computes.
    """

    kv: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    values: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of one chip. All chips of the rack know the parts of all.

    Parts follow each other in the order of chips. Every chip holds the whole residual and computes the norms in full,
    or each holds its vectors of the residual, and the chips exchange what the norms are made of.

    chip: number of the chip.
    tokens: tokens of the whole vocabulary.
    heads: by chip, its heads.
    whole: matrices that every chip holds in full. Of "wo" and "w2" it then computes all, and the residual needs no
    transfer; of "embedding" it has the whole row.
    scattered: whether each chip holds its vectors of the residual only.
    summed: whether W2 is divided by its input columns: each chip has those of its inner vectors, for all outputs, and
    the chips add up what they make of them. The residual is scattered then.
    meshed: whether each chip is linked with each other one.
    planes: by matrix ("wo", "w2"), the byte planes that every addend of the residual that it makes fits; SUMS: those
    that every sum of W2 fits.
    residual, hidden, vocab: by chip, its vectors of the residual (rows of Wo and W2), of the inner layer (rows of W1
    and W3) and of the logits.
    """

    chip: int
    tokens: int
    whole: frozenset[str]
    scattered: bool
    summed: bool
    meshed: bool
    planes: Mapping[str, int]
    heads: tuple[Heads, ...]
    residual: tuple[range, ...]
    hidden: tuple[range, ...]
    vocab: tuple[range, ...]

    @property
    def dealt(self) -> bool:
        """Whether chips compute keys and values for each other, rather than each those of its own K/V heads."""
        return any((heads.keys, heads.values) != (heads.kv, heads.kv) for heads in self.heads)

    def rows(self, matrix: str) -> range:
        """Vectors of the residual that the chip computes the addends of by a matrix ("wo", "w2")."""
        everything = matrix in self.whole or (self.summed and matrix == "w2")
        return range(self.residual[-1].stop) if everything else self.residual[self.chip]
