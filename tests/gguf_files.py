"""GGUF files of small random models, written with the `gguf` library."""

from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import random_vocab, small_config
from gguf import GGMLQuantizationType, GGUFWriter, quantize

from compiler.frontend.checkpoint import Checkpoint

BLOCKS = small_config(dim=64, hidden_dim=96, n_heads=4, n_kv_heads=2, head_dim=16)
"""A model whose rows are whole blocks of 32."""
SUPER_BLOCKS = small_config(dim=256, hidden_dim=256, n_heads=4, n_kv_heads=2, head_dim=64)
"""One whose rows are whole blocks of 256, as K-quants want."""
LAYER_NAMES = {
    "att_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
    "ffn_norm": "ffn_norm", "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up",
}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def gguf_tensors(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The tensors by their names in the file; this format has llama2.c's order of RoPE pairs."""
    tensors = {"token_embd.weight": checkpoint.tok_emb, "output_norm.weight": checkpoint.final_norm}
    if not checkpoint.config.shared_classifier:
        tensors["output.weight"] = checkpoint.classifier
    for layer in range(checkpoint.config.n_layers):
        for ours, theirs in LAYER_NAMES.items():
            tensors[f"blk.{layer}.{theirs}.weight"] = getattr(checkpoint, ours)[layer]
    return tensors


def gguf_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of the architecture, without its name."""
    config = checkpoint.config
    return {
        "context_length": config.seq_len, "embedding_length": config.dim, "block_count": config.n_layers,
        "feed_forward_length": config.hidden_dim, "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads, "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope_theta, "rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size,
    }


def sentence_piece_fields(size: int = 512) -> dict[str, Any]:
    """The fields of a tokenizer of SentencePiece's kind: the random vocabulary of the other formats."""
    vocab, scores = random_vocab(size)
    texts = [piece.decode().strip("\n").replace(" ", "\u2581") for piece in vocab]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (size - 259)
    return {"model": "llama", "pre": "default", "tokens": texts, "scores": scores, "token_type": types,
            "bos_token_id": 1, "eos_token_id": 2}


def write_gguf(path: Path, checkpoint: Checkpoint, *, kind: str = "F32", arch: str = "llama",
               fields: dict[str, Any] | None = None, general: dict[str, Any] | None = None,
               tensors: dict[str, np.ndarray] | None = None, tokenizer: dict[str, Any] | None = None,
               template: str = "") -> Path:
    """Write a model. kind: type of all matrices. fields: of the architecture, `...` removes one; general: others."""
    writer = GGUFWriter(path, arch)
    changed = {f"{arch}.{name}": value for name, value in (gguf_fields(checkpoint) | (fields or {})).items()}
    words = sentence_piece_fields(checkpoint.config.vocab_size) if tokenizer is None else tokenizer
    changed |= {f"tokenizer.ggml.{name}": value for name, value in words.items()} | (general or {})
    if template:
        changed["tokenizer.chat_template"] = template
    for name, value in changed.items():
        _add(writer, name, value)
    for name, tensor in (gguf_tensors(checkpoint) if tensors is None else tensors).items():
        _write(writer, name, np.ascontiguousarray(tensor), kind if tensor.ndim == 2 else "F32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, name: str, value: Any) -> None:
    if value is ...:
        return
    if isinstance(value, list):
        writer.add_array(name, value)
    elif isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    else:
        writer.add_string(name, value)


def _write(writer: GGUFWriter, name: str, tensor: np.ndarray, kind: str) -> None:
    if tensor.dtype != np.float32:  # raw blocks, or a type that no model has
        writer.add_tensor(name, tensor, raw_dtype=GGMLQuantizationType[kind] if tensor.dtype == np.uint8 else None)
    else:
        writer.add_tensor(name, quantize(tensor, GGMLQuantizationType[kind]), raw_dtype=GGMLQuantizationType[kind])
