"""compiler.frontend.load*: both formats load to the same checkpoint; a broken or unsupported one is refused in one
line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    SHARED_MODELS,
    SMALL,
    hf_tensors,
    llama2c_header,
    random_checkpoint,
    small_config,
    write_hf,
    write_llama2c,
    write_safetensors,
)

from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.frontend.load import load_checkpoint
from compiler.quantize.float_model import FloatModel


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    assert a.config == b.config
    assert a.weights.keys() == b.weights.keys()
    for name, weight in a.weights.items():
        np.testing.assert_array_equal(weight, b.weights[name], err_msg=name)


def refusal(path: Path) -> str:
    """The error text of a path, in loading it or in reading its weights: one line that begins with the path."""
    with pytest.raises(TspError) as error:
        for weight in load_checkpoint(path).weights.values():
            np.asarray(weight)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text, text
    return text.removeprefix(str(path))


# ---- what loads ----


@pytest.mark.parametrize("shared", [True, False])
def test_llama2c_round_trip(tmp_path, shared):
    checkpoint = random_checkpoint(small_config(shared_classifier=shared))
    loaded = load_checkpoint(write_llama2c(tmp_path / "model.bin", checkpoint))
    assert_same(loaded, checkpoint)
    assert (loaded.classifier is loaded.tok_emb) == shared
    assert loaded.n_parameters == sum(w.size for w in checkpoint.weights.values())
    assert not any(weight.flags.writeable for weight in loaded.weights.values())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("dtype", "shards"), [("F32", 1), ("F16", 1), ("BF16", 1), ("BF16", 3)])
def test_hf_loads_to_the_same_checkpoint_as_llama2c(tmp_path, dtype, shards, shared):
    checkpoint = random_checkpoint(small_config(shared_classifier=shared))
    assert_same(load_checkpoint(write_hf(tmp_path / "hf", checkpoint, dtype, shards)), checkpoint)


def test_hf_config_of_its_own(tmp_path):
    """A head_dim that is not dim / n_heads, another theta and epsilon."""
    checkpoint = random_checkpoint(small_config(head_dim=6, rope_theta=5e5, norm_eps=1e-6))
    assert_same(load_checkpoint(write_hf(tmp_path / "hf", checkpoint)), checkpoint)


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of config.json; `...` removes one."""
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": ...},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},  # transformers 5
        {"rope_theta": ..., "rope_scaling": ..., "hidden_act": ..., "mlp_bias": ..., "architectures": ...},
        {"rope_parameters": {"rope_theta": 10000}, "rope_scaling": {"factor": 1.0}},
        {"layer_types": ["full_attention"] * 2},
        {"pretraining_tp": 2, "transformers_version": "5.0", "pad_token_id": 0, "attention_dropout": 0.1},
        {"_name_or_path": "smol", "is_llama_config": True, "rope_interleaved": False, "initializer_range": 0.04},
        {"transformers.js_config": {"dtype": "q4"}, "max_length": 20, "use_cache": True, "pad_token_id": None},
        {"final_logit_softcapping": None, "logits_scaling": 1, "residual_multiplier": 1.0, "num_local_experts": 0},
        {"an_unknown_field": [], "another": {}, "a_third": 0.0, "a_fourth": False},
    ],
)
def test_hf_config_variants_that_mean_the_same(tmp_path, changes):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    edit_config(folder, **changes)
    assert_same(load_checkpoint(folder), checkpoint)


def test_hf_key_value_heads_default_to_the_query_heads(tmp_path):
    checkpoint = random_checkpoint(small_config(n_kv_heads=SMALL.n_heads))
    folder = write_hf(tmp_path / "hf", checkpoint)
    edit_config(folder, num_key_value_heads=...)
    assert_same(load_checkpoint(folder), checkpoint)


def rotate_half_rope(x: np.ndarray, theta: float) -> np.ndarray:
    """RoPE as transformers' modeling_llama does it: x [positions, head_dim] * cos + rotate_half(x) * sin."""
    half = x.shape[1] // 2
    angles = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    angles = np.concatenate([angles, angles], axis=1)
    return x * np.cos(angles) + np.concatenate([-x[:, half:], x[:, :half]], axis=1) * np.sin(angles)


def test_hf_attention_scores_survive_the_permutation(tmp_path):
    """Hugging Face's own RoPE on its own rows gives the scores that ours gives on the permuted ones."""
    checkpoint = load_checkpoint(write_hf(tmp_path / "hf", random_checkpoint()))
    tensors, sites = hf_tensors(random_checkpoint()), {}
    FloatModel(checkpoint).sequence_logits([1, 7, 300, 7, 12], lambda site, values: sites.update({site: values}))
    for head in range(SMALL.n_heads):
        ours, theirs = [], []
        for name, index in (("q", head), ("k", head // SMALL.group_size)):
            rows = slice(index * SMALL.head_dim, (index + 1) * SMALL.head_dim)
            weight = tensors[f"model.layers.1.self_attn.{name}_proj.weight"][rows]
            theirs.append(rotate_half_rope(sites["layers.1.att_norm"] @ weight.T, SMALL.rope_theta))
            ours.append(sites[f"layers.1.{name}"][:, rows])
        np.testing.assert_allclose(ours[0] @ ours[1].T, theirs[0] @ theirs[1].T, atol=1e-12)


def test_hf_ignores_a_tied_copy_and_old_rope_buffers(tmp_path):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    extra = {
        "lm_head.weight": checkpoint.tok_emb,
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
    }
    write_safetensors(folder / "model.safetensors", hf_tensors(checkpoint) | extra)
    assert_same(load_checkpoint(folder), checkpoint)


# ---- what is refused: llama2.c ----


def test_no_such_path(tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "nothing.bin")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data[:-1], r"is truncated: its header asks for {size} bytes, the file has {found}"),
        (lambda data: data[:1000], r"is truncated: its header asks for {size} bytes, the file has 1000"),
        (lambda data: data + b"\0\0\0\0",
         r"has the wrong size: its header asks for {size} bytes, the file has {found}"),
        (lambda data: b"", r"this is an empty file"),
        (lambda data: data[:27], r"is truncated: a llama2.c header has 28 bytes, the file has 27"),
        (lambda data: b"24ka\x01\0\0\0" + data[8:], r"a llama2.c file of version 1 or later (magic 'ak42'): export it"),
        (lambda data: b"24ka\x02\0\0\0" + data[8:], r"(magic 'ak42')"),
        (lambda data: b"GGUF" + data[4:], r": damaged GGUF file: its header is cut short or names too many"),
        (lambda data: b"PK\x03\x04" + data[4:], r"a PyTorch or zip file"),
    ],
)
def test_llama2c_damaged_file(tmp_path, change, expected):
    path = write_llama2c(tmp_path / "model.bin", random_checkpoint())
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert expected.format(size=len(data), found=path.stat().st_size) in refusal(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dim": 0}, "header's dim must be 1..65536, not 0"),
        ({"dim": -24}, "header's dim must be 1..65536, not -24"),
        ({"hidden_dim": 1 << 30}, "header's hidden_dim must be"),
        ({"n_layers": 1025}, "header's n_layers must be 1..1024, not 1025"),
        ({"n_heads": 0}, "header's n_heads must be"),
        ({"n_kv_heads": 0}, "header's n_kv_heads must be"),
        ({"vocab_size": 0}, "header's |vocab_size| must be"),
        ({"seq_len": 0}, "header's seq_len must be"),
        ({"n_heads": 5}, "dim must be a multiple of n_heads, not 24 with 5"),
        ({"n_kv_heads": 4}, "n_heads must be a multiple of n_kv_heads, not 6 with 4"),
        ({"n_heads": 8, "n_kv_heads": 8}, "head_dim must be even (RoPE rotates pairs), not 3"),
        ({"vocab_size": -512}, "is truncated"),
        ({"seq_len": 31}, "has the wrong size"),
    ],
)
def test_llama2c_implausible_header(tmp_path, changes, expected):
    path = write_llama2c(tmp_path / "model.bin", random_checkpoint())
    path.write_bytes(llama2c_header(SMALL, **changes) + path.read_bytes()[28:])
    assert expected in refusal(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    checkpoint = random_checkpoint()
    path = write_llama2c(tmp_path / "model.bin", checkpoint)
    data = bytearray(path.read_bytes())
    data[28:32] = np.float32(value).tobytes()
    path.write_bytes(data)
    assert "weight tok_emb holds 1 NaN or infinite of 12288 values" in refusal(path)
    tensors = hf_tensors(checkpoint)
    tensors["model.norm.weight"] = np.full_like(checkpoint.final_norm, value)
    folder = write_hf(tmp_path / "hf", checkpoint)
    write_safetensors(folder / "model.safetensors", tensors)
    assert "weight final_norm holds 24 NaN or infinite" in refusal(folder)


# ---- what is refused: Hugging Face ----


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "qwen2"}, "unsupported: model_type 'qwen2'"),
        ({"architectures": ["MistralForCausalLM"]}, "unsupported: architectures ['MistralForCausalLM']"),
        ({"hidden_act": "gelu"}, "unsupported: hidden_act 'gelu' (only 'silu')"),
        ({"attention_bias": True}, "unsupported: attention_bias"),
        ({"mlp_bias": True}, "unsupported: mlp_bias"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "unsupported: rope_scaling of type 'linear'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "unsupported: rope_scaling of type 'llama3'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "unsupported: rope_parameters of type 'yarn'"),
        ({"sliding_window": 128}, "unsupported: sliding_window 128"),
        ({"partial_rotary_factor": 0.5}, "unsupported: partial_rotary_factor 0.5"),
        ({"quantization_config": {"bits": 4}}, "unsupported: quantization_config"),
        ({"mlp_bias": True, "sliding_window": 8}, "unsupported: mlp_bias, sliding_window 8"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "unsupported: layer_types ['sliding_attention']"),
        ({"rope_scaling": {"factor": 2.0}}, "unsupported: rope_scaling.factor 2.0"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor 0.5"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "unsupported: rope_parameters.full_attention"),
        ({"final_logit_softcapping": 30.0}, "unsupported: final_logit_softcapping 30.0"),
        ({"final_logit_softcapping": 1.0}, "unsupported: final_logit_softcapping 1.0"),
        ({"attn_logit_softcapping": 50.0, "z": 1}, "unsupported: attn_logit_softcapping 50.0, z 1"),
        ({"residual_multiplier": 0.22}, "unsupported: residual_multiplier 0.22"),
        ({"residual_multiplier": 0}, "unsupported: residual_multiplier 0"),
        ({"embedding_multiplier": 12}, "unsupported: embedding_multiplier 12"),
        ({"attention_multiplier": 1.0}, "unsupported: attention_multiplier 1.0"),
        ({"logits_scaling": 8.0}, "unsupported: logits_scaling 8.0"),
        ({"num_local_experts": 8}, "unsupported: num_local_experts 8"),
        ({"a_new_map": {"AutoModel": "x" * 1000}}, "unsupported: a_new_map {'AutoModel': 'xxxxxxxxxxxxxxxxxxxxxx..."),
        ({"head_dim": 3}, "head_dim must be even (RoPE rotates pairs), not 3"),
        ({"head_dim": 8}, "tensor model.layers.0.self_attn.q_proj.weight must have shape (48, 24)"),
        (
            {"head_dim": ..., "num_attention_heads": 5},
            "hidden_size must be a multiple of num_attention_heads, not 24 with 5",
        ),
        (
            {"head_dim": ..., "num_attention_heads": 0},
            "hidden_size must be a multiple of num_attention_heads, not 24 with 0",
        ),
        ({"num_key_value_heads": 4}, "n_heads must be a multiple of n_kv_heads, not 6 with 4"),
        ({"num_key_value_heads": 0}, "field 'num_key_value_heads' must be in 1..65536, not 0"),
        ({"max_position_embeddings": 10**30}, "field 'max_position_embeddings' must be in 1..4194304, not 1000"),
        ({"num_hidden_layers": 10**9}, "field 'num_hidden_layers' must be in 1..1024, not 1000000000"),
        ({"rope_theta": 0.0}, "field 'rope_theta' must be in 1..1e+30, not 0.0"),
        ({"rope_theta": float("inf")}, "field 'rope_theta' must be in 1..1e+30, not inf"),
        ({"rope_parameters": {"rope_theta": 0}}, "field 'rope_parameters.rope_theta' must be in 1..1e+30, not 0"),
        ({"rope_parameters": {"rope_theta": "abc"}}, "field 'rope_parameters.rope_theta': Input should be a valid"),
        ({"rope_parameters": {"rope_theta": 5e5}}, "must be the same, not 500000.0 and 10000.0"),
        ({"hidden_size": "wide"}, "field 'hidden_size': Input should be a valid integer"),
        ({"vocab_size": ...}, "field 'vocab_size': Field required"),
        (
            {"vocab_size": 511},
            "tensor model.embed_tokens.weight must have shape (511, 24) according to config.json, not (512, 24)",
        ),
        ({"rms_norm_eps": 0}, "field 'rms_norm_eps' must be in 1e-30..0.1, not 0"),
        ({"rms_norm_eps": 1}, "field 'rms_norm_eps' must be in 1e-30..0.1, not 1"),
        ({"rms_norm_eps": 1e10}, "field 'rms_norm_eps' must be in 1e-30..0.1, not 10000000000.0"),
        ({"tie_word_embeddings": False}, "tensor lm_head.weight is missing"),
        ({"num_hidden_layers": 3}, "tensor model.layers.2.input_layernorm.weight is missing"),
        ({"num_hidden_layers": 1}, "unsupported tensor model.layers.1."),
    ],
)
def test_hf_unsupported_config(tmp_path, changes, expected):
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    edit_config(folder, **changes)
    assert expected in refusal(folder)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.json", None, "this folder has no config.json; give"),
        ("config.json", b"{", "config.json: not valid JSON"),
        ("config.json", b"\xff", "config.json: not valid JSON"),
        ("config.json", b"[" * 100_000, "config.json: not valid JSON: maximum recursion depth"),
        ("config.json", b"[]", "config.json: must hold a JSON object, not a list"),
        ("model.safetensors", None, "this folder has no weights (model.safetensors, or shards with"),
        ("model.safetensors", b"rubbish", "model.safetensors: damaged safetensors file"),
    ],
)
def test_hf_damaged_folder(tmp_path, file, content, expected):
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    assert expected in refusal(folder)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (b"{", "model.safetensors.index.json: not valid JSON"),
        (b"{}", "must hold a 'weight_map'"),
        (b'{"weight_map": {"x": "../x"}}', "file '../x' must lie in the folder itself"),
        (b'{"weight_map": {"x": "x"}}', "x: cannot read it: No such file"),
        (None, "needs model.safetensors or model.safetensors.index.json, found 2 files: model-00001-of-00002."),
    ],
)
def test_hf_damaged_index(tmp_path, index, expected):
    folder = write_hf(tmp_path / "hf", random_checkpoint(), shards=2)
    path = folder / "model.safetensors.index.json"
    path.unlink() if index is None else path.write_bytes(index)
    assert expected in refusal(folder)


def test_hf_truncated_weights(tmp_path):
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert "damaged safetensors file" in refusal(folder)


def test_hf_bad_tensors(tmp_path):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    bias = {"model.layers.1.self_attn.q_proj.bias": np.zeros(24, np.float32)}
    write_safetensors(folder / "model.safetensors", hf_tensors(checkpoint) | bias)
    assert "unsupported tensor model.layers.1.self_attn.q_proj.bias" in refusal(folder)
    write_safetensors(folder / "model.safetensors", hf_tensors(checkpoint), "I8")
    assert "type I8 is unsupported (only F32, F16 and BF16" in refusal(folder)


# ---- the checkpoint itself ----


def test_checkpoint_checks_its_weights():
    good = random_checkpoint()
    fields: dict[str, Any] = vars(good)
    with pytest.raises(TspError, match="weight w2 must be float32, not float64"):
        Checkpoint(**{**fields, "w2": good.w2.astype(np.float64)})
    with pytest.raises(TspError, match=r"weight wo must have shape \(2, 24, 24\), not \(24, 24\)"):
        Checkpoint(**{**fields, "wo": good.wo[0]})
    with pytest.raises(TspError, match="must be tok_emb"):
        Checkpoint(**{**fields, "classifier": good.tok_emb.copy()})


if SHARED_MODELS.is_dir():  # an extra where the project's shared models lie beside the repository

    @pytest.mark.shared
    def test_stories260k_loads():
        checkpoint = load_checkpoint(SHARED_MODELS / "stories260K.bin")
        assert checkpoint.n_parameters == 260032
        assert (checkpoint.config.dim, checkpoint.config.head_dim, checkpoint.config.shared_classifier) == (64, 8, True)


# ---- Hugging Face folders as people have them ----


def test_a_stale_index_beside_the_whole_file_is_left_out_with_a_note(tmp_path):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", random_checkpoint(seed=1), shards=2)
    write_safetensors(folder / "model.safetensors", hf_tensors(checkpoint))
    loaded = load_checkpoint(folder)
    assert_same(loaded, checkpoint)
    assert loaded.notes == ("model.safetensors.index.json and its shards are ignored, because model.safetensors "
                            "exists",)
    (folder / "model.safetensors.index.json").write_text("{")  # nobody reads it
    assert_same(load_checkpoint(folder), checkpoint)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "consolidated.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("own", ["model.safetensors", "other.safetensors"])
def test_other_weights_beside_the_model_are_left_out_with_a_note(tmp_path, name, own):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    (folder / "model.safetensors").rename(folder / own)
    write_safetensors(folder / name, {"x": np.zeros(1, np.float32)})
    loaded = load_checkpoint(folder)
    assert_same(loaded, checkpoint)
    assert loaded.notes == (f"{name} is left out: it is not of the model's weights",)


def test_a_tied_model_with_another_classifier_says_which_is_taken(tmp_path):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    write_safetensors(folder / "model.safetensors", hf_tensors(checkpoint) | {"lm_head.weight": checkpoint.tok_emb + 1})
    loaded = load_checkpoint(folder)
    assert_same(loaded, checkpoint)
    assert "lm_head.weight is left out, as transformers does" in loaded.notes[0]
    write_safetensors(folder / "model.safetensors", hf_tensors(checkpoint) | {"lm_head.weight": checkpoint.tok_emb})
    assert not load_checkpoint(folder).notes


@pytest.mark.parametrize(("prefix", "who"), [("_orig_mod.", "torch.compile"), ("module.", "DataParallel")])
def test_the_prefix_of_a_wrapper_is_dropped_with_a_note(tmp_path, prefix, who):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    tensors = {prefix + name: tensor for name, tensor in hf_tensors(checkpoint).items()}
    write_safetensors(folder / "model.safetensors", tensors)
    loaded = load_checkpoint(folder)
    assert_same(loaded, checkpoint)
    assert loaded.notes == (f"the names of tensors begin with {prefix!r}, as {who} leaves them: it is dropped",)


@pytest.mark.parametrize("fields", [
    {"gradient_checkpointing": True, "torchscript": True, "use_bfloat16": True, "output_hidden_states": True},
    {"attn_implementation": "sdpa", "use_flash_attn": True, "auto_map": {"AutoConfig": "x.Y"}},
    {"max_window_layers": 28, "n_ctx": 2048, "num_labels": 2, "early_stopping": True, "no_repeat_ngram_size": 3},
])
def test_fields_that_compute_nothing_are_ignored(tmp_path, fields):
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    edit_config(folder, **fields)
    assert_same(load_checkpoint(folder), checkpoint)


@pytest.mark.parametrize(("files", "expected"), [
    ({"pytorch_model.bin": b"PK"}, "pytorch_model.bin is a Python pickle, which may run code and is not opened"),
    ({"pytorch_model-00001-of-00002.bin": b""}, "pytorch_model-00001-of-00002.bin is a Python pickle"),
    ({"consolidated.00.pth": b""}, "consolidated.00.pth is in the form of the model's maker"),
    ({"adapter_model.safetensors": b""}, "adapter_model.safetensors is an adapter (LoRA), not a model: merge it"),
    ({"model.Q4_0.gguf": b""}, "model.Q4_0.gguf is a GGUF file: give that file itself"),
    ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"},
     "model.safetensors: a safetensors file is needed, and this is a Git LFS pointer in place of the file: fetch"),
    ({"model.safetensors": b"\n<!DOCTYPE html><html>"}, "and this is an HTML page"),
    ({"model.safetensors": b""}, "and this is an empty file: download it again"),
    ({"config.json": b"version https://git-lfs.github.com/spec/v1"}, "config.json: a JSON file is needed, and this"),
])
def test_what_lies_in_place_of_weights_is_named(tmp_path, files, expected):
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    (folder / "model.safetensors").unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert expected in refusal(folder)


@pytest.mark.parametrize(("name", "expected"), [
    ("model.gguf", "this folder has no config.json"), ("adapter_config.json", "adapter_config.json is of an adapter"),
])
def test_a_folder_without_config_says_what_it_holds(tmp_path, name, expected):
    (tmp_path / name).write_bytes(b"")
    assert expected in refusal(tmp_path) and f": {name} is " in refusal(tmp_path)


def test_adapter_weights_under_the_model_s_name(tmp_path):
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    write_safetensors(folder / "model.safetensors", {"base_model.q_proj.lora_A.weight": np.zeros((1, 4), np.float32)})
    assert "the file holds the weights of an adapter (LoRA), not of a model" in refusal(folder)


@pytest.mark.parametrize(("name", "expected"), [
    ("model.safetensors", "this is a bare safetensors file, a part of a model: give the folder"),
    ("config.json", "this is a JSON file, a part of a model: give the folder"),
])
def test_a_part_of_a_folder_is_not_the_model(tmp_path, name, expected):
    assert expected in refusal(write_hf(tmp_path / "hf", random_checkpoint()) / name)


def test_a_digest_is_of_the_files_or_of_the_arrays(tmp_path):
    one, other = random_checkpoint(), random_checkpoint(seed=1)
    assert one.digest() == random_checkpoint().digest() != other.digest()
    made = {"a": one, "b": one, "c": other}
    found = [load_checkpoint(write_hf(tmp_path / name, checkpoint)).digest() for name, checkpoint in made.items()]
    assert found[0] == found[1] != found[2]
