"""What quantisation must know of a model's activations: ranges and second moments, on text that the model writes itself
or that the user gives."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from base.errors import TspError

from .float_model import EMBEDDING, FINAL_NORM, LAYER_SITES, LOGITS, X_FINAL, FloatModel, layer_site

CALIBRATION_SEEDS = range(20_000, 20_008)
LEAST_TOKENS = 64
"""Of a text to calibrate on, if the model's context allows: however short the context that is compiled for."""
LEAST_PEAK, GREATEST_PEAK = 1e-18, 1e15
"""Of activations: squares of such values are float32's, too."""

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

MADE_BY = {
    EMBEDDING: "tok_emb",
    "x_att": "tok_emb, wo and w2",
    "att_norm": "att_norm",
    "q_proj": "wq",
    "k_proj": "wk",
    "q": "wq",
    "k": "wk",
    "v": "wv",
    "att": "wv",
    "wo": "wo",
    "x_ffn": "tok_emb, wo and w2",
    "ffn_norm": "ffn_norm",
    "gate": "w1",
    "up": "w3",
    "silu": "w1 and w3",
    "w2": "w2",
    X_FINAL: "tok_emb, wo and w2",
    FINAL_NORM: "final_norm",
    LOGITS: "classifier",
}
"""The weights that make the activations of each site."""
NEVER_ZERO = frozenset({EMBEDDING, "x_att", "att_norm", "v", "x_ffn", "ffn_norm", "up", "silu", X_FINAL, FINAL_NORM})
"""Sites whose peak becomes a scale in each layer."""


def sample_sequences(model: FloatModel, context: int, seeds: Sequence[int], bos: int = 1) -> list[list[int]]:
    """A text a seed, of `context` tokens that the float model writes itself at temperature 1, beginning with BOS."""
    with np.errstate(all="ignore"):  # weights may be too large for float32: `check_peaks` says so
        return [[bos, *text] for text in model.generate_together(bos, context - 1, seeds)]


def cut(tokens: Sequence[int], length: int, bos: int) -> list[list[int]]:
    """A text's tokens as sequences of at most `length`, each of which begins with BOS as all that the chip sees do."""
    step = max(length - 1, 1)
    return [[bos, *tokens[start : start + step]][:length] for start in range(0, len(tokens), step)]


def text_length(context: int, model_context: int) -> int:
    """Tokens of a text to calibrate on for a context: BOS and a few tokens see too little of the activations."""
    return max(context, min(LEAST_TOKENS, model_context))


DIRECTIONS = 64
"""In which the reach of a pair of channels is known."""
SAMPLED = ("q", "k")
"""Sites of which whole texts are kept."""
SAMPLES = 2
"""Texts that are kept."""
_AROUND = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS


@dataclass
class Statistics:
    """Largest magnitude a channel [features] by site, and sum of x x^T [features, features] of sites asked for.

    samples: by site of `SAMPLED`, the activations [T, features] of the first texts.
    directions: by layer's "k_proj", how far its pairs reach in each direction [features / 2, DIRECTIONS].
    first: keys "k" and values "v" [layers, K * hd] of a first token that is a constant; it is in nothing else.
    """

    moments_of: Collection[str] = ()
    peaks: dict[str, np.ndarray] = field(default_factory=dict)
    moments: dict[str, np.ndarray] = field(default_factory=dict)
    samples: dict[str, list[np.ndarray]] = field(default_factory=dict)
    directions: dict[str, np.ndarray] = field(default_factory=dict)
    first: dict[str, np.ndarray] = field(default_factory=dict)

    def observe(self, site: str, values: np.ndarray) -> None:
        """Take in activations [T, features]."""
        peak = np.abs(values).max(0).astype(np.float64)
        self.peaks[site] = np.maximum(self.peaks[site], peak) if site in self.peaks else peak
        kind = site.rsplit(".", 1)[-1]
        if kind in SAMPLED and len(texts := self.samples.setdefault(site, [])) < SAMPLES:
            texts.append(values.astype(np.float32))
        if kind == "k_proj":
            along = values.reshape(-1, 2) @ np.stack([np.cos(_AROUND), np.sin(_AROUND)]).astype(values.dtype)
            reach = along.reshape(len(values), -1, DIRECTIONS).max(0).astype(np.float64)
            self.directions[site] = np.maximum(self.directions[site], reach) if site in self.directions else reach
        if kind in self.moments_of:
            moment = (values.T @ values).astype(np.float64)
            self.moments[site] = self.moments[site] + moment if site in self.moments else moment

    def layer_peaks(self, layers: int) -> dict[str, np.ndarray]:
        """Peaks [layers, features] of every site that each layer has."""
        return {site: np.stack([self.peaks[layer_site(n, site)] for n in range(layers)]) for site in LAYER_SITES}

    def layer_moments(self, layers: int, site: str) -> np.ndarray:
        """Moments [layers, features, features] of a site ([1, ..] of the final norm)."""
        names = [site] if site == FINAL_NORM else [layer_site(n, site) for n in range(layers)]
        return np.stack([self.moments[name] for name in names])


def calibrate(model: FloatModel, sequences: Sequence[Sequence[int]], matrices: Collection[str] = (),
              first: int = -1) -> Statistics:
    """Statistics of all sites on the sequences, with the moments of what `matrices` multiply; first: the token that all
    of them begin with, if its keys and values are to be constants."""
    statistics = Statistics(moments_of={INPUT_SITES[name] for name in matrices})

    def later(site: str, values: np.ndarray) -> None:
        if len(values) > 1:
            statistics.observe(site, values[1:])

    with np.errstate(all="ignore"):
        for tokens in sequences:
            model.sequence_logits(tokens, statistics.observe if first < 0 else later)
        if first >= 0:
            statistics.first = _first_token(model, first)
    return statistics


def _first_token(model: FloatModel, token: int) -> dict[str, np.ndarray]:
    """Keys and values [layers, K * hd] of a token at position 0."""
    rows: dict[str, list[np.ndarray]] = {"k": [], "v": []}

    def observe(site: str, values: np.ndarray) -> None:
        if (kind := site.rsplit(".", 1)[-1]) in rows:
            rows[kind].append(values[0].astype(np.float64))

    model.sequence_logits([token], observe)
    return {kind: np.stack(found) for kind, found in rows.items()}


def check_peaks(statistics: Statistics) -> None:
    """Raise TspError where activations are not finite or out of scale, or are 0 where a scale is made of their peak."""
    for site, channels in statistics.peaks.items():
        peak, kind = float(channels.max()), site.rsplit(".", 1)[-1]
        least = LEAST_PEAK if kind in NEVER_ZERO else 0
        if not least <= peak <= GREATEST_PEAK:
            reach = f"reach {peak:.3g}" if peak else "are all 0"
            raise TspError(f"activations at {site} {reach} on the calibration text, their peak must be in "
                           f"{least}..{GREATEST_PEAK:g}: {MADE_BY[kind]} may be damaged or of another unit, export the "
                           "checkpoint again")
