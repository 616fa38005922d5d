"""When sequences begin and end, and the number by which chips find their bucket."""

import random

import pytest

from sim.device.timeline import InTurn, Together


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_token_takes_as_many_periods_as_there_are_chips(count: int):
    line = InTurn(count, 100)
    left = []
    for period in range(4 * count):
        if period < count:
            line.start(line.entering[0], 10 * period)
        left.append(line.pass_period())
    assert left[: count - 1] == [[]] * (count - 1)
    assert left[count - 1 :] == [[(n % count, 10 * (n % count) + n // count)] for n in range(3 * count + 1)]


def test_a_sequence_begins_only_on_the_first_chip():
    line = InTurn(3, 100)
    with pytest.raises(ValueError, match="sequence 1 enters in 1 periods"):
        line.start(1, 0)


@pytest.mark.parametrize("count", [2, 5])
def test_the_counter_stays_at_or_above_all_positions_in_flight(count: int):
    rng, line = random.Random(count), InTurn(count, 50)
    positions: dict[int, int] = {}  # by sequence, the position that a chip works on
    while line.period < 2000:
        (enters,) = line.entering
        ended = enters if rng.random() < 0.2 or not line.free_run else rng.randrange(20 * count)
        if ended < count:
            line.end(ended)
            positions.pop(ended, None)
        if ended == enters:
            line.start(ended, rng.randrange(50))
        counter = line.least_counter
        for n in range(min(line.free_run, rng.randrange(1, 2 * count))):
            (enters,) = line.entering
            if line.active(enters):
                positions[enters] = line.position(enters)
            assert all((counter + n) // count >= position for position in positions.values())
            assert (counter + n) // count < 50
            line.pass_period()


def test_the_counter_is_the_least():
    """A sequence alone: its bucket is that of its own position."""
    line = InTurn(4, 100)
    line.pass_period()
    line.start(1, 8)
    assert [line.least_counter, line.free_run] == [32, 4 * 92]
    line.pass_period()
    assert line.least_counter == 33
    line.end(1)
    assert line.least_counter == 0


def test_together_each_period_is_one_of_all_sequences():
    line = Together(2, 10)
    line.start(1, 4)
    assert [line.entering, line.least_counter, line.free_run] == [[0, 1], 4, 6]
    assert line.pass_period() == [(1, 4)]
    line.start(0, 8)
    assert [line.least_counter, line.free_run] == [8, 2]
    assert [line.pass_period(), line.pass_period()] == [[(0, 8), (1, 5)], [(0, 9), (1, 6)]]
    assert [line.full(0), line.full(1)] == [True, False]
    line.end(0)
    assert [line.least_counter, line.free_run, line.pass_period()] == [7, 3, [(1, 7)]]
