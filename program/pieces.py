"""What single tokens of a Hugging Face tokenizer add to a text, as its decoder has it.

The library decodes whole sequences to text. A story is printed token by token, and a token may end inside a character
of UTF-8; so decoders that work on bytes are followed here, and the others are asked about a token behind another one.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers

from base.errors import TspError

Piece = Callable[[int | None, int], bytes]
"""The bytes of a token behind another one; behind None it begins the text."""

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SENTENCE_PIECE = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
PAIRWISE = {"WordPiece", "BPEDecoder"}
"""Decoders of which a token's text depends on nothing but whether it is the first one."""


def piece_of(library: tokenizers.Tokenizer, texts: Mapping[int, str], added: Mapping[int, str]) -> Piece:
    """The pieces of a tokenizer. texts: of all tokens by id; added: what added tokens stand for, which no decoder
    touches. Raises `TspError` naming a decoder that is not known."""
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
    """The decoders in order, sequences unrolled; [] if there is none."""

    def unroll(part: dict[str, Any] | None) -> list[dict[str, Any]]:
        if part is None:
            return []
        return [leaf for inner in part["decoders"] for leaf in unroll(inner)] if part["type"] == "Sequence" else [part]

    return unroll(None if library.decoder is None else json.loads(library.decoder.__getstate__()))


def _static(pieces: dict[int, bytes], added: Mapping[int, str], first: dict[int, bytes]) -> Piece:
    """Pieces that depend on nothing, but for those in `first` where they begin a text."""
    pieces |= {token: text.encode() for token, text in added.items()}
    first = {token: piece for token, piece in first.items() if token not in added}

    def piece(prev: int | None, token: int) -> bytes:
        return first.get(token, pieces[token]) if prev is None else pieces[token]

    return piece


# ---- bytes in disguise ----


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's stand-in character of each byte: itself if it is printable Latin-1, else the next from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_LEVEL = _byte_level_alphabet()


def _byte_level(text: str) -> bytes:
    return bytes(BYTE_LEVEL[c] for c in text) if all(c in BYTE_LEVEL for c in text) else text.encode()


# ---- SentencePiece's: replacements, bytes as <0xXX>, spaces stripped where the text begins ----


def _known(parts: list[dict[str, Any]]) -> bool:
    """Whether the parts mean what SentencePiece does: fixed texts replaced, and only the text's beginning stripped."""
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
        """The library's Metaspace drops its character from the first token, Strip some spaces before it."""
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
