"""Small random models and tokenizers, written as llama2.c files and as Hugging Face folders with the same weights.

Weights have at most 8 significant bits, so float32, float16 and bfloat16 all hold them exactly.
"""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from compiler.frontend.checkpoint import Checkpoint
from program.shape import ModelConfig

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_MODELS = Path(os.environ.get("METRONOME_SHARED", REPOSITORY.parent / "shared")) / "models"

SMALL = ModelConfig(
    dim=24,
    hidden_dim=20,
    n_layers=2,
    n_heads=6,
    n_kv_heads=3,
    vocab_size=512,
    seq_len=32,
    head_dim=4,
    shared_classifier=True,
)


def small_config(**changes: Any) -> ModelConfig:
    """`SMALL` with some fields changed."""
    return ModelConfig(**{**vars(SMALL), **changes})


def random_checkpoint(config: ModelConfig = SMALL, seed: int = 0) -> Checkpoint:
    """Random weights: norms about 1, matrices large enough that attention is not uniform."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in config.shapes().items():
        values = rng.integers(-127, 128, shape).astype(np.float32)
        weights[name] = 1 + values // 4 / 128 if "norm" in name else values / 512
    if config.shared_classifier:
        weights["classifier"] = weights["tok_emb"]
    return Checkpoint(config=config, **weights)


def llama2c_header(config: ModelConfig, **changes: int) -> bytes:
    """The seven int32 of a llama2.c file, some of them changed."""
    fields = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
    values = {name: getattr(config, name) for name in fields}
    values["vocab_size"] *= 1 if config.shared_classifier else -1
    return struct.pack("<7i", *(values | changes).values())


def write_llama2c(path: Path, checkpoint: Checkpoint) -> Path:
    """Write the legacy llama2.c file; its two RoPE tables hold rubbish, since readers must skip them."""
    config = checkpoint.config
    order = ("tok_emb", "att_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3", "final_norm")
    tables = np.full((2, config.seq_len, config.head_dim // 2), np.nan, np.float32)
    arrays = [getattr(checkpoint, name) for name in order] + [tables]
    arrays += [] if config.shared_classifier else [checkpoint.classifier]
    path.write_bytes(llama2c_header(config) + b"".join(a.astype("<f4").tobytes() for a in arrays))
    return path


# ---- Hugging Face ----

HF_LAYER_NAMES = {
    "att_norm": "input_layernorm",
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
}


def rotate_half(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of one layer's q or k weight from llama2.c's pairs (2i, 2i+1) to Hugging Face's (i, i + head_dim/2)."""
    order = [*range(0, head_dim, 2), *range(1, head_dim, 2)]
    rows = [head * head_dim + row for head in range(len(weight) // head_dim) for row in order]
    return weight[rows]


def hf_tensors(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The tensors of a Hugging Face folder, float32."""
    config = checkpoint.config
    tensors = {"model.embed_tokens.weight": checkpoint.tok_emb, "model.norm.weight": checkpoint.final_norm}
    if not config.shared_classifier:
        tensors["lm_head.weight"] = checkpoint.classifier
    for layer in range(config.n_layers):
        for ours, theirs in HF_LAYER_NAMES.items():
            weight = getattr(checkpoint, ours)[layer]
            weight = rotate_half(weight, config.head_dim) if ours in ("wq", "wk") else weight
            tensors[f"model.layers.{layer}.{theirs}.weight"] = weight
    return tensors


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """A config.json as transformers 4 writes it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "max_position_embeddings": config.seq_len,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.shared_classifier,
        "torch_dtype": "bfloat16",
        "vocab_size": config.vocab_size,
    }


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    """Write float32 arrays as `dtype` (F32, F16, BF16 (truncated) or I8), by the format's specification."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        start, data = len(data), data + _encode(np.ascontiguousarray(tensor), dtype)
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _encode(tensor: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        return (tensor.view(np.uint32) >> 16).astype("<u2").tobytes()
    return tensor.astype({"F32": "<f4", "F16": "<f2", "I8": "i1"}[dtype]).tobytes()


def write_hf(folder: Path, checkpoint: Checkpoint, dtype: str = "F32", shards: int = 1) -> Path:
    """Write a Hugging Face folder: config.json, weights in one file or in `shards` with their index, tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(checkpoint.config)))
    tensors = hf_tensors(checkpoint)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
    else:
        files = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
        for file in set(files.values()):
            write_safetensors(folder / file, {n: t for n, t in tensors.items() if files[n] == file}, dtype)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    vocab, _ = random_vocab(checkpoint.config.vocab_size)
    (folder / "tokenizer.json").write_text(json.dumps(hf_tokenizer(vocab)))
    return folder


# ---- tokenizers ----


def random_vocab(size: int = 512, seed: int = 0) -> tuple[list[bytes], list[float]]:
    """Pieces and scores: <unk>, BOS, EOS, 256 byte tokens, characters, then random merges, the earlier the better."""
    rng = np.random.default_rng(seed)
    vocab = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [f"<0x{byte:02X}>".encode() for byte in range(256)]
    parts = [char.encode() for char in " abcdefghijklmnopqrstuvwxyz.,!'ABCé世"]
    while len(vocab) + len(parts) < size:
        merged = b"".join(parts[i] for i in rng.integers(0, min(len(parts), 80), 2))
        if merged not in parts and b" " not in merged[1:]:
            parts.append(merged)
    scores = [0.0] * len(vocab) + [-float(i) for i in range(len(parts))]
    return (vocab + parts)[:size], scores[:size]


def tokenizer_bin(vocab: list[bytes], scores: list[float]) -> bytes:
    """The bytes of a llama2.c tokenizer.bin."""
    entries = [struct.pack("<fi", score, len(piece)) + piece for piece, score in zip(vocab, scores, strict=True)]
    return struct.pack("<i", max(map(len, vocab))) + b"".join(entries)


def write_tokenizer_bin(path: Path, size: int = 512) -> Path:
    """Write the random vocabulary of `size` tokens as a tokenizer.bin."""
    path.write_bytes(tokenizer_bin(*random_vocab(size)))
    return path


def hf_tokenizer(vocab: list[bytes]) -> dict[str, Any]:
    """A tokenizer.json as converted from SentencePiece: all pairs that form a token, best (first) token first."""
    texts = [piece.decode().strip("\n").replace(" ", "\u2581") for piece in vocab]
    known = set(texts)
    merges = [[t[:i], t[i:]] for t in texts[259:] for i in range(1, len(t)) if t[:i] in known and t[i:] in known]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": texts[i], **special} for i in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(texts)},
            "merges": merges,
        },
    }
