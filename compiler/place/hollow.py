"""Arrays of zeros that take no memory, whatever their shape: the weights of models of which only shapes count."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike


def zeros(shape: Sequence[int], kind: DTypeLike) -> np.ndarray:
    """An array of zeros, which cannot be written to."""
    return np.broadcast_to(np.zeros((), kind), shape)


def is_hollow(x: np.ndarray) -> bool:
    """Whether an array is one of `zeros`, or a part of one: what is made of it is, too."""
    return x.size > 1 and not any(x.strides) and not x.flat[0]


def taken(x: np.ndarray, rows: np.ndarray, axis: int) -> np.ndarray:
    """`np.take`."""
    if is_hollow(x):
        return zeros((*x.shape[:axis], len(rows), *x.shape[axis + 1 :]), x.dtype)
    return np.take(x, rows, axis=axis)
