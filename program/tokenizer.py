"""Text to token ids and back, for llama2.c's tokenizer.bin and for Hugging Face's tokenizer.json.

A tokenizer consists of its file's bytes, a few ids and a chat template. So a compiled program can carry it
(`to_bytes`, `from_bytes`).
"""

import json
import math
import re
import struct
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

import tokenizers
from pydantic import BaseModel, ConfigDict, ValidationError

from base.errors import TspError

from . import bpe, pieces

LLAMA2C_FIRST_BYTE = 3  # token 3 + b is byte b, after <unk>, <s>, </s>
BYTE_TOKEN = re.compile(rb"<0x([0-9A-Fa-f]{2})>")

MAGIC = b"TSPTOK2\n"
KIND_LLAMA2C, KIND_HF = "llama2c", "hf"
LEAST_SHARE = 0.5
"""Least share of the model's vocabulary in a tokenizer.bin. Models pad their vocabularies, but a file with less is
truncated."""


class _Header(BaseModel):
    """The JSON line of an image, before the payload."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str
    bos: int
    stops: list[int]
    adds_bos: bool
    chat_template: str
    vocab_size: int
    payload_bytes: int


class Tokenizer:
    """One vocabulary. `vocabulary.load_tokenizer` or `Tokenizer.from_bytes` makes it.

    kind: `KIND_LLAMA2C` or `KIND_HF`.
    bos: the token that begins a text.
    stops: tokens that end a text, the document's end (`eos`) first. BOS is one of them.
    adds_bos: whether BOS goes before a text. If not, a text begins with its own first token.
    chat_template: Jinja source that turns messages into a text; "" if the model has none.
    vocab_size: size of the model's vocabulary. A token beyond the tokenizer's own is an empty piece.
    notes: what was dropped, guessed or overruled during reading, one line each. `to_bytes` does not keep them.
    """

    def __init__(self, *, kind: str, payload: bytes, bos: int, stops: Iterable[int], vocab_size: int,
                 adds_bos: bool = True, chat_template: str = "", notes: Iterable[str] = ()) -> None:
        """A tokenizer. Raises TspError.

        payload: a whole tokenizer.bin (`KIND_LLAMA2C`) or tokenizer.json (`KIND_HF`).
        """
        parse = {KIND_LLAMA2C: _parse_llama2c, KIND_HF: _parse_hf}.get(kind)
        if parse is None:
            raise TspError(f"tokenizer: unknown kind {kind!r}; it must be one of {KIND_LLAMA2C!r}, {KIND_HF!r}")
        self.bos, self.vocab_size = bos, vocab_size
        self.stops = tuple(dict.fromkeys((*stops, bos)))
        for name, token in (("bos", bos), *(("eos", stop) for stop in self.stops)):
            if not 0 <= token < vocab_size:
                raise TspError(f"tokenizer: {name} token must be 0..{vocab_size - 1}, not {token}")
        self.adds_bos, self.chat_template = adds_bos, chat_template
        self.kind, self._payload = kind, payload
        self._words = parse(payload, vocab_size)
        self.notes = (*notes, *self._words.notes)

    @property
    def eos(self) -> int:
        """The token that ends a document."""
        return self.stops[0]

    @property
    def payload(self) -> bytes:
        """The whole tokenizer.bin or tokenizer.json."""
        return self._payload

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        """Token ids of a text.

        bos: whether BOS goes before them. By default, the tokenizer's own rule applies.

        Raises TspError if no token expresses a character.
        """
        before = [self.bos] * (self.adds_bos if bos is None else bos)
        return before + (self._words.encode(text) if text else [])

    def prompt(self, text: str) -> list[int]:
        """Token ids that begin a sequence: those of `text`, or BOS if it has none. Raises TspError."""
        return self.encode(text) or [self.bos]

    def piece(self, prev: int | None, token: int) -> bytes:
        """The bytes that `token` adds after `prev`. The pieces of a sequence concatenate to its text.

        A single piece need not be whole UTF-8.

        prev: the token before; None or BOS at the beginning of a text.

        Raises TspError if an id is outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise TspError(
                f"token must be 0..{self.vocab_size - 1}, not {token}: the program was compiled for another tokenizer"
            )
        return self._words.piece(None if prev == self.bos else prev, token)

    def token_text(self, token: int) -> str:
        """A token as the tokenizer's file writes it ("<|im_end|>"); "" beyond its vocabulary."""
        return self._words.text(token)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens` at the beginning of a sequence. BOS and stops are empty, and broken UTF-8 is U+FFFD."""
        text, prev = bytearray(), None
        for token in tokens:
            if token not in self.stops:
                text += self.piece(prev, token)
            prev = token
        return text.decode("utf-8", errors="replace")

    def to_bytes(self) -> bytes:
        """A self-contained image for `from_bytes`. The same tokenizer gives the same bytes."""
        header = _Header(kind=self.kind, bos=self.bos, stops=list(self.stops), adds_bos=self.adds_bos,
                         chat_template=self.chat_template, vocab_size=self.vocab_size,
                         payload_bytes=len(self._payload))
        return MAGIC + header.model_dump_json().encode() + b"\n" + self._payload

    @staticmethod
    def from_bytes(data: bytes) -> "Tokenizer":
        """The tokenizer of `to_bytes`. Raises TspError if the image is truncated, altered or something else."""
        line, newline, payload = data.removeprefix(MAGIC).partition(b"\n")
        if not data.startswith(MAGIC) or not newline:
            raise TspError(f"tokenizer image: must begin with {MAGIC!r} and a line of JSON")
        try:
            header = _Header.model_validate_json(line)
        except ValidationError as error:
            raise TspError(f"tokenizer image: {error.errors()[0]['msg']} in its header") from None
        if len(payload) != header.payload_bytes:
            raise TspError(f"tokenizer image: expected {header.payload_bytes} bytes after the header, "
                           f"found {len(payload)}")
        return Tokenizer(kind=header.kind, payload=payload, bos=header.bos, stops=header.stops,
                         adds_bos=header.adds_bos, chat_template=header.chat_template, vocab_size=header.vocab_size)


@dataclass(frozen=True, kw_only=True)
class Words:
    """The functions that a tokenizer's file defines.

    encode: ids of a text, without BOS.
    piece: the bytes of a token after another one, or after None at the beginning of a text.
    text: the file's own spelling of a token.
    notes: what was dropped.
    """

    encode: Callable[[str], list[int]]
    piece: Callable[[int | None, int], bytes]
    text: Callable[[int], str]
    notes: tuple[str, ...] = ()


# ---- llama2.c: int32 longest piece, then a token: float32 score, int32 length, bytes ----


def _parse_llama2c(payload: bytes, vocab_size: int) -> Words:
    vocab, scores = _read_entries(payload, vocab_size)
    index: dict[bytes, int] = {}
    for token, entry in enumerate(vocab):
        index.setdefault(entry, token)
    bytes_from = LLAMA2C_FIRST_BYTE
    has_bytes = all(_byte_value(piece) == bytes([i]) for i, piece in enumerate(vocab[bytes_from : bytes_from + 256]))
    has_bytes = has_bytes and len(vocab) >= bytes_from + 256

    def encode_char(char: str) -> list[int]:
        raw = _utf8(char)
        if raw in index:
            return [index[raw]]
        if not has_bytes:
            raise TspError(f"the tokenizer has no token for {char!r} and no byte tokens: remove it from the text")
        return [bytes_from + byte for byte in raw]

    def encode(text: str) -> list[int]:
        ids = [token for char in " " + text for token in encode_char(char)]  # SentencePiece's dummy prefix
        return bpe.merge(ids, vocab, index, scores)

    def piece(prev: int | None, token: int) -> bytes:
        raw = vocab[token] if token < len(vocab) else b""
        return raw[1:] if prev is None and raw.startswith(b" ") else _byte_value(raw)  # run.c's rule

    notes = [f"the tokenizer has {len(vocab)} tokens, the model {vocab_size}: ids beyond them print nothing"]
    return Words(encode=encode, piece=piece, text=lambda token: piece(token, token).decode("utf-8", "replace"),
                 notes=tuple(notes if len(vocab) < vocab_size else ()))


def _read_entries(payload: bytes, vocab_size: int) -> tuple[list[bytes], list[float]]:
    """Pieces and scores of `vocab_size` tokens, or of fewer, because models pad their vocabularies."""
    if len(payload) < 4:
        raise TspError(f"the tokenizer is truncated: its header has 4 bytes, the file has {len(payload)}: download "
                       "it again")
    (longest,) = struct.unpack_from("<i", payload)
    vocab, scores, offset = [], [], 4
    for token in range(vocab_size):
        if offset == len(payload) and token >= LEAST_SHARE * vocab_size:
            break
        if offset + 8 > len(payload):
            raise TspError(
                f"tokenizer ends at token {token} of the model's {vocab_size}: truncated, or of another model"
            )
        score, length = struct.unpack_from("<fi", payload, offset)
        offset += 8
        if not 0 <= length <= longest or not math.isfinite(score):
            raise TspError(
                f"tokenizer is damaged at token {token}: length must be 0..{longest}, not {length};"
                f" score must be finite, not {score}"
            )
        if offset + length > len(payload):
            raise TspError(f"tokenizer is truncated in token {token} of {vocab_size}: {length} bytes wanted")
        vocab.append(payload[offset : offset + length])
        scores.append(score)
        offset += length
    if offset != len(payload):
        raise TspError(
            f"tokenizer has {len(payload) - offset} bytes after the model's {vocab_size} tokens:"
            " it belongs to another model"
        )
    return vocab, scores


def _byte_value(piece: bytes) -> bytes:
    """The byte of a token <0xXX>; any other piece unchanged."""
    match = BYTE_TOKEN.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else piece


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # a command line's undecodable bytes arrive as escapes
    except UnicodeEncodeError as error:
        raise TspError(f"the text holds {text!r}, which is not a Unicode character: remove it") from error


# ---- Hugging Face tokenizer.json ----


def _parse_hf(payload: bytes, vocab_size: int) -> Words:
    library, notes = open_library(payload, vocab_size)
    added = library.get_added_tokens_decoder()
    special = {token for token, entry in added.items() if entry.special}
    texts: dict[int, str] = {token: text for text, token in library.get_vocab(with_added_tokens=True).items()}

    def encode(text: str) -> list[int]:
        return library.encode(_utf8(text).decode("utf-8", "replace"), add_special_tokens=False).ids

    plain = pieces.piece_of(library, texts, {token: entry.content for token, entry in added.items()})

    def piece(prev: int | None, token: int) -> bytes:
        if token in special or token not in texts:
            return b""
        return plain(prev, token)

    return Words(encode=encode, piece=piece, text=lambda token: texts.get(token, ""), notes=notes)


def open_library(payload: bytes, vocab_size: int) -> tuple[tokenizers.Tokenizer, tuple[str, ...]]:
    """The library's tokenizer for a tokenizer.json, without truncation and padding, and notes on what was dropped.

    vocab_size: size of the model's vocabulary. Added tokens beyond it are dropped.

    Raises TspError.
    """
    library = _library(payload)
    ids = library.get_vocab(with_added_tokens=True)
    beyond = {text: token for text, token in sorted(ids.items(), key=lambda entry: entry[1]) if token >= vocab_size}
    if beyond:
        added = {entry.content for entry in library.get_added_tokens_decoder().values()}
        if not added.issuperset(beyond):
            raise TspError(f"tokenizer has tokens up to id {max(ids.values())}, the model only {vocab_size}: "
                           "it belongs to another model")
        library = _library(_without(payload, beyond))
    size = max((token for token in ids.values() if token < vocab_size), default=-1) + 1
    library.no_truncation()
    library.no_padding()
    notes = [f"added token {text!r} has id {token}, the model's vocabulary ends at {vocab_size - 1}: it is dropped"
             for text, token in beyond.items()]
    if size < vocab_size:
        notes.append(f"the tokenizer has {size} tokens, the model {vocab_size}: ids beyond them print nothing")
    return library, tuple(notes)


def _library(payload: bytes) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(payload.decode("utf-8"))
    except Exception as error:  # the library raises a bare Exception
        raise TspError(f"damaged or unsupported tokenizer.json: {str(error).splitlines()[0]}") from error


def _without(payload: bytes, texts: Container[str]) -> bytes:
    """A tokenizer.json without some added tokens."""
    spec = json.loads(payload)
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] not in texts]
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, dict):
        spec["model"]["vocab"] = {text: token for text, token in vocab.items() if text not in texts}
    return json.dumps(spec).encode()
