"""Racks by name: the named ones, and those of files. A file may hold nothing that is not known: a misspelt field would
be a rack of another kind without a word."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from base.errors import TspError
from base.inputs import read_json

from .config import CONFIGS, ChipConfig
from .rack import RACKS, Link, Oscillators, Port, RackConfig, linked

Two = Field(min_length=2, max_length=2)


class _Exact(BaseModel):
    """These fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Chip(_Exact):
    config: str
    ports: Annotated[list[int], Two]
    slot: int


class _Link(_Exact):
    ports: Annotated[list[str], Two]
    latency: int


class _Oscillators(_Exact):
    ppm: float
    slack: int


class _Rack(_Exact):
    chips: list[_Chip]
    links: list[_Link]
    oscillators: _Oscillators | None = None


def rack_of(name: str) -> RackConfig:
    """A named rack, or that of a file `NAME.json`. Raises TspError."""
    if name in RACKS:
        return RACKS[name]
    path = Path(name)
    if path.suffix != ".json":
        raise TspError(f"a rack must be {', '.join(RACKS)} or a file NAME.json, not {name!r}")
    return rack_from_json(path.stem, read_json(path))


def rack_from_json(name: str, found: Any) -> RackConfig:
    """The rack of `RackConfig.as_json`. Raises TspError if it is none.

    {"chips": [{"config": "ulx3s", "ports": [0, 1], "slot": 2}, ..], "links": [{"ports": ["0.E0", "1.E0"],
    "latency": 11}, ..]}; where each chip has its own clock, also "oscillators": {"ppm": 100, "slack": 3}.
    """
    try:
        rack = _Rack.model_validate(found)
        own = rack.oscillators
        return RackConfig(
            name=name, chips=tuple(_chip(chip) for chip in rack.chips), links=tuple(_link(link) for link in rack.links),
            oscillators=own and Oscillators(ppm=own.ppm, slack=own.slack))
    except ValidationError as error:
        raise TspError(f"rack {name}: {_reason(error)}") from None
    except ValueError as error:
        raise TspError(f"rack {name}: {error}") from None


def _chip(chip: _Chip) -> ChipConfig:
    """A chip of a file. Raises ValueError."""
    if chip.config not in CONFIGS:
        raise ValueError(f"config must be one of {', '.join(CONFIGS)}, not {chip.config!r}")
    west, east = chip.ports
    return linked(chip.config, (west, east), chip.slot)


def _link(link: _Link) -> Link:
    """A link of a file. Raises ValueError."""
    try:
        one, other = map(Port.parse, link.ports)
    except TspError as error:
        raise ValueError(error) from None
    return Link(ports=(one, other), latency=link.latency)


def _reason(error: ValidationError) -> str:
    """What is wrong first, and where."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "it"
    if first["type"] == "model_type":
        return f"{where} must be a JSON object, not {first['input']!r:.40}"
    if first["type"] == "extra_forbidden":
        return f"{where} is not a field that racks have: chips, links, oscillators (docs/reference/links.md)"
    if first["type"] == "missing":
        return f"{where} must be given"
    if first["type"] in ("too_short", "too_long"):
        return f"{where} must be two, not {first['input']!r:.40}"
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}, not {first['input']!r:.40}"
