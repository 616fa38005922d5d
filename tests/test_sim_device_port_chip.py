"""A device that reaches its chip by the host port alone, as a board is reached."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from programs import small_program

from arch.config import CONFIGS
from arch.host_map import Control, Space, fields_of
from arch.isa import width
from base.errors import TspError
from program.image import Access
from sim.cycle.chip import ModelChip
from sim.device.chip_device import ChipDevice
from sim.device.port_chip import PortChip
from sim.device.reference_device import ReferenceDevice


class ModelPort:
    """The host port of a cycle model, which runs between accesses."""

    def __init__(self, config):
        self.chip = ModelChip(config)

    def write(self, accesses: Iterable[Access]) -> None:
        for access in accesses:
            self.chip.host_write(*access)
            while self.chip.running:
                self.chip.step()
            self.chip.settle()
            self.chip.step()  # the last token's cycles are counted in the cycle behind it

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        return [self.chip.host_read(space, addr) for addr in addrs]


def test_a_story_through_the_host_port():
    program = small_program(n_layers=1, vocab_size=50)
    reference, board = ReferenceDevice(), ChipDevice("board", PortChip(program.config, ModelPort(program.config)))
    for device in (reference, board):
        device.load(program)
        device.start([1, 5, 9], 1.0, 7)
    results, expected = board.run(3), reference.run(3)
    assert [r.token for r in results] == [r.token for r in expected]
    assert [r.cycles for r in results] == [program.cycles(p) for p in range(3)]
    assert np.array_equal(board.logits(), reference.logits())
    assert not board.errors
    board.close()


def test_memory_is_written_and_read():
    chip = PortChip(CONFIGS["tiny"], ModelPort(CONFIGS["tiny"]))
    data = np.random.default_rng(0).integers(0, 256, (5, 4, 16), dtype=np.uint8)
    chip.load_mem("MEM_E1", data, at=7)
    assert np.array_equal(chip.read_mem("MEM_E1", 7, 5), data)
    assert not chip.read_mem("MEM_E0").any() and chip.read_mem("MEM_E1").shape == (256, 4, 16)


def test_equal_upper_parts_of_instructions_are_sent_once():
    """What the chip holds is the same as if every instruction came with its own."""
    config, sent = CONFIGS["tiny"], []

    class Counting(ModelPort):
        def write(self, accesses: Iterable[Access]) -> None:
            sent.extend(accesses)
            super().write(sent)

    program = small_program(n_layers=1, vocab_size=50)
    words = program.queues["VXM"]
    assert width("VXM") > 128
    PortChip(config, Counting(config)).load_queue("VXM", words)
    kept: dict[int, int] = {}
    found: dict[int, int] = {}
    for _, addr, data in sent:
        kept[addr & 3] = data
        if not addr & 3:
            found[fields_of(Space.ICU, addr)["instruction"]] = sum(part << 128 * n for n, part in kept.items())
    assert [found[n] for n in range(len(words))] == list(words)
    upper = [addr for _, addr, _ in sent if addr & 3]
    assert len(upper) == len({word >> 128 for word in words})


def test_a_chip_that_never_ends_is_given_up():
    class Stuck(ModelPort):
        def write(self, accesses: Iterable[Access]) -> None:
            list(accesses)

        def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
            return [1 if space is Space.CONTROL and a == Control.RUN.value else 0 for a in addrs]

    with pytest.raises(TspError, match="did not end a token"):
        PortChip(CONFIGS["tiny"], Stuck(CONFIGS["tiny"]), timeout=0.01).run(1)
