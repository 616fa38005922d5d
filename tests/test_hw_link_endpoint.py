"""Two ends of a link: training, one latency, errors on the lines, starts; see link_bench.py."""

from itertools import combinations

import numpy as np
import pytest
from link_bench import Bench, random_lines
from link_rig import AHEAD, UNIT_INTERVAL

from hw.link.parameters import DEPTH, LinkParameters
from hw.link.receive import Fault
from hw.link.train import State

SERIAL = LinkParameters(lanes=8, pins=9, ratio=2, taps=8)
PLAIN = LinkParameters(lanes=4, pins=5, ratio=1, taps=1)
LINKS = [SERIAL, PLAIN]
MORE = [LinkParameters(lanes=8, pins=9), LinkParameters(lanes=16, pins=18, ratio=2, taps=8),
        LinkParameters(lanes=8, pins=5, taps=8)]
both = pytest.mark.parametrize("link", LINKS, ids=lambda link: f"{link.lanes} lanes, {link.pins} pins")
all_links = pytest.mark.parametrize("link", [*LINKS, *MORE], ids=lambda link: f"{link.lanes},{link.pins},{link.ratio}")

DRIFT = UNIT_INTERVAL - 1
"""Ticks by which the phase between the clocks drifts at most, either way. The buffer's distance is made for less than a
core cycle; more is an error."""

TOKEN = 400
"""Slots of the tokens here."""


def places(link: LinkParameters) -> list[int]:
    """The bits of a codeword that mean something."""
    return sorted((*link.code.data_places, *link.code.check_places))


def carry(bench: Bench, kind: int = 2, slots: int = TOKEN) -> int:
    """Flits both ways in a number of slots. Returns the slot after them."""
    end = bench.traffic(kind, slots)
    bench.until(end + 2)
    bench.run(8 * bench.latency)
    return end


EXAMPLES = [  # ticks of the lines, phase of side b's clock, core cycles of latency, whether it comes up
    (10, 0, None, True),
    (0, 15, None, True),
    (10, 5, 6, False),  # sooner than a frame can be here
    (10, 5, 40, False),  # later than the buffer holds it
]


@pytest.mark.parametrize(("length", "phase", "latency", "up"), EXAMPLES)
@both
def test_worked_examples(link: LinkParameters, length: int, phase: int, latency: int | None, up: bool):
    bench = Bench(link, skews=[[length] * (link.pins + 1)] * 2, phases=(0, phase), latency=latency)
    assert bench.up(30_000) == up, bench.status()
    assert (bench.faults("a") == {Fault.LATENCY}) == (not up)
    if up:
        bench.start()
        carry(bench)
        assert bench.faults("a") | bench.faults("b") == set(), bench.status()
        assert bench.both("taken")[0] >= TOKEN * 7 // 8 - 1 and bench.both("wrong") == [0, 0]


def resets(link: LinkParameters, count: int, seed: int = 0) -> None:
    """Any phases, begins of slots, lines, drifts of the phase: frames arrive at the declared latency, never else."""
    rng = np.random.default_rng(seed)
    for run in range(count):
        skew = 3 if link.taps > 1 else 1
        phases = rng.integers(0, 256, 2).tolist()
        apart = int(rng.integers(link.slot))
        bench, drift = Bench(link, skews=random_lines(rng, link, skew), phases=phases, apart=apart), 0
        bench.start()
        before = bench.both("taken")
        end = bench.traffic(1 + run % 2, TOKEN)
        bench.put(mark_slot=end + 12)  # when nothing drifts any more
        while bench.slot_of() < end:
            if run % 3:
                drift = min(max(drift + int(rng.integers(-1, 2)), -DRIFT), DRIFT)
            bench.put(b_phase=(phases[1] + drift) % 256)
            bench.run(16)
        bench.run(12 * DEPTH)
        assert bench.latencies() == [bench.latency * bench.core] * 2, f"run {run}: {bench.status()}"
        assert bench.both("errors") == [0, 0] and bench.both("corrected") == [0, 0], f"run {run}: {bench.status()}"
        taken = [now - then for now, then in zip(bench.both("taken"), before, strict=True)]
        assert taken[0] == taken[1] > TOKEN // 4 and bench.both("wrong") == [0, 0], f"run {run}: {bench.status()}"


def test_a_drift_of_two_core_cycles_is_an_error():
    """As between clocks of their own; no flit is wrong until then."""
    bench = Bench(PLAIN)
    bench.start()
    bench.traffic(2, TOKEN)
    for step in range(2 * bench.core):
        bench.put(b_phase=(5 - step) % 256)
        bench.run(8)
    assert bench.faults("b") & {Fault.UNDERFLOW, Fault.OVERFLOW}, bench.status()
    assert bench.get("b_wrong") == 0 and Fault.FAILED not in bench.faults("b"), bench.status()


@both
def test_one_latency_at_all_phases_skews_and_drifts(link: LinkParameters):
    resets(link, 6)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(20))
@all_links
def test_one_latency_in_1000_resets(link: LinkParameters, part: int):
    """In parts, so that what has passed is known if a run is stopped: 1,000 take 28 minutes with 16 lanes."""
    resets(link, 50, part)


def inject(bench: Bench, side: str, mask: int) -> None:
    """Flips the bits of a mask in the next slot that a side sends."""
    bench.put(**{f"{side}_flip": mask})
    bench.advance(bench.slot)
    bench.put(**{f"{side}_flip": 0})


def singles(bench: Bench, rounds: int, ahead: int = 4) -> None:
    """Every bit of a codeword in turn, while flits run both ways: all corrected, none at another time."""
    bits = places(bench.link)
    bench.start()
    end = bench.traffic(2, 1 + rounds * len(bits), ahead)
    bench.until(end - rounds * len(bits) - 1)
    for bit in bits * rounds:
        inject(bench, "a", 1 << bit)
    bench.until(end + 2)
    bench.run(8 * bench.latency)
    assert bench.get("b_corrected") == bench.get("a_flipped") == rounds * len(bits)
    assert bench.both("errors") == [0, 0] and bench.both("wrong") == [0, 0], bench.status()
    assert bench.get("a_corrected") == 0


@both
def test_single_errors_are_corrected_and_change_no_cycle(link: LinkParameters):
    singles(Bench(link), 4)


@pytest.mark.nightly
@all_links
def test_16590_single_errors(link: LinkParameters):
    for _ in range(-(-16_590 // (200 * link.flit_bits))):
        singles(Bench(link), 200)


def seen(bench: Bench, mask: int) -> set[Fault]:
    """What side b says of errors in one slot, and that the record names it."""
    inject(bench, "a", mask)
    bench.run(2 * bench.latency)
    found = bench.faults("b")
    if Fault.FAILED in found:
        first = bench.first("b")
        columns = bench.link.code.columns
        syndrome = 0
        for bit, column in enumerate(columns):
            syndrome ^= column if mask >> bit & 1 else 0
        assert first["syndrome"] == syndrome and first["faults"] == 1 << Fault.FAILED.value
    bench.pulse("b_clear")
    return found


def doubles(bench: Bench, count: int) -> None:
    bench.start()
    pairs = list(combinations(places(bench.link), 2))
    order = np.random.default_rng(1).permutation(len(pairs))
    for n in range(count):
        a, b = pairs[order[n % len(pairs)]]
        assert seen(bench, 1 << a | 1 << b) == {Fault.FAILED}, f"bits {a} and {b}: {bench.status()}"


@both
def test_double_errors_are_seen(link: LinkParameters):
    doubles(Bench(link), 150)


@pytest.mark.nightly
@all_links
def test_16590_double_errors(link: LinkParameters):
    doubles(Bench(link), 16_590)


def bursts(bench: Bench) -> None:
    """All of two and three bits in a row on one pin."""
    bench.start()
    pins, bits = bench.link.pins, set(places(bench.link))
    masks = [sum(1 << bit + k * pins for k in range(length)) for length in (2, 3) for bit in bits
             if bits >= {bit + k * pins for k in range(length)}]
    for mask in masks:
        assert seen(bench, mask) == {Fault.FAILED}


@both
def test_bursts_on_a_pin_are_seen(link: LinkParameters):
    bursts(Bench(link))


@both
def test_an_error_that_the_code_cannot_see_is_seen_by_the_crc(link: LinkParameters):
    """Four bits that make another codeword: a wrong flit, silent until the next free slot."""
    code = link.code
    silent = next(sum(1 << bit for bit in bits) for bits in combinations(places(link), 4)
                  if not code.sum(sum(1 << bit for bit in bits)))
    bench = Bench(link)
    bench.start()
    end = bench.traffic(2, 64)
    while bench.slot_of() % 8 != 2 or bench.slot_of() < end - 60:
        bench.run(1)
    inject(bench, "a", silent)
    while not bench.get("b_wrong"):
        bench.run(1)
    assert bench.faults("b") == set(), bench.status()
    bench.until(end + 2)
    bench.run(8 * bench.latency)
    assert bench.faults("b") == {Fault.CRC} and bench.faults("a") == set(), bench.status()


@both
def test_a_start_begins_the_token_on_both_sides_in_the_named_slot(link: LinkParameters):
    for phase in (0, 7, 13):
        bench = Bench(link, phases=(0, phase))
        bench.start()
        for count in (1, 2):
            asked = bench.slot_of()
            bench.put(go=1)
            bench.run(1)
            bench.put(go=0)
            bench.run((AHEAD + 4) * link.slot)
            assert bench.both("begun") == [count, count]
            begins = bench.both("begin_counter")
            assert begins[0] == begins[1] and begins[0] % link.slot == 0
            assert begins[0] // link.slot - asked in (AHEAD, AHEAD + 1)
            ticks = bench.both("begin_tick")
            assert abs(ticks[1] - ticks[0]) <= bench.latency * bench.core
        assert bench.both("errors") == [0, 0]


def test_a_lane_that_carries_nothing_is_named():
    for pin in (0, 4, SERIAL.pins - 1):
        bench = Bench(SERIAL, a_cut=1 << pin)
        assert not bench.up()
        assert (bench.get("b_state"), bench.get("b_lane")) == (State.FAILED.value, pin)
        bench.run(20_000)
        assert bench.get("a_state") == State.TRAINED.value


def test_a_skew_beyond_reach_is_named():
    skew = [[10] * 10, [10] * 10]
    skew[0][6] += 5 * UNIT_INTERVAL
    bench = Bench(SERIAL, skews=skew)
    assert not bench.up()
    assert (bench.get("b_state"), bench.get("b_lane")) == (State.FAILED.value, 6)


def test_no_clock_is_named_and_training_can_be_repeated():
    bench = Bench(SERIAL, a_cut=1 << SERIAL.pins)
    bench.run(400)
    assert bench.get("b_state") == State.NO_CLOCK.value
    bench.put(a_cut=0)
    bench.pulse("b_retrain")
    assert bench.up(), bench.status()


BREAKS = [  # what happens in mid-token, what side b must say besides other things
    ({"a_cut": (1 << SERIAL.pins + 1) - 1}, Fault.UNDERFLOW),  # the cable is pulled
    ({"a_cut": 1 << SERIAL.pins}, Fault.UNDERFLOW),  # the clock's wire
    ({"a_cut": 1 << 3}, Fault.FAILED),  # a data wire
    ({"a_off": 1}, Fault.UNDERFLOW),  # the other chip's power
    ({"a_retrain": 1}, Fault.FAILED),  # the other end trains anew
]


@pytest.mark.parametrize(("what", "fault"), BREAKS)
def test_what_breaks_in_mid_token_is_an_error(what: dict[str, int], fault: Fault):
    bench = Bench(SERIAL)
    bench.start()
    end = bench.traffic(2, TOKEN)
    bench.until(end - TOKEN // 2)
    bench.put(**what)
    bench.run(bench.link.slot * TOKEN)
    assert fault in bench.faults("b"), bench.status()
    assert bench.first("b")["faults"]
    bench.put(**dict.fromkeys(what, 0), reset=1)
    bench.run(4)
    bench.put(reset=0, traffic=0)
    bench.start()
    carry(bench)
    assert bench.both("errors") == [0, 0], bench.status()


def test_a_reset_of_one_end_alone_is_an_error_of_the_other():
    """The rig resets both; training anew is what a chip's reset does to its link."""
    bench = Bench(SERIAL)
    bench.start()
    bench.pulse("b_retrain")
    bench.run(64)
    assert bench.faults("a") & {Fault.FAILED, Fault.COUNTER}
    assert not bench.get("b_up")


def test_refusals():
    with pytest.raises(ValueError, match="lanes must be 4, 8 or 16, not 5"):
        LinkParameters(lanes=5)
    with pytest.raises(ValueError, match="ratio must be 1 or 2, not 3"):
        LinkParameters(ratio=3)
    with pytest.raises(ValueError, match="pins must be 5 or 9 with 8 lanes, not 18"):
        LinkParameters(pins=18)
    with pytest.raises(ValueError, match=r"taps must be in 1\.\.32, not 0"):
        LinkParameters(taps=0)
