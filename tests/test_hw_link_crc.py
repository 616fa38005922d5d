"""The CRC of the links: against zlib's and a division by hand, its hardware, and what control frames show of it."""

import zlib
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.link import crc
from hw.link.crc import INITIAL, POLYNOMIAL, WIDTH, Crc32
from hw.link.frame import FIRST, compared, crc_frames
from hw.link.parameters import LinkParameters

LINKS = [LinkParameters(lanes=8, pins=9), LinkParameters(lanes=8, pins=9, ratio=2), LinkParameters(lanes=4, pins=5),
         LinkParameters(lanes=8, pins=5), LinkParameters(lanes=16, pins=18, ratio=2)]
ETHERNET = 0x04C11DB7


def reflected(number: int, bits: int) -> int:
    return int(f"{number:0{bits}b}"[::-1], 2)


def test_with_the_polynomial_of_zlib_it_is_zlibs(monkeypatch: pytest.MonkeyPatch):
    """zlib's CRC takes the lowest bit of a byte first, and shows it reflected and inverted."""
    monkeypatch.setattr(crc, "POLYNOMIAL", ETHERNET)
    for text in (b"", b"123456789", np.random.default_rng(0).bytes(100)):
        found = Crc32(8).compute([reflected(byte, 8) for byte in text])
        assert reflected(found, WIDTH) ^ INITIAL == zlib.crc32(text)


def test_it_is_the_rest_of_a_division():
    """Of the message, its first bits inverted, times x**32: polynomials over two elements."""
    words = [0x2ABCD, 0x00001, 0x3FFFF]
    count = 18 * len(words) + WIDTH
    message = int("".join(f"{word:018b}" for word in words), 2) << WIDTH ^ INITIAL << count - WIDTH
    for at in range(count - 1, WIDTH - 1, -1):
        if message >> at & 1:
            message ^= (1 << WIDTH | POLYNOMIAL) << at - WIDTH
    assert message == Crc32(18).compute(words)


@pytest.mark.parametrize("step", [10, 18, 36, 72])
def test_the_hardware_is_the_software(step: int):
    dut: Any = Crc32(step).create()
    rng = np.random.default_rng(step)
    words = [int.from_bytes(rng.bytes(9), "little") & (1 << step) - 1 for _ in range(50)]

    async def bench(ctx):
        for start in (0, 20):
            for n, word in enumerate(words[start:]):
                assert ctx.get(dut.value) == Crc32(step).compute(words[start : start + n])
                ctx.set(dut.word, word)
                ctx.set(dut.clear, start == 0 and n == len(words) - 1)
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("link", LINKS, ids=lambda link: f"{link.lanes},{link.pins},{link.ratio}")
def test_a_few_control_frames_show_every_wrong_crc(link: LinkParameters):
    """Sender and receiver take the same words, so the difference of their CRCs moves by itself. What `crc_frames`
    frames show of it is linear in it, and of full rank: no difference stays unseen."""
    cycles, bits = compared(link)
    step = Crc32(link.cycle_bits)

    def shown(difference: int) -> int:
        found = 0
        for cycle in list(range(link.slot)) * crc_frames(link):
            if cycle in cycles:
                turned = difference >> FIRST | difference << WIDTH - FIRST
                found = found << bits | turned & (1 << bits) - 1
            difference = step.compute([0], difference)
        return found

    rows, rank = [shown(1 << n) for n in range(WIDTH)], 0
    while row := max(rows):
        rows = [other ^ row if other.bit_length() == row.bit_length() else other for other in rows]
        rank += 1
    assert rank == WIDTH
