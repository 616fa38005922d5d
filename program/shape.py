"""The shape of a Llama model: its sizes, and the limits on them."""

from dataclasses import dataclass
from typing import Any

from base.errors import TspError

LAYERED = ("att_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3")
"""Weights that each layer has."""
MAX_DIM, MAX_LAYERS, MAX_VOCAB, MAX_SEQ = 1 << 16, 1 << 10, 1 << 22, 1 << 22
LIMITS: dict[str, tuple[float, float]] = {
    "dim": (1, MAX_DIM),
    "hidden_dim": (1, 8 * MAX_DIM),
    "n_layers": (1, MAX_LAYERS),
    "n_heads": (1, MAX_DIM),
    "n_kv_heads": (1, MAX_DIM),
    "vocab_size": (1, MAX_VOCAB),
    "seq_len": (1, MAX_SEQ),
    "head_dim": (1, MAX_DIM),
    "rope_theta": (1, 1e30),
    "norm_eps": (1e-30, 0.1),
}
"""Least and greatest value of every number of a `ModelConfig`. The sizes are generous: they only tell a model from
noise, and later passes check what fits a chip. An epsilon only avoids a division by 0, so it must be small."""


def check_number(label: str, name: str, value: Any) -> None:
    """Raises TspError, which begins with the label, unless a number is within the limits of the field `name`."""
    least, most = LIMITS[name]
    if not least <= value <= most:
        raise TspError(f"{label} must be in {least}..{most}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes and constants of a Llama model. Raises TspError if they contradict each other."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int
    head_dim: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    shared_classifier: bool = True

    def __post_init__(self) -> None:
        for name in LIMITS:
            check_number(f"model config: {name}", name, getattr(self, name))
        if self.n_heads % self.n_kv_heads:
            raise TspError(
                f"model config: n_heads must be a multiple of n_kv_heads, not {self.n_heads} with {self.n_kv_heads}"
            )
        if self.head_dim % 2:
            raise TspError(f"model config: head_dim must be even (RoPE rotates pairs), not {self.head_dim}")

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, in the order of a llama2.c file. The classifier is last, even if it is shared."""
        layers, dim, hidden = self.n_layers, self.dim, self.hidden_dim
        q_dim, kv_dim = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "tok_emb": (self.vocab_size, dim),
            "att_norm": (layers, dim),
            "wq": (layers, q_dim, dim),
            "wk": (layers, kv_dim, dim),
            "wv": (layers, kv_dim, dim),
            "wo": (layers, dim, q_dim),
            "ffn_norm": (layers, dim),
            "w1": (layers, hidden, dim),
            "w2": (layers, dim, hidden),
            "w3": (layers, hidden, dim),
            "final_norm": (dim,),
            "classifier": (self.vocab_size, dim),
        }
