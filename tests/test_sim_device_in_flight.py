"""Sequences in flight: every token and logit of each sequence alone, every period in the predicted cycles."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from flights import PAIR, SMALL, Alone, Begin, fly, in_flight, one, some
from programs import TINY, random_tokenizer
from rack_programs import EVEN
from racks import ring

from arch.config import CONFIGS
from arch.rack import linked, mesh, shelves
from base.errors import TspError
from compiler.compile import compile_checkpoint
from compiler.rack.compile import compile_rack
from run.devices import open_device, open_in_flight

LONG = {**EVEN, "seq_len": 96}
"""So many vectors of positions that their masks are in SRAM."""
TURNS = {**EVEN, "vocab_size": 1500}
"""The classifier takes a loop."""
WIDE = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "dim": 64, "hidden_dim": 72}
"""Heads of several vectors, of a chip with eight lanes."""


def test_two_sequences_on_two_chips():
    program = in_flight(PAIR, buckets=2, **SMALL)
    assert [len(chip.channels["layers"]) for chip in program.chips] == [1, 1]
    assert fly(program, open_in_flight("model", program.rack), some(2), 30) > 20


def test_two_sequences_on_the_rtl_of_a_pair():
    program = in_flight(PAIR, buckets=2, **SMALL)
    assert fly(program, open_in_flight("rtl", program.rack), some(2), 60) > 50


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["model", "rtl"])
def test_a_sequence_for_each_group_of_chips(name: str):
    """The residual reaches the chips of a group that are not linked with the group before over others of their own."""
    program = in_flight(ring(6), sequences=3, n_layers=4, buckets=2, **SMALL)
    assert fly(program, open_in_flight(name, program.rack), some(3), 50) > 40


@pytest.mark.nightly
def test_sequences_in_flight_with_a_residual_in_parts():
    sizes = {"hidden_dim": 320, "head_dim": 32, "vocab_size": 300, "n_heads": 5, "n_kv_heads": 1, "dim": 208}
    program = in_flight(shelves("two shelves", "sram28", 2, 4), "dynamic", sequences=2, buckets=2, **sizes)
    assert fly(program, open_in_flight("model", program.rack), some(2), 40) > 30


def test_sequences_run_to_the_end_of_their_context_while_another_goes_on():
    """The buckets are those of the longest sequence in flight, and one that ends takes its own with it."""
    program = in_flight(PAIR, buckets=2, **SMALL)
    device = open_in_flight("model", program.rack)
    device.load(program)
    device.start(0, [1])
    short, long = program.buckets
    periods = device.run(2 * program.context + 1)
    assert [p.predicted for p in periods] == ([short.period] * 2 * short.limit
                                              + [long.period] * 2 * (program.context - short.limit) + [short.period])
    assert [p.cycles for p in periods] == [p.predicted for p in periods]
    assert [told.position for p in periods for told in p.tokens] == list(range(program.context))
    device.start(1, [1, 5], 0.5, 3)
    told = [[(token.sequence, token.position) for token in p.tokens] for p in device.run(4)]
    assert told == [[], [(1, 0)], [], [(1, 1)]]
    device.close()


def test_the_reference_tells_the_same():
    program = in_flight(PAIR, buckets=2, **SMALL)
    model, reference = open_in_flight("model", program.rack), open_in_flight("reference", program.rack)
    for device in (model, reference):
        device.load(program)
        for begin in some(2)[:2]:
            device.start(begin.sequence, begin.prompt, begin.temperature, begin.seed)
    periods = model.run(12)
    assert [replace(period, cycles=None) for period in periods] == reference.run(12)
    last = periods[-1].tokens[0].sequence
    assert np.array_equal(model.logits(last), reference.logits(last))


def test_a_sequence_goes_on_from_what_is_cached():
    """As a chat does: its prompt has grown, and only what is new runs."""
    program = in_flight(PAIR, buckets=2, **SMALL)
    device, alone = open_in_flight("model", program.rack), Alone(program)
    device.load(program)
    device.start(1, [1, 5, 7])
    device.run(8)
    device.start(1, [1, 5, 7, 9, 11], 0.7, 5, cached=3)
    told = [token for period in device.run(12) for token in period.tokens]
    alone.start(Begin(period=0, sequence=1, prompt=[1, 5, 7, 9, 11], temperature=0.7, seed=5))
    wanted = alone.devices[1].run(3 + len(told))[3:]
    assert [(each.position, each.token) for each in told] == [(3 + n, each.token) for n, each in enumerate(wanted)]
    device.close()


NIGHTLY = {
    "a ring of three, uneven layers": (ring(3, chip=linked("ulx3s", (1, 1), 2)), {"n_layers": 4}),
    "four chips": (mesh("four", "ulx3s", 4), {"n_layers": 9}),
    "exponents": (PAIR, {"scales": "dynamic"}),
    "a constant first token": (PAIR, {"scales": "robust"}),
    "masks in SRAM": (mesh("three", "ulx3s", 3), {**LONG, "n_layers": 3}),
    "a looped classifier": (mesh("three", "ulx3s", 3), {**TURNS, "n_layers": 3}),
    "heads of several vectors": (PAIR, WIDE),
    "one head a side": (PAIR, {**EVEN, "n_heads": 3, "n_kv_heads": 3}),
    "sixteen lanes, int4": (mesh("two", "large", 2), {"dim": 64, "hidden_dim": 80, "weights": "int4"}),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", NIGHTLY)
def test_models_of_many_kinds(name: str):
    rack, options = NIGHTLY[name]
    program = in_flight(rack, **({**EVEN, **options} if "dim" not in options else options))
    count = program.sequences
    periods = count * program.context + 3 * count
    begins = [*some(count), Begin(period=count * 9, sequence=0, prompt=[1, 3], temperature=0.9, seed=4)]
    assert fly(program, open_in_flight("model", rack), begins, periods, {count * 6: 0}) > count * program.context // 2


@pytest.mark.nightly
@pytest.mark.parametrize("chips", [2, 3, 4])
def test_the_rtl_over_the_whole_context(chips: int):
    program = in_flight(mesh(f"{chips} chips", "ulx3s", chips), **EVEN, n_layers=chips + 1)
    assert fly(program, open_in_flight("rtl", program.rack), some(chips), chips * (program.context + 2)) > 60


@pytest.mark.nightly
def test_eight_sequences_on_eight_chips_take_a_seventh_of_the_cycles():
    """The goal is seven; a chip of the same kind is given the SRAM that all layers need."""
    sizes = {"dim": 64, "hidden_dim": 96, "n_layers": 47, "n_heads": 8, "n_kv_heads": 4, "head_dim": 8,
             "vocab_size": 256, "seq_len": 24}
    program = in_flight(ring(8, 12, linked("ulx3s", (1, 1), 2)), **sizes)
    assert fly(program, open_in_flight("rtl", program.rack), some(8), 40) > 20
    model, deep = small_config(**(TINY | sizes)), replace(CONFIGS["ulx3s"], mem_depths=(8192, 16384, 16384))
    alone = compile_checkpoint(random_checkpoint(model), random_tokenizer(model.vocab_size), config=deep,
                               scales="static", measure=False)
    assert alone.context == program.context
    assert alone.mean_cycles > 7.5 * program.mean_cycles


def test_what_is_refused():
    program = in_flight(PAIR, buckets=2, **SMALL)
    with pytest.raises(TspError, match="the program serves 2 sequences: run it with `tsp run`"):
        open_device("model", program.rack).load(program)
    with pytest.raises(TspError, match="the program serves one sequence: compile it with --sequences"):
        open_in_flight("model", program.rack).load(one(program))
    with pytest.raises(TspError, match="sequences in flight must be as many as groups of chips, 1 or 3, not 2"):
        compile_rack(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]), rack=ring(3),
                     sequences=2)
    with pytest.raises(TspError, match="sequences in flight must be as many as groups of chips, 1, not 2"):
        compile_rack(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]), rack=ring(2),
                     sequences=2, pipeline=1)
