"""A summary of many samples, each with the number of values that it rests on.

A percentile is interpolated linearly between the two values next to its rank (numpy's method "linear"). The 99th is
given for 100 values and more. A standard deviation is the sample's (n - 1); the CV is it over the mean. Inter-token
figures pool the gaps of all answers. Times are in milliseconds.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .sample import OnChip, Sample

METHOD = "linear"
LEAST_P99 = 100
METRICS = ("ttft", "itl", "tpot", "e2el", "tps")
"""Time to first token, between tokens, of an output token on average (of an answer), end to end; tokens a second."""
Figures = dict[str, float | int | None]


def summarise(values: Sequence[float]) -> Figures:
    """n, mean, std, cv_percent, p50, p95 and p99; None for what so few values do not tell."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    std = None if n < 2 else float(np.std(values, ddof=1)) if min(values) < max(values) else 0.0
    return {"n": n, "mean": mean, "std": std, "cv_percent": 100 * std / mean if std is not None and mean else None,
            "p50": percentile(values, 50), "p95": percentile(values, 95),
            "p99": percentile(values, 99) if n >= LEAST_P99 else None}


def percentile(values: Sequence[float], rank: float) -> float | None:
    """Of at least one value."""
    return float(np.percentile(values, rank, method=METHOD)) if len(values) else None


def values_of(samples: Iterable[Sample], metric: str, *, on_chip: bool = False) -> list[float]:
    """All values of a key of `METRICS`, on the wall or on the chip; empty where nobody told."""
    found: list[float] = []
    for sample in samples:
        timed = sample.chip if on_chip else sample
        if timed is not None:
            found += _values(timed, metric, sample.tokens)
    return found


def _values(timed: Sample | OnChip, metric: str, tokens: int) -> list[float]:
    match metric:
        case "ttft":
            return [] if timed.ttft is None else [1e3 * timed.ttft]
        case "itl":
            return [1e3 * gap for gap in timed.gaps]
        case "tpot":
            return [1e3 * sum(timed.gaps) / len(timed.gaps)] if timed.gaps else []
        case "e2el":
            return [1e3 * timed.e2el]
        case "tps":
            return [tokens / timed.e2el]
    raise ValueError(metric)


def table(samples: Sequence[Sample], *, on_chip: bool = False) -> dict[str, Figures]:
    """All metrics; times end in `_ms`."""
    return {metric if metric == "tps" else f"{metric}_ms": summarise(values_of(samples, metric, on_chip=on_chip))
            for metric in METRICS}


def benchmark(samples: Sequence[Sample]) -> Figures:
    """The keys that published latency benchmarks have; cv_percent is of the tokens a second."""
    latency, speed = (summarise(values_of(samples, metric)) for metric in ("e2el", "tps"))
    return {"p50_latency_ms": latency["p50"], "p95_latency_ms": latency["p95"], "mean_tps": speed["mean"],
            "std_tps": speed["std"], "cv_percent": speed["cv_percent"]}


def monitor(samples: Sequence[Sample]) -> Figures:
    """The keys that published monitors have."""
    latency = summarise(values_of(samples, "e2el"))
    return {"p50_ms": latency["p50"], "p95_ms": latency["p95"], "p99_ms": latency["p99"],
            "mean_tps": summarise(values_of(samples, "tps"))["mean"]}


def cycles(samples: Sequence[Sample]) -> dict[str, object] | None:
    """What the chip promised and kept; None if the server tells nothing of a chip."""
    chips = [sample.chip for sample in samples if sample.chip]
    if not chips:
        return None
    timed = all(chip.measured is not None for chip in chips)
    return {"device": chips[0].device, "clock_mhz": chips[0].clock_mhz,
            "predicted_cycles": sum(chip.predicted for chip in chips),
            "measured_cycles": sum(chip.measured or 0 for chip in chips) if timed else None,
            "mismatches": sum(not chip.kept for chip in chips),
            "different_totals": len(Counter(chip.predicted for chip in chips))}
