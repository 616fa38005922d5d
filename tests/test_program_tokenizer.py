"""program.tokenizer: llama2.c's file against a naive greedy merge and against Hugging Face's library."""

import json
import struct
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from checkpoints import (
    SHARED_MODELS,
    hf_tokenizer,
    random_checkpoint,
    random_vocab,
    tokenizer_bin,
    write_hf,
    write_tokenizer_bin,
)
from hypothesis import given
from hypothesis import strategies as st

from base.errors import TspError
from compiler.frontend.vocabulary import load_tokenizer
from program import bpe
from program.tokenizer import KIND_LLAMA2C, Tokenizer

VOCAB, SCORES = random_vocab()
TOKENIZER = Tokenizer(kind=KIND_LLAMA2C, payload=tokenizer_bin(VOCAB, SCORES), bos=1, stops=[2], vocab_size=512)
TEXTS = [
    "Abc",
    "a bad cab",
    " leading",
    "trailing ",
    "é世 and 界",
    "two\nlines\t",
    "  ",
    "!'.,",
    "<s>",
    "<0x41>",
    "zzzzzzzz",
]


def naive_merge(ids, vocab, scores):
    """One merge a pass over the whole text, as run.c does it."""
    ids = list(ids)
    while True:
        best = (-1e10, None, 0)
        for i, pair in enumerate(pairwise(ids)):
            merged = vocab[pair[0]] + vocab[pair[1]]
            if merged in vocab and scores[vocab.index(merged)] > best[0]:
                best = (scores[vocab.index(merged)], i, vocab.index(merged))
        if best[1] is None:
            return ids
        ids[best[1] : best[1] + 2] = [best[2]]


@given(st.lists(st.integers(259, 300), max_size=30), st.sampled_from([1.0, 8.0, 1e9]))
def test_merge_equals_the_naive_loop(ids, ties):
    """Coarser scores make ties; those at or below -1e10 never merge."""
    scores = [score // ties for score in SCORES[:400]] + [-1e10 - i for i in range(112)]
    index = {piece: token for token, piece in enumerate(VOCAB)}
    assert bpe.merge(ids, VOCAB, index, scores) == naive_merge(ids, VOCAB, scores)


@given(st.text(max_size=40))
def test_any_text_survives(text):
    image = Tokenizer.from_bytes(TOKENIZER.to_bytes())
    tokens = image.encode(text)
    assert tokens[0] == 1 and tokens[1:] == TOKENIZER.encode(text, bos=False)
    assert TOKENIZER.decode(tokens) == text


@pytest.mark.parametrize("text", TEXTS)
def test_agrees_with_the_hugging_face_library(tmp_path, text):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(hf_tokenizer(VOCAB)))
    (tmp_path / "config.json").write_text('{"bos_token_id": 1, "eos_token_id": [2, 0]}')
    ours, library = load_tokenizer(tmp_path, 512), tokenizers.Tokenizer.from_file(str(file))
    assert (ours.bos, ours.eos) == (1, 2)
    tokens = ours.encode(text)
    assert tokens == [1, *library.encode(text, add_special_tokens=False).ids]
    assert ours.decode(tokens) == library.decode(tokens)
    image = Tokenizer.from_bytes(ours.to_bytes())
    assert image.encode(text) == tokens and image.decode(tokens) == ours.decode(tokens)
    if text != "<s>":  # the library takes it for the special token
        assert TOKENIZER.encode(text) == tokens and TOKENIZER.decode(tokens) == text


def test_pieces_are_run_c_s():
    space_a = VOCAB.index(b" ")
    assert TOKENIZER.piece(1, space_a) == b"" and TOKENIZER.piece(5, space_a) == b" "
    assert TOKENIZER.piece(1, 3 + 0x20) == b" "  # a byte token is not a leading space
    assert TOKENIZER.piece(7, 3 + 0xE4) == b"\xe4"
    assert TOKENIZER.piece(7, 1) == b"\n<s>\n"
    assert TOKENIZER.decode([1, 3 + 0xE4, 3 + 0xB8, 3 + 0x96, 2]) == "世"
    assert TOKENIZER.decode([3 + 0xE4]) == "\ufffd"


def test_encode_the_empty_text_and_bytes_of_a_command_line():
    assert TOKENIZER.encode("") == [1] and TOKENIZER.encode("", bos=False) == []
    assert TOKENIZER.encode(b"\xff".decode("utf-8", "surrogateescape"), bos=False)[-1] == 3 + 0xFF
    with pytest.raises(TspError, match="not a Unicode character"):
        TOKENIZER.encode("\ud800")


@pytest.mark.parametrize("token", [-1, 512])
def test_piece_outside_the_vocabulary(token):
    with pytest.raises(TspError, match=r"token must be 0\.\.511"):
        TOKENIZER.piece(1, token)


def test_vocabulary_without_bytes(tmp_path):
    path = tmp_path / "tokenizer.bin"
    vocab = [b"<unk>", b"\n<s>\n", b"\n</s>\n", b" ", b"a", b" a"]
    path.write_bytes(tokenizer_bin(vocab, [0.0] * 6))
    tokenizer = load_tokenizer(path, 6)
    assert tokenizer.encode("a a") == [1, 5, 5]
    with pytest.raises(TspError, match="no token for 'b' and no byte tokens"):
        tokenizer.encode("ab")


# ---- refused: tokenizer.bin ----


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: b"", "this is an empty file"),
        (lambda data: data[:-1], "truncated in token 511 of 512"),
        (lambda data: data[:30], "ends at token 2 of the model's 512"),
        (lambda data: data + b"1234567", "has 7 bytes after the model's 512 tokens: it belongs to another model"),
        (
            lambda data: data[:8] + struct.pack("<i", -1) + data[12:],
            "damaged at token 0: length must be 0..{longest}, not -1",
        ),
        (
            lambda data: data[:8] + struct.pack("<i", 99) + data[12:],
            "damaged at token 0: length must be 0..{longest}, not 99",
        ),
        (lambda data: data[:4] + struct.pack("<f", float("nan")) + data[8:], "damaged at token 0"),
    ],
)
def test_damaged_tokenizer_bin(tmp_path, change, expected):
    path = write_tokenizer_bin(tmp_path / "tokenizer.bin")
    path.write_bytes(change(path.read_bytes()))
    assert expected.format(longest=max(map(len, VOCAB))) in refusal(path)


def refusal(path: Path, vocab_size: int = 512) -> str:
    with pytest.raises(TspError) as error:
        load_tokenizer(path, vocab_size)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    return str(error.value)


def test_tokenizer_of_another_model(tmp_path):
    path = write_tokenizer_bin(tmp_path / "tokenizer.bin")
    assert "ends at token 512 of the model's 1025" in refusal(path, 1025)
    assert "bytes after the model's 511 tokens" in refusal(path, 511)
    assert "bos token must be 0..0, not 1" in refusal(path, 1)
    assert "cannot read the tokenizer: No such file" in refusal(tmp_path / "absent.bin")


# ---- refused: Hugging Face and images ----


@pytest.mark.parametrize("content", [b"{}", b"rubbish", b"\xff"])
def test_damaged_tokenizer_json(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    assert "damaged or unsupported tokenizer.json" in refusal(path)


def test_tokenizer_json_of_another_model(tmp_path):
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    assert "tokens up to id 511, the model only 500" in refusal(folder, 500)
    assert load_tokenizer(folder, 600).piece(5, 599) == b""  # a vocabulary padded by the model is common


def test_special_tokens_by_name(tmp_path):
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    (folder / "config.json").write_text("{}")
    guessed = load_tokenizer(folder, 512)
    assert (guessed.bos, guessed.eos) == (1, 2) and len(guessed.notes) == 2 and "'</s>' is used" in guessed.notes[0]
    (folder / "tokenizer_config.json").write_text('{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}')
    tokenizer = load_tokenizer(folder, 512)
    assert (tokenizer.bos, tokenizer.eos) == (1, 2)


def test_byte_level_vocabulary(tmp_path):
    """Llama 3's kind: pieces are bytes in disguise, nothing is stripped."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": 1, **{char: 2 + i for i, char in enumerate(alphabet)}, "\u0120a": 258}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[("\u0120", "a")]))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    library.add_special_tokens(["<s>", "</s>"])
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": 1}')
    tokenizer = load_tokenizer(tmp_path, 259)
    for text in (*TEXTS, " a b"):
        if text != "<s>":
            tokens = tokenizer.encode(text)
            assert tokenizer.decode(tokens) == text == library.decode(tokens)
    assert tokenizer.piece(0, 258) == b" a" and tokenizer.piece(5, 0) == b""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data[:-1], "expected {size} bytes after the header, found {found}"),
        (lambda data: data[:20], "must begin with"),
        (lambda data: b"X" + data[1:], "must begin with"),
        (lambda data: data.replace(b"llama2c", b"another"), "unknown kind 'another'"),
        (lambda data: data.replace(b'"bos":1', b'"bos":-'), "Invalid JSON"),
        (lambda data: data.replace(b'"bos":1', b'"box":1'), "Field required in its header"),
    ],
)
def test_damaged_image(change, expected):
    data = TOKENIZER.to_bytes()
    with pytest.raises(TspError) as error:
        Tokenizer.from_bytes(change(data))
    behind = len(data) - data.index(b"}\n") - 2
    assert expected.format(size=behind, found=behind - 1) in str(error.value)


if SHARED_MODELS.is_dir():  # an extra where the project's shared models lie beside the repository

    @pytest.mark.shared
    def test_tok512_agrees_with_the_hugging_face_library(tmp_path):
        """The real vocabulary, converted to Hugging Face's form by the test."""
        path = SHARED_MODELS / "tok512.bin"
        tokenizer = load_tokenizer(path, 512)
        vocab = [tokenizer.piece(0, token) if token > 258 else VOCAB[token] for token in range(512)]
        library = tokenizers.Tokenizer.from_str(json.dumps(hf_tokenizer(vocab)))
        story = 'Once upon a time, there was a little girl. "Lily, let\'s go!" said her mom.\nÜberraschung 世界'
        for text in (story, *(t for t in TEXTS if t != "<s>")):
            assert tokenizer.encode(text, bos=False) == library.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode(tokenizer.encode(text)) == text

    @pytest.mark.shared
    def test_tok512_prompt_of_run_c():
        assert load_tokenizer(SHARED_MODELS / "tok512.bin", 512).encode("Zoo") == [1, 410, 469, 347]
