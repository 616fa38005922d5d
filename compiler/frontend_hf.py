"""Reads a Hugging Face Llama folder: config.json and safetensors, single or sharded, in bfloat16, float16 or float32.

What the compiler does not implement is refused by the name it has in config.json, never ignored.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, deserialize

from compiler.checkpoint import Checkpoint, ModelConfig
from compiler.errors import TspError

LAYER_TENSORS = {
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
GLOBAL_TENSORS = {"tok_emb": "model.embed_tokens", "final_norm": "model.norm", "classifier": "lm_head"}
UNUSED_SUFFIX = "rotary_emb.inv_freq"  # a buffer that old exports wrote; it follows from rope_theta


class HfConfig(BaseModel):
    """The fields of a Llama config.json that this compiler reads or must refuse."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model_type: str = "llama"  # checked before the fields
    architectures: list[str] | None = None
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    partial_rotary_factor: float = 1.0
    quantization_config: dict[str, Any] | None = None

    def refusals(self) -> list[str]:
        """What this model uses and the compiler does not implement, each by its name in config.json."""
        rope_type, rope_kind = _rope_type(self.rope_scaling), _rope_type(self.rope_parameters)
        architecture = self.architectures or ["LlamaForCausalLM"]
        checks = {
            f"architectures {architecture} (only LlamaForCausalLM)": architecture != ["LlamaForCausalLM"],
            f"hidden_act {self.hidden_act!r} (only 'silu')": self.hidden_act != "silu",
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            f"rope_scaling of type {rope_type!r}": rope_type != "default",
            f"rope_parameters of type {rope_kind!r}": rope_kind != "default",
            f"sliding_window {self.sliding_window}": self.sliding_window is not None,
            f"partial_rotary_factor {self.partial_rotary_factor}": self.partial_rotary_factor != 1.0,
            "quantization_config (give the unquantised weights)": self.quantization_config is not None,
        }
        return [name for name, refused in checks.items() if refused]

    def to_model_config(self) -> ModelConfig:
        """The sizes in the compiler's terms; raises `TspError` if they contradict each other."""
        if self.head_dim is None and (self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads):
            raise TspError(
                "model config: hidden_size must be a multiple of num_attention_heads,"
                f" not {self.hidden_size} with {self.num_attention_heads}"
            )
        theta = self.rope_theta or (self.rope_parameters or {}).get("rope_theta") or 10000.0
        return ModelConfig(
            dim=self.hidden_size,
            hidden_dim=self.intermediate_size,
            n_layers=self.num_hidden_layers,
            n_heads=self.num_attention_heads,
            n_kv_heads=self.num_attention_heads if self.num_key_value_heads is None else self.num_key_value_heads,
            vocab_size=self.vocab_size,
            seq_len=self.max_position_embeddings,
            head_dim=self.hidden_size // self.num_attention_heads if self.head_dim is None else self.head_dim,
            rope_theta=float(theta),
            norm_eps=self.rms_norm_eps,
            shared_classifier=self.tie_word_embeddings,
        )


def load_hf(folder: str | Path) -> Checkpoint:
    """Load a Hugging Face Llama folder.

    Raises `TspError` if a file is missing or damaged, if a tensor is missing, unknown or of the wrong shape or type, or
    if the model uses something that the compiler does not implement.
    """
    folder = Path(folder)
    try:
        config = _read_config(folder / "config.json")
        return _build(config, _read_tensors(folder))
    except TspError as error:
        text = str(error)
        raise TspError(text if text.startswith(str(folder)) else f"{folder}: {text}") from error.__cause__


def _read_config(path: Path) -> ModelConfig:
    raw = read_json(path)
    if raw.get("model_type", "llama") != "llama":  # before the fields: those of another architecture have other names
        raise TspError(f"{path}: unsupported: model_type {raw['model_type']!r} (only 'llama')")
    try:
        config = HfConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TspError(f"{path}: field {field!r}: {first['msg']}") from None
    refusals = config.refusals()
    if refusals:
        raise TspError(f"{path}: unsupported: {', '.join(refusals)}")
    return config.to_model_config()


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object; raises `TspError` if the file is missing or is no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TspError(f"{path}: cannot read it: {error.strerror}") from error
    except ValueError as error:
        raise TspError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise TspError(f"{path}: must hold a JSON object, not a {type(value).__name__}")
    return value


def _rope_type(rope: dict[str, Any] | None) -> str:
    if rope is None:
        return "default"
    return str(rope.get("rope_type", rope.get("type", "default")))


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of the folder by Hugging Face name, as float32."""
    tensors: dict[str, np.ndarray] = {}
    for path in _weight_files(folder):
        try:
            entries = deserialize(path.read_bytes())
        except OSError as error:
            raise TspError(f"{path}: cannot read it: {error.strerror}") from error
        except SafetensorError as error:
            raise TspError(f"{path}: damaged safetensors file: {error}") from error
        for name, entry in entries:
            tensors[name] = _to_float32(f"{path}: tensor {name}", entry)
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise TspError(f"{index}: must hold a 'weight_map' of tensor to file")
        names = sorted({str(name) for name in weight_map.values()})
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise TspError(f"{index}: file {outside[0]!r} must lie in the folder itself")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise TspError(
            f"{folder}: needs one .safetensors file or model.safetensors.index.json, found {len(files)} files"
        )
    return files


def _to_float32(what: str, entry: dict[str, Any]) -> np.ndarray:
    data, shape = entry["data"], entry["shape"]
    match entry["dtype"]:
        case "F32":
            values = np.frombuffer(data, "<f4")
        case "F16":
            values = np.frombuffer(data, "<f2").astype(np.float32)
        case "BF16":  # the upper half of a float32
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        case other:
            raise TspError(
                f"{what}: type {other} is unsupported (only F32, F16 and BF16: give the unquantised weights)"
            )
    return values.reshape(shape)


def _build(config: ModelConfig, tensors: dict[str, np.ndarray]) -> Checkpoint:
    shapes = config.shapes()
    names = {ours: f"{theirs}.weight" for ours, theirs in GLOBAL_TENSORS.items()}
    if config.shared_classifier:
        del names["classifier"]
    weights = {ours: _take(tensors, name, shapes[ours]) for ours, name in names.items()}
    for ours, theirs in LAYER_TENSORS.items():
        layers = [f"model.layers.{layer}.{theirs}.weight" for layer in range(config.n_layers)]
        weights[ours] = np.stack([_take(tensors, name, shapes[ours][1:]) for name in layers])
    unknown = [name for name in sorted(tensors) if not name.endswith(UNUSED_SUFFIX)]
    if config.shared_classifier:
        unknown = [name for name in unknown if name != "lm_head.weight"]  # a tied copy
        weights["classifier"] = weights["tok_emb"]
    if unknown:
        raise TspError(
            f"unsupported tensor {unknown[0]} ({len(unknown)} that a Llama of {config.n_layers} layers has not)"
        )
    weights["wq"] = interleave_rope(weights["wq"], config.head_dim)
    weights["wk"] = interleave_rope(weights["wk"], config.head_dim)
    return Checkpoint(config=config, **weights)


def _take(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Remove a tensor from `tensors`, so that what remains at the end is what nobody asked for."""
    if name not in tensors:
        raise TspError(f"tensor {name} is missing")
    tensor = tensors.pop(name)
    if tensor.shape != shape:
        raise TspError(f"tensor {name} must have shape {shape} by config.json, not {tensor.shape}")
    return tensor


def interleave_rope(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of q or k weights [L, heads*head_dim, dim] reordered: rotate-half (i, i + head_dim/2) become (2i, 2i+1)."""
    layers, rows, dim = weight.shape
    halves = weight.reshape(layers, rows // head_dim, 2, head_dim // 2, dim)
    return np.ascontiguousarray(halves.swapaxes(2, 3)).reshape(weight.shape)
