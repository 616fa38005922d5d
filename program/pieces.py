"""The bytes that each token of a Hugging Face tokenizer adds to a text, according to the tokenizer's decoder.

The library decodes whole sequences to text. But a story is printed token by token, and a token may end inside a
character of UTF-8. So decoders that work on bytes are implemented here. The other decoders are called with a token
after another one.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers

from base.errors import TspError

Piece = Callable[[int | None, int], bytes]
"""The bytes of a token after another one. After None, it begins the text."""

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SENTENCE_PIECE = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
PAIRWISE = {"WordPiece", "BPEDecoder"}
"""Decoders with which a token's text depends only on whether the token is the first one."""


def piece_of(library: tokenizers.Tokenizer, texts: Mapping[int, str], added: Mapping[int, str]) -> Piece:
    """The pieces of a tokenizer.

    texts: texts of all tokens by id.
    added: texts of added tokens, which no decoder changes.

    Raises TspError that names an unknown decoder.
    """
    parts = _parts(library)
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse"}:
        return _static({token: _byte_level(text) for token, text in texts.items()}, added, {})
    if kinds and kinds <= SENTENCE_PIECE and _known(parts):
        return _sentence_piece(parts, texts, added)
    if kinds <= PAIRWISE and len(parts) <= 1:
        return _pairwise(library)
    raise TspError(f"a tokenizer whose decoder is {' + '.join(part['type'] for part in parts)} is not supported "
                   f"(only ByteLevel, those of SentencePiece, {' and '.join(sorted(PAIRWISE))})")


def _parts(library: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    """The decoders in order, with sequences unrolled; [] if there is none."""

    def unroll(part: dict[str, Any] | None) -> list[dict[str, Any]]:
        if part is None:
            return []
        return [leaf for inner in part["decoders"] for leaf in unroll(inner)] if part["type"] == "Sequence" else [part]

    return unroll(None if library.decoder is None else json.loads(library.decoder.__getstate__()))


def _static(pieces: dict[int, bytes], added: Mapping[int, str], first: dict[int, bytes]) -> Piece:
    """Pieces that do not depend on the token before. Those in `first` apply at the beginning of a text."""
    pieces |= {token: text.encode() for token, text in added.items()}
    first = {token: piece for token, piece in first.items() if token not in added}

    def piece(prev: int | None, token: int) -> bytes:
        return first.get(token, pieces[token]) if prev is None else pieces[token]

    return piece


# ---- bytes in disguise ----


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's character for each byte: a printable Latin-1 byte is itself, and the others count from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_LEVEL = _byte_level_alphabet()


def _byte_level(text: str) -> bytes:
    return bytes(BYTE_LEVEL[c] for c in text) if all(c in BYTE_LEVEL for c in text) else text.encode()


# ---- SentencePiece's: replacements, bytes as <0xXX>, spaces stripped where the text begins ----


def _known(parts: list[dict[str, Any]]) -> bool:
    """Whether the parts decode as SentencePiece does: they replace fixed texts, and strip only a text's beginning."""
    kinds = [part["type"] for part in parts]
    fixed = all("String" in part["pattern"] for part in parts if part["type"] == "Replace")
    strips = [n for n, part in enumerate(parts) if part["type"] == "Strip"]
    return fixed and all("Fuse" in kinds[:n] and parts[n]["stop"] == 0 for n in strips)


def _sentence_piece(parts: list[dict[str, Any]], texts: Mapping[int, str], added: Mapping[int, str]) -> Piece:
    stripped = sum(part["start"] for part in parts if part["type"] == "Strip")
    content = next((part["content"] for part in parts if part["type"] == "Strip"), " ")
    prefixed = next((part["replacement"] for part in parts
                     if part["type"] == "Metaspace" and part["prepend_scheme"] != "never"), None)
    fallback = any(part["type"] == "ByteFallback" for part in parts)

    def plain(text: str) -> bytes:
        if fallback and (match := BYTE_TOKEN.fullmatch(text)):
            return bytes([int(match[1], 16)])
        for part in parts:
            if part["type"] == "Replace":
                text = text.replace(part["pattern"]["String"], part["content"])
            elif part["type"] == "Metaspace":
                text = text.replace(part["replacement"], " ")
        return text.encode()

    def begins(text: str) -> bytes:
        """The piece at the beginning of a text. Metaspace drops its character from it, and Strip its leading spaces."""
        if fallback and BYTE_TOKEN.fullmatch(text):
            return plain(text)
        raw = plain(text.replace(prefixed, "") if prefixed else text)
        for _ in range(stripped):
            raw = raw.removeprefix(content.encode())
        return raw

    first = {token: begins(text) for token, text in texts.items()}
    return _static({token: plain(text) for token, text in texts.items()}, added, first)


# ---- the library's own ----


def _pairwise(library: tokenizers.Tokenizer) -> Piece:
    def piece(prev: int | None, token: int) -> bytes:
        before = [] if prev is None else [prev]
        shown = library.decode(before)
        return library.decode([*before, token]).removeprefix(shown).encode()

    return piece
