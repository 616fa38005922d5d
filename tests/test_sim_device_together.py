"""Two sequences in one program of a chip: every token and logit of each alone, every period in the predicted cycles."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import REPOSITORY, SHARED_MODELS
from flights import ALONE, Begin, fly, one, some, together

from arch.config import CONFIGS
from base.errors import TspError
from compiler.fit import fit
from program.file import from_bytes, to_bytes
from program.program import Program
from run.devices import open_device, open_in_flight
from run.programs import open_program

ULX3S = CONFIGS["ulx3s"]


def test_two_sequences_on_one_chip():
    program = together(ULX3S, **ALONE)
    assert fly(program, open_in_flight("model", ULX3S), some(2), 30) > 40


def test_two_sequences_on_the_rtl():
    program = together(ULX3S, **ALONE)
    assert fly(program, open_in_flight("rtl", ULX3S), some(2), 60, {40: 0}) > 40


def test_a_sequence_ends_while_the_other_goes_on():
    """The bucket is that of the longer one, and one that ends takes its own with it."""
    program = together(ULX3S, **ALONE)
    device = open_in_flight("model", ULX3S)
    device.load(program)
    device.start(0, [1])
    told = [[(token.sequence, token.position) for token in period.tokens] for period in device.run(2)]
    assert told == [[(0, 0)], [(0, 1)]]
    device.start(1, [1, 5], 0.5, 3)
    periods = device.run(program.context)
    assert [len(period.tokens) for period in periods] == [2] * (program.context - 2) + [1, 1]
    assert [period.predicted for period in periods] == [
        program.cycles(position) for position in (*range(2, program.context), program.context - 2, program.context - 1)]
    assert all(period.cycles == period.predicted for period in periods)
    device.close()


def test_the_reference_tells_the_same():
    program = together(ULX3S, **ALONE)
    model, reference = open_in_flight("model", ULX3S), open_in_flight("reference", ULX3S)
    for device in (model, reference):
        device.load(program)
        for begin in some(2)[:2]:
            device.start(begin.sequence, begin.prompt, begin.temperature, begin.seed)
    assert [replace(period, cycles=None) for period in model.run(6)] == reference.run(6)
    assert all(np.array_equal(model.logits(n), reference.logits(n)) for n in range(2))


def test_a_file_keeps_both_sequences():
    program = together(ULX3S, **ALONE)
    found = from_bytes(to_bytes(program))
    assert (found.sequences, found.periods_a_token, found.tokens_a_period) == (2, 1, 2)
    assert to_bytes(found) == to_bytes(program)
    with pytest.raises(TspError, match="tensor 'logits' must have 26 quads, not 13"):
        logits = replace(program.symbols["logits"], quads=13)
        from_bytes(to_bytes(replace(program, symbols=program.symbols | {"logits": logits})))


def test_what_is_refused():
    program = together(ULX3S, **ALONE)
    with pytest.raises(TspError, match="the program serves 2 sequences: run it with `tsp run`"):
        open_device("model", ULX3S).load(program)
    with pytest.raises(TspError, match="the program serves one sequence: compile it with --sequences: 2, or as many"):
        open_in_flight("model", ULX3S).load(one(program))
    with pytest.raises(TspError, match="sequences on one chip must be 1 or 2, not 3: give --rack"):
        fit(program.model, ULX3S, sequences=3)


NIGHTLY = {
    "exponents": (ULX3S, {"scales": "dynamic"}),
    "a constant first token": (ULX3S, {"scales": "robust"}),
    "an odd number of heads": (CONFIGS["large"], {"dim": 64, "hidden_dim": 80, "head_dim": 16, "n_heads": 3,
                                                  "n_kv_heads": 3}),
    "no shared keys": (ULX3S, {"n_heads": 4, "n_kv_heads": 4}),
    "heads of several vectors": (ULX3S, {"n_heads": 2, "n_kv_heads": 2, "head_dim": 16, "dim": 32}),
    "sixteen lanes": (CONFIGS["large"], {"dim": 64, "hidden_dim": 80, "head_dim": 16}),
    "heads of half a vector": (CONFIGS["large"], {"dim": 48, "hidden_dim": 80}),
    "int4": (CONFIGS["large"], {"dim": 64, "hidden_dim": 80, "head_dim": 16, "weights": "int4"}),
    "a looped classifier": (CONFIGS["large"], {"dim": 64, "hidden_dim": 80, "head_dim": 16, "vocab_size": 1500}),
    "maxima in the drain": (CONFIGS["wide"], {"dim": 64, "hidden_dim": 80, "head_dim": 16}),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", NIGHTLY)
def test_models_of_many_kinds(name: str):
    config, options = NIGHTLY[name]
    program = together(config, **ALONE | options)
    begins = [*some(2), Begin(period=19, sequence=0, prompt=[1, 3], temperature=0.9, seed=4)]
    assert fly(program, open_in_flight("model", config), begins, program.context + 6, {12: 0}) > program.context


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["stories260K", "stories263k"])
def test_the_rtl_over_the_whole_context(model: str):
    """Greedy, sampled, and begun anew, at positions of all buckets."""
    path = (SHARED_MODELS if model == "stories260K" else REPOSITORY / "models") / f"{model}.bin"
    program = open_program(path, config="ulx3s", sequences=2, context=128)
    assert isinstance(program, Program)
    begins = [Begin(period=0, sequence=0, prompt=[1, 403, 407, 261]),
              Begin(period=37, sequence=1, temperature=0.8, seed=7),
              Begin(period=140, sequence=0, prompt=[1, 410], temperature=1.0, seed=11)]
    assert fly(program, open_in_flight("rtl", ULX3S), begins, 180) > 260
