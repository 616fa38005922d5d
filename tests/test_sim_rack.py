"""Chips that exchange flits: worked examples, random programs, the verifier's proof, and the RTL in lockstep."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from rack_programs import EVEN, rack_program
from racks import CHIP, ring, words

from arch.host_map import Trap
from arch.isa import Dir, Instr, LinkOp, Op
from arch.legal import IllegalProgram
from arch.rack import Oscillators, RackConfig
from arch.row import queues, slices
from base.errors import TspError
from compiler.verify.proof import verify_bucket
from compiler.verify.rack import verify_links, verify_slack
from program.image import Image, image_of
from sim.check.racks import bucket_words, lockstep_of_rack, random_images
from sim.check.random_instructions import MAX_OFFSET
from sim.cycle.chip import ProgramError
from sim.rack import RackModel
from sim.rtl.rack import RackSimulator

PAIR = ring(2)
LATENCY = 9
PERIOD = 128
BOUNDS = {(name, register): MAX_OFFSET for name in slices(CHIP) for register in range(1, CHIP.index_regs)}

READ = Instr(Op.READ, fields={"addr": 5, "dir": Dir.E, "planes": 15, "count": 3, "interval": 4})
SEND = Instr(LinkOp.SEND, fields={"plane": 2, "ports": 1, "count": 3, "interval": 4})
RECEIVE = Instr(LinkOp.RECEIVE, fields={"port": 0, "planes": 0b1010, "count": 3, "interval": 4})
WRITE = Instr(Op.WRITE, fields={"addr": 40, "stride": 1, "dir": Dir.E, "planes": 0b1010, "count": 3, "interval": 4})
SENT = 20
"""Cycle in which the first SEND executes: a multiple of a slot."""
TO_EDGE = 2
"""Hops from MEM_E to the eastern end."""
TAKEN = SENT + LATENCY


def image(period: int = PERIOD, **own: Sequence[int]) -> Image:
    every = {one.name: list(own.get(one.name, words())) for one in queues(CHIP)}
    rng = np.random.default_rng(3)
    mems = {f"MEM_{name}": rng.integers(0, 256, (64, 4, CHIP.lanes), np.uint8) for name in slices(CHIP)}
    return Image(config=CHIP, queues=every, starts={name: [0] for name in every}, buckets=[(period, 1 << 20)], maps={},
                 mems=mems)


def sender(sent: int = SENT, send: Instr = SEND) -> Image:
    return image(MEM_E0=words((sent - TO_EDGE - 2, READ)), C2C_E=words((sent, send)))


def taker(taken: int = TAKEN, receive: Instr = RECEIVE) -> Image:
    """Drives what comes eastward, from the western end to MEM_W, two hops on."""
    return image(C2C_W=words((taken, receive)), MEM_W0=words((taken + 2, WRITE)))


def test_worked_example():
    """Plane 2 of quad 5, sent three times, lands on planes 1 and 3 of quads 40..42 of the other chip."""
    rack = RackModel(PAIR)
    rack.load([sender(), taker()])
    before = rack.chips[1].mem("MEM_W0").copy()
    flit = rack.chips[0].mem("MEM_E0")[5, 2]
    assert rack.run(2) == [[PERIOD] * 2] * 2
    expected = before.copy()
    expected[40:43, 1] = expected[40:43, 3] = flit
    assert np.array_equal(rack.chips[1].mem("MEM_W0"), expected)


ILLEGAL = [  # images, what the machine says, what the verifier says
    ([sender(), taker(TAKEN + 1)], Trap.EMPTY_READ, Trap.NOT_PARKED),  # too late
    ([sender(), image()], Trap.NOT_PARKED, Trap.NOT_PARKED),  # nobody takes it
    ([image(), taker()], Trap.EMPTY_READ, Trap.EMPTY_READ),  # nobody sent it
    ([sender(SENT + 1), taker(TAKEN + 1)], Trap.COLLISION, Trap.COLLISION),  # within a slot
    ([sender(send=Instr(LinkOp.SEND, fields={**SEND.fields, "ports": 2})), image()], Trap.ADDRESS, Trap.ADDRESS),
    ([sender(), taker(receive=Instr(LinkOp.RECEIVE, fields={**RECEIVE.fields, "port": 1}))], Trap.ADDRESS,
     Trap.ADDRESS),
]


def verify(rack: RackConfig, images: Sequence[Image]) -> None:
    """Every bucket of every chip by itself, then the flits between them."""
    for bucket in range(len(images[0].buckets)):
        verify_links(rack, [verify_bucket(config, bucket_words(one, bucket), one.buckets[bucket][0], BOUNDS)
                            for config, one in zip(rack.chips, images, strict=True)])


def test_the_worked_example_is_proven():
    verify(PAIR, [sender(), taker()])


@pytest.mark.parametrize(("images", "trap", "rule"), ILLEGAL)
def test_illegal_programs(images: list[Image], trap: Trap, rule: Trap):
    with pytest.raises(IllegalProgram) as refused:
        verify(PAIR, images)
    assert refused.value.rule is rule, refused.value
    rack = RackModel(PAIR)
    rack.load(images)
    with pytest.raises(ProgramError) as raised:
        rack.run(1)
    assert raised.value.trap is trap, raised.value


def test_what_only_the_verifier_refuses():
    late = sender(PERIOD - 12)
    with pytest.raises(IllegalProgram, match=r"cycle must be in 8\.\.123: .* belong to the links"):
        verify(PAIR, [late, image()])
    with pytest.raises(IllegalProgram, match="all chips must have the same period, not 128, 132"):
        verify(PAIR, [sender(), image(132)])
    with pytest.raises(IllegalProgram, match="the period must be a multiple of 4"):
        verify(PAIR, [image(PERIOD + 1, C2C_E=sender().queues["C2C_E"], MEM_E0=sender().queues["MEM_E0"]), image()])
    with pytest.raises(IllegalProgram, match="there must be a program for each of 2 chips, not 1"):
        verify_links(PAIR, [verify_bucket(CHIP, bucket_words(image(), 0), PERIOD, {})])


def test_the_slack_must_suffice_for_a_token():
    """At 100 ppm clocks run apart by a cycle in 5,000. 2,500 cycles are around a token; one is for jitter."""
    def needed(period: int, ppm: float = 100.0) -> int:
        return Oscillators(ppm=ppm, slack=1).apart(period)

    assert [needed(period) for period in (100, 2400, 2500, 100_000)] == [2, 2, 3, 22]
    assert needed(100_000, 25.0) == 7
    own = replace(PAIR, oscillators=Oscillators(ppm=100.0, slack=2))
    verify(own, [sender(), taker()])
    verify_slack(own, 2400)
    with pytest.raises(TspError, match=r"^rack ring of 2: clocks of \+-100 ppm run 3 cycles apart in a token of 2,600 "
                                       r"cycles, but its slack is 2: give it a slack of 3 cycles and links with"):
        verify_slack(own, 2600)
    with pytest.raises(TspError, match="but its slack is 2: use oscillators with fewer ppm, or one clock"):
        verify_slack(own, 100_000)
    off = replace(PAIR, oscillators=Oscillators(ppm=1000.0, slack=2))
    with pytest.raises(TspError, match="rack ring of 2: clocks of"):
        verify(off, [sender(), taker()])


def flits(images: Sequence[Image]) -> int:
    return sum(word & 15 == LinkOp.SEND.value for one in images for side in "WE" for word in one.queues[f"C2C_{side}"])


@pytest.mark.parametrize("chips", [1, 2, 3])
def test_random_programs_are_legal(chips: int):
    rack, sends = ring(chips), 0
    for seed in range(5):
        images, tokens = random_images(rack, seed)
        model = RackModel(rack)
        model.load(images)
        cycles = model.run(tokens)
        assert len(cycles[0]) == tokens and all(each == cycles[0] for each in cycles)
        verify(rack, images)
        sends += flits(images)
    assert sends > 20 * chips


def run_lockstep(rack: RackConfig, programs: Iterable[tuple[list[Image], int]]) -> None:
    simulator = RackSimulator(rack)
    for images, tokens in programs:
        simulator.restart()
        lockstep_of_rack(rack, images, tokens, simulator)
    simulator.close()


def test_model_and_rtl_of_two_chips_agree_in_every_cycle():
    """In random programs, and in a token of a compiled one."""
    compiled = [image_of(chip) for chip in rack_program(PAIR, "static", **EVEN).chips]
    run_lockstep(PAIR, [*(random_images(PAIR, seed) for seed in range(3)), (compiled, 1)])


@pytest.mark.nightly
@pytest.mark.parametrize("chips", [1, 2, 3])
def test_model_and_rtl_agree_in_many_programs(chips: int):
    run_lockstep(ring(chips), (random_images(ring(chips), seed) for seed in range(100, 300)))
