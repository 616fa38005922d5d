"""A Llama model for all later passes: a configuration and float32 weights, whatever the file format.

RoPE has llama2.c's convention: features (2i, 2i+1) of a head form pair i. The Hugging Face frontend permutes its rows
to this order. Matrices are (out, in), with the layer as the first axis. Weights of large files stay in the file until a
pass asks for a layer.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from base.errors import TspError
from program.shape import LAYERED, ModelConfig

BLOCK = 1 << 22
"""Values that are checked in one step."""


class Stored:
    """A float32 weight that stays in its file. `weight[n]` reads layer n, and `np.asarray(weight)` reads all layers.

    Values that were read are not kept. A read raises TspError if a part has the wrong shape or holds a NaN or an
    infinity.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, name: str, shape: tuple[int, ...], parts: Sequence[Callable[[], np.ndarray]],
                 source: str = "the checkpoint") -> None:
        """A weight of these parts.

        parts: functions that read one layer each, in order. A weight without layers has a single part.
        source: the model's name in errors.
        """
        self.name, self.shape, self._parts, self._source = name, shape, tuple(parts), source
        self._layered = name in LAYERED
        if len(self._parts) != (shape[0] if self._layered else 1):
            raise ValueError(f"weight {name} of shape {shape} cannot have {len(self._parts)} parts")

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, layer: int) -> np.ndarray:
        """A layer, or a row of a weight without layers: float32, read-only."""
        return self._read(layer) if self._layered else np.asarray(self)[layer]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[layer] for layer in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not self._layered:
            whole = self._read(0)
        else:
            whole = np.empty(self.shape, np.float32)
            for layer in range(len(self)):
                whole[layer] = self._read(layer)
        return whole.astype(dtype or np.float32, copy=False)

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        """The whole weight in another type."""
        return np.asarray(self).astype(dtype, copy=copy)

    def _read(self, part: int) -> np.ndarray:
        found = self._parts[part]()
        try:
            _check_weight(self.name, found, self.shape[1:] if self._layered else self.shape)
        except TspError as error:
            layer = f"layer {part}: " if self._layered else ""
            raise TspError(f"{self._source}: {layer}{error}") from None
        found.flags.writeable = False
        return found


Weight = Any
"""An np.ndarray in memory, or a `Stored` weight in a file. A union type would hide the operations that they share."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model's configuration and weights: float32, finite and read-only arrays, or `Stored` ones that become such.

    classifier: `tok_emb` itself if the config says that it is shared.
    source: the model's name in errors: the path of its file.
    notes: what was dropped, guessed or overruled during reading, one line each.
    files: the files of the weights, if there are any.

    Raises TspError on a wrong shape, a wrong type, a NaN or an infinity. A `Stored` weight raises it when it is read.
    """

    config: ModelConfig
    tok_emb: Weight
    att_norm: Weight
    wq: Weight
    wk: Weight
    wv: Weight
    wo: Weight
    ffn_norm: Weight
    w1: Weight
    w2: Weight
    w3: Weight
    final_norm: Weight
    classifier: Weight
    source: str = "the checkpoint"
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for name, shape in self.config.shapes().items():
            weight = getattr(self, name)
            if isinstance(weight, Stored):
                _check_shape(name, weight, shape)
            else:
                _check_weight(name, weight, shape)
                weight.flags.writeable = False
        if self.config.shared_classifier and self.classifier is not self.tok_emb:
            raise TspError("checkpoint: the classifier is declared shared, so it must be tok_emb")

    def layer(self, number: int) -> dict[str, np.ndarray]:
        """The weights of one layer by name. Weights in a file are read now, and not kept."""
        return {name: getattr(self, name)[number] for name in LAYERED}

    @property
    def weights(self) -> dict[str, Weight]:
        """All weights by name. The classifier is included only if it is not the token embedding."""
        names = list(self.config.shapes())
        return {n: getattr(self, n) for n in names if n != "classifier" or not self.config.shared_classifier}

    @property
    def n_parameters(self) -> int:
        """Number of distinct weights."""
        return sum(w.size for w in self.weights.values())

    def digest(self) -> str:
        """sha256 of the configuration and all weights, from the bytes of the files or from the arrays."""
        found = hashlib.sha256(repr(self.config).encode())
        for path in self.files:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        for name, weight in self.weights.items() if not self.files else ():
            found.update(name.encode() + np.ascontiguousarray(weight).tobytes())
        return found.hexdigest()


def _check_shape(name: str, weight: Weight, shape: tuple[int, ...]) -> None:
    if weight.dtype != np.float32:
        raise TspError(f"weight {name} must be float32, not {weight.dtype}")
    if weight.shape != shape:
        raise TspError(f"weight {name} must have shape {shape}, not {weight.shape}")


def _check_weight(name: str, weight: np.ndarray, shape: tuple[int, ...]) -> None:
    _check_shape(name, weight, shape)
    flat = weight.reshape(-1)
    blocks = (flat[at : at + BLOCK] for at in range(0, flat.size, BLOCK))  # no mask as large as the weight
    bad = sum(block.size - int(np.count_nonzero(np.isfinite(block))) for block in blocks)
    if bad:
        raise TspError(f"weight {name} holds {bad} NaN or infinite of {weight.size} values: the checkpoint is damaged")
