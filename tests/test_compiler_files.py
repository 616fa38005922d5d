"""compiler.files: the text that scales are calibrated on."""

from pathlib import Path

import pytest
from programs import random_tokenizer

from compiler.errors import TspError
from compiler.files import MOST_TOKENS, TEXT_BYTES, read_text

TOKENIZER = random_tokenizer(100)
SENTENCE = "the cat sat on the mat, and the dog ran away. "


def test_a_text_is_its_tokens(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text(SENTENCE)
    assert read_text(path, TOKENIZER) == TOKENIZER.encode(SENTENCE, bos=False)


def test_only_the_beginning_of_a_long_text_counts(tmp_path: Path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    text = SENTENCE * (2 * TEXT_BYTES // len(SENTENCE))
    first.write_text(text)
    second.write_bytes(text.encode()[:TEXT_BYTES] + b"\xff")
    tokens = read_text(first, TOKENIZER)
    assert len(tokens) == MOST_TOKENS and read_text(second, TOKENIZER) == tokens


def test_a_character_may_be_cut_where_the_reading_ends(tmp_path: Path):
    path = tmp_path / "text.txt"
    text = ("a" * (TEXT_BYTES - 1) + "\u00e9").encode()
    path.write_bytes(text)
    assert len(read_text(path, TOKENIZER)) == MOST_TOKENS
    path.write_bytes(text[:100] + text[-2:-1])
    with pytest.raises(TspError, match="the text must be UTF-8, byte 100 is not"):
        read_text(path, TOKENIZER)
