"""The VXM's function tables: one ROM of 256 (base, slope) pairs for all table functions.

EXP2 takes its value from the ROM. The others interpolate: value = base + ((slope * frac + half) >> frac_bits).
`docs/reference/numerics.md` defines indices and scales, and gives the KL divergences that decided the widths.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from .isa import Func

CENTRE_BITS = 15
"""Bits of a centre (the base between two segments) and of a power; unsigned."""
SLOPE_BITS = 12
"""Bits of a slope; two's complement."""
ROM_DEPTH = 256
LOG2_FRACTION = 15
EXP2_FRACTION = 6


@dataclass(frozen=True)
class Table:
    """Where a function's segments lie in the ROM, and how many bits of fraction remain within a segment."""

    start: int
    segments: int
    frac_bits: int


TABLES = {
    Func.EXP2: Table(0, 64, 0),
    Func.SIGMOID: Table(64, 64, 10),
    Func.RECIP: Table(128, 32, 10),
    Func.RSQRT: Table(160, 32, 11),
    Func.LOG2: Table(192, 32, 10),
}

FIRST_INTERPOLATED = min(table.start for table in TABLES.values() if table.frac_bits)
"""First ROM word of the interpolating functions. `centres` and `slopes` are 0 below it."""


def _interpolated(function: Callable[[float], float], segments: int) -> list[tuple[int, int]]:
    """(base, slope) of `segments` equal parts of [0, 1). Each line passes through the rounded values at its ends."""
    ends = [round(function(i / segments)) for i in range(segments + 1)]
    return [(low, high - low) for low, high in itertools.pairwise(ends)]


def rom() -> list[tuple[int, int]]:
    """The ROM: ROM_DEPTH pairs (base, slope)."""
    scale = 1 << 15
    parts = {
        Func.EXP2: [(round(127.2 * 2**7 * 2 ** (u / 64)), 0) for u in range(64)],
        Func.SIGMOID: _interpolated(lambda t: scale / (1 + math.exp(8 - 16 * t)), 64),
        Func.RECIP: _interpolated(lambda t: scale / (1 + t), 32),
        Func.RSQRT: _interpolated(lambda t: scale / math.sqrt(1 + t), 16)
        + _interpolated(lambda t: scale / math.sqrt(2 * (1 + t)), 16),
        Func.LOG2: _interpolated(lambda t: scale * math.log2(1 + t), 32),
    }
    words = [(0, 0)] * ROM_DEPTH
    for func, table in TABLES.items():
        words[table.start : table.start + table.segments] = parts[func]
    return words


def centres() -> list[int]:
    """The base between the two segments of each pair: the first ends there and the second starts."""
    return [base * (entry >= FIRST_INTERPOLATED) for entry, (base, _) in enumerate(rom())][1::2]


def slopes() -> list[int]:
    """The slope of each segment, in SLOPE_BITS bits. The second half of SIGMOID mirrors the first and has slopes 0."""
    table = TABLES[Func.SIGMOID]
    mirrored = range(table.start + table.segments // 2, table.start + table.segments)
    return [slope & (1 << SLOPE_BITS) - 1 if entry not in mirrored else 0 for entry, (_, slope) in enumerate(rom())]


def powers() -> list[int]:
    """The values of EXP2."""
    table = TABLES[Func.EXP2]
    return [base for base, _ in rom()[table.start : table.start + table.segments]]
