"""Two ends of a link with clocks of their own: one latency while tokens run, and the same slots on both sides."""

import numpy as np
import pytest
from link_bench import Bench, random_lines
from link_rig import READY, SETTLED
from test_hw_link_endpoint import bursts, doubles, singles

from hw.link.parameters import LinkParameters
from hw.link.receive import Fault

SERIAL = LinkParameters(lanes=8, pins=9, ratio=2, taps=8, slack=3)
PLAIN = LinkParameters(lanes=4, pins=5, ratio=1, taps=1, slack=2)
LONG = LinkParameters(lanes=8, pins=5, taps=8, slack=6)
LATENCIES = {SERIAL: 15, PLAIN: 18, LONG: 30}
both = pytest.mark.parametrize("link", [pytest.param(SERIAL, id="8 lanes"),
                                        pytest.param(PLAIN, id="4 lanes", marks=pytest.mark.nightly)])
each_way = pytest.mark.parametrize("ppm", [200, -200])
"""Side b's clock against side a's: 100 ppm either way of each."""


def bench_of(link: LinkParameters, **wiring) -> Bench:
    return Bench(link, latency=wiring.pop("latency", LATENCIES[link]), **wiring)


def token(bench: Bench, slots: int) -> None:
    """Flits both ways in so many slots; all that arrive are right, in their cycles."""
    before = bench.both("taken")
    end = bench.traffic(2, slots, ahead=READY + 8)
    first = end - slots
    bench.put(mark_slot=end - 4)
    bench.until(end + SETTLED)
    bench.run(8 * bench.latency)
    assert bench.both("errors") == [0, 0] and bench.both("wrong") == [0, 0], bench.status()
    taken = [now - then for now, then in zip(bench.both("taken"), before, strict=True)]
    assert taken == [sum(slot % 8 > 0 for slot in range(first, end))] * 2
    assert bench.latencies() == [bench.latency * bench.core] * 2, bench.status()


def longest(link: LinkParameters, ppm: float) -> int:
    """Slots in which clocks run apart by the slack, and not by more."""
    return int((link.slack - 1) / abs(ppm) * 1e6) // link.slot


@each_way
@both
def test_tokens_between_clocks_that_run_apart(link: LinkParameters, ppm: int):
    bench = bench_of(link, ppm=ppm)
    bench.start()
    token(bench, longest(link, ppm))
    bench.run(6000)
    token(bench, 100)


@each_way
def test_the_counter_of_the_root_is_kept_however_long_no_token_runs(ppm: int):
    """At ten times the difference. Both sides say when a slot begins by their counters: a latency apart at most."""
    bench = bench_of(SERIAL, ppm=10 * ppm)
    bench.start()
    for _ in range(4):
        bench.run(10_000)
        bench.put(mark_slot=bench.slot_of() + 40)
        bench.run(400)
        ticks = bench.both("slot_tick")
        assert abs(ticks[1] - ticks[0]) <= bench.latency * bench.core
    assert bench.both("errors") == [0, 0] and all(bench.both("up")), bench.status()
    counters = bench.both("counter")
    assert abs(counters[1] - counters[0]) <= bench.latency


def test_a_token_starts_in_the_named_slot_whenever_slots_are_left_out():
    """With slots left out or repeated every 250 cycles, starts at any time."""
    rng = np.random.default_rng(0)
    for ppm in (8000, -8000):
        bench = bench_of(SERIAL, ppm=ppm)
        bench.start()
        for count in range(1, 40):
            bench.run(int(rng.integers(300)))
            bench.put(go=1)
            bench.run(1)
            bench.put(go=0)
            bench.run((READY + 8) * SERIAL.slot)
            assert bench.both("begun") == [count, count], bench.status()
            begins = bench.both("begin_counter")
            assert begins[0] == begins[1] and begins[0] % SERIAL.slot == 0
        assert bench.both("errors") == [0, 0], bench.status()


@each_way
def test_a_link_that_is_trained_anew_sets_the_counter_again(ppm: int):
    """In training nothing holds the counters together. At ten times the difference they run 18 cycles apart."""
    bench = bench_of(SERIAL, ppm=10 * ppm)
    bench.start()
    for side in "ab":
        bench.pulse(f"{side}_retrain")
    bench.start()
    bench.ppm = ppm
    token(bench, 100)


@each_way
@both
def test_a_token_beyond_the_slack_is_an_error_and_no_flit_is_wrong(link: LinkParameters, ppm: int):
    """At a hundred times the difference that is declared."""
    bench = bench_of(link, ppm=0)
    bench.start()
    end = bench.traffic(2, 1000, ahead=READY + 8)
    bench.until(end - 1000)
    bench.ppm = 100 * ppm
    while not any(found := bench.both("errors")):
        bench.run(4)
        assert bench.slot_of() < end, bench.status()
    slow, fast = found if ppm > 0 else found[::-1]
    assert (slow, fast) in [(1 << Fault.OVERFLOW.value, 0), (0, 1 << Fault.UNDERFLOW.value)]
    assert bench.both("wrong") == [0, 0], bench.status()


def test_a_latency_without_the_slack_is_an_error_when_a_token_begins():
    bench = bench_of(SERIAL, latency=12)
    bench.start()
    bench.ppm = -10_000
    while bench.get("a_least") >= SERIAL.slack:
        bench.run(16)
    bench.ppm = 0
    bench.traffic(2, 100, ahead=READY + 8)
    bench.run((READY + 200) * SERIAL.slot)
    assert bench.faults("a") == {Fault.LATENCY} and bench.both("wrong") == [0, 0], bench.status()


def test_wrong_bits_are_corrected_or_seen():
    singles(bench_of(SERIAL, ppm=200), 2, READY + 8)
    doubles(bench_of(SERIAL), 40)


@pytest.mark.nightly
@pytest.mark.parametrize("link", [SERIAL, PLAIN, LONG], ids=lambda link: f"{link.lanes},{link.pins}")
def test_16590_single_and_double_errors_and_all_bursts(link: LinkParameters):
    """Singles while the clocks run apart, over tokens as long as that allows."""
    rounds = min(200, longest(link, 50) // link.code.bits)
    for _ in range(-(-16_590 // (rounds * link.flit_bits))):
        singles(bench_of(link, ppm=50), rounds, READY + 8)
    doubles(bench_of(link), 16_590)
    bursts(bench_of(link))


BREAKS = [
    ({"a_cut": (1 << SERIAL.pins + 1) - 1}, {Fault.UNDERFLOW}),
    ({"a_cut": 1 << SERIAL.pins}, {Fault.UNDERFLOW}),
    ({"a_cut": 1 << 3}, {Fault.FAILED}),
    ({"a_off": 1}, {Fault.UNDERFLOW}),
    ({"a_retrain": 1}, {Fault.FAILED, Fault.COUNTER}),
]


@pytest.mark.parametrize(("what", "faults"), BREAKS)
def test_what_breaks_between_tokens_is_an_error(what: dict[str, int], faults: set[Fault]):
    bench = bench_of(SERIAL, ppm=200)
    bench.start()
    bench.put(**what)
    bench.run(1000)
    assert bench.faults("b") & faults, bench.status()


def resets(link: LinkParameters, count: int, seed: int) -> None:
    """Any phases, lines, frequencies and jitter: one latency."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        phases, apart = rng.integers(0, 256, 2).tolist(), int(rng.integers(link.slot))
        ppm = float(rng.uniform(-200, 200))
        bench = bench_of(link, skews=random_lines(rng, link, 3 if link.taps > 1 else 1), phases=phases, apart=apart,
                         ppm=ppm)
        bench.start()
        bench.run(int(rng.integers(20_000)))
        wander = 0
        for _ in range(40):  # the phase wanders besides
            step = min(max(wander + int(rng.integers(-1, 2)), -3), 3) - wander
            wander += step
            bench.shift(step)
            bench.run(32)
        token(bench, int(rng.integers(100, longest(link, 200))))


def test_one_latency_at_any_frequencies():
    resets(SERIAL, 2, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(20))
@pytest.mark.parametrize("link", [SERIAL, PLAIN, LONG], ids=lambda link: f"{link.lanes},{link.pins}")
def test_one_latency_in_1000_resets(link: LinkParameters, part: int):
    resets(link, 50, 100 + part)


def test_what_a_slack_takes():
    assert (SERIAL.depth, SERIAL.high, SERIAL.first) == (32, 27, (4, 5))
    assert [LinkParameters(slack=slack).depth for slack in (0, 1, 7, 8, 20)] == [16, 32, 32, 64, 64]
    assert LinkParameters(pins=5).depth == 32  # with slots of 8 cycles
    with pytest.raises(ValueError, match=r"slack must be in 0\.\.20 cycles, not 21"):
        LinkParameters(slack=21)
