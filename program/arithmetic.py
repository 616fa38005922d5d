"""Arithmetic of the VXM on whole tensors: shifts, saturation, table functions, and the rotations of RoPE."""

import math

import numpy as np

from arch import numerics, tables
from arch.isa import Func

ROPE_FRACTION = 14
ROPE_STEP = 16
"""A rotation is the product of two: one by a multiple of ROPE_STEP positions, and one by the rest."""


def rsr(x: np.ndarray, s: np.ndarray | int) -> np.ndarray:
    """Right shift that rounds half up. s = 0 leaves x, and a negative s shifts left."""
    s = np.asarray(s)
    if s.ndim == 0:
        n = int(s)
        return (x + (1 << n - 1)) >> n if n > 0 else x << -n
    return np.where(s >= 0, numerics.shift_right(x, np.maximum(s, 0), 1), x << np.maximum(-s, 0))


def clip(x: np.ndarray, bits: int) -> np.ndarray:
    """SAT: clamp to +-(2**(bits-1) - 1), or to the int32 range for 32."""
    if bits == 32:
        return numerics.sat32(x)
    limit = (1 << bits - 1) - 1
    return np.minimum(np.maximum(x, -limit), limit)


def interpolate(func: Func, a: np.ndarray) -> np.ndarray:
    """An interpolating table function of int64 values."""
    product, base = numerics.interpolation(func, a)
    return rsr(product, tables.TABLES[func].frac_bits) + base


def rope_tables(context: int, head_size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin) [context, head_size / 2], Q2.14, as the chip computes them: the product of two rotations.

    The chip keeps 16 low rotations and context/16 high ones, by multiples of 16. It multiplies them once a token, so
    the table of a long context takes little SRAM: cos = RSR(ch*cl, 14) - RSR(sh*sl, 14),
    sin = RSR(sh*cl, 14) + RSR(ch*sl, 14).
    """
    rate = theta ** (-np.arange(0, head_size, 2) / head_size)
    (cl, sl), (ch, sh) = rope_parts(context, rate)
    low, high = np.arange(context) % ROPE_STEP, np.arange(context) // ROPE_STEP
    cl, sl, ch, sh = cl[low], sl[low], ch[high], sh[high]
    one = ROPE_FRACTION
    return rsr(ch * cl, one) - rsr(sh * sl, one), rsr(sh * cl, one) + rsr(ch * sl, one)


def rope_parts(context: int, rate: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((cos, sin) of 0..15, (cos, sin) of 0, 16, 32..) as int64 Q2.14 arrays [positions, pairs]."""

    def table(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = positions[:, None] * rate
        one = 1 << ROPE_FRACTION
        return np.rint(np.cos(angle) * one).astype(np.int64), np.rint(np.sin(angle) * one).astype(np.int64)

    return table(np.arange(ROPE_STEP)), table(ROPE_STEP * np.arange(math.ceil(context / ROPE_STEP)))
