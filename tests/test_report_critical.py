"""The critical path of a rack: all of the period, along dependencies and flits that are in the programs."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from checkpoints import random_checkpoint, small_config
from flights import PAIR as BOARDS
from flights import SMALL, in_flight
from programs import random_tokenizer
from small_racks import PAIR, SHARED, alone, in_line, shared, twins

from compiler.rack.compile import compile_rack
from program.rack import AnyProgram
from report import links, picture
from report.critical import Part, critical_path, summary

PROGRAMS = [alone, twins, shared, in_line, lambda: in_flight(BOARDS, **SMALL)]


def transfers(path: Sequence[Part]) -> int:
    return sum(part.turns for part in path for step in part.steps if step.link)


@pytest.mark.parametrize("made", PROGRAMS)
def test_every_cycle_of_the_period_is_on_the_path_once(made: Callable[[], AnyProgram]):
    program = made()
    for number, bucket in enumerate(program.buckets):
        now, path = 0, critical_path(program, number)
        for part in path:
            assert part.start == now
            now += part.length * part.turns
            if part.steps:
                ends = [(step.first, step.end) for step in part.steps]
                assert ends[0][0] == part.start and ends[-1][1] == part.start + part.length
                assert all(one[1] == other[0] for one, other in pairwise(ends))
                assert all(0 <= step.waiting <= step.cycles for step in part.steps)
        assert now == bucket.period


def test_the_path_goes_from_chip_to_chip_along_flits_only():
    for program in (shared(), in_line()):
        hops = {(hop.near, hop.far, hop.first - links.isa.C2C_SEND, hop.label.removesuffix(" send"))
                for hop in links.hops(program, 0)}
        for part in critical_path(program, 0):
            for one, other in pairwise(part.steps):
                if other.link:
                    assert (*other.link, other.first, other.label) in hops and one.chip == other.link[0].chip
                else:
                    assert other.chip == (one.link[1].chip if one.link else one.chip)
        assert transfers(critical_path(program, 0))


def test_chips_side_by_side_have_no_transfer():
    path = critical_path(twins(), 0)
    assert not transfers(path) and "no transfer" in summary(path)


def test_longer_links_make_the_period_longer_by_the_transfers_on_the_path():
    """The path is a chain of dependencies, so no schedule for slower links can be shorter than it is then."""
    slower = 12
    link = replace(PAIR.links[0], latency=PAIR.links[0].latency + slower)
    there = compile_rack(random_checkpoint(small_config(**SHARED)), random_tokenizer(SHARED["vocab_size"]),
                         rack=replace(PAIR, links=(link,)), pipeline=1, measure=False)
    path = critical_path(shared(), 0)
    waits = sum(step.waiting * part.turns for part in path for step in part.steps)
    least = shared().buckets[0].period - waits + slower * transfers(path)
    assert least <= there.buckets[0].period < 1.2 * least
    assert f"{transfers(path)} transfers" in summary(path)


def test_the_picture_shows_the_path():
    path = critical_path(shared(), 0)
    svg = ElementTree.fromstring(picture.rack_svg(shared(), 0, "layer", path))
    bars = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")
            if (title.text or "").startswith("critical path")]
    steps = next(part.steps for part in path if part.segment == "layer")
    assert len(bars) == sum(not step.link for step in steps) > 5
    red = [line for line in svg.iter("{http://www.w3.org/2000/svg}path") if line.get("stroke") == picture.PATH]
    assert len(red) == sum(step.link is not None for step in steps) > 1
