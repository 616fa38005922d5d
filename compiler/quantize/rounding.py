"""Rounding weights to a few bits: a step a row, and error compensation where plain rounding is too coarse."""

import math
from dataclasses import dataclass

import numpy as np

from program.integer import greatest_sum

MAX_SCALE = 32767
DAMPING = 0.01
"""Of the mean diagonal of the second moments, added to it before it is inverted."""
ROWS = 4096
"""Rows of a matrix that are rounded at once."""
CLIPS = np.linspace(0.5, 1.0, 21)
"""Row steps tried, in units of the one that clips nothing."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Integer weights of a stack of matrices with their channel scales: y = (weights @ x) * scale / 2**total."""

    weights: np.ndarray
    scale: np.ndarray
    total: int

    def pre(self, *groups: slice) -> int:
        """Least shift that brings every possible int8 product sum to 18 bits; groups: of columns, summed one by one."""
        bound = max(greatest_sum(layer[:, group]) for layer in self.weights for group in groups or (slice(None),)) * 127
        return max(0, bound.bit_length() - 17)


def row_steps(weights: np.ndarray, limit: int) -> np.ndarray:
    """Step of each row [.., out] with which its largest weight is `limit`; never 0."""
    return np.maximum(np.abs(weights).max(-1), 1e-30) / limit


def searched_steps(weights: np.ndarray, limit: int, importance: np.ndarray) -> np.ndarray:
    """Step of each row of a matrix [out, in] with the least squared error; importance: of the columns [in]."""
    widest = row_steps(weights, limit)
    errors = []
    for clip in CLIPS:
        step = (widest * clip)[:, None]
        error = np.clip(np.rint(weights / step), -limit, limit) * step - weights
        errors.append((error**2 * importance).sum(-1))
    return widest * CLIPS[np.argmin(errors, axis=0)]


def total_shift(*needs: np.ndarray) -> int:
    """The largest shift at which every channel scale need * 2**shift fits int16."""
    largest = max(float(need.max()) for need in needs)
    return min(math.floor(math.log2(MAX_SCALE / largest)), 60)


def integer_scales(steps: np.ndarray, gain: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """(channel scales, the steps that they stand for), none of them narrower than asked."""
    scale = np.clip(np.ceil(steps * gain * 2.0**total * (1 - 1e-12)), 1, MAX_SCALE)
    return scale.astype(np.int16), scale / (gain * 2.0**total)


def nearest(weights: np.ndarray, steps: np.ndarray, limit: int) -> np.ndarray:
    """int8 weights of a matrix [out, in] by plain rounding, some rows at a time."""
    rounded = np.empty(weights.shape, np.int8)
    for start in range(0, len(weights), ROWS):
        part = slice(start, start + ROWS)
        rounded[part] = np.clip(np.rint(weights[part] / steps[part, None]), -limit, limit)
    return rounded


def compensated(weights: np.ndarray, steps: np.ndarray, limit: int, moments: np.ndarray) -> np.ndarray:
    """int8 weights of a matrix [out, in], rounded column by column; later columns make up for each column's error.

    The method of GPTQ (Frantar et al., 2022): the error weighed by the second moments of the input [in, in], the
    columns in falling order of their moment.
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    upper = _inverse_root(moments[np.ix_(order, order)])
    rest = weights[:, order].astype(np.float64)
    rounded = np.empty(weights.shape, dtype=np.int8)
    for j, column in enumerate(order):
        integer = np.clip(np.rint(rest[:, j] / steps), -limit, limit)
        rounded[:, column] = integer
        error = (rest[:, j] - integer * steps) / upper[j, j]
        rest[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
    return rounded


def _inverse_root(moments: np.ndarray) -> np.ndarray:
    """Upper triangular U with U^T U = moments^-1, after damping."""
    damped = moments + np.eye(len(moments)) * (DAMPING * np.diag(moments).mean() + 1e-30)
    return np.linalg.cholesky(np.linalg.inv(damped)).T
