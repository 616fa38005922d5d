"""The fields of a program as what a file holds: entries of the JSON header, and sections of integers."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
from pydantic import TypeAdapter

from arch import isa, row
from arch.config import PLANES, ChipConfig

from .program import Program
from .rack import COMMON

_SECTIONED = ("queues", "image", "schedule", "tokenizer", "arrays", "channels")
HEADER = tuple(f.name for f in fields(Program) if f.name not in ("config", *_SECTIONED))
"""Fields in the header."""
COMMON_HEADER = tuple(name for name in HEADER if name in COMMON)
OWN_HEADER = tuple(name for name in HEADER if name not in COMMON)
"""The same by whether all chips of a rack have one value together, or each its own."""
OPTIONAL = {"sequences": 1}
"""Fields that a file holds only if they have another value than this."""
_ADAPTERS: dict[str, TypeAdapter] = {
    name: TypeAdapter(kind) for name, kind in get_type_hints(Program).items() if name in HEADER
}


def header_of(program: Program, names: Iterable[str]) -> dict[str, Any]:
    """Fields as JSON."""
    values = {name: getattr(program, name) for name in names}
    return {name: _ADAPTERS[name].dump_python(value, mode="json", by_alias=True) for name, value in values.items()
            if name not in OPTIONAL or value != OPTIONAL[name]}


def from_header(header: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Fields of `header_of`. Raises KeyError or ValidationError."""
    return {name: _ADAPTERS[name].validate_python(header[name]) for name in names
            if name in header or name not in OPTIONAL}


def common_sections(program: Program) -> dict[str, np.ndarray]:
    """Sections of what belongs to the model, by name."""
    return {"tokenizer": np.frombuffer(program.tokenizer, np.uint8),
            **{f"model/{name}": data for name, data in sorted(program.arrays.items())}}


def from_common(sections: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `common_sections`. Raises KeyError."""
    return {"tokenizer": sections["tokenizer"].tobytes(), "arrays": under("model/", sections)}


def own_sections(program: Program) -> dict[str, np.ndarray]:
    """Sections of what belongs to the chip, by name."""
    found = {}
    for queue in row.queues(program.config):
        size, words = _word_bytes(queue), program.queues[queue.name]
        raw = b"".join(word.to_bytes(size, "little") for word in words)
        found[f"queue/{queue.name}"] = np.frombuffer(raw, np.uint8).reshape(len(words), size)
    found |= {f"image/{name}": data for name, data in sorted(program.image.items())}
    found["schedule"] = program.schedule
    return found | {f"channels/{name}": data for name, data in sorted(program.channels.items())}


def from_own(sections: Mapping[str, np.ndarray], config: ChipConfig) -> dict[str, Any]:
    """Fields of `own_sections`. Raises KeyError or ValueError."""
    queues = {}
    for queue in row.queues(config):
        words = sections[f"queue/{queue.name}"]
        raw, size = words.tobytes(), _word_bytes(queue)
        if words.dtype != np.uint8 or words.shape[1:] != (size,):
            raise ValueError(f"queue {queue.name} must be uint8 [n, {size}], not {words.dtype} {words.shape}")
        queues[queue.name] = tuple(int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size))
    image = under("image/", sections)
    for name, data in image.items():
        if data.dtype != np.uint8 or data.shape[1:] != (PLANES, config.lanes):
            raise ValueError(f"image of {name} must be uint8 [n, {PLANES}, {config.lanes}], "
                             f"not {data.dtype} {data.shape}")
    return {"queues": queues, "image": image, "schedule": sections["schedule"],
            "channels": under("channels/", sections)}


def under(folder: str, sections: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sections whose names begin with `folder`, by the rest of their names."""
    return {name[len(folder) :]: data for name, data in sections.items() if name.startswith(folder)}


def _word_bytes(queue: row.Queue) -> int:
    return -(-isa.width(queue.unit) // 8)
