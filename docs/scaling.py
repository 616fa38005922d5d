"""Cycles a token over the number of chips, for three models: `python -m docs.scaling [--draw]`.

The figures are of the models' shapes, without weights: what the compiler would schedule. They take minutes, so they are
kept in docs/img/scaling.json; --draw only draws them anew. The picture needs the extra `docs`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import base.one_thread  # noqa: F401  before anything that imports numpy
from arch.config import CONFIGS
from arch.rack import mesh
from compiler.capacity import check_fit as check_fit_alone
from compiler.frontend.load import load_checkpoint
from compiler.rack.buckets import build_buckets
from compiler.rack.capacity import check_fit
from compiler.rack.fit import fit_rack
from compiler.schedule.buckets import build_buckets as build_alone
from program.shape import ModelConfig
from run.bench import SHAPES

ROOT = Path(__file__).parents[1]
FIGURES, PICTURE = ROOT / "docs" / "img" / "scaling.json", ROOT / "docs" / "img" / "scaling.svg"
CONTEXT = 256
LATENCY = 12
"""Cycles of each link."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A model on 1, 2, .. chips of a config, all linked with each other."""

    name: str
    model: ModelConfig
    config: str
    counts: Sequence[int]


def curves() -> list[Curve]:
    """The shipped model, and two shapes."""
    shipped = load_checkpoint(ROOT / "models" / "stories263k.bin").config
    story, smol = SHAPES
    return [Curve(name="the shipped model, 263K", model=shipped, config="ulx3s", counts=(1, 2, 4, 8)),
            Curve(name="15M shape", model=story.model, config="large", counts=(1, 2, 4, 6, 8)),
            Curve(name="SmolLM2's shape, 135M", model=smol.model, config="sram220", counts=(1, 2, 4, 8))]


def cycles(curve: Curve, chips: int) -> int:
    """Of a token behind CONTEXT positions, in one bucket, with the partition that takes the fewest."""
    if chips == 1:
        alone = check_fit_alone(curve.model, CONFIGS[curve.config], CONTEXT, frozenset())
        return build_alone(alone, 1)[0].bucket.period
    rack = mesh(f"{chips} x {curve.config}", curve.config, chips, latency=LATENCY)
    plan = fit_rack(curve.model, rack, context=CONTEXT).plan
    return build_buckets(check_fit(curve.model, rack, CONTEXT, frozenset(), plan), 1)[0][0].bucket.period


def measure(found: dict[str, Any]) -> None:
    """Add the figures that are missing, and keep each at once."""
    for curve in curves():
        own = found.setdefault(curve.name, {"config": curve.config, "cycles": {}})["cycles"]
        for chips in curve.counts:
            if str(chips) not in own:
                own[str(chips)] = cycles(curve, chips)
                print(f"{curve.name}, {chips} x {curve.config}: {own[str(chips)]:,} cycles", flush=True)
                FIGURES.write_text(json.dumps(found, indent=1) + "\n")


def draw(found: dict[str, Any]) -> None:
    """The picture: gain over one chip, both axes logarithmic."""
    import matplotlib  # pyright: ignore[reportMissingImports]  an extra

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    figure, axes = pyplot.subplots(figsize=(7, 4.6))
    most = max(int(count) for own in found.values() for count in own["cycles"])
    axes.plot([1, most], [1, most], color="#b0b6bf", linestyle="--", linewidth=1, label="as many times as chips")
    looks = ("#0072b2", "o", -14), ("#d55e00", "s", -14), ("#009e73", "D", 8)
    for (name, own), (colour, marker, below) in zip(found.items(), looks, strict=True):
        counts = sorted(map(int, own["cycles"]))
        gains = [own["cycles"]["1"] / own["cycles"][str(count)] for count in counts]
        axes.plot(counts, gains, color=colour, marker=marker, label=f"{name}, on {own['config']}")
        for count, gain in zip(counts[1:], gains[1:], strict=True):
            axes.annotate(f"{gain:.2f}", (count, gain), textcoords="offset points", xytext=(0, below), ha="center",
                          fontsize=8, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="chips, all linked with each other",
             ylabel="cycles of one chip / cycles of the rack", title=f"A token behind {CONTEXT} positions")
    axes.set_xticks(range(1, most + 1), labels=map(str, range(1, most + 1)))
    axes.set_yticks(range(1, most + 1), labels=map(str, range(1, most + 1)))
    axes.minorticks_off()
    axes.grid(color="#e4e8ee")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> int:
    """Measure what is missing, and draw; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--draw", action="store_true", help="only draw the figures that are kept")
    parser.add_argument("--anew", action="store_true", help="forget the figures that are kept")
    options = parser.parse_args()
    found = {} if options.anew or not FIGURES.exists() else json.loads(FIGURES.read_text())
    if not options.draw:
        measure(found)
    draw(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
