"""Input files: regular files only, read up to a limit. A file of the wrong kind is named for what it is.

A pipe is not opened, because opening may wait for ever. A device is not read, because it may never end.
"""

import json
import re
import stat
from pathlib import Path
from typing import Any

from .errors import TspError

HEAD = 512
"""Bytes at the beginning of a file that identify its kind."""
TEXT_LIMIT = 1 << 28
"""Most bytes of JSON, of a tokenizer or of a template. The largest in use have a tenth of it."""
SAFETENSORS_HEADER = 100_000_000
"""Most bytes of a safetensors header, by that format's library."""

STARTS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer in place of the file: fetch it with `git lfs pull`",
    b"GGUF": "a GGUF file",
    b"ggjt": "a GGML file older than GGUF: convert it with llama.cpp, or give the model as GGUF",
    b"ggml": "a GGML file older than GGUF: convert it with llama.cpp, or give the model as GGUF",
    b"lmgg": "a GGML file older than GGUF: convert it with llama.cpp, or give the model as GGUF",
    b"tjgg": "a GGML file older than GGUF: convert it with llama.cpp, or give the model as GGUF",
    b"24ka": "a llama2.c file of version 1 or later (magic 'ak42'): export it with llama2.c's `export.py --version 0`",
    b"PK\x03\x04": "a PyTorch or zip file: export the model as safetensors (or with llama2.c's "
                    "`export.py --version 0`)",
    b"\x80\x02": "a Python pickle, which may run code and is not opened: export the model as safetensors",
    b"\x80\x04": "a Python pickle, which may run code and is not opened: export the model as safetensors",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\x89HDF": "an HDF5 file (Keras): export the model as safetensors",
    b"metronome-program ": "a compiled Metronome program",
    b"metronome-rack ": "a compiled Metronome program",
    b"\x7fELF": "a program for Linux",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
}
HTML = re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
SENTENCE_PIECE = re.compile(rb"\x0a.\x0a", re.DOTALL)


def check_input(path: Path, what: str = "it") -> int:
    """The size of a regular file. Follows links and opens nothing. Raises TspError if it is not a regular file.

    what: the file's purpose for error messages, here and below: "the tokenizer".
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise cannot_read(path, error, what) from error
    if not stat.S_ISREG(found.st_mode):
        folder = stat.S_ISDIR(found.st_mode)
        kind, remedy = ("a folder", "name a file in it") if folder else (
            "a pipe, a socket or a device", "copy its contents to a file")
        raise TspError(f"{path}: cannot read {what}: this is {kind}, and a regular file is needed: {remedy}")
    return found.st_size


def is_folder(path: Path, what: str = "it") -> bool:
    """Whether a path is a folder. Raises TspError if it does not exist or may not be accessed."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise cannot_read(path, error, what) from error


def read_input(path: Path, what: str = "it", limit: int = TEXT_LIMIT) -> bytes:
    """A whole file. Raises TspError if it is not a regular file or is larger than `limit` bytes."""
    size = check_input(path, what)
    if size > limit:
        raise TspError(f"{path}: it has {size:,} bytes, but a file of this kind has at most {limit:,}: name another "
                       "file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error, what) from error


def read_head(path: Path, what: str = "it") -> bytes:
    """The first bytes of a file. Raises TspError if it is not a regular file."""
    check_input(path, what)
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise cannot_read(path, error, what) from error


def cannot_read(path: Path, error: Exception, what: str = "it") -> TspError:
    """The error for a file that the system refuses to open."""
    remedy = ": give this user access to it, or name another one" if isinstance(error, PermissionError) else ""
    return TspError(f"{path}: cannot read {what}: {getattr(error, 'strerror', None) or error}{remedy}")


def describe(head: bytes) -> str:
    """The kind of a file by its first bytes, and the remedy; "" if the kind is not known."""
    if not head:
        return "an empty file: download it again"
    if not head.strip(b"\0"):
        return "a file of zeros: download it again"
    if HTML.match(head):
        return "an HTML page, which servers send in place of a missing file: download the file itself"
    if is_safetensors(head):
        return "a bare safetensors file"
    if is_sentence_piece(head):
        return "a SentencePiece model (tokenizer.model)"
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON file"
    return next((what for start, what in STARTS.items() if head.startswith(start)), "")


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins like safetensors: eight bytes of length, then JSON."""
    return len(head) > 8 and 2 <= int.from_bytes(head[:8], "little") <= SAFETENSORS_HEADER and head[8:9] == b"{"


def is_sentence_piece(head: bytes) -> bool:
    """Whether a file begins like a SentencePiece model: a protobuf field of a piece that begins with a text field."""
    return bool(SENTENCE_PIECE.match(head)) and len(head) > 3 and head[3] <= head[1]


def check_content(path: Path, head: bytes, *, wanted: str, allowed: str = "") -> None:
    """Raises TspError if the first bytes of a file identify it as another kind than the one wanted.

    wanted: the kind wanted, for the message.
    allowed: beginning of `describe`'s text that is accepted.
    """
    found = describe(head)
    if found and not (allowed and found.startswith(allowed)):
        raise TspError(f"{path}: {wanted} is needed, and this is {found}")


def template_beside(path: Path) -> str | None:
    """The chat template NAME.jinja beside a file NAME, or None. Raises TspError as `read_template`."""
    file = path.with_suffix(".jinja")
    return read_template(file) if path.is_file() and file.exists() else None


def read_template(file: Path) -> str:
    """The text of a chat template's file. Raises TspError."""
    try:
        return read_input(file, "the chat template").decode("utf-8")
    except UnicodeDecodeError as error:
        raise cannot_read(file, error, "the chat template") from error


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object. Raises TspError if the file is missing or does not hold a JSON object."""
    data = read_input(path)
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        check_content(path, data[:512], wanted="a JSON file", allowed="a JSON file")
        raise TspError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise TspError(f"{path}: must hold a JSON object, not a {type(value).__name__}")
    return value
