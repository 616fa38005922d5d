"""Racks over the ranks of MPI, for `mpirun -n 2 python tests/spread.py WHAT`. See test_sim_rtl_spread.py."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import base.one_thread  # noqa: F401, I001

import numpy as np
from racks import ring
from small_racks import PAIR

from arch.rack import Port, RackConfig
from arch.row import slices
from program.image import Image
from sim.check.racks import random_images
from sim.device.protocol import ChipFault
from sim.device.rack import HostedRack
from sim.rtl import ranks, spread
from sim.rtl.exchange import Exchange
from sim.rtl.linked import VerilatedRack


def compare(rack: RackConfig, seed: int, changes=None) -> int:
    """Run a random program in one process and in all ranks, and compare cycles, flits and memories; flits sent."""
    images, tokens = random_images(rack, seed)
    here = ranks.current()
    assert here
    one, many = VerilatedRack(rack, threads=1), spread.SpreadRack(rack, here)
    found = []
    for each in (one, many):
        for chip, image in zip(each.chips, images, strict=True):
            chip.load(image)
        found.append(each.run(tokens, changes))
    assert found[0] == found[1]
    for ours, theirs in zip(one.chips, many.chips, strict=True):
        for name in (f"MEM_{slice_name}" for slice_name in slices(ours.config)):
            assert np.array_equal(ours.read_mem(name), theirs.read_mem(name)), name
    one.close()
    many.close()
    return sum(found[0].sent.values())


def schedules(first: int, count: int) -> int:
    """Random schedules on two chips and on a ring of three; prints the flits."""
    sent = [compare(PAIR, seed) + compare(ring(3), seed) for seed in range(first, first + count)]
    print(sum(sent), compare(PAIR, 3, {Port(0, "E", 0): {0: 1 << 77, 2: 3}, Port(1, "E", 0): {1: 255}}))
    return 0


def faults() -> int:
    """Flits that do not match the schedule, and then some that do. Prints what is raised, or the cycles."""
    from test_sim_rtl_linked import LATENCY, SENDER, SENT, image, taker

    here = ranks.current()
    assert here
    for images in ([SENDER, image()], [SENDER, taker(SENT + LATENCY + 1)], [image(), taker(SENT)],
                   [taker(SENT), taker(SENT)], [SENDER, taker(SENT + LATENCY)]):
        one, many = [_told(rack, images) for rack in (VerilatedRack(PAIR, threads=1), spread.SpreadRack(PAIR, here))]
        print(many if one == many else f"{one} and {many}")
    return 0


def _told(rack: HostedRack, images: Sequence[Image]) -> str:
    for chip, own in zip(rack.chips, images, strict=True):
        chip.load(own)
    try:
        return str(rack.run(2).cycles)
    except ChipFault as error:
        return str(error)
    finally:
        rack.close()


def broken(kind: str) -> None:
    """Let rank 1 raise an error, or die, in the middle of a run."""
    def run(*_: object) -> None:
        if kind == "killed":
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()
            signal.pause()
        raise ZeroDivisionError("a bug of ours")

    Exchange._run = run  # type: ignore[assignment, method-assign]


def main() -> int:
    what = sys.argv[1]
    if what == "faults":
        return faults()
    if what == "schedules":
        return schedules(*map(int, sys.argv[2:]))
    return schedules(0, 1)


def hold(comm) -> None:
    if sys.argv[1] in ("killed", "raises"):
        broken(sys.argv[1])
    spread.serve(comm)


if __name__ == "__main__":
    sys.exit(ranks.in_ranks(main, hold))
