"""Reads a Hugging Face Llama folder: config.json and safetensors, single or sharded, in bfloat16, float16 or float32.

What the compiler does not implement is refused by the name it has in config.json, never ignored.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, deserialize

from base.errors import TspError
from base.files import read_json
from program.shape import ModelConfig, check_number

from .checkpoint import Checkpoint

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
FIELDS = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
    "seq_len": "max_position_embeddings",
    "head_dim": "head_dim",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
}
"""What the fields of a `ModelConfig` are called in config.json."""

BOOKKEEPING = frozenset({
    # of files and software
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_flash_attn_2_enabled",
    "_name_or_path", "dtype", "finetuning_task", "id2label", "is_decoder", "is_llama_config", "label2id",
    "name_or_path", "problem_type", "return_dict", "task_specific_params", "tokenizer_class", "torch_dtype",
    "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
    # of training; and of how sums are split
    "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout", "embd_pdrop",
    "hidden_dropout", "hidden_dropout_prob", "initializer_range", "pretraining_tp", "resid_pdrop",
    # of generation, which old versions write
    "diversity_penalty", "do_sample", "length_penalty", "max_length", "max_sequence_length", "min_length",
    "num_beam_groups", "num_beams", "num_return_sequences", "repetition_penalty", "temperature", "top_k", "top_p",
    "typical_p",
})
"""Fields that change nothing of what a model computes; nor do those that end in `_token_id`."""
MULTIPLIERS = frozenset({"embedding_multiplier", "logit_scale", "logits_scaling", "residual_multiplier", "factor"})
"""Unknown fields that 1 means nothing in; in all others it is None, False, 0 and what is empty."""
FACTORS = ("_multiplier", "_scale", "_scaling", "_factor")
"""How fields are called that 0 does mean something in."""


class Rope(BaseModel):
    """rope_scaling, or rope_parameters, as its successor is called."""

    model_config = ConfigDict(extra="allow", strict=True)

    rope_type: str | None = None
    type: str | None = None
    rope_theta: float | None = None
    partial_rotary_factor: float = 1.0
    original_max_position_embeddings: int | None = None  # nothing comes of it in type default

    def refusals(self, name: str) -> list[str]:
        """What the compiler does not implement, by name."""
        kind = self.rope_type or self.type or "default"
        if kind != "default":
            return [f"{name} of type {kind!r} (only 'default')"]
        turned = [f"{name}.partial_rotary_factor {self.partial_rotary_factor}"] * (self.partial_rotary_factor != 1.0)
        return turned + _unknown(self.model_extra or {}, f"{name}.")


class HfConfig(BaseModel):
    """The fields of a Llama config.json that this compiler reads or must refuse; all others are `model_extra`."""

    model_config = ConfigDict(extra="allow", strict=True)

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
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    layer_types: list[str] | None = None
    partial_rotary_factor: float = 1.0
    quantization_config: dict[str, Any] | None = None

    def refusals(self) -> list[str]:
        """What this model uses and the compiler does not implement, each by its name in config.json."""
        architecture = self.architectures or ["LlamaForCausalLM"]
        layers = sorted({*(self.layer_types or [])} - {"full_attention"})
        checks = {
            f"architectures {architecture} (only LlamaForCausalLM)": architecture != ["LlamaForCausalLM"],
            f"hidden_act {self.hidden_act!r} (only 'silu')": self.hidden_act != "silu",
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            f"sliding_window {self.sliding_window}": self.sliding_window is not None,
            f"layer_types {layers} (only 'full_attention')": bool(layers),
            f"partial_rotary_factor {self.partial_rotary_factor}": self.partial_rotary_factor != 1.0,
            "quantization_config (give the unquantised weights)": self.quantization_config is not None,
        }
        ropes = {"rope_scaling": self.rope_scaling, "rope_parameters": self.rope_parameters}
        turned = [refusal for name, rope in ropes.items() if rope is not None for refusal in rope.refusals(name)]
        return [name for name, refused in checks.items() if refused] + turned + _unknown(self.model_extra or {})

    def to_model_config(self) -> ModelConfig:
        """The sizes in the compiler's terms; raises `TspError` if they contradict each other."""
        if self.head_dim is None and (self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads):
            raise TspError(
                "model config: hidden_size must be a multiple of num_attention_heads,"
                f" not {self.hidden_size} with {self.num_attention_heads}"
            )
        values = {ours: getattr(self, theirs) for ours, theirs in FIELDS.items()}
        if self.num_key_value_heads is None:
            values["n_kv_heads"] = self.num_attention_heads
        if self.head_dim is None:
            values["head_dim"] = self.hidden_size // self.num_attention_heads
        values["rope_theta"] = self._theta()
        for ours, theirs in FIELDS.items():
            check_number(f"field {theirs!r}", ours, values[ours])
        return ModelConfig(**values, shared_classifier=self.tie_word_embeddings)

    def _theta(self) -> float:
        """The base of RoPE, which may stand in three places; raises `TspError` if they differ."""
        ropes = {"rope_parameters.": self.rope_parameters, "rope_scaling.": self.rope_scaling, "": self}
        found = {f"{place}rope_theta": rope.rope_theta for place, rope in ropes.items()
                 if rope is not None and rope.rope_theta is not None}
        for name, theta in found.items():
            check_number(f"field {name!r}", "rope_theta", theta)
        if len({*found.values()}) > 1:
            values = " and ".join(map(str, found.values()))
            raise TspError(f"fields {' and '.join(found)} must be the same, not {values}")
        return next(iter(found.values()), 10000.0)


def _unknown(fields: dict[str, Any], prefix: str = "") -> list[str]:
    """Fields that nobody knows and that are set to something, each with its value, in few words."""
    found = {name: value for name, value in sorted(fields.items())
             if name not in BOOKKEEPING and not name.endswith("_token_id") and not _neutral(name, value)}
    return [f"{prefix}{name} {text if len(text) <= 40 else text[:37] + '...'}"
            for name, text in ((name, repr(value)) for name, value in found.items())]


def _neutral(name: str, value: Any) -> bool:
    """Whether an unknown field says that what it stands for is not used."""
    if value is None or value is False:
        return True
    if name in MULTIPLIERS:
        return value is not True and value == 1
    return not value and not name.endswith(FACTORS)


def load_hf(folder: str | Path) -> Checkpoint:
    """Load a Hugging Face Llama folder.

    Raises `TspError` if a file is missing or damaged, if a tensor is missing, unknown or of the wrong shape or type, or
    if the model uses something that the compiler does not implement.
    """
    folder = Path(folder)
    try:
        config = _read_config(folder / "config.json")
        return _build(config, _read_tensors(folder), str(folder))
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
    try:
        return config.to_model_config()
    except TspError as error:
        raise TspError(f"{path}: {error}") from None


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


def _build(config: ModelConfig, tensors: dict[str, np.ndarray], source: str) -> Checkpoint:
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
    return Checkpoint(config=config, source=source, **weights)


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
