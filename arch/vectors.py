"""Vectors: rounding up, padding, and conversion of values to vectors and quads."""

import numpy as np

from .config import PLANES

SIDES = ("W", "E")


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def pad_to(x: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    """Zero-pad one axis to a multiple."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % multiple)
    return np.pad(x, widths)


def quads_of_int32(vectors: np.ndarray) -> np.ndarray:
    """int32 vectors [.., n, lanes] -> bytes [.., n, planes, lanes]."""
    raw = np.ascontiguousarray(vectors, dtype="<i4").view(np.uint8).reshape(*vectors.shape, PLANES)
    return np.moveaxis(raw, -1, -2)


def vectors_of(x: np.ndarray, lanes: int) -> np.ndarray:
    """[.., n] -> zero-padded vectors [.., ceil(n / lanes), lanes]."""
    x = pad_to(x, -1, lanes)
    return x.reshape(*x.shape[:-1], -1, lanes)
