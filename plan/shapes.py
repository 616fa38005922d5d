"""Shapes of language models: of well-known ones, and of checkpoints on disk, of which only the sizes are read."""

from dataclasses import dataclass, fields
from pathlib import Path

from base.errors import TspError
from compiler.frontend.sizes import load_config
from program.shape import ModelConfig

MODEL_CARD = "config.json of https://huggingface.co/{}"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a decoder with gated feed-forward layers, dense or of experts.

    hidden: of one feed-forward network. tied: the classifier is the embedding. experts: feed-forward networks a layer,
    of which a token uses `active_experts`. norms: a layer. windowed_layers: layers that keep no more than `window`
    positions. source: where the sizes were found.
    """

    name: str
    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    tied: bool
    experts: int = 1
    active_experts: int = 1
    norms: int = 2
    window: int = 0
    windowed_layers: int = 0
    source: str

    @property
    def attention(self) -> int:
        """Weights of a layer's four attention matrices."""
        return self.dim * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def expert(self) -> int:
        """Weights of one feed-forward network."""
        return 3 * self.dim * self.hidden

    @property
    def router(self) -> int:
        """Weights that choose a layer's experts."""
        return self.dim * self.experts if self.experts > 1 else 0

    @property
    def parameters(self) -> int:
        """All weights."""
        return self._parameters(self.experts)

    @property
    def active_parameters(self) -> int:
        """Weights that a token uses, the whole embedding counted as models' authors do."""
        return self._parameters(self.active_experts)

    @property
    def model(self) -> ModelConfig:
        """The sizes as the compiler takes them; of a dense model."""
        return ModelConfig(dim=self.dim, hidden_dim=self.hidden, n_layers=self.layers, n_heads=self.heads,
                           n_kv_heads=self.kv_heads, vocab_size=self.vocab, seq_len=self.context,
                           head_dim=self.head_dim, shared_classifier=self.tied)

    def _parameters(self, experts: int) -> int:
        layer = self.attention + experts * self.expert + self.router + self.norms * self.dim
        return self.layers * layer + self.dim + self.vocab * self.dim * (1 if self.tied else 2)

    def cached(self, context: int) -> int:
        """Positions that all layers' caches keep together, of a sequence of `context`."""
        full = self.layers - self.windowed_layers
        return full * context + self.windowed_layers * min(context, self.window)


PRESETS = {
    shape.name: shape
    for shape in (
        Shape(name="llama-3-8b", dim=4096, hidden=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=128256,
              context=8192, tied=False, source=MODEL_CARD.format("meta-llama/Meta-Llama-3-8B")),
        Shape(name="llama-3-70b", dim=8192, hidden=28672, layers=80, heads=64, kv_heads=8, head_dim=128, vocab=128256,
              context=8192, tied=False, source=MODEL_CARD.format("meta-llama/Meta-Llama-3-70B")),
        Shape(name="mixtral-8x7b", dim=4096, hidden=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=32000,
              context=32768, tied=False, experts=8, active_experts=2,
              source=MODEL_CARD.format("mistralai/Mixtral-8x7B-v0.1")),
        Shape(name="gemma-2-9b", dim=3584, hidden=14336, layers=42, heads=16, kv_heads=8, head_dim=256, vocab=256000,
              context=8192, tied=True, norms=4, window=4096, windowed_layers=21,
              source=MODEL_CARD.format("google/gemma-2-9b")),
        Shape(name="smollm2-135m", dim=576, hidden=1536, layers=30, heads=9, kv_heads=3, head_dim=64, vocab=49152,
              context=8192, tied=True, source=MODEL_CARD.format("HuggingFaceTB/SmolLM2-135M")),
        Shape(name="tinyllama-1.1b", dim=2048, hidden=5632, layers=22, heads=32, kv_heads=4, head_dim=64, vocab=32000,
              context=2048, tied=False, source=MODEL_CARD.format("TinyLlama/TinyLlama-1.1B-Chat-v1.0")),
    )
}
"""Models by name."""


def shape_of(model: str) -> Shape:
    """A preset by name (in any case), or the sizes of a checkpoint that a frontend reads.

    Raises TspError if it is neither.
    """
    if model.lower() in PRESETS:
        return PRESETS[model.lower()]
    path = Path(model)
    if not path.exists():
        raise TspError(f"{model}: no such checkpoint, and no known model: give a path or one of {', '.join(PRESETS)}")
    return from_config(load_config(path), name=model, source=model)


def from_config(config: ModelConfig, *, name: str, source: str) -> Shape:
    """The shape of a model that the compiler takes."""
    renamed = {"hidden": "hidden_dim", "layers": "n_layers", "heads": "n_heads", "kv_heads": "n_kv_heads",
               "vocab": "vocab_size", "context": "seq_len", "tied": "shared_classifier"}
    sizes = {field.name: getattr(config, renamed.get(field.name, field.name)) for field in fields(Shape)
             if hasattr(config, renamed.get(field.name, field.name))}
    return Shape(name=name, source=source, **sizes)
