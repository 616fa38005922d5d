"""Chips with their endpoints and clocks of their own, joined at the pins: programs against the cycle model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from linked_bench import LinkedBench
from test_hw_linked_chip import CHAIN as CHAIN_OF_ONE_CLOCK
from test_hw_linked_chip import (
    EAST,
    LINK_ERROR,
    WEST,
    Noise,
    again,
    cable,
    check,
    copier,
    faults,
    good,
)
from test_hw_linked_chip import PAIR as PAIR_OF_ONE_CLOCK
from test_hw_linked_chip import RING as RING_OF_ONE_CLOCK

from arch.rack import Oscillators, RackConfig
from hw.link.receive import Fault
from sim.check.racks import random_images
from sim.rack import RackModel

LATENCY, PPM = 18, 100.0


def own_clocks(rack: RackConfig) -> RackConfig:
    return replace(rack, oscillators=Oscillators(ppm=PPM, slack=2),
                   links=tuple(replace(link, latency=LATENCY) for link in rack.links))


PAIR, CHAIN, RING = map(own_clocks, (PAIR_OF_ONE_CLOCK, CHAIN_OF_ONE_CLOCK, RING_OF_ONE_CLOCK))
FAST = 5
"""Times the declared difference, so that a slot is left out or repeated every 4,000 cycles. A token here takes 1,000 at
most, in which clocks run apart by a cycle."""
IDLE = 4000
"""Cycles between tokens, at most."""


def programs(rack: RackConfig, seeds: Sequence[int], ppm: Sequence[float], runs: int, **wiring: RackConfig) -> None:
    """Random legal programs, with any time between tokens, every other one with wrong bits."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        bench = LinkedBench(rack, seed=seed, skew=seed % 3, apart=True, ppm=[own * (-1) ** seed for own in ppm],
                            **wiring)
        images, tokens = random_images(rack, seed)
        bench.start()
        model = RackModel(rack)
        for _ in range(runs):
            model.load(images)
            for host in bench.hosts:
                host.load(images[host.number])
            for _ in range(tokens):
                bench.step(int(rng.integers(IDLE)))
                check(bench, images, 1, Noise(bench, seed) if seed % 2 else None, model)
                good(bench)


def test_tokens_are_those_of_the_model_whenever_clocks_are_put_right():
    programs(PAIR, (0, 1), (FAST * PPM, -FAST * PPM), 3)


@pytest.mark.parametrize("ppm", [1000.0, -1000.0])
def test_links_come_up_however_long_the_host_waits(ppm: float):
    """They are trained, and buffers stand anywhere, when the hosts say which links there are."""
    for seed in range(3):
        bench = LinkedBench(PAIR, seed=seed, ppm=(ppm, -ppm))
        bench.step(15_000 + 700 * seed)
        bench.start()
        good(bench)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(100, 140, 10))
def test_many_programs(first: int):
    programs(PAIR, range(first, first + 10), (PPM, -PPM), 2)
    programs(PAIR, range(first, first + 10), (FAST * PPM, -FAST * PPM), 3)


@pytest.mark.nightly
def test_programs_of_a_chain_of_three_chips():
    """The last chip's counter follows one that is put right itself. Neighbours are as far apart as can be. Of a ring's
    links the last one is not used."""
    programs(CHAIN, range(8), (FAST * PPM, -FAST * PPM, FAST * PPM), 3, wired=RING)


def test_a_cable_pulled_between_tokens_is_an_error_and_no_run_hangs():
    bench, images = LinkedBench(PAIR, ppm=(PPM, -PPM)), copier(LATENCY)
    bench.start(images)
    check(bench, images, 1)
    cable(bench, -1 & (1 << 6) - 1)
    bench.step(300)
    for _ in range(2):
        bench.run(1)
        assert all(error & LINK_ERROR for error in bench.errors()), bench.status()
        bench.clear()
    cable(bench, 0)
    bench.retrain()
    again(bench, images)


def test_a_clock_that_is_far_off_makes_the_token_invalid():
    """Twelve cycles in a token; the slack is two. The run ends on both chips, and the next token is right."""
    bench, images = LinkedBench(PAIR, ppm=(PPM, -PPM)), copier(LATENCY)
    bench.start(images)
    assert not faults(bench, EAST) and not faults(bench, WEST)

    def wrong() -> None:
        bench.ppm = (75_000.0, 0.0) if bench.port(0, "running") else bench.ppm

    bench.run(1, wrong)
    assert any(faults(bench, port) & {Fault.UNDERFLOW, Fault.OVERFLOW, Fault.LATENCY} for port in (EAST, WEST))
    assert any(error & LINK_ERROR for error in bench.errors())
    bench.ppm = (PPM, -PPM)
    bench.retrain()
    again(bench, images)


def test_the_host_reads_the_slack():
    assert [host.slack() for host in LinkedBench(PAIR).hosts] == [2, 2]
