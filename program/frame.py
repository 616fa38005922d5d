"""The frame of every program file: two lines of text, a third line with a JSON header, and raw sections."""

import hashlib
import json
import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from base.errors import TspError

SUM_DIGITS = 64
Data = bytes | mmap.mmap


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file. magic: how its first line begins. version: how it ends."""

    magic: bytes
    version: int

    @property
    def first_line(self) -> bytes:
        return self.magic + b"%d" % self.version


def framed(kind: Kind, header: Mapping[str, Any], sections: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a file. The same contents give the same bytes.

    sections: integers; the header gets a list of their names, types and shapes.
    """
    table = [[name, array.dtype.str, list(array.shape)] for name, array in sections.items()]
    body = json.dumps({**header, "sections": table}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    body += b"".join(np.ascontiguousarray(array).tobytes() for array in sections.values())
    head = kind.first_line + b"\n"
    return head + second_line(len(head), body) + body


def second_line(before: int, body: bytes) -> bytes:
    """Size of the whole file and checksum of the body. The size counts its own digits."""
    rest = before + 1 + SUM_DIGITS + 1 + len(body)
    size = rest
    while size != rest + len(str(size)):
        size = rest + len(str(size))
    return b"%d %s\n" % (size, hashlib.sha256(body).hexdigest().encode())


def kind_of(data: Data, kinds: Sequence[Kind]) -> Kind:
    """The kind of a file by its first line. Raises TspError if it is none of these, or of another version."""
    first, newline, behind = _line(data, 0)
    kind = next((kind for kind in kinds if _begins(first, newline, kind)), None)
    if kind is None:
        raise TspError("not a Metronome program; compile a checkpoint with `tsp compile`")
    if not _line(data, behind)[1]:
        raise TspError(f"the program is cut short: its first lines have only {len(data)} bytes; copy it again")
    if first != kind.first_line:
        raise TspError(f"a program of version {first[len(kind.magic):][:16].decode('ascii', 'replace')!r}; this tsp "
                       f"reads version {kind.version}: compile it again")
    return kind


def _begins(first: bytes, newline: bool, kind: Kind) -> bool:
    """Whether a first line, perhaps cut short, is of a kind."""
    return first.startswith(kind.magic) if newline else bool(first) and kind.magic.startswith(first[: len(kind.magic)])


def opened(data: Data) -> tuple[dict[str, Any], memoryview]:
    """The JSON header and the sections after it. Raises TspError unless the frame and the checksum are right."""
    second, _, behind = _line(data, _line(data, 0)[2])
    size, _, digest = second.partition(b" ")
    if not size.isdigit() or size.startswith(b"0"):
        raise TspError("the program is altered: its size is not a number; copy or compile it again")
    if int(size) != len(data):
        fault = "cut short" if len(data) < int(size) else "too long"
        raise TspError(f"the program is {fault}: {int(size)} bytes expected, {len(data)} found; copy it again")
    body = memoryview(data)[behind:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise TspError("the program is altered: its checksum does not match; copy or compile it again")
    try:
        line, newline, behind = _line(data, behind)
        header = json.loads(line) if newline else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise TspError("the program's header must be a JSON object: compile it again")
    return header, memoryview(data)[behind:]


def _line(data: Data, start: int) -> tuple[bytes, bool, int]:
    """(a line without its newline, whether it has one, where the next line begins)."""
    end = data.find(b"\n", start)
    return data[start : end if end >= 0 else len(data)], end >= 0, end + 1


def read_sections(table: Iterable[list], rest: memoryview) -> dict[str, np.ndarray]:
    """The sections of a header's list by name: views of the file. Raises ValueError or TypeError on nonsense."""
    sections, at = {}, 0
    for name, dtype, shape in table:
        if not isinstance(name, str) or any(size < 0 for size in shape):
            raise ValueError(f"section {name!r} of shape {shape} cannot be")
        kind, count = np.dtype(dtype), math.prod(shape)
        if kind.hasobject or kind.kind not in "iu":
            raise ValueError(f"section {name} must hold integers, not {dtype}")
        sections[name] = np.frombuffer(rest, kind, count, at).reshape(shape)
        at += count * kind.itemsize
    if at != len(rest):
        raise ValueError(f"sections take {at} bytes of {len(rest)}")
    return sections
