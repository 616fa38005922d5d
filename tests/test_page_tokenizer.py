"""The page's tokenizer for a tokenizer.json: ids and pieces are Python's, and what it cannot do is refused."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import node
import pytest
from checkpoints import random_checkpoint, small_config
from page_program import story_wasm, told_by_reference
from page_tokenizers import (
    BYTE_LEVEL,
    SENTENCE_PIECE,
    WORDS,
    byte_level,
    of_json,
    of_words,
    sentence_piece,
    thousand_texts,
    trained_sentence_piece,
)
from tokenizers import Regex, pre_tokenizers

from arch.config import CONFIGS
from base.errors import TspError
from compiler.compile import compile_checkpoint
from compiler.frontend.vocabulary import load_tokenizer
from page.patterns import to_javascript
from page.payload import payload
from page.tokenizer import page_tokenizer
from program.program import Program
from program.tokenizer import Tokenizer
from run.models import get_model

SOURCE = """
import fs from "node:fs";
import { openTokenizer } from "./js/tokenizer.js";
export function answer(texts) {
  const tokenizer = openTokenizer(new Uint8Array(fs.readFileSync("tokenizer")));
  return texts.map((text) => {
    const ids = tokenizer.encode(text);
    return [ids, ids.map((id, n) => Array.from(tokenizer.piece(n ? ids[n - 1] : null, id)))];
  });
}"""


def assert_pythons(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    """The same ids and the same piece of each."""
    (folder / "tokenizer").write_bytes(page_tokenizer(tokenizer.to_bytes()))
    for text, (ids, pieces) in zip(texts, node.run(folder, SOURCE, texts), strict=True):
        assert ids == tokenizer.prompt(text), repr(text)
        before = [None, *ids[:-1]]
        assert pieces == [list(tokenizer.piece(*pair)) for pair in zip(before, ids, strict=True)], repr(text)


@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_byte_level_vocabularies_are_pythons(tmp_path: Path, kind: str):
    tokenizer = of_json(byte_level(kind), bos=0, adds_bos=kind == "llama-3")
    assert_pythons(tmp_path, tokenizer, thousand_texts(len(kind)))


@pytest.mark.parametrize("kind", ["prepend", "always", "first", "never"])
def test_sentence_piece_vocabularies_are_pythons(tmp_path: Path, kind: str):
    tokenizer = of_json(sentence_piece(kind), bos=1, adds_bos=kind != "never")
    assert_pythons(tmp_path, tokenizer, thousand_texts(len(kind)))


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
def test_models_of_sentence_piece_are_pythons(tmp_path: Path, kind: str):
    """Unigram, with bytes and with an unknown token, and SentencePiece's own normalization."""
    assert_pythons(tmp_path, trained_sentence_piece(kind, tmp_path), thousand_texts(len(kind)))


@pytest.mark.parametrize("kind", WORDS)
def test_vocabularies_of_words_are_pythons(tmp_path: Path, kind: str):
    """WordPiece, WordLevel, and BPE with prefixes and suffixes."""
    assert_pythons(tmp_path, of_json(of_words(kind), bos=1, adds_bos=kind == "bert"), thousand_texts(len(kind)))


@pytest.mark.nightly
def test_the_vocabulary_of_smollm2_is_pythons(tmp_path: Path):
    tokenizer = load_tokenizer(get_model("smollm2"), 49152)
    assert_pythons(tmp_path, tokenizer, thousand_texts(2))


@cache
def random_program() -> Program:
    """A random model on the default chip."""
    model = small_config(n_layers=2, dim=64, hidden_dim=64, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=520,
                         seq_len=64)
    return compile_checkpoint(random_checkpoint(model), vocabulary("prepend"), config=CONFIGS["ulx3s"], measure=False)


def vocabulary(kind: str) -> Tokenizer:
    """For a model of 520 tokens."""
    if kind in BYTE_LEVEL:
        return of_json(byte_level(kind), bos=0, adds_bos=False)
    return of_json(of_words(kind) if kind in WORDS else sentence_piece(kind), bos=1, adds_bos=True)


@pytest.mark.parametrize(("kind", "text"), [("smollm", "Once upon été 12"), ("prepend", ""), ("bert", "little fox")])
def test_a_story_is_the_references_in_the_predicted_cycles(tmp_path: Path, kind: str, text: str):
    program = replace(random_program(), tokenizer=vocabulary(kind).to_bytes())
    (tmp_path / "chip.wasm").write_bytes(story_wasm())
    (tmp_path / "program.bin").write_bytes(payload(program, kind))
    source = """
    import fs from "node:fs";
    import { Machine } from "./js/machine.js";
    import { texts } from "./js/story.js";
    export function answer(options) {
      const machine = new Machine(fs.readFileSync("chip.wasm"), new Uint8Array(fs.readFileSync("program.bin")));
      machine.begin(options);
      machine.forward(1e9);
      const { steps } = machine.story;
      return [texts(steps).join(""), steps.map((step) => [step.token, step.predicted, step.measured])];
    }"""
    told, tokens = told_by_reference(program, text, 24, 0.9, 4)
    options = {"text": text, "temperature": 0.9, "seed": "4", "positions": 24}
    found, steps = node.run(tmp_path, source, options)
    assert found == told
    assert text in told and len(set(tokens)) > 2
    assert steps == [[token, program.cycles(n), program.cycles(n)] for n, token in enumerate(tokens)]


WORD = {"id": 519, "content": "z", "single_word": True, "lstrip": False, "rstrip": False, "normalized": False,
        "special": False}


@pytest.mark.parametrize(("parts", "why"), [
    ({"model": byte_level("gpt-2")["model"] | {"dropout": 0.1}}, "a BPE tokenizer with dropout 0.1"),
    ({"added_tokens": [WORD]}, "the added token 'z', which must be a separate word"),
    ({"normalizer": {"type": "Nmt"}}, "the normalizer Nmt"),
    ({"pre_tokenizer": {"type": "UnicodeScripts"}}, "the pre-tokenizer UnicodeScripts"),
])
def test_other_parts_are_refused_in_one_line(parts: dict[str, Any], why: str):
    tokenizer = of_json(byte_level("gpt-2") | parts, bos=0, adds_bos=True)
    with pytest.raises(TspError, match=why) as error:
        page_tokenizer(tokenizer.to_bytes())
    assert "\n" not in str(error.value)
    assert "--tokenizer" in str(error.value)


@pytest.mark.parametrize("pattern", [r"\w+", r"a++", r"a*?", r"^a", r"a$", r".", r"[a[b]]", r"[a&&b]", r"(?<=a)b",
                                     r"\bx", r"[\S]", r"\h", r"(?i:é)", r"[a"])
def test_patterns_that_mean_another_thing_in_javascript_are_refused(pattern: str):
    with pytest.raises(TspError, match="does not know"):
        to_javascript(pattern)


@pytest.mark.parametrize("pattern", [r"\s", r"\S+", r"(?i:'s|k)", r"[^\s\p{L}]+", r"\d{1,3}", r"\p{N}| ?a-b\-c",
                                     r"[a\-z]"])
def test_patterns_match_as_the_librarys(tmp_path: Path, pattern: str):
    texts = [*thousand_texts(9)[:300], "a-b-c z", "'\u017f \u212a K"]
    splitter = pre_tokenizers.Split(Regex(pattern), "isolated")
    source = """
    export const answer = ([pattern, texts]) => texts.map((text) => {
      const parts = [];
      let from = 0;
      for (const match of text.matchAll(new RegExp(pattern, "gu"))) {
        parts.push(text.slice(from, match.index), match[0]);
        from = match.index + match[0].length;
      }
      return [...parts, text.slice(from)].filter((part) => part);
    });"""
    found = node.run(tmp_path, source, [to_javascript(pattern), texts])
    assert found == [[part for part, _ in splitter.pre_tokenize_str(text) if part] for text in texts]
