"""Reads the legacy ("version 0") llama2.c checkpoint: seven int32, then float32 weights."""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from base.errors import TspError
from program.shape import LIMITS, ModelConfig

from .checkpoint import Checkpoint

HEADER = struct.Struct("<7i")
FOREIGN_MAGICS = {
    b"24ka": "a llama2.c version {version} file (magic 'ak42'); export it with llama2.c's `export.py --version 0`",
    b"GGUF": "a GGUF file; give the Hugging Face folder of the model instead",
    b"PK\x03\x04": "a PyTorch or zip file; export it with llama2.c's `export.py --version 0`",
}


def load_llama2c(path: str | Path) -> Checkpoint:
    """Load a legacy llama2.c `.bin`; raises `TspError` if it is of another format, cut short, too long or damaged."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TspError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    config = _read_config(path, data)
    expected = HEADER.size + 4 * sum(math.prod(shape) for _, shape in _file_layout(config))
    if len(data) != expected:
        fault = "is truncated" if len(data) < expected else "has the wrong size"
        raise TspError(
            f"{path}: the checkpoint {fault}: its header asks for {expected} bytes, found {len(data)};"
            " download it again"
        )
    try:
        return Checkpoint(config=config, source=str(path), **_read_weights(config, data))
    except TspError as error:
        raise TspError(f"{path}: {error}") from None


def _read_config(path: Path, data: bytes) -> ModelConfig:
    if len(data) < HEADER.size:
        raise TspError(
            f"{path}: the checkpoint is truncated: a llama2.c header takes {HEADER.size} bytes, found {len(data)}"
        )
    if data[:4] in FOREIGN_MAGICS:
        version = int.from_bytes(data[4:8], "little", signed=True)
        raise TspError(f"{path}: this is {FOREIGN_MAGICS[data[:4]].format(version=version)}")
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
    """Name and shape of every float32 array of the file, in order; the two RoPE tables are named `rope_*`."""
    for name, shape in config.shapes().items():
        if name == "classifier":
            yield "rope_cos", (config.seq_len, config.head_dim // 2)
            yield "rope_sin", (config.seq_len, config.head_dim // 2)
            if config.shared_classifier:
                return
        yield name, shape


def _read_weights(config: ModelConfig, data: bytes) -> dict[str, np.ndarray]:
    weights, offset = {}, HEADER.size
    for name, shape in _file_layout(config):
        size = math.prod(shape)
        if not name.startswith("rope_"):  # the tables follow from rope_theta; run.c ignores them too
            weights[name] = np.frombuffer(data, "<f4", size, offset).reshape(shape)
        offset += 4 * size
    weights.setdefault("classifier", weights["tok_emb"])
    return weights
