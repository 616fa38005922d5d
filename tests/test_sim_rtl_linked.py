"""Verilated chips of a rack: equal to the models in lockstep whatever the threads do, and never a hang."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from racks import ring, words
from small_racks import CHIP, PAIR

from arch.config import ChipConfig
from arch.host_map import Space
from arch.isa import Dir, Instr, LinkOp, Op
from arch.rack import Link, Port, RackConfig
from arch.row import queues, slices
from program.image import Image
from sim.check.racks import random_images
from sim.device.protocol import ChipFault
from sim.device.rack import Ran
from sim.rack import ModelRack
from sim.rtl.chip import TimeoutExceeded, VerilatedChip
from sim.rtl.linked import VerilatedRack

PERIOD, SENT, LATENCY = 128, 20, 9
READ = Instr(Op.READ, fields={"addr": 5, "planes": 15, "count": 3, "interval": 4})
SEND = Instr(LinkOp.SEND, fields={"plane": 2, "ports": 1, "count": 3, "interval": 4})
RECEIVE = Instr(LinkOp.RECEIVE, fields={"port": 0, "planes": 15, "count": 3, "interval": 4})


def run(rack: VerilatedRack | ModelRack, images: Sequence[Image], tokens: int, changes=None) -> Ran:
    for chip, image in zip(rack.chips, images, strict=True):
        chip.load(image)
    return rack.run(tokens, changes)


def compare(rack: RackConfig, seed: int, threads: int, changes=None) -> int:
    """Run a random program on models and RTL, and compare cycles and memories; flits that were sent."""
    images, tokens = random_images(rack, seed)
    model, rtl = ModelRack(rack), VerilatedRack(rack, threads=threads)
    try:
        expected, found = run(model, images, tokens, changes), run(rtl, images, tokens, changes)
        assert found == expected
        for ours, theirs in zip(model.chips, rtl.chips, strict=True):
            for name in (f"MEM_{slice_name}" for slice_name in slices(ours.config)):
                assert np.array_equal(ours.read_mem(name), theirs.read_mem(name)), name
    finally:
        rtl.close()
    return sum(found.sent.values())


def test_threads_are_equal_to_lockstep():
    assert sum(compare(PAIR, seed, threads=1 + seed % 2) for seed in range(2)) > 4


def test_wrong_bits_arrive_as_the_line_has_them():
    """A change of a flit is in the memory of both, and of no other flit."""
    assert compare(PAIR, 3, 2, {Port(0, "E", 0): {0: 1 << 77, 2: 3}, Port(1, "E", 0): {1: 255}}) > 3


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(0, 20, 5))
@pytest.mark.parametrize("chips", [1, 2, 3, 5])
def test_threads_are_equal_to_lockstep_in_many_programs(chips: int, first: int):
    assert sum(compare(ring(chips), seed, threads=1 + seed % 2) for seed in range(first, first + 5)) > 10


def image(period: int = PERIOD, config: ChipConfig = CHIP, **own: list[int]) -> Image:
    every = {queue.name: own.get(queue.name, words()) for queue in queues(config)}
    mems = {f"MEM_{name}": np.full((64, 4, config.lanes), 3, np.uint8) for name in slices(config)}
    return Image(config=config, queues=every, starts={name: [0] for name in every}, buckets=[(period, 1 << 20)],
                 mems=mems)


SENDER = image(MEM_E0=words((SENT - 4, READ)), C2C_E=words((SENT, SEND)))


def taker(cycle: int) -> Image:
    return image(C2C_E=words((cycle, RECEIVE)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("images", "message"), [
    ([SENDER, taker(SENT + LATENCY + 1)], "was not taken at port 1.E0"),
    ([SENDER, taker(SENT + LATENCY - 1)], "no flit arrives at port 1.E0"),
    ([image(), taker(SENT)], "no flit arrives at port 1.E0"),
    ([taker(SENT), taker(SENT)], "no flit arrives at port 0.E0"),
    ([SENDER, image()], "6 flits that arrived at port 1.E0 were not taken"),
])
def test_flits_that_do_not_match_the_schedule_are_an_error(images: list[Image], message: str, threads: int):
    rack = VerilatedRack(PAIR, threads=threads)
    with pytest.raises(ChipFault, match=message):
        run(rack, images, 2)
    rack.close()


def test_more_flits_than_a_channel_holds_are_no_wait_if_nobody_takes_them():
    rack = VerilatedRack(PAIR)
    with pytest.raises(ChipFault, match=r"1200 flits that arrived at port 1\.E0 were not taken"):
        run(rack, [SENDER, image()], 400)
    rack.close()


def test_flits_that_match_it_are_none():
    rack = VerilatedRack(PAIR)
    assert run(rack, [SENDER, taker(SENT + LATENCY)], 2) == Ran(cycles=[[PERIOD] * 2] * 2, sent={
        Port(0, "E", 0): 6, Port(1, "E", 0): 0})
    rack.close()


def test_a_flit_is_taken_once_while_another_port_waits():
    """The chip in the middle takes flits at both ends in one cycle; that of the chip before it is there first."""
    middle = ring(2).chips[0]
    line = RackConfig(name="line of 3", chips=(middle,) * 3, links=tuple(
        Link(ports=(Port(n, "E", 0), Port(n + 1, "W", 0)), latency=LATENCY) for n in range(2)))
    west = replace(READ, fields={**READ.fields, "dir": Dir.W})
    takes = words((SENT + LATENCY, RECEIVE))
    images = [image(config=middle, MEM_E0=words((SENT - 4, READ)), C2C_E=words((SENT, SEND))),
              image(config=middle, C2C_W=takes, C2C_E=takes),
              image(config=middle, MEM_W0=words((SENT - 4, west)), C2C_W=words((SENT, SEND)))]
    rack = VerilatedRack(line, threads=1)
    assert run(rack, images, 1).cycles == [[PERIOD]] * 3
    rack.close()


def test_a_run_that_does_not_end_is_an_error():
    rack = VerilatedRack(PAIR, max_cycles=100)
    with pytest.raises(TimeoutExceeded, match="rack twins: tokens must end within 100 cycles"):
        run(rack, [image(), image()], 1)
    rack.close()


def test_a_position_beyond_all_buckets_starts_nothing():
    rack = VerilatedRack(PAIR)
    for chip in rack.chips:
        chip.load(image())
        chip.host_write(Space.BUCKET, 0, 0)
    assert rack.run(2).cycles == [[], []]
    rack.close()


def test_a_chip_with_links_does_not_run_alone():
    with pytest.raises(ValueError, match="simulated in a rack"):
        VerilatedChip(CHIP)
