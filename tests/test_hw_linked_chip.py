"""Chips with their endpoints, joined at the pins: programs against the cycle model of a rack, and errors."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, cast

import numpy as np
import pytest
from linked_bench import CHIP, CLOSING, LATENCY, LINK, LinkedBench, ring

from arch.host_map import Control
from arch.isa import Dir, Instr, LinkOp, Op, encode
from arch.link_map import COMMAND, LinkRegister, LinkTrap, pack
from arch.rack import Port, RackConfig
from arch.row import queues, slices
from hw.link.parameters import LinkParameters
from hw.link.receive import Fault
from hw.link.train import State
from hw.linked_chip import ports
from program.image import Image
from sim.check.racks import lockstep_of_rack, random_images
from sim.rack import RackModel
from sim.rtl.rack import RackChip, RackSimulator

PAIR = ring(2)
RING = ring(3, LATENCY, CLOSING, LATENCY)
CHAIN = replace(RING, name="chain of three", links=RING.links[:2])
BOTH = None, Port(1, "W", 0), Port(2, "E", 0)
"""Parents: both other chips of a ring of three follow the root."""
EAST, WEST = Port(0, "E", 0), Port(1, "W", 0)
BITS = sorted((*LINK.code.data_places, *LINK.code.check_places))
LINK_ERROR, START_ERROR = (1 << trap.value for trap in (LinkTrap.LINK, LinkTrap.START))

PERIOD, SENT, FLITS = 160, 24, 24
TO_EDGE = 2
"""Hops from MEM_E to the eastern end, and from the western one to MEM_W."""


def queue(*words: tuple[int, Instr]) -> list[int]:
    """Words whose first elements execute in these cycles."""
    found, now = [], 4
    for execute, instr in words:
        if execute - 1 > now:
            found.append(encode(Instr(Op.NOP, execute - 1 - now)))
        found.append(encode(instr))
        now = execute
    return [*found, encode(Instr(Op.SYNC))]


def image(**words: Sequence[int]) -> Image:
    every = {one.name: list(words.get(one.name, queue())) for one in queues(CHIP)}
    rng = np.random.default_rng(3)
    mems = {f"MEM_{name}": rng.integers(0, 256, (64, 4, CHIP.lanes), np.uint8) for name in slices(CHIP)}
    return Image(config=CHIP, queues=every, starts={name: [0] for name in every}, buckets=[(PERIOD, 1 << 20)], maps={},
                 mems=mems)


def copier(latency: int = LATENCY) -> list[Image]:
    """Chip 0 sends 24 flits in slots that follow each other, planes of quads 5.., chip 1 writes them. A token that is
    run again does the same again."""
    burst = {"count": FLITS, "interval": CHIP.slot}
    read = Instr(Op.READ, fields={"addr": 5, "stride": 1, "dir": Dir.E, "planes": 15, **burst})
    send = Instr(LinkOp.SEND, fields={"plane": 2, "ports": 1, **burst})
    take = Instr(LinkOp.RECEIVE, fields={"port": 0, "planes": 0b1010, **burst})
    write = Instr(Op.WRITE, fields={"addr": 36, "stride": 1, "dir": Dir.E, "planes": 0b1010, **burst})
    taken = SENT + latency
    return [image(MEM_E0=queue((SENT - TO_EDGE - 2, read)), C2C_E=queue((SENT, send))),
            image(C2C_W=queue((taken, take)), MEM_W0=queue((taken + TO_EDGE, write)))]


def memories(chip) -> list[np.ndarray]:
    return [chip.read_mem(f"MEM_{name}") if hasattr(chip, "read_mem") else chip.mem(f"MEM_{name}")
            for name in slices(CHIP)]


def check(bench: LinkedBench, images: list[Image], tokens: int, noise: "Noise | None" = None,
          model: RackModel | None = None) -> None:
    """Tokens begin in the same slot on all chips, take the model's cycles, and leave the model's memories.

    model: one with these images that has run what the bench has run before.
    """
    if model is None:
        model = RackModel(bench.rack)
        model.load(images)
    predicted = model.run(tokens)
    begun = bench.run(tokens, noise or (lambda: None))
    if noise:
        noise.stop()
    assert [[cycles for _, cycles in chip] for chip in begun] == predicted
    assert all(chip == begun[0] for chip in begun) and all(counter % CHIP.slot == 0 for counter, _ in begun[0])
    for chip, host in zip(model.chips, bench.hosts, strict=True):
        for expected, found in zip(memories(chip), memories(host), strict=True):
            assert np.array_equal(expected, found)


def good(bench: LinkedBench) -> None:
    assert bench.errors() == [0] * len(bench.hosts), bench.status()


def faults(bench: LinkedBench, port: Port) -> set[Fault]:
    found = bench.hosts[port.chip].status(port)["errors"]
    return {fault for fault in Fault if found >> fault.value & 1}


class Noise:
    """Flips one bit of a codeword on every line in every slot; counts them."""

    def __init__(self, bench: LinkedBench, seed: int):
        self.bench, self.rng, self.now, self.flips = bench, np.random.default_rng(seed), 0, 0

    def __call__(self) -> None:
        if self.now % CHIP.slot == 0:
            for port in self.bench.rack.across:
                self.bench.lines(port, flip=1 << BITS[self.rng.integers(len(BITS))])
                self.flips += 1
        self.now += 1

    def stop(self) -> None:
        for port in self.bench.rack.across:
            self.bench.lines(port, flip=0)


def programs(rack: RackConfig, seeds: Sequence[int], **wiring: Any) -> None:
    """Random legal programs, every other one with a wrong bit in every slot."""
    for seed in seeds:
        bench = LinkedBench(rack, seed=seed, skew=seed % 3, apart=True, **wiring)
        images, tokens = random_images(rack, seed)
        bench.start(images)
        noise = Noise(bench, seed) if seed % 2 else None
        check(bench, images, tokens, noise)
        bench.step(64)
        good(bench)
        assert abs(bench.corrected() - (noise.flips if noise else 0)) <= 4 * len(rack.across)
        assert not noise or noise.flips > 100


def test_tokens_of_two_chips_are_those_of_the_model_with_wrong_bits_too():
    programs(PAIR, (0, 1, 5))


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(100, 300, 20))
def test_many_programs(first: int):
    programs(PAIR, range(first, first + 20))


@pytest.mark.nightly
def test_programs_of_a_chain_of_three_chips():
    """The last chip's counter follows one that follows the root's. Of a ring's links the last one is not used."""
    programs(CHAIN, range(10), wired=RING)


@pytest.mark.nightly
def test_programs_of_a_ring_of_three_chips():
    """Both other chips' counters follow the root's; the link between them closes the ring."""
    programs(RING, range(10), parents=BOTH)


@pytest.mark.nightly
def test_a_ring_whose_chips_follow_each_other_may_stay_down():
    """The third chip's counter is two links from the root's; the link between them says LATENCY on some resets."""
    down = 0
    for seed in range(12):
        bench = LinkedBench(RING, seed=seed, apart=True)
        bench.set_up()
        if not bench.up():
            down += 1
            assert any(Fault.LATENCY in faults(bench, port) for port in (Port(2, "E", 0), Port(0, "W", 0)))
    assert down


def test_a_worked_example():
    bench, images = LinkedBench(PAIR), copier()
    before = images[1].mems["MEM_W0"].copy()
    bench.start(images)
    check(bench, images, 3)
    good(bench)
    assert np.array_equal(bench.hosts[1].read_mem("MEM_W0")[36 : 36 + FLITS, 1], images[0].mems["MEM_E0"][5:29, 2])
    assert not np.array_equal(bench.hosts[1].read_mem("MEM_W0"), before)


def at(bench: LinkedBench, when: int, what) -> Iterator[None]:
    """Does something so many cycles after the token's start on chip 0."""
    since = -1
    while True:
        since = 0 if bench.port(0, "token_start") else since + (since >= 0)
        if since == when:
            what()
        elif since == when + CHIP.slot:
            bench.lines(EAST, flip=0)
        yield


def again(bench: LinkedBench, images: list[Image]) -> None:
    """The token of position 0 is run again, from its position, and is right."""
    for host in bench.hosts:
        host.register(Control.POSITION.value, 0)
    bench.clear()
    check(bench, images, 1)
    good(bench)


@pytest.mark.parametrize("bits", [BITS[3:5], (0, LINK.pins)])
def test_a_double_error_makes_the_token_invalid_and_it_is_run_again(bits: Sequence[int]):
    bench, images = LinkedBench(PAIR), copier()
    bench.start(images)
    step = at(bench, 2 * PERIOD // 5, lambda: bench.lines(EAST, flip=sum(1 << bit for bit in bits)))
    begun = bench.run(1, lambda: next(step))
    assert begun[0] == begun[1] and begun[0][0][1] == PERIOD
    assert bench.errors() == [0, LINK_ERROR] and faults(bench, WEST) == {Fault.FAILED}
    assert bench.hosts[1].status(WEST)["first"] == 1 << Fault.FAILED.value
    again(bench, images)


def test_what_the_code_does_not_see_the_crc_has_seen_when_the_run_ends():
    """A wrong codeword in the last token: RUN does not read as 0 before the CRC has come."""
    silent = next(mask for mask in (sum(1 << bit for bit in bits) for bits in combinations(BITS, 4))
                  if not LINK.code.sum(mask))
    bench, images = LinkedBench(PAIR), copier()
    bench.start(images)
    step = at(bench, SENT + 2 * CHIP.slot + 1, lambda: bench.lines(EAST, flip=silent))
    bench.run(1, lambda: next(step))
    assert bench.port(1, "errors") == LINK_ERROR and faults(bench, WEST) == {Fault.CRC}, bench.status()
    again(bench, images)


def cable(bench: LinkedBench, cut: int) -> None:
    for port in PAIR.across:
        bench.lines(port, cut=cut)


def test_a_cable_pulled_in_mid_token_is_an_error_and_no_run_hangs():
    bench, images = LinkedBench(PAIR), copier()
    bench.start(images)
    step = at(bench, 50, lambda: cable(bench, -1 & (1 << LINK.pins + 1) - 1))
    bench.run(3, lambda: next(step))
    assert all(error & LINK_ERROR for error in bench.errors()), bench.status()
    for _ in range(2):  # nor the next ones
        bench.clear()
        bench.run(1)
        assert all(error & LINK_ERROR for error in bench.errors()), bench.status()
    cable(bench, 0)
    bench.retrain()
    again(bench, images)


def test_a_link_that_is_not_up_makes_tokens_invalid():
    """The wire of a bit is cut before training: the START does not come, but the run ends."""
    bench, images = LinkedBench(PAIR), copier()
    bench.lines(EAST, cut=1)
    bench.set_up()
    for host, one in zip(bench.hosts, images, strict=True):
        host.load(one)
    assert not bench.up()
    found = bench.hosts[1].status(WEST)
    assert (found["state"], found["lane"], found["up"]) == (State.FAILED.value, 0, 0)
    bench.clear()
    bench.run(1)
    assert Fault.DOWN in faults(bench, WEST) and all(error & LINK_ERROR for error in bench.errors())


def test_a_chip_that_is_not_ready_for_the_start_says_so():
    bench, images = LinkedBench(PAIR), copier()
    bench.start(images)
    bench.hosts[0].register(Control.RUN.value, 1)
    bench.step(64 * CHIP.slot)
    bench.hosts[1].register(Control.RUN.value, 1)
    bench.step(4 * PERIOD)
    assert [bench.port(n, "running") for n in (0, 1)] == [0, 0]
    assert bench.errors()[1] & START_ERROR
    again(bench, images)


def test_a_reset_of_one_chip_in_mid_token_is_an_error_of_the_other():
    bench, images = LinkedBench(PAIR), copier()
    bench.start(images)

    def reset() -> None:
        bench.model.reset = 2
        bench.step(2)
        bench.model.reset = 0

    step = at(bench, 50, reset)
    bench.run(2, lambda: next(step))
    assert bench.errors()[0] & LINK_ERROR
    bench.retrain()
    bench.hosts[1].load(images[1])
    again(bench, images)


def test_the_host_measures_the_eye_of_a_pin():
    """Steps of a pin's delay until its bits are wrong."""
    bench = LinkedBench(PAIR, lengths=[10] * 4)
    bench.start()
    host = bench.hosts[1]

    def corrected(what: str) -> int:
        host.link(WEST, LinkRegister.COMMAND, pack(COMMAND, **{what: 1 << 2}))
        bench.step(4 * LATENCY)
        bench.clear()
        bench.step(200)
        found = host.status(WEST)
        return found["corrected"] + (found["errors"] > 0)

    eye = [corrected("load") == 0, *(corrected("step") == 0 for _ in range(11))]
    assert eye[0] and not all(eye) and eye == sorted(eye, reverse=True), eye
    assert corrected("load") == 0


class Recorded:
    """What a rack of debug builds showed in every cycle, as a `sim.rtl.rack.RackSimulator` that has run already.

    Chips are one in step here, whatever their counters were in the rack: each one's first cycle is its start pulse's.
    """

    def __init__(self, rack: RackConfig, frames: list[list[dict[str, int]]]):
        self.rack, self._frames, self._now = rack, frames, 0
        self.chips = [_RecordedChip(self, n) for n in range(len(rack.chips))]

    def port(self, chip: int, name: str) -> int:
        return self._frames[chip][self._now][name]

    def step(self, cycles: int = 1) -> None:
        self._now += cycles


class _RecordedChip(RackChip):
    def __init__(self, recorded: Recorded, number: int):
        super().__init__(cast(RackSimulator, recorded), number)

    def write(self, accesses: np.ndarray) -> None:
        """It was written when it ran."""


@pytest.mark.nightly
def test_every_cycle_is_the_models():
    """Streams, units and flits of debug builds, cycle by cycle."""
    debug = replace(CHIP, debug=True)
    rack = replace(PAIR, chips=(debug,) * 2)
    names = [name for name in ports(debug, LINK)
             if name.startswith(("e_", "w_", "issued", "parked", "probe_", "traps_"))]
    for seed in range(20):
        bench = LinkedBench(rack, seed=seed)
        images, tokens = random_images(rack, seed)
        bench.start(images)
        noise = Noise(bench, seed)
        frames: list[list[dict[str, int]]] = [[], []]

        def record(bench=bench, noise=noise, frames=frames) -> None:
            noise()
            for n, kept in enumerate(frames):
                if kept or bench.port(n, "token_start"):
                    kept.append({name: bench.port(n, name) for name in names})

        bench.run(tokens, record)
        for _ in range(64):
            bench.step()
            record()
        lockstep_of_rack(rack, images, tokens, cast(RackSimulator, Recorded(rack, frames)))
        good(bench)


def test_refusals():
    with pytest.raises(ValueError, match="link must have 4 lanes and slots of 4 cycles like the chip, not 8 and 2"):
        ports(CHIP, LinkParameters(lanes=8, ratio=2))
    with pytest.raises(ValueError, match=r"latency must be in 0\.\.63, not 64"):
        pack({"latency": 6}, latency=64)
