"""A chip's identity: one digest, which chip and board report, so that neither accepts a program for another chip.

The digest covers the config and the instruction set. It does not cover how a unit is implemented.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from typing import Any

from . import host_map, isa, tables
from .config import ChipConfig


def chip_digest(config: ChipConfig) -> str:
    """Hex digest (64 bits) of everything that a program depends on. Messages call it the config's digest."""
    return digest_of(config.digest(), isa_digest(), config)


def digest_of(config: str, isa: str, chip: ChipConfig) -> str:
    """`chip_digest` from the two digests that a program file holds.

    config, isa: digests of the config and of the instruction set.
    chip: says which parts of the instruction set the chip has besides those of all chips.
    """
    more = [link_digest()] * any(chip.ports) + [drain_max_digest()] * chip.drain_max
    return hashlib.sha256(" ".join([config, isa, *more]).encode()).hexdigest()[:16]


@cache
def link_digest() -> str:
    """Hex digest of what only chips with links have. A change to it leaves the identity of other chips as it is."""
    return _digest({name: value for name, value in vars(isa).items() if _of_links(name)},
                   [op for op in isa.FIELDS if isinstance(op, isa.LinkOp)], ())


@cache
def drain_max_digest() -> str:
    """Hex digest of what only chips with `drain_max` have."""
    names = {name: value for name, value in vars(isa).items() if _of_drain_max(name)}
    return _digest({**names, "BITS": isa.FIELDS[isa.Op.DRAIN]["max"].bits}, (), ())


@cache
def isa_digest() -> str:
    """Hex digest of every opcode, field, latency and table that a program relies on."""
    names = vars(isa) | {name: getattr(host_map, name) for name in host_map.ISA}
    return _digest({name: value for name, value in names.items() if not _of_links(name) and not _of_drain_max(name)},
                   [op for op in isa.FIELDS if not isinstance(op, isa.LinkOp)], tables.rom())


def _of_links(name: str) -> bool:
    return name == "LinkOp" or name.startswith("C2C_")


def _of_drain_max(name: str) -> bool:
    return name in ("DrainMax", "MXM_MAX")


def _digest(names: Mapping[str, Any], ops: Iterable[isa.AnyOp], rows: Iterable[Iterable[int]]) -> str:
    numbers = {name: value for name, value in names.items() if name.isupper() and isinstance(value, int)}
    enums = {name: {member.name: member.value for member in kind} for name, kind in names.items()
             if isinstance(kind, type) and issubclass(kind, Enum)}
    layouts = {op.name: [[name, spec.bits, spec.signed] for name, spec in spec_fields.items() if not spec.needs]
               for op, spec_fields in ((op, isa.FIELDS[op]) for op in ops)}
    text = json.dumps([numbers, enums, layouts, [[int(x) for x in row] for row in rows]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
