"""The program file: everything that a device needs to run a model, and everything that is known before it runs.

A file is two lines of text, a third line with a JSON header, and raw sections. `head -3` shows what a file is::

    metronome-program 4
    <bytes of the whole file> <sha256 of all that follows this line>
    {"config": .., "sections": [[name, dtype, shape], ..], ..}

Nothing in it is executable. The same program always gives the same bytes.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from arch import isa, row
from arch.config import CONFIGS, PLANES, ChipConfig
from arch.identity import chip_digest, digest_of, isa_digest
from base.errors import TspError
from base.files import write_whole

from . import check
from .program import Program

MAGIC = b"metronome-program "
VERSION = 4
SUFFIX = ".tsp"
SUM_DIGITS = 64
_SECTIONED = ("queues", "image", "schedule", "tokenizer", "arrays", "channels")
_HEADER = tuple(f.name for f in fields(Program) if f.name not in ("config", *_SECTIONED))


def is_program(path: str | Path) -> bool:
    """Whether a file is a program file, or its name says so."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix == SUFFIX
    except OSError:
        return path.suffix == SUFFIX


def check_checkpoint(path: Path) -> None:
    """Raises TspError if the file is a program rather than a checkpoint."""
    if path.is_file() and is_program(path):
        raise TspError(f"{path} is a program, not a checkpoint: run it with `tsp run {path}`")


def to_bytes(program: Program) -> bytes:
    """The bytes of a program's file. The same program gives the same bytes."""
    sections = _sections(program)
    plain = {name: _ADAPTERS[name].dump_python(getattr(program, name), mode="json", by_alias=True) for name in _HEADER}
    header = plain | {
        "config": program.config.name, "digest": program.config.digest(), "isa": isa_digest(),
        "sections": [[name, array.dtype.str, list(array.shape)] for name, array in sections.items()],
    }
    body = json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    body += b"".join(array.tobytes() for array in sections.values())
    head = MAGIC + b"%d\n" % VERSION
    return head + _second_line(len(head), body) + body


def save(program: Program, path: str | Path) -> None:
    """Write the program file, whole or not at all. Raises TspError."""
    write_whole({Path(path): to_bytes(program)})


def load(path: str | Path, config: ChipConfig | None = None) -> Program:
    """Read a program file.

    config: the chip that the program must be for. By default, it is the config that the file names.

    Raises TspError if the file is not a program, has another version, is truncated or altered, or is for another chip.
    """
    try:
        data = _mapped(Path(path))
    except OSError as error:
        raise TspError(f"{path}: cannot read the program: {error.strerror}") from error
    try:
        return from_bytes(data, config)
    except TspError as error:
        raise TspError(f"{path}: {error}") from None


def _mapped(path: Path) -> bytes | mmap.mmap:
    """A file's contents, mapped to memory: only what is used is read."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def from_bytes(data: bytes | mmap.mmap, config: ChipConfig | None = None) -> Program:
    """The program of `to_bytes`. Raises TspError as `load` does. The result is safe to run: see `program.check`."""
    header, rest = _checked(data)
    try:
        chip = _chip(header, config)
        sections = _read_sections(header["sections"], rest)
        values = {name: _ADAPTERS[name].validate_python(header[name]) for name in _HEADER}
        program = Program(config=chip, **values, **_from_sections(sections, chip))
    except (KeyError, TypeError, ValueError, OverflowError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise TspError(f"the program's header contradicts its contents ({reason}): compile it again") from error
    check.check(program)
    return program


# --- frame ---------------------------------------------------------------------------------------------------------


def _second_line(before: int, body: bytes) -> bytes:
    """Size of the whole file and checksum of the body. The size counts its own digits."""
    rest = before + 1 + SUM_DIGITS + 1 + len(body)
    size = rest
    while size != rest + len(str(size)):
        size = rest + len(str(size))
    return b"%d %s\n" % (size, hashlib.sha256(body).hexdigest().encode())


def _checked(data: bytes | mmap.mmap) -> tuple[dict[str, Any], memoryview]:
    """The JSON header and the sections after it. Raises TspError unless the frame and the checksum are right."""
    first, newline, behind = _line(data, 0)
    known = first.startswith(MAGIC) if newline else bool(first) and MAGIC.startswith(first[: len(MAGIC)])
    if not known:
        raise TspError("not a Metronome program; compile a checkpoint with `tsp compile`")
    second, newline, behind = _line(data, behind)
    if not newline:
        raise TspError(f"the program is cut short: its first lines have only {len(data)} bytes; copy it again")
    if first != MAGIC + b"%d" % VERSION:
        raise TspError(f"a program of version {first[len(MAGIC):][:16].decode('ascii', 'replace')!r}; this tsp reads "
                       f"version {VERSION}: compile it again")
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


def _line(data: bytes | mmap.mmap, start: int) -> tuple[bytes, bool, int]:
    """(a line without its newline, whether it has one, where the next line begins)."""
    end = data.find(b"\n", start)
    return data[start : end if end >= 0 else len(data)], end >= 0, end + 1


def _chip(header: Mapping[str, Any], config: ChipConfig | None) -> ChipConfig:
    """The chip of a program. Raises TspError if `config` is another chip."""
    name, named = header["config"], CONFIGS.get(header["config"])
    chip = config or named
    if chip is None:
        raise TspError(f"the program is for config {name!r}, which is not one of {', '.join(CONFIGS)}")
    made_for = digest_of(header["digest"], header["isa"], any((named or chip).ports))
    if chip.digest() != header["digest"]:
        raise TspError(f"the program is for config {name} ({made_for}), not for {chip.name} ({chip_digest(chip)}): "
                       "compile it again")
    if header["isa"] != isa_digest():
        raise TspError(f"the program is for config {name} with another instruction set ({made_for}, here "
                       f"{chip_digest(chip)}): compile it again")
    return chip


# --- sections ------------------------------------------------------------------------------------------------------


def _word_bytes(queue: row.Queue) -> int:
    return -(-isa.width(queue.unit) // 8)


def _sections(program: Program) -> dict[str, np.ndarray]:
    """The sections by name: everything that is not in the header."""
    found = {}
    for queue in row.queues(program.config):
        size, words = _word_bytes(queue), program.queues[queue.name]
        raw = b"".join(word.to_bytes(size, "little") for word in words)
        found[f"queue/{queue.name}"] = np.frombuffer(raw, np.uint8).reshape(len(words), size)
    found |= {f"image/{name}": data for name, data in sorted(program.image.items())}
    found["schedule"] = program.schedule
    found["tokenizer"] = np.frombuffer(program.tokenizer, np.uint8)
    found |= {f"model/{name}": data for name, data in sorted(program.arrays.items())}
    found |= {f"channels/{name}": data for name, data in sorted(program.channels.items())}
    return {name: np.ascontiguousarray(data) for name, data in found.items()}


def _read_sections(table: Iterable[list], rest: memoryview) -> dict[str, np.ndarray]:
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


def _from_sections(sections: Mapping[str, np.ndarray], config: ChipConfig) -> dict[str, Any]:
    def under(folder: str) -> dict[str, np.ndarray]:
        return {name[len(folder) :]: data for name, data in sections.items() if name.startswith(folder)}

    queues = {}
    for queue in row.queues(config):
        words = sections[f"queue/{queue.name}"]
        raw, size = words.tobytes(), _word_bytes(queue)
        if words.dtype != np.uint8 or words.shape[1:] != (size,):
            raise ValueError(f"queue {queue.name} must be uint8 [n, {size}], not {words.dtype} {words.shape}")
        queues[queue.name] = tuple(int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size))
    image = under("image/")
    for name, data in image.items():
        if data.dtype != np.uint8 or data.shape[1:] != (PLANES, config.lanes):
            raise ValueError(f"image of {name} must be uint8 [n, {PLANES}, {config.lanes}], "
                             f"not {data.dtype} {data.shape}")
    return {"queues": queues, "image": image, "schedule": sections["schedule"],
            "tokenizer": sections["tokenizer"].tobytes(), "arrays": under("model/"),
            "channels": under("channels/")}


_ADAPTERS: dict[str, TypeAdapter] = {
    name: TypeAdapter(kind) for name, kind in get_type_hints(Program).items() if name in _HEADER
}
