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
    return digest_of(config.digest(), isa_digest(), any(config.ports))


def digest_of(config: str, isa: str, links: bool = False) -> str:
    """`chip_digest` from the two digests that a program file holds.

    config, isa: digests of the config and of the instruction set.
    links: whether the chip has links.
    """
    return hashlib.sha256((f"{config} {isa}" + (f" {link_digest()}" if links else "")).encode()).hexdigest()[:16]


@cache
def link_digest() -> str:
    """Hex digest of what only chips with links have. A change to it leaves the identity of other chips as it is."""
    return _digest({name: value for name, value in vars(isa).items() if _of_links(name)},
                   [op for op in isa.FIELDS if isinstance(op, isa.LinkOp)], ())


@cache
def isa_digest() -> str:
    """Hex digest of every opcode, field, latency and table that a program relies on."""
    names = vars(isa) | {name: getattr(host_map, name) for name in host_map.ISA}
    return _digest({name: value for name, value in names.items() if not _of_links(name)},
                   [op for op in isa.FIELDS if not isinstance(op, isa.LinkOp)], tables.rom())


def _of_links(name: str) -> bool:
    return name == "LinkOp" or name.startswith("C2C_")


def _digest(names: Mapping[str, Any], ops: Iterable[isa.AnyOp], rows: Iterable[Iterable[int]]) -> str:
    numbers = {name: value for name, value in names.items() if name.isupper() and isinstance(value, int)}
    enums = {name: {member.name: member.value for member in kind} for name, kind in names.items()
             if isinstance(kind, type) and issubclass(kind, Enum)}
    layouts = {op.name: [[name, spec.bits, spec.signed] for name, spec in spec_fields.items()]
               for op, spec_fields in ((op, isa.FIELDS[op]) for op in ops)}
    text = json.dumps([numbers, enums, layouts, [[int(x) for x in row] for row in rows]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
