"""A Llama model as every later pass sees it: a configuration and float32 weights, whatever file they came from.

RoPE convention: llama2.c's, where features (2i, 2i+1) of a head form pair i; the Hugging Face frontend permutes its
rows into it.
Matrices are (out, in), with the layer in front.
"""

from dataclasses import dataclass, fields

import numpy as np

from base.errors import TspError
from program.shape import ModelConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model's configuration and weights; the arrays are float32, finite and made read-only.

    `classifier` is `tok_emb` itself when the config says it is shared. `source` is what later passes call the model in
    errors: the path that it was read from. Raises `TspError` on a wrong shape, a wrong type or a NaN or infinity.
    """

    config: ModelConfig
    tok_emb: np.ndarray
    att_norm: np.ndarray
    wq: np.ndarray
    wk: np.ndarray
    wv: np.ndarray
    wo: np.ndarray
    ffn_norm: np.ndarray
    w1: np.ndarray
    w2: np.ndarray
    w3: np.ndarray
    final_norm: np.ndarray
    classifier: np.ndarray
    source: str = "the checkpoint"

    def __post_init__(self) -> None:
        for name, shape in self.config.shapes().items():
            _check_weight(name, getattr(self, name), shape)
            getattr(self, name).flags.writeable = False
        if self.config.shared_classifier and self.classifier is not self.tok_emb:
            raise TspError("checkpoint: the classifier is declared shared, so it must be tok_emb itself")

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """All weight arrays by name, the classifier only if it is not the token embedding."""
        names = [f.name for f in fields(self) if f.name not in ("config", "source")]
        return {n: getattr(self, n) for n in names if n != "classifier" or not self.config.shared_classifier}

    @property
    def n_parameters(self) -> int:
        """Number of distinct weights."""
        return sum(w.size for w in self.weights.values())


def _check_weight(name: str, weight: np.ndarray, shape: tuple[int, ...]) -> None:
    if weight.dtype != np.float32:
        raise TspError(f"weight {name} must be float32, not {weight.dtype}")
    if weight.shape != shape:
        raise TspError(f"weight {name} must have shape {shape}, not {weight.shape}")
    bad = weight.size - int(np.count_nonzero(np.isfinite(weight)))
    if bad:
        raise TspError(f"weight {name} holds {bad} NaN or infinite of {weight.size} values: the checkpoint is damaged")
