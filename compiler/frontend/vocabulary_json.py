"""Writes a tokenizer.json for the `tokenizers` library from the vocabulary in a GGUF or SentencePiece file.

Pieces have the types of both formats: normal, unknown, control, user-defined, unused and byte. Control and user-defined
pieces are never the result of a merge. They become added tokens, which the library finds in a text before any other.
"""

import json
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

from base.errors import TspError

SPACE = "\u2581"
"""SentencePiece's character for a space."""


class Type(IntEnum):
    """Types of a piece, with their numbers in both formats."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BLANKS
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BLANKS
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + BLANKS)
SPLITS = {
    "gpt2": "", "gpt-2": "", "olmo": "", "smollm": "digits", "starcoder": "digits", "refact": "digits",
    "llama3": LLAMA3, "llama-v3": LLAMA3, "llama-bpe": LLAMA3, "falcon3": LLAMA3, "dbrx": LLAMA3, "smaug-bpe": LLAMA3,
    "qwen2": QWEN2, "tekken": TEKKEN,
}
"""How a byte-level vocabulary splits a text before merging, by GGUF's name: "" is GPT-2's pattern, which the library
has. "digits" first splits off each digit. All others are the published patterns of a model family."""
WHOLE_WORDS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "tekken"})
"""Vocabularies that take a word that they contain as it is, without merging."""


def byte_level(tokens: Sequence[str], types: Sequence[int], merges: Sequence[str], split: str) -> bytes:
    """A byte-level BPE vocabulary.

    split: a key of `SPLITS`. Raises TspError that names the keys if it is not.
    """
    if split not in SPLITS:
        raise TspError(f"the pre-tokeniser {split!r} of the vocabulary (tokenizer.ggml.pre) is not supported "
                       f"(only {', '.join(SPLITS)})")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps: list[dict[str, Any]] = [level]
    if SPLITS[split] == "digits":
        steps = [{"type": "Digits", "individual_digits": True}, level]
    elif SPLITS[split]:
        steps = [{"type": "Split", "pattern": {"Regex": SPLITS[split]}, "behavior": "Isolated", "invert": False},
                 level | {"use_regex": False}]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": split in WHOLE_WORDS, "vocab": _ids(tokens),
             "merges": [_pair(merge) for merge in merges]}
    return _file(tokens, types, model, normalizer={"type": "NFC"} if split == "qwen2" else None,
                 pre_tokenizer={"type": "Sequence", "pretokenizers": steps}, decoder=level)


def sentence_piece(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], *, prefix: bool,
                   unigram: bool = False, normalizers: Sequence[dict[str, Any]] = ()) -> bytes:
    """A SentencePiece vocabulary.

    prefix: whether a text gets a space before it.
    normalizers: normalizers that come before that.
    """
    unknown = next((n for n, kind in enumerate(types) if kind == Type.UNKNOWN), None)
    fallback = any(kind == Type.BYTE for kind in types)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    before = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    if unigram:
        model: dict[str, Any] = {"type": "Unigram", "unk_id": unknown, "byte_fallback": fallback,
                                 "vocab": [[token, score] for token, score in zip(tokens, scores, strict=True)]}
    else:
        model = {"type": "BPE", "dropout": None, "unk_token": None if unknown is None else tokens[unknown],
                 "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                 "byte_fallback": fallback, "ignore_merges": False, "vocab": _ids(tokens),
                 "merges": list(_merges(tokens, types, scores))}
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, *after]
    return _file(tokens, types, model, pre_tokenizer=None, decoder={"type": "Sequence", "decoders": decoders},
                 normalizer={"type": "Sequence", "normalizers": [*normalizers, *before, replace]})


def _merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> Iterator[list[str]]:
    """Every pair that makes a normal piece, in SentencePiece's order of merging: the piece of best score first."""
    parts = {token for token, kind in zip(tokens, types, strict=True) if kind in (Type.NORMAL, Type.USER_DEFINED)}
    made = [(-score, n) for n, (score, kind) in enumerate(zip(scores, types, strict=True)) if kind == Type.NORMAL]
    for _, n in sorted(made):
        token = tokens[n]
        for at in range(1, len(token)):
            if token[:at] in parts and token[at:] in parts:
                yield [token[:at], token[at:]]


def _ids(tokens: Sequence[str]) -> dict[str, int]:
    """Ids by text. The first of equal texts counts."""
    return {token: n for n, token in reversed([*enumerate(tokens)])}


def _pair(merge: str) -> list[str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right):
        raise TspError(f"merge {merge!r} of the vocabulary must be two pieces, separated by a space")
    return [left, right]


def _file(tokens: Sequence[str], types: Sequence[int], model: dict[str, Any], **parts: Any) -> bytes:
    typed = enumerate(zip(tokens, types, strict=True))
    added = [_added(n, token, kind != Type.USER_DEFINED) for n, (token, kind) in typed
             if kind in (Type.CONTROL, Type.USER_DEFINED, Type.UNKNOWN) and token]
    spec = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None,
            "model": model, **parts}
    return json.dumps(spec, ensure_ascii=False).encode()


def _added(token: int, text: str, special: bool) -> dict[str, Any]:
    return {"id": token, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special}
