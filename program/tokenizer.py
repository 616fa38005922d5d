"""Text to token ids and back, for llama2.c's tokenizer.bin and for Hugging Face's tokenizer.json.

A tokenizer is its file's bytes and a few ids, so that a compiled program can carry it (`to_bytes`, `from_bytes`).
"""

import json
import math
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tokenizers

from base.errors import TspError
from base.files import read_json

from . import bpe

LLAMA2C_BOS, LLAMA2C_EOS = 1, 2
LLAMA2C_FIRST_BYTE = 3  # token 3 + b is byte b, after <unk>, <s>, </s>
BYTE_TOKEN = re.compile(rb"<0x([0-9A-Fa-f]{2})>")

MAGIC = b"TSPTOK1\n"
HEADER = struct.Struct("<8s8siiIQ")  # magic, kind, bos, eos, vocab size, payload bytes
KIND_LLAMA2C, KIND_HF = b"llama2c", b"hf"
HF_CONFIGS = ("config.json", "tokenizer_config.json")


class Tokenizer:
    """One vocabulary; make one with `load_tokenizer` or `Tokenizer.from_bytes`.

    Attributes: `bos`, `eos` (token ids), `vocab_size` (the model's; a token beyond the vocabulary is an empty piece).
    """

    def __init__(self, *, kind: bytes, payload: bytes, bos: int, eos: int, vocab_size: int) -> None:
        """`payload`: a whole tokenizer.bin (`KIND_LLAMA2C`) or tokenizer.json (`KIND_HF`); raises `TspError`."""
        parse = {KIND_LLAMA2C: _parse_llama2c, KIND_HF: _parse_hf}.get(kind)
        if parse is None:
            raise TspError(f"tokenizer: unknown kind {kind!r}; it must be one of {KIND_LLAMA2C!r}, {KIND_HF!r}")
        self.bos, self.eos, self.vocab_size = bos, eos, vocab_size
        for name, token in (("bos", bos), ("eos", eos)):
            if not 0 <= token < vocab_size:
                raise TspError(f"tokenizer: {name} token must be 0..{vocab_size - 1}, not {token}")
        self._kind, self._payload = kind, payload
        vocab, self._encode_text, self._strip_after_bos = parse(payload, vocab_size)
        self._vocab = vocab + [b""] * (vocab_size - len(vocab))
        self._pieces = [_byte_value(piece) for piece in self._vocab] if self._strip_after_bos else self._vocab

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Token ids of `text`, after a BOS if asked; raises `TspError` on a character that no token expresses."""
        return [self.bos] * bos + (self._encode_text(text) if text else [])

    def piece(self, prev: int, token: int) -> bytes:
        """The bytes that `token` adds after `prev`, as run.c decodes: no leading space after BOS, <0xXX> as its byte.

        The pieces of a sequence concatenate to its text; a single piece need not be whole UTF-8. Raises `TspError` on
        an id outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise TspError(
                f"token must be 0..{self.vocab_size - 1}, not {token}: the program was compiled for another tokenizer"
            )
        if self._strip_after_bos and prev == self.bos and self._vocab[token].startswith(b" "):
            return self._vocab[token][1:]
        return self._pieces[token]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens` as though it began a sequence; BOS and EOS show nothing, broken UTF-8 becomes U+FFFD."""
        text, prev = bytearray(), self.bos
        for token in tokens:
            if token not in (self.bos, self.eos):
                text += self.piece(prev, token)
            prev = token
        return text.decode("utf-8", errors="replace")

    def to_bytes(self) -> bytes:
        """A self-contained image that `from_bytes` reads back; same tokenizer, same bytes."""
        header = HEADER.pack(MAGIC, self._kind, self.bos, self.eos, self.vocab_size, len(self._payload))
        return header + self._payload

    @staticmethod
    def from_bytes(data: bytes) -> "Tokenizer":
        """Read back what `to_bytes` wrote; raises `TspError` if it is cut short, altered or something else."""
        if len(data) < HEADER.size or not data.startswith(MAGIC):
            raise TspError(f"tokenizer image: must begin with {MAGIC!r} and a header of {HEADER.size} bytes")
        _, kind, bos, eos, vocab_size, size = HEADER.unpack_from(data)
        if len(data) != HEADER.size + size:
            raise TspError(f"tokenizer image: expected {HEADER.size + size} bytes, found {len(data)}")
        payload = data[HEADER.size :]
        return Tokenizer(kind=kind.rstrip(b"\0"), payload=payload, bos=bos, eos=eos, vocab_size=vocab_size)


Parsed = tuple[list[bytes], Callable[[str], list[int]], bool]
"""Raw pieces by id; text -> ids without BOS; whether pieces are SentencePiece's (no leading space after BOS)."""


def load_tokenizer(path: str | Path, vocab_size: int) -> Tokenizer:
    """Load a tokenizer.bin, tokenizer.json or Hugging Face folder for a model of `vocab_size`; raises `TspError`."""
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        payload = file.read_bytes()
    except OSError as error:
        raise TspError(f"{file}: cannot read the tokenizer: {error.strerror}") from error
    try:
        if file.suffix != ".json":
            kind, bos, eos = KIND_LLAMA2C, LLAMA2C_BOS, LLAMA2C_EOS
        else:
            kind, bos, eos = KIND_HF, *_special_ids(file.parent, payload)
        return Tokenizer(kind=kind, payload=payload, bos=bos, eos=eos, vocab_size=vocab_size)
    except TspError as error:
        raise TspError(f"{file}: {error}") from error.__cause__


# ---- llama2.c: int32 longest piece, then a token: float32 score, int32 length, bytes ----


def _parse_llama2c(payload: bytes, vocab_size: int) -> Parsed:
    vocab, scores = _read_entries(payload, vocab_size)
    index: dict[bytes, int] = {}
    for token, piece in enumerate(vocab):
        index.setdefault(piece, token)
    bytes_from = LLAMA2C_FIRST_BYTE
    has_bytes = all(_byte_value(piece) == bytes([i]) for i, piece in enumerate(vocab[bytes_from : bytes_from + 256]))
    has_bytes = has_bytes and len(vocab) >= bytes_from + 256

    def encode_char(char: str) -> list[int]:
        raw = _utf8(char)
        if raw in index:
            return [index[raw]]
        if not has_bytes:
            raise TspError(f"the tokenizer has no token for {char!r} and no byte tokens: leave it out")
        return [bytes_from + byte for byte in raw]

    def encode_text(text: str) -> list[int]:
        ids = [token for char in " " + text for token in encode_char(char)]  # SentencePiece's dummy prefix
        return bpe.merge(ids, vocab, index, scores)

    return vocab, encode_text, True


def _read_entries(payload: bytes, vocab_size: int) -> tuple[list[bytes], list[float]]:
    """Pieces and scores of exactly `vocab_size` tokens."""
    if len(payload) < 4:
        raise TspError(f"tokenizer is truncated: its header takes 4 bytes, found {len(payload)}")
    (longest,) = struct.unpack_from("<i", payload)
    vocab, scores, offset = [], [], 4
    for token in range(vocab_size):
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
    """The byte that a token <0xXX> stands for; any other piece itself."""
    match = BYTE_TOKEN.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else piece


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # undecodable bytes of a command line come as escapes
    except UnicodeEncodeError as error:
        raise TspError(f"the text holds {text!r}, which is no Unicode character: remove it") from error


# ---- Hugging Face tokenizer.json ----


def _parse_hf(payload: bytes, vocab_size: int) -> Parsed:
    library, spec = _open_hf(payload)
    ids = library.get_vocab(with_added_tokens=True)
    highest = max(ids.values(), default=-1)
    if highest >= vocab_size:
        raise TspError(
            f"tokenizer has tokens up to id {highest}, the model only {vocab_size}: it belongs to another model"
        )
    byte_level = "ByteLevel" in _decoder_types(spec.get("decoder"))
    vocab = [b""] * vocab_size
    for text, token in ids.items():
        vocab[token] = _byte_level_piece(text) if byte_level else text.replace("\u2581", " ").encode()
    for token, added in library.get_added_tokens_decoder().items():
        vocab[token] = b"" if added.special else added.content.encode()

    def encode_text(text: str) -> list[int]:
        return library.encode(_utf8(text).decode("utf-8", "replace"), add_special_tokens=False).ids

    return vocab, encode_text, not byte_level


def _open_hf(payload: bytes) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    try:
        library = tokenizers.Tokenizer.from_str(payload.decode("utf-8"))
    except Exception as error:  # the library raises a bare Exception
        raise TspError(f"damaged or unsupported tokenizer.json: {str(error).splitlines()[0]}") from error
    return library, json.loads(payload)


def _decoder_types(decoder: dict[str, Any] | None) -> set[str]:
    if decoder is None:
        return set()
    return {decoder.get("type", "")}.union(*(_decoder_types(part) for part in decoder.get("decoders", [])))


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's stand-in character of each byte: itself if it is printable Latin-1, else the next from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_LEVEL = _byte_level_alphabet()


def _byte_level_piece(text: str) -> bytes:
    return b"".join(bytes([BYTE_LEVEL[c]]) if c in BYTE_LEVEL else c.encode() for c in text)


def _special_ids(folder: Path, payload: bytes) -> tuple[int, int]:
    """BOS and EOS ids of a Hugging Face folder: config.json's, else of the tokens that tokenizer_config.json names."""
    library, _ = _open_hf(payload)
    configs = {name: read_json(folder / name) if (folder / name).exists() else {} for name in HF_CONFIGS}
    model, tokenizer = (configs[name] for name in HF_CONFIGS)
    found = []
    for name in ("bos", "eos"):
        token = model.get(f"{name}_token_id")
        token = token[0] if isinstance(token, list) and token else token  # several ends: the first is the document's
        if token is None:
            text = tokenizer.get(f"{name}_token")
            text = text.get("content") if isinstance(text, dict) else text
            token = library.token_to_id(text) if isinstance(text, str) else None
        if not isinstance(token, int):
            raise TspError(
                f"no {name} token: give {name}_token_id in config.json or {name}_token in tokenizer_config.json"
            )
        found.append(token)
    return found[0], found[1]
