"""The distribution of measured times as an SVG: the share of values that are no greater, over a logarithmic axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from . import summary
from .sample import Sample

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 44, 44, 96
KINDS = {"ttft": ("time to first token", "#2266aa"), "itl": ("between tokens", "#bb5522"),
         "e2el": ("end to end", "#337744")}
"""What a curve is called, and its colour, by metric."""


@dataclass(frozen=True)
class Curve:
    """Values in milliseconds; dashed: on the chip, by its cycles."""

    name: str
    colour: str
    dashed: bool
    values: Sequence[float]


def curves(samples: Sequence[Sample]) -> list[Curve]:
    """A curve a metric that has positive values, by the clock on the wall and on the chip."""
    found = []
    for metric, (name, colour) in KINDS.items():
        for on_chip in (False, True):
            values = sorted(value for value in summary.values_of(samples, metric, on_chip=on_chip) if value > 0)
            if values:
                where = "on the chip" if on_chip else "wall clock"
                found.append(Curve(f"{name}, {where} (n = {len(values):,})", colour, on_chip, values))
    return found


def svg(samples: Sequence[Sample], title: str) -> str:
    """The drawing. Solid: by the clock on the wall; dashed: on the chip."""
    drawn = curves(samples)
    low = math.floor(math.log10(min(curve.values[0] for curve in drawn)))
    high = max(low + 1, math.ceil(math.log10(max(curve.values[-1] for curve in drawn))))

    def x(value: float) -> float:
        return round(LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(share: float) -> float:
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
             f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, Helvetica, Arial, DejaVu Sans, sans-serif" '
             'font-size="11" fill="#1c2430">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
             f'<text x="12" y="22" font-size="13" font-weight="600">{escape(title)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts += [f'<path d="M{LEFT} {y(share)}H{WIDTH - RIGHT}" stroke="#e2e6ec"/>',
                  f'<text x="{LEFT - 8}" y="{y(share) + 4}" text-anchor="end">{share:g}</text>']
    for power in range(low, high + 1):
        parts += [f'<path d="M{x(10.0**power)} {y(0)}V{y(1)}" stroke="#e2e6ec"/>',
                  f'<text x="{x(10.0**power)}" y="{y(0) + 16}" text-anchor="middle">{10.0**power:g} ms</text>']
    parts += [_line(curve, x, y) for curve in drawn]
    parts += _legend(drawn)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(curve: Curve, x, y) -> str:
    """Steps: at each value up by its share."""
    path = f"M{x(curve.values[0])} {y(0)}"
    for n, value in enumerate(curve.values, 1):
        path += f"H{x(value)}V{y(n / len(curve.values))}"
    dash = ' stroke-dasharray="5 3"' if curve.dashed else ""
    return f'<path d="{path}" fill="none" stroke="{curve.colour}" stroke-width="1.8"{dash}/>'


def _legend(drawn: Sequence[Curve]) -> list[str]:
    """Two columns below the axis."""
    parts = []
    for n, curve in enumerate(drawn):
        left, top = LEFT + n % 2 * 340, HEIGHT - BOTTOM + 38 + n // 2 * 17
        dash = ' stroke-dasharray="5 3"' if curve.dashed else ""
        parts += [f'<path d="M{left} {top - 4}h26" stroke="{curve.colour}" stroke-width="1.8"{dash}/>',
                  f'<text x="{left + 34}" y="{top}">{escape(curve.name)}</text>']
    return parts
