"""Reads the legacy ("version 0") llama2.c checkpoint: seven int32, then float32 weights."""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from base.errors import TspError
from base.inputs import cannot_read, check_content, check_input, read_head
from program.shape import LIMITS, ModelConfig

from .checkpoint import Checkpoint

HEADER = struct.Struct("<7i")


def load_llama2c(path: str | Path) -> Checkpoint:
    """Load a legacy llama2.c `.bin`. Raises TspError if it has another format, is truncated, too long or damaged.

    The weights are the mapped file. Do not change the file while they are in use.
    """
    path = Path(path)
    size, head = check_input(path), read_head(path)
    check_content(path, head, wanted="a llama2.c checkpoint")
    config = _read_config(path, head)
    expected = HEADER.size + 4 * sum(math.prod(shape) for _, shape in _file_layout(config))
    if size != expected:
        fault = "is truncated" if size < expected else "has the wrong size"
        raise TspError(
            f"{path}: the checkpoint {fault}: its header asks for {expected} bytes, the file has {size};"
            " download it again"
        )
    try:
        data = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        return Checkpoint(config=config, source=str(path), files=(path,), **_read_weights(config, data))
    except OSError as error:
        raise cannot_read(path, error) from error
    except TspError as error:
        raise TspError(f"{path}: {error}") from None


def load_llama2c_config(path: str | Path) -> ModelConfig:
    """The sizes in the header of a legacy llama2.c `.bin`. Raises TspError if it has another format."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read_config(path, file.read(HEADER.size))
    except OSError as error:
        raise TspError(f"{path}: cannot read the checkpoint: {error.strerror}") from error


def _read_config(path: Path, data: bytes) -> ModelConfig:
    if len(data) < HEADER.size:
        raise TspError(
            f"{path}: the checkpoint is truncated: a llama2.c header has {HEADER.size} bytes, the file has "
            f"{len(data)}: download it again"
        )
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab, seq_len = HEADER.unpack_from(data)
    sizes = {
        "dim": dim,
        "hidden_dim": hidden_dim,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "|vocab_size|": abs(vocab),
        "seq_len": seq_len,
    }
    for name, value in sizes.items():  # generous bounds: the file's size is checked exactly
        least, most = LIMITS[name.strip("|")]
        if not least <= value <= most:
            raise TspError(
                f"{path}: not a llama2.c checkpoint: its header's {name} must be {least}..{most}, not {value}"
            )
    if dim % n_heads:
        raise TspError(
            f"{path}: not a llama2.c checkpoint: dim must be a multiple of n_heads, not {dim} with {n_heads}"
        )
    try:
        return ModelConfig(
            dim=dim,
            hidden_dim=hidden_dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            vocab_size=abs(vocab),
            seq_len=seq_len,
            head_dim=dim // n_heads,
            shared_classifier=vocab > 0,
        )
    except TspError as error:
        raise TspError(f"{path}: {error}") from None


def _file_layout(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every float32 array of the file, in order. The two RoPE tables are named `rope_*`."""
    for name, shape in config.shapes().items():
        if name == "classifier":
            yield "rope_cos", (config.seq_len, config.head_dim // 2)
            yield "rope_sin", (config.seq_len, config.head_dim // 2)
            if config.shared_classifier:
                return
        yield name, shape


def _read_weights(config: ModelConfig, data: np.ndarray) -> dict[str, Any]:
    weights, offset = {}, HEADER.size
    for name, shape in _file_layout(config):
        size = math.prod(shape)
        if not name.startswith("rope_"):  # the tables follow from rope_theta; run.c ignores them too
            weights[name] = np.frombuffer(data, "<f4", size, offset).reshape(shape)
        offset += 4 * size
    weights.setdefault("classifier", weights["tok_emb"])
    return weights
