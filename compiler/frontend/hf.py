"""Reads a Hugging Face Llama folder: config.json and safetensors, single or sharded, in bfloat16, float16 or float32.

The frontend refuses what the compiler does not implement, by its name in config.json, and never ignores it. It reads
the headers first, and tensors one layer at a time.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  makes bfloat16 known to numpy, and so to safetensors
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from base.errors import TspError
from base.inputs import check_content, read_head, read_json
from program.shape import LAYERED, ModelConfig, check_number

from .checkpoint import Checkpoint, Stored
from .shards import weight_files

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
WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DataParallel"}
"""Prefixes that a training script left before all names, and their origins."""
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
"""Names of the fields of a `ModelConfig` in config.json."""

BOOKKEEPING = frozenset({
    # of files and software
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
    "_flash_attn_2_enabled", "_name_or_path", "attn_impl", "attn_implementation", "auto_map",
    "cache_implementation", "dtype", "finetuning_task", "flash_attention", "id2label", "is_decoder",
    "is_llama_config", "label2id", "language", "license", "max_window_layers", "model_name", "name_or_path",
    "num_labels", "output_attentions", "output_hidden_states", "prefix", "problem_type", "return_dict",
    "return_dict_in_generate", "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript",
    "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version", "use_bfloat16",
    "use_cache", "use_flash_attention", "use_flash_attention_2", "use_flash_attn", "use_return_dict", "use_sdpa",
    # of training; and of how sums are split
    "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout", "embd_pdrop",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "hidden_dropout", "hidden_dropout_prob",
    "initializer_factor", "initializer_range", "layerdrop", "output_router_logits", "pretraining_tp", "resid_pdrop",
    "router_aux_loss_coef", "use_liger_kernel",
    # of the context, which max_position_embeddings says
    "max_seq_len", "max_sequence_length", "model_max_length", "n_ctx", "n_positions", "seq_length",
    # of generation, which old versions write
    "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty", "max_length",
    "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores",
    "remove_invalid_values", "repetition_penalty", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
})
"""Fields that do not change what a model computes. Fields that end in `_token_id` do not either."""
MULTIPLIERS = frozenset({"embedding_multiplier", "logit_scale", "logits_scaling", "residual_multiplier", "factor"})
"""Unknown fields whose neutral value is 1. In all others None, False, 0 and empty values are neutral."""
FACTORS = ("_multiplier", "_scale", "_scaling", "_factor")
"""Suffixes of fields in which 0 is not neutral."""


class Rope(BaseModel):
    """rope_scaling, or its successor rope_parameters."""

    model_config = ConfigDict(extra="allow", strict=True)

    rope_type: str | None = None
    type: str | None = None
    rope_theta: float | None = None
    partial_rotary_factor: float = 1.0
    original_max_position_embeddings: int | None = None  # type default does not use it

    def refusals(self, name: str) -> list[str]:
        """The features that the compiler does not implement, by name."""
        kind = self.rope_type or self.type or "default"
        if kind != "default":
            return [f"{name} of type {kind!r} (only 'default')"]
        turned = [f"{name}.partial_rotary_factor {self.partial_rotary_factor}"] * (self.partial_rotary_factor != 1.0)
        return turned + _unknown(self.model_extra or {}, f"{name}.")


class HfConfig(BaseModel):
    """The fields of a Llama config.json that this compiler reads or must refuse. All others are in `model_extra`."""

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
        """The features of this model that the compiler does not implement, by their names in config.json."""
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
        """The sizes in the compiler's terms. Raises TspError if they contradict each other."""
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
        """The base of RoPE, which may be in three places. Raises TspError if they differ."""
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
    """Unknown fields whose values are not neutral, each with its value, shortened."""
    found = {name: value for name, value in sorted(fields.items())
             if name not in BOOKKEEPING and not name.endswith("_token_id") and not _neutral(name, value)}
    return [f"{prefix}{name} {text if len(text) <= 40 else text[:37] + '...'}"
            for name, text in ((name, repr(value)) for name, value in found.items())]


def _neutral(name: str, value: Any) -> bool:
    """Whether the value of an unknown field means that its feature is not used."""
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
        files, notes = weight_files(folder)
        tensors, renamed = _plain_names(_tensors(files))
        return _build(config, tensors, folder, files, (*notes, *renamed))
    except TspError as error:
        text = str(error)
        raise TspError(text if text.startswith(str(folder)) else f"{folder}: {text}") from error.__cause__


def load_hf_config(folder: str | Path) -> ModelConfig:
    """The sizes in the config.json of a Hugging Face Llama folder. Raises TspError as `load_hf` does."""
    return _read_config(Path(folder) / "config.json")


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


# ---- tensors ----


class Tensor:
    """A tensor of a safetensors file. Only its header has been read."""

    def __init__(self, path: Path, library: Any, name: str) -> None:
        part = library.get_slice(name)
        self.shape, self.dtype = tuple(part.get_shape()), part.get_dtype()
        self._path, self._library, self._name = path, library, name
        if self.dtype not in ("F32", "F16", "BF16"):
            raise TspError(f"{path}: tensor {name}: type {self.dtype} is unsupported (only F32, F16 and BF16): give "
                           "the "
                           "unquantised weights")

    def read(self) -> np.ndarray:
        """Its values as float32."""
        try:
            return self._library.get_tensor(self._name).astype(np.float32)
        except (SafetensorError, OSError) as error:
            raise TspError(f"{self._path}: damaged safetensors file: {error}") from error


def _tensors(files: list[Path]) -> dict[str, Tensor]:
    """All tensors of the files by Hugging Face name."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        check_content(path, read_head(path), wanted="a safetensors file", allowed="a bare safetensors")
        try:
            library = safe_open(path, framework="np")
            tensors |= {name: Tensor(path, library, name) for name in library.keys()}  # noqa: SIM118  no mapping
        except OSError as error:
            raise TspError(f"{path}: cannot read it: {error.strerror or error}") from error
        except SafetensorError as error:
            raise TspError(f"{path}: damaged safetensors file: {error}") from error
    return tensors


def _plain_names(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors without a wrapper's prefix before all names, and a note if there was one."""
    for prefix, who in WRAPPERS.items():
        if tensors and all(name.startswith(prefix) for name in tensors):
            plain = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            return plain, [f"the names of tensors begin with {prefix!r}, as {who} leaves them: it is dropped"]
    if any(".lora_" in name for name in tensors):
        raise TspError("the file holds the weights of an adapter (LoRA), not of a model: merge it into its model first")
    return tensors, []


def _build(config: ModelConfig, tensors: dict[str, Tensor], folder: Path, files: list[Path],
           notes: tuple[str, ...]) -> Checkpoint:
    shapes, tied = config.shapes(), config.shared_classifier
    names = {ours: f"{theirs}.weight" for ours, theirs in GLOBAL_TENSORS.items()}
    if tied:
        del names["classifier"]
    found = {ours: _take(tensors, name, shapes[ours]) for ours, name in names.items()}
    weights = {ours: Stored(ours, shapes[ours], [functools.cache(tensor.read)], str(folder))
               for ours, tensor in found.items()}
    for ours in LAYERED:
        layers = [_take(tensors, f"model.layers.{layer}.{LAYER_TENSORS[ours]}.weight", shapes[ours][1:])
                  for layer in range(config.n_layers)]
        read = [_interleaved(layer, config.head_dim) if ours in ("wq", "wk") else layer.read for layer in layers]
        weights[ours] = Stored(ours, shapes[ours], read, str(folder))
    unknown = [name for name in sorted(tensors) if not name.endswith(UNUSED_SUFFIX)]
    if tied:
        weights["classifier"] = weights["tok_emb"]
        if "lm_head.weight" in unknown:  # usually a copy of the tied embedding
            unknown.remove("lm_head.weight")
            notes += _another_classifier(found["tok_emb"], tensors["lm_head.weight"])
    if unknown:
        raise TspError(
            f"unsupported tensor {unknown[0]} ({len(unknown)} in all): a Llama of {config.n_layers} layers has no "
            "such tensor"
        )
    return Checkpoint(config=config, source=str(folder), notes=notes, files=tuple(files), **weights)


def _take(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Remove a tensor from `tensors`. The tensors that remain at the end are unknown ones."""
    if name not in tensors:
        raise TspError(f"tensor {name} is missing")
    tensor = tensors.pop(name)
    if tensor.shape != shape:
        raise TspError(f"tensor {name} must have shape {shape} according to config.json, not {tensor.shape}")
    return tensor


def _another_classifier(embedding: Tensor, head: Tensor) -> tuple[str, ...]:
    """A note if a tied model also has a classifier that differs from its embedding."""
    if head.shape == embedding.shape and np.array_equal(head.read(), embedding.read()):
        return ()
    return ("config.json ties the classifier to the embedding (tie_word_embeddings), and lm_head.weight differs from "
            "it: lm_head.weight is left out, as transformers does",)


def _interleaved(tensor: Tensor, head_dim: int) -> Callable[[], np.ndarray]:
    return lambda: interleave_rope(tensor.read(), head_dim)


def interleave_rope(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of q or k weights [heads*head_dim, dim] reordered: rotate-half (i, i + head_dim/2) become (2i, 2i+1)."""
    rows, dim = weight.shape
    halves = weight.reshape(rows // head_dim, 2, head_dim // 2, dim)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
