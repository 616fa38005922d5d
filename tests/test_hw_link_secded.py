"""The code of the links: worked examples, every single and double error, bursts on a pin, and the hardware."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.link import secded
from hw.link.parameters import WORDS
from hw.link.secded import Secded, Verdict

CODES = [Secded(data_bits=bits, pins=pins) for bits, pins in secded.CODES]
CODE = Secded(data_bits=64, pins=9)

EXAMPLES = [  # data, bits that are flipped on the way, data behind the decoder, verdict
    (0, (), 0, Verdict.CLEAN),
    (0x0123456789ABCDEF, (), 0x0123456789ABCDEF, Verdict.CLEAN),
    (0x0123456789ABCDEF, (0,), 0x0123456789ABCDEF, Verdict.CORRECTED),
    ((1 << 64) - 1, (71,), (1 << 64) - 1, Verdict.CORRECTED),
    (0x0123456789ABCDEF, (0, 71), None, Verdict.FAILED),
    (0, (3, 12, 21), None, Verdict.FAILED),  # a burst of three on pin 3
]


@pytest.mark.parametrize(("data", "flipped", "seen", "verdict"), EXAMPLES)
def test_worked_examples(data: int, flipped: tuple[int, ...], seen: int | None, verdict: Verdict):
    decoded = CODE.decode(CODE.encode(data) ^ sum(1 << bit for bit in flipped))
    assert decoded.verdict is verdict
    assert seen is None or decoded.data == seen
    assert (decoded.syndrome == 0) == (verdict is Verdict.CLEAN)


def test_codewords_stay_what_they_are():
    """Two chips of different releases must understand each other."""
    assert CODE.encode(0x0123456789ABCDEF) == 0x500123456789ABCDEF


@pytest.mark.parametrize("code", CODES, ids=lambda code: f"{code.bits},{code.data_bits}")
def test_single_errors_are_corrected_and_double_errors_seen(code: Secded):
    """The syndrome is linear: that of an error does not depend on the data."""
    assert len({*code.columns}) == code.bits and all(column.bit_count() % 2 for column in code.columns)
    data = int.from_bytes(np.random.default_rng(0).bytes(code.data_bits // 8), "little")
    word = code.encode(data)
    assert code.decode(word) == (data, Verdict.CLEAN, 0)
    for bit in range(code.bits):
        assert code.decode(word ^ 1 << bit) == (data, Verdict.CORRECTED, code.columns[bit])
    doubles = {code.columns[a] ^ code.columns[b] for a, b in combinations(range(code.bits), 2)}
    assert 0 not in doubles and doubles.isdisjoint(code.columns)


@pytest.mark.parametrize("code", CODES, ids=lambda code: f"{code.bits},{code.data_bits}")
def test_three_errors_in_a_row_on_a_pin_are_seen(code: Secded):
    triples = [(bit, bit + code.pins, bit + 2 * code.pins) for bit in range(code.bits - 2 * code.pins)]
    word = code.encode(0)
    assert all(code.decode(word ^ sum(1 << bit for bit in triple)).verdict is Verdict.FAILED for triple in triples)


@pytest.mark.parametrize("code", CODES, ids=lambda code: f"{code.bits},{code.data_bits}")
def test_no_training_word_nor_a_line_at_rest_is_taken_for_a_codeword(code: Secded):
    same = sum((WORDS[code.beats] >> bit // code.pins & 1) << bit for bit in range(code.bits))
    first, every = sum(1 << bit for bit in range(0, code.bits, code.pins)), (1 << code.bits) - 1
    for word in (same, same ^ first, 0, every, same ^ every):
        assert code.decode(word).verdict is Verdict.FAILED


def test_the_silent_share_of_three_errors():
    """What docs/links.md states of triples at any place: 55 % look like a single error elsewhere."""
    used = set(CODE.columns)
    triples = [a ^ b ^ c for a, b, c in combinations(CODE.columns, 3)]
    assert round(sum(triple in used for triple in triples) / len(triples), 3) == 0.554


def test_refusals():
    with pytest.raises(ValueError, match=r"data_bits and pins must be 32 on 5, .*, not 64 on 7"):
        Secded(data_bits=64, pins=7)
    with pytest.raises(ValueError, match="data must have 64 bits"):
        CODE.encode(1 << 64)


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("code", CODES, ids=lambda code: f"{code.bits},{code.data_bits}")
def test_the_hardware_is_the_software(code: Secded, ratio: int):
    rng = np.random.default_rng(1)
    words = []
    for count in [0, 1, 2, 3, 1, 2] * 20:
        data = int.from_bytes(rng.bytes(code.data_bits // 8), "little")
        flipped = rng.choice(code.bits, count, replace=False)
        words.append(code.encode(data) ^ sum(1 << int(bit) for bit in flipped))
    assert decoded(code, ratio, words) == [code.decode(word) for word in words]


def decoded(code: Secded, ratio: int, words: list[int]) -> list[tuple[int, Verdict, int]]:
    """The decoder's results for words, beat by beat; it shows each one again in the following cycles."""
    dut: Any = code.decoder(ratio)
    seen, shown, step = [], [], ratio * code.beat_bits
    cycles = code.beats // ratio

    async def bench(ctx):
        for word in [*words, 0]:
            for cycle in range(cycles):
                ctx.set(dut.beats, word >> cycle * step & (1 << step) - 1)
                ctx.set(dut.last, cycle == cycles - 1)
                assert ctx.get(dut.arrived) == (cycle == 0 and bool(shown))
                if ctx.get(dut.arrived):
                    verdict = Verdict(ctx.get(dut.corrected) + 2 * ctx.get(dut.failed))
                    seen.append((ctx.get(dut.data), verdict, ctx.get(dut.syndrome)))
                    whole = ctx.get(dut.word)
                elif shown:
                    assert not ctx.get(dut.syndrome) and not ctx.get(dut.corrected) and not ctx.get(dut.failed)
                if shown:
                    assert ctx.get(dut.word) & (1 << step) - 1 == whole >> cycle * step & (1 << step) - 1
                await ctx.tick()
            shown.append(word)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen
