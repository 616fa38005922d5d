"""How queues store words: numbers, limits, and the bits that are kept."""

from dataclasses import replace

import pytest

from arch import isa, row
from arch.config import CONFIGS
from arch.isa import Instr, Op
from arch.queue_store import SHALLOW, Numbers, distinct, overflow, store_of

WIDE = CONFIGS["wide"]
QUEUES = {queue.name: queue for queue in row.queues(WIDE)}


def read(delay=1, **fields):
    return isa.encode(Instr(Op.READ, delay, fields))


def test_equal_words_share_a_number_whatever_their_delays():
    number = Numbers(WIDE, QUEUES["MEM_E0"])
    words = [0, read(2, addr=5), read(9, addr=5), read(2, addr=6), read(2, addr=8 + 5)]
    assert [number(word) for word in words] == [0, 1, 1, 2, 1 << 6 | 1]
    assert [distinct(part, words) for part in store_of(WIDE, QUEUES["MEM_E0"]).parts] == [2, 1]
    number = Numbers(WIDE, QUEUES["SXM_E"])
    assert [number(isa.encode(Instr(Op.SHIFT, delay, {"lane": lane}))) for delay, lane in ((1, 3), (2, 3), (1, 4))] == [
        1, 1, 2]


def test_what_does_not_fit_is_named():
    number = Numbers(WIDE, QUEUES["MEM_E1"])
    for count in range(1, 32):
        number(read(count=count))
    with pytest.raises(ValueError, match=r"queue MEM_E1 of config wide holds at most 31 distinct values of bits 0\."):
        number(read(count=32))
    with pytest.raises(ValueError, match="queue VXM of config wide takes delays up to 511, not 512"):
        Numbers(WIDE, QUEUES["VXM"])(isa.encode(Instr(Op.NOP, 512)))
    assert overflow(WIDE, {"MEM_E1": [read(addr=8 * n) for n in range(49)]}) == (
        "queue MEM_E1 needs 48 distinct values of bits 39..76, config wide has 47")
    assert overflow(WIDE, {"MEM_E1": [read()] * 1025}).startswith("queue MEM_E1 needs 1025 instructions")
    assert overflow(WIDE, {"MEM_E1": [read()] * 1024}) == ""


def test_kept_bits_hold_every_legal_word():
    """A word whose fields are as large as the config allows loses nothing but its delay."""
    for name, word in (
        ("MEM_E1", read(addr=2559, stride=-1, rel=3, index=7, dir=isa.Dir.W, weights=1, planes=15, count=4095,
                        interval=255)),
        ("MEM_E0", read(addr=511, weights=1)),
        ("SXM_E", isa.encode(Instr(Op.SHIFT, 1, {"lane": 15, "lane_inc": 15, "distribute": 1}))),
    ):
        parts = [part.of(word) for part in store_of(WIDE, QUEUES[name]).parts]
        assert sum(parts) == word & ~0xFFF0


def test_a_debug_build_gives_words_the_same_numbers():
    """An image is loaded into either, so that words must be cut at one place."""
    debug = replace(WIDE, debug=True)
    for queue in row.queues(WIDE):
        ours, theirs = store_of(WIDE, queue).parts, store_of(debug, queue).parts
        assert [part.words for part in ours] == [part.words for part in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert set(mine.kept) <= set(other.kept)


@pytest.mark.parametrize(("name", "expected"), [
    ("wide", 16), ("ulx3s", 15), ("small", 23), ("micro", 22)])
def test_block_rams_that_queues_fill(name: str, expected: int):
    """Of 1,024 x 18 bits for entries, of 512 x 36 for words."""
    blocks = 0
    for queue in row.queues(CONFIGS[name]):
        store = store_of(CONFIGS[name], queue)
        assert store.number_bits <= isa.PC_BITS
        assert store.number_bits + store.delay_bits <= 18
        blocks += store.depth // 1024
        blocks += sum(-(-len(part.kept) // 36) for part in store.parts if part.words >= SHALLOW)
    assert blocks == expected


def test_configs_name_a_size_for_each_kind_of_queue():
    with pytest.raises(ValueError, match="icu_words must name 5 sizes"):
        replace(WIDE, icu_words=((512,), (64,)))
    with pytest.raises(ValueError, match=r"icu_words must be in 8\.\.512"):
        replace(WIDE, icu_words=(*WIDE.icu_words[:4], (1024,)))
    with pytest.raises(ValueError, match="icu_words must have numbers of 12 bits at most"):
        replace(WIDE, icu_words=(*WIDE.icu_words[:4], (64, 65)))
