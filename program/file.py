"""The program file: everything that a device needs to run a model, and everything that is known before it runs.

A file is two lines of text, a third line with a JSON header, and raw sections. `head -3` shows what a file is::

    metronome-program 5
    <bytes of the whole file> <sha256 of all that follows this line>
    {"config": .., "sections": [[name, dtype, shape], ..], ..}

The program of a rack begins with `metronome-rack 2`. What belongs to the model stands in it once. What belongs to
chip n is in entry n of the header's "chips", and in the sections "chip<n>/..".

Nothing in a file is executable. The same program always gives the same bytes.
"""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arch.config import CONFIGS, ChipConfig
from arch.identity import chip_digest, digest_of, isa_digest
from arch.rack import RackConfig
from arch.rack_file import rack_from_json
from base.errors import TspError
from base.files import write_whole

from . import check, sections
from .frame import Data, Kind, framed, kind_of, opened, read_sections
from .program import Program
from .rack import AnyProgram, RackProgram

CHIP = Kind(magic=b"metronome-program ", version=5)
RACK = Kind(magic=b"metronome-rack ", version=2)
KINDS = CHIP, RACK
SUFFIX = ".tsp"
_NONSENSE = (KeyError, TypeError, ValueError, OverflowError, ValidationError)


def is_program(path: str | Path) -> bool:
    """Whether a file is a program file, or its name says so."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            first = file.read(max(len(kind.magic) for kind in KINDS))
    except OSError:
        return path.suffix == SUFFIX
    return any(first.startswith(kind.magic) for kind in KINDS) or path.suffix == SUFFIX


def check_checkpoint(path: Path) -> None:
    """Raises TspError if the file is a program rather than a checkpoint."""
    if path.is_file() and is_program(path):
        raise TspError(f"{path} is a program, not a checkpoint: run it with `tsp run {path}`")


def to_bytes(program: AnyProgram) -> bytes:
    """The bytes of a program's file. The same program gives the same bytes."""
    if isinstance(program, RackProgram):
        return _rack_bytes(program)
    header = sections.header_of(program, sections.HEADER) | {
        "config": program.config.name, "digest": program.config.digest(), "isa": isa_digest()}
    own = sections.own_sections(program)
    channels = {name: own.pop(name) for name in list(own) if name.startswith("channels/")}
    return framed(CHIP, header, own | sections.common_sections(program) | channels)


def _rack_bytes(program: RackProgram) -> bytes:
    header = sections.header_of(program.chips[0], sections.COMMON_HEADER) | {
        "config": program.rack.name, "rack": program.rack.as_json(), "digest": program.rack.digest(),
        "isa": isa_digest(), "chips": [sections.header_of(chip, sections.OWN_HEADER) for chip in program.chips]}
    found = sections.common_sections(program.chips[0])
    for n, chip in enumerate(program.chips):
        found |= {f"chip{n}/{name}": data for name, data in sections.own_sections(chip).items()}
    return framed(RACK, header, found)


def save(program: AnyProgram, path: str | Path) -> None:
    """Write the program file, whole or not at all. Raises TspError."""
    write_whole({Path(path): to_bytes(program)})


def load(path: str | Path, config: ChipConfig | None = None) -> Program:
    """Read the program file of one chip.

    config: the chip that the program must be for. By default, it is the config that the file names.

    Raises TspError if the file is not a program, has another version, is truncated or altered, is for another chip, or
    is for a rack.
    """
    return of_one_chip(load_any(path, config), path)


def of_one_chip(program: AnyProgram, path: str | Path) -> Program:
    """The program of a file if it is for one chip. Raises TspError."""
    if isinstance(program, RackProgram):
        raise TspError(f"{path} is for rack {program.rack.name}, not for one chip: compile its checkpoint "
                       "without --rack")
    return program


def load_any(path: str | Path, config: ChipConfig | RackConfig | None = None) -> AnyProgram:
    """Read the program file of a chip or of a rack. Otherwise as `load`."""
    try:
        data = _mapped(Path(path))
    except OSError as error:
        raise TspError(f"{path}: cannot read the program: {error.strerror}") from error
    try:
        return any_from_bytes(data, config)
    except TspError as error:
        raise TspError(f"{path}: {error}") from None


def _mapped(path: Path) -> Data:
    """A file's contents, mapped to memory: only what is used is read."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def from_bytes(data: Data, config: ChipConfig | None = None) -> Program:
    """The program of `to_bytes`, for one chip. Raises TspError as `load` does. It is safe to run: see `check`."""
    program = any_from_bytes(data, config)
    if isinstance(program, RackProgram):
        raise TspError(f"the program is for rack {program.rack.name}, not for one chip")
    return program


def any_from_bytes(data: Data, config: ChipConfig | RackConfig | None = None) -> AnyProgram:
    """The program of `to_bytes`, for a chip or for a rack. Otherwise as `from_bytes`."""
    kind = kind_of(data, KINDS)
    header, rest = opened(data)
    try:
        program = (_rack_program if kind is RACK else _chip_program)(header, rest, config)
    except _NONSENSE as error:
        reason = str(error).splitlines()[0]
        raise TspError(f"the program's header contradicts its contents ({reason}): compile it again") from error
    check.check_any(program)
    return program


# --- one chip ------------------------------------------------------------------------------------------------------


def _chip_program(header: Mapping[str, Any], rest: memoryview, config: ChipConfig | RackConfig | None) -> Program:
    if isinstance(config, RackConfig):
        raise TspError(f"the program is for one chip, config {header['config']}, not for rack {config.name}: compile "
                       "its checkpoint with --rack")
    chip = _chip(header, config)
    found = read_sections(header["sections"], rest)
    return Program(config=chip, **sections.from_header(header, sections.HEADER), **sections.from_common(found),
                   **sections.from_own(found, chip))


def _chip(header: Mapping[str, Any], config: ChipConfig | None) -> ChipConfig:
    """The chip of a program. Raises TspError if `config` is another chip."""
    name, named = header["config"], CONFIGS.get(header["config"])
    chip = config or named
    if chip is None:
        raise TspError(f"the program is for config {name!r}, which is not one of {', '.join(CONFIGS)}")
    made_for = digest_of(header["digest"], header["isa"], named or chip)
    if chip.digest() != header["digest"]:
        raise TspError(f"the program is for config {name} ({made_for}), not for {chip.name} ({chip_digest(chip)}): "
                       "compile it again")
    if header["isa"] != isa_digest():
        raise TspError(f"the program is for config {name} with another instruction set ({made_for}, here "
                       f"{chip_digest(chip)}): compile it again")
    return chip


# --- a rack --------------------------------------------------------------------------------------------------------


def _rack_program(header: Mapping[str, Any], rest: memoryview, config: ChipConfig | RackConfig | None) -> RackProgram:
    rack = _rack(header, config)
    found = read_sections(header["sections"], rest)
    common = sections.from_header(header, sections.COMMON_HEADER) | sections.from_common(found)
    if len(header["chips"]) != len(rack.chips):
        raise ValueError(f"it has programs of {len(header['chips'])} chips, the rack {len(rack.chips)}")
    chips = tuple(Program(config=chip, **common, **sections.from_header(own, sections.OWN_HEADER),
                          **sections.from_own(sections.under(f"chip{n}/", found), chip))
                  for n, (chip, own) in enumerate(zip(rack.chips, header["chips"], strict=True)))
    return RackProgram(rack=rack, chips=chips)


def _rack(header: Mapping[str, Any], config: ChipConfig | RackConfig | None) -> RackConfig:
    """The rack of a program. Raises TspError if `config` is another machine."""
    name = header["config"]
    if isinstance(config, ChipConfig):
        raise TspError(f"the program is for rack {name}, not for one chip {config.name}: compile its checkpoint again")
    rack = config or rack_from_json(str(name), header["rack"])
    if header["isa"] != isa_digest():
        raise TspError(f"the program is for rack {name} with another instruction set: compile it again")
    if rack.digest() != header["digest"]:
        raise TspError(f"the program is for rack {name} ({header['digest']}), not for {rack.name} ({rack.digest()}): "
                       "compile it again")
    return rack
