"""compiler.frontend.gguf: files written by the gguf library load to the checkpoint that they were made of."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config, write_hf
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize, quantize
from gguf_files import BLOCKS, SUPER_BLOCKS, gguf_tensors, sentence_piece_fields, write_gguf

from base.errors import TspError
from compiler.frontend.checkpoint import Checkpoint
from compiler.frontend.files import read_model
from compiler.frontend.load import load_checkpoint
from compiler.frontend.vocabulary import load_tokenizer


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    assert a.config == b.config
    for name, weight in a.weights.items():
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(b.weights[name]), err_msg=name)


def refusal(path: Path) -> str:
    """The error text of a file, in loading it or in reading its weights: one line that begins with the path."""
    with pytest.raises(TspError) as error:
        for weight in load_checkpoint(path).weights.values():
            np.asarray(weight)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text, text
    return text.removeprefix(str(path))


# ---- what loads ----


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])  # the random weights are exact in all of them
def test_a_file_loads_to_the_checkpoint_that_it_was_made_of(tmp_path, kind, shared):
    checkpoint = random_checkpoint(small_config(shared_classifier=shared, head_dim=6, rope_theta=1e5))
    path = write_gguf(tmp_path / "model.gguf", checkpoint, kind=kind, fields={"attention.key_length": 6,
                                                                              "attention.value_length": 6})
    loaded, tokenizer = read_model(path)
    assert_same(loaded, checkpoint)
    assert loaded.n_parameters == checkpoint.n_parameters and tokenizer.vocab_size == 512
    np.testing.assert_array_equal(loaded.layer(1)["wk"], checkpoint.wk[1])
    assert not loaded.layer(1)["wk"].flags.writeable


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_blocks_are_dequantised(tmp_path, kind):
    checkpoint, number = random_checkpoint(BLOCKS), GGMLQuantizationType[kind]
    loaded = load_checkpoint(write_gguf(tmp_path / "model.gguf", checkpoint, kind=kind))
    for name, weight in checkpoint.weights.items():
        wanted = weight if "norm" in name else dequantize(quantize(weight, number), number)
        np.testing.assert_array_equal(np.asarray(loaded.weights[name]), wanted, err_msg=name)
    error = np.abs(np.asarray(loaded.w1) - checkpoint.w1).max() / np.abs(checkpoint.w1).max()
    assert error < {"8": 0.005, "5": 0.063, "4": 0.126}[kind[1]]


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_are_dequantised(tmp_path, kind):
    """The library does not write them: random bytes, small enough that no scale is infinite."""
    checkpoint, number = random_checkpoint(SUPER_BLOCKS), GGMLQuantizationType[kind]
    rng, (values, size) = np.random.default_rng(0), GGML_QUANT_SIZES[number]
    raw = {name: tensor if tensor.ndim == 1 else
           rng.integers(0, 60, (len(tensor), tensor.shape[1] // values * size)).astype(np.uint8)
           for name, tensor in gguf_tensors(checkpoint).items()}
    loaded = load_checkpoint(write_gguf(tmp_path / "model.gguf", checkpoint, kind=kind, tensors=raw))
    wanted = dequantize(raw["blk.1.ffn_up.weight"], number)
    assert wanted.shape == (256, 256) and wanted.std() > 0
    np.testing.assert_array_equal(loaded.layer(1)["w3"], wanted)


def test_rows_of_q_and_k_lie_as_llama_cpp_puts_them(tmp_path):
    """From Hugging Face's order llama.cpp goes by reshape(heads, 2, head_dim / 2, ..).swapaxes(1, 2)."""
    checkpoint = random_checkpoint()
    folder = write_hf(tmp_path / "hf", checkpoint)
    tensors, config = gguf_tensors(checkpoint), checkpoint.config
    for layer in range(config.n_layers):
        for name, heads in (("attn_q", config.n_heads), ("attn_k", config.n_kv_heads)):
            theirs = _hugging_face_rows(folder, layer, name)
            rows = theirs.reshape(heads, 2, config.head_dim // 2, config.dim).swapaxes(1, 2).reshape(theirs.shape)
            tensors[f"blk.{layer}.{name}.weight"] = rows
    assert_same(load_checkpoint(write_gguf(tmp_path / "model.gguf", checkpoint, tensors=tensors)),
                load_checkpoint(folder))


def _hugging_face_rows(folder: Path, layer: int, name: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        return file.get_tensor(f"model.layers.{layer}.self_attn.{name[-1]}_proj.weight")


def test_a_classifier_that_is_the_embedding_is_tied(tmp_path):
    checkpoint = random_checkpoint()
    tensors = gguf_tensors(checkpoint) | {"output.weight": checkpoint.tok_emb}
    loaded = load_checkpoint(write_gguf(tmp_path / "model.gguf", checkpoint, tensors=tensors))
    assert loaded.config.shared_classifier and loaded.classifier is loaded.tok_emb


@pytest.mark.parametrize("fields", [
    {"attention.head_count_kv": [3, 3], "feed_forward_length": [20, 20]},  # one a layer
    {"rope.scaling.type": "none", "expert_count": 0, "rope.scale_linear": 1.0},
    {"vocab_size": ..., "rope.dimension_count": ..., "rope.freq_base": ..., "tensor_data_layout": "Meta AI original"},
])
def test_fields_that_mean_the_same(tmp_path, fields):
    checkpoint = random_checkpoint()
    tensors = gguf_tensors(checkpoint) | {"rope_freqs.weight": np.ones(2, np.float32)}
    assert_same(load_checkpoint(write_gguf(tmp_path / "model.gguf", checkpoint, fields=fields, tensors=tensors)),
                checkpoint)


def test_a_layer_is_read_when_it_is_asked_for(tmp_path):
    checkpoint = random_checkpoint()
    tensors = gguf_tensors(checkpoint)
    tensors["blk.1.ffn_up.weight"] = np.full_like(checkpoint.w3[1], np.nan)
    loaded = load_checkpoint(write_gguf(tmp_path / "model.gguf", checkpoint, tensors=tensors))
    np.testing.assert_array_equal(loaded.layer(0)["w3"], checkpoint.w3[0])
    with pytest.raises(TspError, match=r"model\.gguf: layer 1: weight w3 holds 480 NaN or infinite of 480 values"):
        loaded.layer(1)


# ---- what is refused ----


@pytest.mark.parametrize(("changes", "expected"), [
    ({"arch": "qwen2"}, "unsupported: architecture 'qwen2' (only 'llama')"),
    ({"general": {"general.type": "adapter"}}, "a GGUF file of type 'adapter' (only 'model'; merge an adapter first)"),
    ({"general": {"split.count": 3, "split.no": 1}}, "part 2 of 3 of a split model; join them with"),
    ({"fields": {"rope.scaling.type": "yarn"}}, "unsupported: llama.rope.scaling.type yarn"),
    ({"fields": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}}, "llama.rope.scaling.factor 4.0, llama."),
    ({"fields": {"expert_count": 8}}, "unsupported: llama.expert_count 8"),
    ({"fields": {"attention.sliding_window": 4096}}, "unsupported: llama.attention.sliding_window 4096"),
    ({"fields": {"logit_scale": 0.5}}, "unsupported: llama.logit_scale 0.5"),
    ({"fields": {"rope.dimension_count": 2}}, "llama.rope.dimension_count of 2 (only the head's size, 4)"),
    ({"fields": {"attention.head_count_kv": [3, 6]}}, "field llama.attention.head_count_kv must be one number, not [3"),
    ({"fields": {"attention.head_count": 7}}, "must be a multiple of llama.attention.head_count, not 24 with 7"),
    ({"fields": {"block_count": ...}}, "field llama.block_count is missing"),
    ({"fields": {"block_count": 3}}, "tensor blk.2.attn_norm.weight is missing"),
    ({"fields": {"block_count": 1}}, "unsupported tensor blk.1.attn_k.weight (9 in all): a Llama of 1 layers has no "
                                     "such tensor"),
    ({"fields": {"context_length": 0}}, "seq_len must be in 1..4194304, not 0"),
    ({"fields": {"vocab_size": 511}}, "tensor token_embd.weight must have shape (511, 24) according to the file's "
                                      "fields, not"),
    ({"tensors": {}}, "tensor token_embd.weight is missing: this file has no weights"),
])
def test_unsupported_models(tmp_path, changes: dict[str, Any], expected):
    assert expected in refusal(write_gguf(tmp_path / "model.gguf", random_checkpoint(), **changes))


def test_unsupported_tensors(tmp_path):
    checkpoint = random_checkpoint()
    for name, tensor, expected in [
        ("rope_freqs.weight", np.array([1, 8], np.float32), "RoPE with scaled frequencies, as in Llama 3.1 (tensor "
                                                            "rope_freqs.weight)"),
        ("blk.0.attn_q.bias", np.zeros(24, np.float32), "unsupported tensor blk.0.attn_q.bias (1 in all): a Llama of "
                                                        "2"),
        ("blk.0.attn_q.weight", np.zeros((24, 24), np.int8), "tensor blk.0.attn_q.weight: type I8 is unsupported"),
    ]:
        tensors = gguf_tensors(checkpoint) | {name: tensor}
        assert expected in refusal(write_gguf(tmp_path / "model.gguf", checkpoint, tensors=tensors))


@pytest.mark.parametrize("length", [4, 20, 24, 100, 700, 9_000, 30_000, -100])
def test_a_file_that_is_cut_short(tmp_path, length):
    path = write_gguf(tmp_path / "model.gguf", random_checkpoint())
    path.write_bytes(path.read_bytes()[:length])
    assert "damaged GGUF file: " in refusal(path)


def test_counts_that_cannot_be_are_not_counted_to(tmp_path):
    """A header of 2**40 tensors, and an array of 2**40 bytes in a smaller file."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 1))
    assert "names too many tensors or fields" in refusal(path)
    name = b"general.x"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(name)) + name + struct.pack("<IIQ", 9, 0, 1 << 40))
    assert "the file ends within its header" in refusal(path)


# ---- its tokenizer ----


def test_the_tokenizer_of_a_file(tmp_path):
    """SentencePiece's kind is the same as the converted one of a Hugging Face folder."""
    checkpoint = random_checkpoint()
    path = write_gguf(tmp_path / "model.gguf", checkpoint, template="{{ messages }}")
    ours, theirs = load_tokenizer(path, 512), load_tokenizer(write_hf(tmp_path / "hf", checkpoint), 512)
    assert (ours.bos, ours.stops, ours.adds_bos, ours.chat_template) == (1, (2, 1), True, "{{ messages }}")
    for text in ("Abc a bad cab", " two  spaces", "é世 and \U0001f600", "<s>a</s>", ""):
        tokens = ours.encode(text)
        assert tokens == theirs.encode(text) and ours.decode(tokens) == theirs.decode(tokens)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"add_bos_token": False}, ((2, 1), False)),
    ({"eot_token_id": 300, "eom_token_id": 301}, ((2, 300, 301, 1), True)),
    ({"eos_token_id": ..., "eot_token_id": 300}, ((300, 1), True)),
])
def test_ids_of_a_file(tmp_path, changes, expected):
    path = write_gguf(tmp_path / "model.gguf", random_checkpoint(), tokenizer=sentence_piece_fields() | changes)
    tokenizer = load_tokenizer(path, 512)
    assert (tokenizer.stops, tokenizer.adds_bos) == expected


def test_a_file_without_a_prefix_space(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", random_checkpoint(),
                      tokenizer=sentence_piece_fields() | {"add_space_prefix": False})
    tokenizer = load_tokenizer(path, 512)
    assert tokenizer.token_text(tokenizer.encode("abc", bos=False)[0])[0] == "a"
    assert tokenizer.decode(tokenizer.encode(" abc")) == " abc"


@pytest.mark.parametrize(("changes", "expected"), [
    ({"model": "bert"}, "a tokenizer of kind 'bert' (only 'gpt2', byte-level, and 'llama', SentencePiece)"),
    ({"model": "gpt2", "pre": "viking"}, "the pre-tokeniser 'viking' of the vocabulary (tokenizer.ggml.pre) is not"),
    ({"model": "gpt2", "pre": "gpt-2", "merges": ["ab"]}, "merge 'ab' of the vocabulary must be two pieces"),
    ({"tokens": ...}, "field tokenizer.ggml.tokens is missing: name a tokenizer with --tokenizer"),
])
def test_unsupported_tokenizers(tmp_path, changes, expected):
    words = sentence_piece_fields() | {"merges": ["a b"]} | changes
    path = write_gguf(tmp_path / "model.gguf", random_checkpoint(), tokenizer=words)
    with pytest.raises(TspError) as error:
        load_tokenizer(path, 512)
    assert expected in str(error.value) and str(error.value).startswith(str(path))
