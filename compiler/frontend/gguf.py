"""Reads a GGUF file of architecture llama: sizes, and weights of every common quantisation.

The frontend refuses what the compiler does not implement, by its name in the file. Quantised weights stay in the file
until a pass asks for a layer. Rows of Wq and Wk need no permutation, because GGUF has llama2.c's order of RoPE pairs.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize

from base.errors import TspError
from base.inputs import check_input
from program.shape import LAYERED, LIMITS, ModelConfig

from .checkpoint import Checkpoint, Stored

GLOBAL_TENSORS = {"tok_emb": "token_embd", "final_norm": "output_norm", "classifier": "output"}
LAYER_TENSORS = {
    "att_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
    "ffn_norm": "ffn_norm", "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up",
}
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
"""Types of tensors: F32, and those that the library dequantises."""
UNUSED = ("rope_freqs.weight", "attn_rot_embd.weight")
"""Suffixes of names of tensors that follow from the base of RoPE. The values of the first one must all be 1."""
NEUTRAL = {"none": ("rope.scaling.type",), 1: ("rope.scale_linear", "rope.scaling.factor", "rope.scaling.attn_factor",
                                               "logit_scale", "embedding_scale", "residual_scale")}
"""Values that mean that a field is not used, in addition to 0 and empty ones."""
BOOKKEEPING = ("context_length", "tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length",
               "expert_used_count")
MOST_FIELDS, MOST_TENSORS = 1 << 16, 1 << 20
DAMAGE = (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError)
"""Exceptions of the library for a damaged file."""


class _Reader(GGUFReader):
    """The library's reader, which reads beyond the end of a truncated file."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
            raise ValueError("the file ends within its header")
        return super()._get(offset, dtype, count, override_order)


@functools.lru_cache(maxsize=1)
def _opened(path: Path, stamp: tuple[int, int]) -> GGUFReader:
    """The file's header. It is read once for weights and tokenizer, because the tokenizer's lists take seconds."""
    head = np.fromfile(path, "<u8", 3)
    if len(head) < 3 or head[1] > MOST_TENSORS or head[2] > MOST_FIELDS:
        raise TspError(f"{path}: damaged GGUF file: its header is cut short or names too many tensors or fields")
    try:
        with np.errstate(all="ignore"):
            return _Reader(path)
    except DAMAGE as error:
        raise TspError(f"{path}: damaged GGUF file: {error}: download it again") from error


def open_gguf(path: Path) -> tuple[GGUFReader, dict[str, Any]]:
    """A file and its fields by name, without the tokenizer's. Raises TspError if its model cannot be read."""
    check_input(path)
    found = path.stat()
    reader = _opened(path, (found.st_size, found.st_mtime_ns))
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.ggml.")}
    kind, architecture = fields.get("general.type", "model"), fields.get("general.architecture")
    if reader.byte_order == "S":
        raise TspError(f"{path}: unsupported: a big-endian GGUF file; convert it on this machine")
    if kind != "model":
        raise TspError(f"{path}: unsupported: a GGUF file of type {kind!r} (only 'model'; merge an adapter first)")
    if architecture != "llama":
        raise TspError(f"{path}: unsupported: architecture {architecture!r} (only 'llama')")
    if (parts := fields.get("split.count", 0)) > 1:
        number = fields.get("split.no", 0) + 1
        raise TspError(f"{path}: unsupported: part {number} of {parts} of a split model; join them with llama.cpp's "
                       "`llama-gguf-split --merge`")
    return reader, fields


# ---- weights ----


def load_gguf(path: str | Path) -> Checkpoint:
    """Load a GGUF model. Raises TspError if it is damaged, lacks a tensor, or uses something that the compiler does not
    implement."""
    path = Path(path)
    reader, fields = open_gguf(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    try:
        return _build(path, {name.removeprefix("llama."): value for name, value in fields.items()
                             if name.startswith("llama.")}, tensors)
    except TspError as error:
        text = str(error)
        raise TspError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _build(path: Path, fields: Mapping[str, Any], tensors: dict[str, ReaderTensor]) -> Checkpoint:
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise TspError("tensor token_embd.weight is missing: this file has no weights")
    head = tensors.get("output.weight")
    tied = head is None or _same(head, embedding)
    config = _config(fields, int(embedding.shape[-1]), tied)
    shapes = config.shapes()
    if tied:
        tensors.pop("output.weight", None)
    weights = {}
    for ours, theirs in GLOBAL_TENSORS.items():
        if ours != "classifier" or not tied:
            tensor = _take(tensors, f"{theirs}.weight", shapes[ours])
            weights[ours] = Stored(ours, shapes[ours], [functools.cache(_read(tensor))], str(path))
    for ours in LAYERED:
        layers = [_take(tensors, f"blk.{layer}.{LAYER_TENSORS[ours]}.weight", shapes[ours][1:])
                  for layer in range(config.n_layers)]
        weights[ours] = Stored(ours, shapes[ours], [_read(tensor) for tensor in layers], str(path))
    _check_rest(tensors, config.n_layers)
    weights.setdefault("classifier", weights["tok_emb"])
    return Checkpoint(config=config, source=str(path), files=(path,), **weights)


def _same(one: ReaderTensor, other: ReaderTensor) -> bool:
    return one.tensor_type == other.tensor_type and np.array_equal(one.data, other.data)


def _take(tensors: dict[str, ReaderTensor], name: str, shape: tuple[int, ...]) -> ReaderTensor:
    """Remove a tensor from `tensors`. The tensors that remain at the end are unknown ones."""
    if name not in tensors:
        raise TspError(f"tensor {name} is missing")
    tensor = tensors.pop(name)
    found = tuple(int(size) for size in reversed(tensor.shape))
    if found != shape:
        raise TspError(f"tensor {name} must have shape {shape} according to the file's fields, not {found}")
    if tensor.tensor_type.name not in TYPES:
        raise TspError(f"tensor {name}: type {tensor.tensor_type.name} is unsupported (only {', '.join(TYPES)})")
    return tensor


def _read(tensor: ReaderTensor) -> Any:
    """A function that dequantises the tensor."""
    shape = tuple(int(size) for size in reversed(tensor.shape))
    return lambda: np.array(dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)


def _check_rest(tensors: Mapping[str, ReaderTensor], layers: int) -> None:
    freqs = tensors.get(UNUSED[0])
    if freqs is not None and not (np.asarray(_read(freqs)()) == 1).all():
        raise TspError("unsupported: RoPE with scaled frequencies, as in Llama 3.1 (tensor rope_freqs.weight)")
    unknown = [name for name in sorted(tensors) if not name.endswith(UNUSED)]
    if unknown:
        raise TspError(f"unsupported tensor {unknown[0]} ({len(unknown)} in all): a Llama of {layers} layers has no "
                       "such tensor")


def _config(fields: Mapping[str, Any], rows: int, tied: bool) -> ModelConfig:
    """The sizes. Raises TspError that names a field that is missing, out of range or not implemented."""
    rest = dict(fields)

    def take(name: str, default: Any = None) -> Any:
        value = rest.pop(name, default)
        if isinstance(value, list) and len({*value}) == 1:  # one for each layer, all equal
            value = value[0]
        if value is None:
            raise TspError(f"field llama.{name} is missing")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TspError(f"field llama.{name} must be one number, not {str(value)[:40]}")
        return value

    heads, dim = take("attention.head_count"), take("embedding_length")
    if heads < 1 or ("attention.key_length" not in rest and dim % heads):
        raise TspError("llama.embedding_length must be a multiple of llama.attention.head_count, "
                       f"not {dim} with {heads}")
    head_dim = take("attention.key_length", dim // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (size := take(name, head_dim)) != head_dim:
            raise TspError(f"unsupported: llama.{name} of {size} (only the head's size, {head_dim})")
    values = {
        "dim": dim, "n_heads": heads, "head_dim": head_dim, "n_layers": take("block_count"),
        "hidden_dim": take("feed_forward_length"), "n_kv_heads": take("attention.head_count_kv", heads),
        "vocab_size": take("vocab_size", rows), "seq_len": take("context_length"),
        "rope_theta": float(take("rope.freq_base", 10000.0)),
        "norm_eps": float(f"{take('attention.layer_norm_rms_epsilon'):.6g}"),  # float32 in the file
    }
    refused = [f"llama.{name} {str(value)[:40]}" for name, value in sorted(rest.items()) if not _neutral(name, value)]
    if refused:
        raise TspError(f"unsupported: {', '.join(refused)}")
    for name, value in values.items():
        least, most = LIMITS[name]
        if not least <= value <= most:
            raise TspError(f"{name} must be in {least}..{most}, not {value!r}")
    return ModelConfig(**values, shared_classifier=tied)


def _neutral(name: str, value: Any) -> bool:
    """Whether the value of an unknown field means that its feature is not used."""
    neutral = NEUTRAL.get(value, ()) if isinstance(value, str | int | float) else ()
    return not value or name in (*BOOKKEEPING, *neutral)
