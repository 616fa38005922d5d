"""What quantisation must know of a model's activations: ranges and second moments, on text the model writes itself."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from compiler.float_model import FINAL_NORM, LAYER_SITES, FloatModel, layer_site

CALIBRATION_SEEDS = range(20_000, 20_008)

INPUT_SITES = {
    "wq": "att_norm",
    "wk": "att_norm",
    "wv": "att_norm",
    "wo": "att",
    "w1": "ffn_norm",
    "w3": "ffn_norm",
    "w2": "silu",
    "classifier": FINAL_NORM,
}
"""The activation site that each matrix multiplies."""


def sample_sequences(model: FloatModel, context: int, seeds: Sequence[int], bos: int = 1) -> list[list[int]]:
    """A text a seed, of `context` tokens that the float model writes itself at temperature 1, beginning with BOS."""
    return [[bos, *text] for text in model.generate_together(bos, context - 1, seeds)]


@dataclass
class Statistics:
    """Largest magnitude a channel [features] by site, and sum of x x^T [features, features] of sites asked for."""

    moments_of: Collection[str] = ()
    peaks: dict[str, np.ndarray] = field(default_factory=dict)
    moments: dict[str, np.ndarray] = field(default_factory=dict)

    def observe(self, site: str, values: np.ndarray) -> None:
        """Take in activations [T, features]."""
        peak = np.abs(values).max(0).astype(np.float64)
        self.peaks[site] = np.maximum(self.peaks[site], peak) if site in self.peaks else peak
        if site.rsplit(".", 1)[-1] in self.moments_of:
            moment = (values.T @ values).astype(np.float64)
            self.moments[site] = self.moments[site] + moment if site in self.moments else moment

    def layer_peaks(self, layers: int) -> dict[str, np.ndarray]:
        """Peaks [layers, features] of every site that each layer has."""
        return {site: np.stack([self.peaks[layer_site(n, site)] for n in range(layers)]) for site in LAYER_SITES}

    def layer_moments(self, layers: int, site: str) -> np.ndarray:
        """Moments [layers, features, features] of a site ([1, ..] of the final norm)."""
        names = [site] if site == FINAL_NORM else [layer_site(n, site) for n in range(layers)]
        return np.stack([self.moments[name] for name in names])


def calibrate(model: FloatModel, sequences: Sequence[Sequence[int]], matrices: Collection[str] = ()) -> Statistics:
    """Statistics of all sites on the sequences, with the moments of what `matrices` multiply."""
    statistics = Statistics(moments_of={INPUT_SITES[name] for name in matrices})
    for tokens in sequences:
        model.sequence_logits(tokens, statistics.observe)
    return statistics
