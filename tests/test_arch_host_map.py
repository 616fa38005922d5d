"""Addresses of the host port: what packs them unpacks them, and nothing overlaps."""

import re

import numpy as np
import pytest

from arch.config import CONFIGS
from arch.host_map import (
    FIELDS,
    PARTS,
    WORD,
    Control,
    Space,
    address,
    bucket_of,
    bucket_word,
    c_defines,
    fields_of,
    lanes_of,
    map_word,
)
from arch.isa import HOST_READ, PC_BITS
from arch.row import queue_depth, queues, slice_depths

EXAMPLES = [
    (Space.MEM, {"slice": 3, "quad": 17, "plane": 2}, 3 << 22 | 17 << 2 | 2),
    (Space.ICU, {"queue": 5, "number": 77, "instruction": 300, "part": 1}, 5 << 26 | 77 << 14 | 300 << 2 | 1),
    (Space.START, {"queue": 7, "bucket": 3}, 7 << 8 | 3),
    (Space.CONTROL, {"register": Control.ERRORS.value}, 4),
]
"""Space, fields, and the address as docs/reference/isa.md has it."""


@pytest.mark.parametrize(("space", "fields", "addr"), EXAMPLES)
def test_fields_make_an_address_and_come_back(space: Space, fields: dict[str, int], addr: int):
    assert address(space, **fields) == addr
    assert fields_of(space, addr) == fields


@pytest.mark.parametrize("space", Space, ids=lambda space: space.name)
def test_an_address_has_32_bits_and_each_belongs_to_one_field(space: Space):
    masks = [address(space, **{name: (1 << bits) - 1}) for name, bits in FIELDS[space].items()]
    assert sum(FIELDS[space].values()) == 32
    assert sum(masks) == (1 << 32) - 1


@pytest.mark.parametrize("config", CONFIGS.values(), ids=lambda config: config.name)
def test_every_named_chip_has_room_in_the_fields(config):
    bits = {**FIELDS[Space.ICU], **FIELDS[Space.MEM]}
    assert len(queues(config)) <= 1 << bits["queue"] and len(slice_depths(config)) <= 1 << bits["slice"]
    assert max(slice_depths(config).values()) <= 1 << bits["quad"]
    assert max(queue_depth(config, queue) for queue in queues(config)) <= 1 << bits["instruction"] == 1 << PC_BITS
    assert 1 << bits["part"] >= PARTS and config.buckets <= 1 << FIELDS[Space.START]["bucket"]


def test_arrays_of_addresses():
    quads = np.arange(5, dtype=np.uint32)
    addrs = address(Space.MEM, slice=2, quad=quads, plane=1)
    assert addrs.tolist() == [2 << 22 | quad << 2 | 1 for quad in range(5)]
    assert fields_of(Space.MEM, addrs)["quad"].tolist() == quads.tolist()


def test_words_of_tables():
    assert bucket_word(99, 5) == 5 << 32 | 99 and bucket_of(5 << 32 | 99) == (99, 5)
    lanes = [3, 2, 1, 0, 15]
    assert map_word(lanes) == 0xF0123 and lanes_of(0xF0123, 5) == lanes
    assert bucket_word((1 << 32) - 1, (1 << 32) - 1) < 1 << WORD


def test_cpp_has_the_same_numbers():
    found = dict(re.findall(r"#define (\w+) (\d+)", c_defines()))
    assert found == {"HOST_READ": str(HOST_READ)} | {f"SPACE_{s.name}": str(s.value) for s in Space} | {
        f"CONTROL_{c.name}": str(c.value) for c in Control}
