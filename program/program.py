"""The program file: everything that a device needs to tell stories, and everything that is known beforehand.

A file is two lines of text, a JSON header in the third, and raw sections behind it; `head -3` shows what it is::

    metronome-program 2
    <bytes of the whole file> <sha256 of all that follows this line>
    {"config": .., "sections": [[name, dtype, shape], ..], ..}

Nothing in it is executable, and the same program is always the same bytes.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from arch import isa, row
from arch.config import CONFIGS, PLANES, ChipConfig
from arch.identity import chip_digest, digest_of, isa_digest
from base.errors import TspError
from base.files import write_whole

from . import check
from .quality import Quality, Trial
from .shape import ModelConfig

MAGIC = b"metronome-program "
VERSION = 3
SUFFIX = ".tsp"
SUM_DIGITS = 64
DEFAULT_CLOCK_MHZ = 50.0
"""The clock of tokens/s where none is named: that of the bitstreams for the ULX3S."""


@dataclass(frozen=True)
class Segment:
    """A straight piece of a token's program, issued `passes` times.

    start: cycle of its first pass, counted from the token's start pulse. length: cycles of one pass. weight_bytes: what
    the matrix units consume in all passes.
    """

    name: str
    start: int
    length: int
    passes: int
    weight_bytes: int


@dataclass(frozen=True)
class Bucket:
    """The program of tokens at positions below `limit` (and not below the bucket before).

    period: cycles from a token's start pulse to the next one. chunks: vectors of positions that attention covers.
    """

    limit: int
    period: int
    chunks: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Symbol:
    """Where a tensor lies: slice ("E0"), first quad, quads (a layer), and quads from layer to layer (0: global)."""

    slice: str
    addr: int
    quads: int
    stride: int


class Event(NamedTuple):
    """One burst of a token's program; cycles count from the start pulse, in the first pass of its segment."""

    label: str
    queue: str
    engine: str
    op: str
    segment: str
    first: int
    last: int


EVENT_COLUMNS = ("bucket", *Event._fields)
"""Columns of `Program.schedule`: the bucket, then an event's fields, texts as indices into `Program.texts`."""


def bytes_read(model: ModelConfig, position: float, four_bit: Collection[str] = ()) -> float:
    """Bytes that the token at `position` must read: every weight matrix once, and its keys and values.

    The least possible: no padding, no second pass where heads share keys, of the embedding one row. four_bit: names of
    matrices held in half a byte an element.
    """
    shapes = {name: shape for name, shape in model.shapes().items() if len(shape) == 3 or name == "classifier"}
    weights = sum(math.prod(shape) / (2 if name in four_bit else 1) for name, shape in shapes.items())
    return weights + model.dim + 2 * model.n_layers * model.n_kv_heads * model.head_dim * (position + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A compiled model.

    config: the chip it runs on, and no other. model, context: the checkpoint's sizes; positions served. four_bit: names
    of matrices streamed as int4. starts: PC of every queue in every bucket. maps: lane permutations by number.
    symbols: tensors that the host touches, and all others. texts, schedule: int32 [events, EVENT_COLUMNS], see
    `events`. trials: how static and dynamic scales were chosen, if they were. queues: instruction words by queue name.
    image: uint8 [quad, plane, lane] by slice name. tokenizer: `Tokenizer.to_bytes`. arrays: `integer.to_arrays` of the
    integer model, for the reference device.
    """

    config: ChipConfig
    model: ModelConfig
    context: int
    four_bit: tuple[str, ...]
    buckets: tuple[Bucket, ...]
    starts: dict[str, tuple[int, ...]]
    maps: dict[int, tuple[int, ...]]
    symbols: dict[str, Symbol]
    texts: tuple[str, ...]
    trials: tuple[Trial, ...] = ()
    quality: Quality | None = None
    queues: dict[str, tuple[int, ...]] = field(repr=False)
    image: dict[str, np.ndarray] = field(repr=False)
    schedule: np.ndarray = field(repr=False)
    tokenizer: bytes = field(repr=False)
    arrays: dict[str, np.ndarray] = field(repr=False)

    # -- what is known before anything runs --

    def bucket(self, position: int) -> Bucket:
        """The bucket that serves a position. Raises TspError beyond the context."""
        if not 0 <= position < self.context:
            raise TspError(f"position must be in 0..{self.context - 1} (the program's context), not {position}")
        return next(bucket for bucket in self.buckets if position < bucket.limit)

    def cycles(self, position: int) -> int:
        """Cycles that the token at `position` takes: a promise, not an estimate."""
        return self.bucket(position).period

    def positions(self, bucket: Bucket) -> range:
        """Positions that a bucket serves, within the context."""
        before = max((other.limit for other in self.buckets if other.limit < bucket.limit), default=0)
        return range(before, min(bucket.limit, self.context))

    @property
    def mean_cycles(self) -> float:
        """Mean over all positions of the context."""
        return sum(b.period * len(self.positions(b)) for b in self.buckets) / self.context

    def bytes_read(self, position: float) -> float:
        """Bytes that the token at `position` must read."""
        return bytes_read(self.model, position, self.four_bit)

    def roofline_fraction(self, position: int | None = None) -> float:
        """Bytes that a token must read / (weight bytes the matrix units take a cycle * cycles); by default the mean."""
        if position is not None:
            return self.bytes_read(position) / (self.config.macs * self.cycles(position))
        return self.bytes_read((self.context - 1) / 2) / (self.config.macs * self.mean_cycles)

    def tokens_per_second(self, clock_mhz: float, cycles: float | None = None) -> float:
        """At a clock, of a token of `cycles` cycles; by default of the mean."""
        return clock_mhz * 1e6 / (self.mean_cycles if cycles is None else cycles)

    def sram_use(self) -> dict[str, tuple[int, int]]:
        """(quads used, quads there are) by slice."""
        depths = row.slice_depths(self.config)
        return {name: (len(data), depths[name]) for name, data in self.image.items()}

    def queue_use(self) -> dict[str, tuple[int, int]]:
        """(instructions used, instructions there is room for) by queue."""
        return {queue.name: (len(self.queues[queue.name]), row.queue_depth(self.config, queue))
                for queue in row.queues(self.config)}

    def events(self, bucket: int) -> list[Event]:
        """All bursts of a bucket, by number, in the order in which they begin."""
        rows = self.schedule[self.schedule[:, 0] == bucket, 1:].tolist()
        return [Event(*(self.texts[n] for n in row[:5]), *row[5:]) for row in rows]

    # -- file --

    def to_bytes(self) -> bytes:
        """The program file."""
        sections = _sections(self)
        header = {name: _ADAPTERS[name].dump_python(getattr(self, name), mode="json") for name in _HEADER} | {
            "config": self.config.name, "digest": self.config.digest(), "isa": isa_digest(),
            "sections": [[name, array.dtype.str, list(array.shape)] for name, array in sections.items()],
        }
        body = json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        body += b"".join(array.tobytes() for array in sections.values())
        head = MAGIC + b"%d\n" % VERSION
        return head + _second_line(len(head), body) + body

    def save(self, path: str | Path) -> None:
        """Write the program file, whole or not at all. Raises TspError."""
        write_whole({Path(path): self.to_bytes()})


_SECTIONED = ("queues", "image", "schedule", "tokenizer", "arrays")
_HEADER = tuple(f.name for f in fields(Program) if f.name not in ("config", *_SECTIONED))


def is_program(path: str | Path) -> bool:
    """Whether a file is (or claims by its name to be) a program file."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix == SUFFIX
    except OSError:
        return path.suffix == SUFFIX


def check_checkpoint(path: Path) -> None:
    """Raises TspError if this is a program, and no checkpoint."""
    if path.is_file() and is_program(path):
        raise TspError(f"{path} is a program already, and no checkpoint: run it with `tsp run {path}`")


def load(path: str | Path, config: ChipConfig | None = None) -> Program:
    """Read a program file. Raises TspError if it is none, of another version, cut short, altered, or for another chip.

    config: the chip that it must be for; by default the named config that the file names.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TspError(f"{path}: cannot read the program: {error.strerror}") from error
    try:
        return from_bytes(data, config)
    except TspError as error:
        raise TspError(f"{path}: {error}") from None


def from_bytes(data: bytes, config: ChipConfig | None = None) -> Program:
    """The program of `to_bytes`; raises TspError as `load`. What it returns is safe to run: see `contents`."""
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


def _checked(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The JSON header, and what lies behind it; the frame and the checksum are right."""
    first, newline, behind = data.partition(b"\n")
    known = first.startswith(MAGIC) if newline else bool(first) and MAGIC.startswith(first[: len(MAGIC)])
    if not known:
        raise TspError("not a Metronome program; compile a checkpoint with `tsp compile`")
    second, newline, body = behind.partition(b"\n")
    if not newline:
        raise TspError(f"the program is cut short: only {len(data)} bytes of its first lines are there")
    if first != MAGIC + b"%d" % VERSION:
        raise TspError(f"a program of version {first[len(MAGIC):][:16].decode('ascii', 'replace')!r}; this tsp reads "
                       f"version {VERSION}: compile it again")
    size, _, digest = second.partition(b" ")
    if not size.isdigit() or size.startswith(b"0"):
        raise TspError("the program is altered: its size is no number; copy or compile it again")
    if int(size) != len(data):
        fault = "cut short" if len(data) < int(size) else "too long"
        raise TspError(f"the program is {fault}: {int(size)} bytes expected, {len(data)} found; copy it again")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise TspError("the program is altered: its checksum does not match; copy or compile it again")
    try:
        end = body.index(b"\n")
        header = json.loads(body[:end])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise TspError("the program's header is no JSON object: compile it again")
    return header, memoryview(body)[end + 1 :]


def _chip(header: Mapping[str, Any], config: ChipConfig | None) -> ChipConfig:
    """The chip of a program; raises TspError if this is another one."""
    name, made_for = header["config"], digest_of(header["digest"], header["isa"])
    chip = config or CONFIGS.get(name)
    if chip is None:
        raise TspError(f"the program is for config {name!r}, which is not one of {', '.join(CONFIGS)}")
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
    """All that is no text, by name."""
    found = {}
    for queue in row.queues(program.config):
        size, words = _word_bytes(queue), program.queues[queue.name]
        raw = b"".join(word.to_bytes(size, "little") for word in words)
        found[f"queue/{queue.name}"] = np.frombuffer(raw, np.uint8).reshape(len(words), size)
    found |= {f"image/{name}": data for name, data in sorted(program.image.items())}
    found["schedule"] = program.schedule
    found["tokenizer"] = np.frombuffer(program.tokenizer, np.uint8)
    found |= {f"model/{name}": data for name, data in sorted(program.arrays.items())}
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
            "tokenizer": sections["tokenizer"].tobytes(), "arrays": under("model/")}


_ADAPTERS: dict[str, TypeAdapter] = {
    name: TypeAdapter(kind) for name, kind in get_type_hints(Program).items() if name in _HEADER
}
