"""Images as host accesses, and what a chip holds after them."""

import numpy as np
from programs import small_program

from arch.config import CONFIGS
from arch.host_map import Space
from arch.row import queues
from program.image import accesses, each, host_words, image_of
from sim.cycle.chip import ModelChip


def test_a_chip_holds_what_its_image_says():
    program = small_program(n_layers=1, vocab_size=50)
    chip = ModelChip(program.config)
    chip.load(image_of(program))
    for queue in queues(program.config):
        words = program.queues[queue.name]
        assert [chip.icus[queue.name].words[n] for n in range(len(words))] == list(words)
        starts = program.starts[queue.name]
        assert [chip.icus[queue.name].starts[n] for n in range(len(starts))] == list(starts)
        if queue.unit == "MEM":
            quads = program.image[queue.slice_name]
            assert np.array_equal(chip.read_mem(queue.name, 0, len(quads)), quads)
    table = [[bucket.period, bucket.limit] for bucket in program.buckets]
    assert chip.buckets.tolist() == table + [[0, 0]] * (program.config.buckets - len(table))
    assert {number: tuple(chip.maps[number]) for number in program.maps} == program.maps


def test_accesses_one_by_one():
    words = [(1 << 128) - 1, 0, 0x123456789 << 64]
    found = accesses(Space.MEM, [5, 6, 9], host_words(words))
    assert list(each(found)) == list(zip([Space.MEM] * 3, [5, 6, 9], words, strict=True))


def test_memory_in_the_middle_of_a_slice():
    config = CONFIGS["ulx3s"]  # lanes do not fill a host word
    chip, data = ModelChip(config), np.random.default_rng(0).integers(0, 256, (3, 4, config.lanes), dtype=np.uint8)
    chip.load_mem("MEM_E2", data, at=2557)
    assert np.array_equal(chip.read_mem("MEM_E2", 2557), data)
    assert np.array_equal(chip.mem("MEM_E2")[2557:], data) and not chip.mem("MEM_E2")[:2557].any()
