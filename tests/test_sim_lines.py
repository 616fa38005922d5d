"""Errors of the lines between chips: what the links' code makes of them, and that they are always the same."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from small_racks import PAIR

from arch.rack import Oscillators, Port, linked, mesh
from base.errors import TspError
from hw.link.secded import Verdict
from sim.lines import LineFaults, Lines, parameters

NEAR, FAR = Port(0, "E", 0), Port(1, "E", 0)


def test_a_delay_is_refused_where_links_put_it_right():
    own = replace(PAIR, oscillators=Oscillators(ppm=100.0, slack=2))
    Lines(own, LineFaults.parse("errors=1e-6"))
    with pytest.raises(TspError, match="delay must be 0 on rack twins: its chips have clocks of their own"):
        Lines(own, LineFaults.parse("delay=1"))


def test_a_rack_without_links_has_no_faults_of_links():
    with pytest.raises(TspError, match="rack one has one chip and no links: leave --link-faults out"):
        Lines(mesh("one", "tiny", 1), LineFaults.parse("cut"))


def lines(text: str) -> Lines:
    return Lines(PAIR, LineFaults.parse(text))


def judged(*bits: int) -> tuple[Lines, int, list[str]]:
    """Lines after a token of 10 flits, the fourth of which had these wrong bits: what arrived wrong, and errors."""
    found = lines("errors=1e-12")
    found.begin(0, 10)
    found._lines[NEAR].wrong[3] = sum(1 << bit for bit in bits)
    changed = found.begin(0, 10)[NEAR].get(3, 0)
    return found, changed, [failure.kind for failure in found.end({NEAR: 10, FAR: 10})]


def test_every_single_error_is_corrected():
    code = parameters(PAIR.chips[0]).code
    for bit in range(code.bits):
        found, changed, failures = judged(bit)
        assert (found.corrected, found.failed, changed, failures) == (1, 0, 0, [])


def test_double_errors_fail():
    code, rng = parameters(PAIR.chips[0]).code, np.random.default_rng(1)
    for one, other in rng.permutation(list(combinations(range(code.bits), 2)))[:300]:
        found, _, failures = judged(int(one), int(other))
        assert (found.corrected, found.failed, failures) == (0, 1, ["FAILED"])


def test_what_is_corrected_wrongly_is_noticed_at_the_end():
    """Three wrong bits may look like one. The flit is then wrong, and the CRC another."""
    code = parameters(PAIR.chips[0]).code
    triples = (bits for bits in combinations(range(code.bits), 3)
               if code.decode(code.encode(0) ^ sum(1 << bit for bit in bits)).verdict is Verdict.CORRECTED)
    for bits, _ in zip(triples, range(40), strict=False):
        found, changed, failures = judged(*bits)
        assert changed and failures == ["CRC"] and found.failed == 1


def test_errors_are_the_same_however_tokens_are_cut():
    """And others for another seed, and on the other line."""
    def errors(seed: int, tokens: tuple[int, ...]) -> dict[Port, dict[int, int]]:
        found, seen = lines(f"errors=0.01,seed={seed}"), {NEAR: dict[int, int](), FAR: dict[int, int]()}
        for flits in tokens:
            found.begin(0, flits + 7)
            for near, line in found._lines.items():
                seen[near] |= {n: bits for n, bits in line.wrong.items() if n < line.flits + flits}
            found.end({NEAR: flits, FAR: flits})
        return seen

    whole = errors(3, (60,))
    assert whole == errors(3, (20, 1, 39)) != errors(4, (60,))
    assert whole[NEAR] != whole[FAR] and len(whole[NEAR]) > 10


def test_as_many_bits_are_wrong_as_the_rate_says():
    found = lines("errors=0.003,seed=1")
    found.begin(0, 20_000)
    wrong = sum(bits.bit_count() for bits in found._lines[NEAR].wrong.values())
    expected = 20_000 * parameters(PAIR.chips[0]).code.bits * 0.003
    assert abs(wrong - expected) < 5 * expected**0.5


def test_a_link_is_that_of_the_chips_slot():
    for config, slot in (("ulx3s", 2), ("ulx3s", 4), ("micro", 4), ("wide", 4)):
        assert parameters(linked(config, (0, 1), slot)).slot == slot


@pytest.mark.parametrize("text", ["cut", "delay=1", "delay=-2.5", "cut,link=0.E0", "cut,link=1.E0"])
def test_a_line_without_a_clock(text: str):
    found = lines(text)
    assert len(found.begin(0, 4)[NEAR]) == 4
    failures = found.end({NEAR: 2, FAR: 2})
    assert len(failures) == 2 and all(failure.kind == "UNDERFLOW" and failure.lasting for failure in failures)
    assert found.flits == 4


def test_what_begins_later():
    found = lines("cut,at=3")
    assert not found.begin(2, 4) and not found.end({NEAR: 4, FAR: 4})
    assert found.begin(3, 4) and found.end({NEAR: 4, FAR: 4})
