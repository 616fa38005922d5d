"""How queues store words: numbers, limits, and the bits that are kept."""

from dataclasses import replace

import pytest

from hw import isa
from hw.config import CONFIGS
from hw.isa import Instr, Op
from hw.store import Numbers, distinct, overflow, store_of

ULX3S = CONFIGS["ulx3s"]
QUEUES = {queue.name: queue for queue in isa.queues(ULX3S)}


def read(delay=1, **fields):
    return isa.encode(Instr(Op.READ, delay, fields))


def test_equal_words_share_a_number_whatever_their_delays():
    number = Numbers(ULX3S, QUEUES["MEM_E0"])
    assert [number(word) for word in (0, read(2, addr=5), read(9, addr=5), read(2, addr=6))] == [0, 1, 1, 2]
    assert distinct([0, read(2, addr=5), read(9, addr=5)]) == 1


def test_what_does_not_fit_is_named():
    number = Numbers(ULX3S, QUEUES["MEM_E1"])
    for addr in range(79):
        number(read(addr=addr))
    with pytest.raises(ValueError, match="queue MEM_E1 of config ulx3s holds 79 distinct words"):
        number(read(addr=79))
    with pytest.raises(ValueError, match="queue VXM of config ulx3s holds delays up to 511, not 512"):
        Numbers(ULX3S, QUEUES["VXM"])(isa.encode(Instr(Op.NOP, 512)))
    assert overflow(ULX3S, {"MEM_E1": [read(addr=n) for n in range(80)]}).startswith("queue MEM_E1 needs 80 distinct")
    assert overflow(ULX3S, {"MEM_E1": [read()] * 1025}).startswith("queue MEM_E1 needs 1025 instructions")
    assert overflow(ULX3S, {"MEM_E1": [read()] * 1024}) == ""


def test_kept_bits_hold_every_legal_word():
    """A word whose fields are as large as the config allows loses nothing but its delay."""
    for name, word in (
        ("MEM_E1", read(addr=2559, stride=-1, rel=3, index=7, dir=isa.Dir.W, weights=1, planes=15, count=4095,
                        interval=255)),
        ("MEM_E0", read(addr=511, weights=1)),
        ("SXM_E", isa.encode(Instr(Op.SHIFT, 1, {"lane": 15, "lane_inc": 15}))),
    ):
        kept = sum(1 << bit for bit in store_of(ULX3S, QUEUES[name]).kept)
        assert word & ~0xFFF0 & ~kept == 0


def test_vxm_words_fill_four_block_rams():
    assert len(store_of(ULX3S, QUEUES["VXM"]).kept) <= 144


def test_configs_name_a_size_for_each_kind_of_queue():
    with pytest.raises(ValueError, match="icu_words must name 5 sizes"):
        replace(ULX3S, icu_words=(512, 64))
    with pytest.raises(ValueError, match=r"icu_words must be in 16\.\.512"):
        replace(ULX3S, icu_words=(512, 64, 512, 160, 1024))
