"""From checkpoint to tokens: reference, cycle model and RTL give the same bits, in the cycles that were predicted."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import REPOSITORY, SHARED_MODELS, random_checkpoint, small_config, write_llama2c
from programs import FIFTEEN, fifteen_million, random_tokenizer, small_program, write_letters

from arch.config import CONFIGS
from arch.identity import chip_digest
from base.errors import TspError
from compiler.compile import MANY_PARAMETERS, compile_checkpoint
from compiler.fit import fit
from compiler.frontend.files import read_model
from compiler.place import placement
from program.file import load
from program.program import Program
from program.tokenizer import Tokenizer
from run.devices import open_device
from run.programs import open_program
from run.session import Session
from run.story import begin, plan
from sim.device.chip_device import ChipDevice
from sim.device.protocol import Device, TokenResult, sampler_of

SHIPPED = REPOSITORY / "models" / "stories263k.bin"
PROMPT = "Once upon a time"
SAMPLED = {"temperature": 1.0, "seed": 7}

SHAPES = {
    "heads that share a vector": {"dim": 24, "head_dim": 4, "n_heads": 6, "n_kv_heads": 3},
    "padded heads": {"dim": 33, "head_dim": 6, "n_heads": 5, "n_kv_heads": 5, "hidden_dim": 45, "vocab_size": 300},
    "wide heads": {"head_dim": 32, "n_heads": 4, "n_kv_heads": 2, "n_layers": 3},
    "own classifier": {"shared_classifier": False, "dim": 100, "hidden_dim": 130, "n_kv_heads": 2},
    "int4 weights": {"weights": "int4", "hidden_dim": 100},
}


WIDE_HEADS = {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16}
FOUR_LANES = {"hidden_dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "vocab_size": 256,
              "seq_len": 64}
"""About as large as `small` holds; a head is two vectors."""
NARROW_SHAPES = {
    "heads of a vector": {"head_dim": 4, "n_heads": 8, "n_kv_heads": 4},
    "padded": {"dim": 33, "head_dim": 6, "n_heads": 3, "n_kv_heads": 3, "n_layers": 2, "hidden_dim": 45,
               "vocab_size": 99},
    "wide heads": {"head_dim": 16, "n_heads": 2, "n_kv_heads": 1},
    "own classifier": {"shared_classifier": False, "vocab_size": 101, "hidden_dim": 70, "seq_len": 50},
}
"""Shapes for a chip of 4 lanes."""
FOLDED = {"n_layers": 2, "vocab_size": 128}
"""What of `FOUR_LANES` is smaller on `micro`, in some of these shapes."""


@contextmanager
def opened(name: str, program: Program) -> Iterator[Device]:
    """A device with the program loaded."""
    device = open_device(name, program.config)
    try:
        device.load(program)
        yield device
    finally:
        device.close()


def alike(program: Program, name: str, prompt: list[int], positions: int, **sampling: float) -> list[int]:
    """Logits, tokens and cycles of the first positions are those of the reference and of the prediction. Returns the
    tokens."""
    tokens = []
    with opened("reference", program) as reference, opened(name, program) as device:
        for each in (reference, device):
            each.start(prompt, **sampling)  # type: ignore[arg-type]
        for position in range(positions):
            (expected,), (result,) = reference.run(1), device.run(1)
            assert np.array_equal(device.logits(), reference.logits()), f"logits at position {position}"
            assert result == TokenResult(expected.token, program.cycles(position)), f"position {position}"
            tokens.append(result.token)
        assert not device.errors
        assert device.counters.tokens == positions
        assert device.counters.cycles == sum(program.cycles(p) for p in range(positions))
    return tokens


@pytest.fixture(scope="module")
def shipped() -> Program:
    checkpoint, tokenizer = read_model(SHIPPED)
    return compile_checkpoint(checkpoint, tokenizer, config=CONFIGS["ulx3s"], measure=False)


# ---- small models ----


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_small_model_over_its_whole_context_on_the_rtl(sampling: dict):
    program = small_program()
    assert len(program.buckets) > 1
    alike(program, "rtl", [1, 5, 9], program.context, **sampling)


def test_a_small_model_over_a_bucket_border_on_the_cycle_model():
    program = small_program(n_layers=1, vocab_size=50)
    assert len(program.buckets) > 1
    alike(program, "model", [1, 5, 9], program.buckets[0].limit + 2, **SAMPLED)


@pytest.mark.parametrize("shape", SHAPES)
def test_models_of_many_shapes_on_the_cycle_model(shape: str):
    alike(small_program("wide", **SHAPES[shape]), "model", [1], 2, **SAMPLED)


@pytest.mark.parametrize("shape", NARROW_SHAPES)
def test_models_of_many_shapes_on_four_lanes(shape: str):
    """18 positions cross a multiple of 16, where the coarse rotation changes."""
    alike(small_program("small", **FOUR_LANES | NARROW_SHAPES[shape]), "model", [1], 18, **SAMPLED)


@pytest.mark.parametrize("scales", ["static", "dynamic"])
@pytest.mark.parametrize("hidden", [32, 72])
def test_static_and_dynamic_scales(scales: str, hidden: int):
    """The buffers of `small` hold W2's input beside that of W1 and W3 with 32 channels, and not with 72."""
    alike(small_program("small", scales=scales, hidden_dim=hidden, **NARROW_SHAPES["wide heads"]), "model", [1], 6)


@pytest.mark.parametrize("scales", ["static", "dynamic"])
def test_static_and_dynamic_scales_on_the_rtl(scales: str):
    alike(small_program("wide", scales=scales), "rtl", [1], 20, **SAMPLED)


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_model_of_sixteen_lanes_and_two_weight_groups_on_the_rtl(sampling: dict):
    program = small_program("mega", seq_len=96)
    assert len(program.buckets) > 4
    alike(program, "rtl", [1, 5, 9], program.context, **sampling)


@pytest.mark.parametrize("sizes", [
    {"seq_len": 448}, {"dim": 480, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "seq_len": 96},
], ids=["28 vectors of positions", "30 vectors of channels"])
def test_vectors_that_leave_the_buffer_no_room_for_masks(sizes: dict[str, int]):
    """It has 32 activations. The VXM masks positions instead of the matrix units."""
    program = small_program("mega", **sizes)
    assert program.context == sizes["seq_len"]
    alike(program, "model", [1], 3)


def test_a_model_of_four_lanes_over_its_whole_context_on_the_rtl():
    program = small_program("small", **FOUR_LANES)
    assert len(program.buckets) > 1
    alike(program, "rtl", [1, 5, 9], program.context, **SAMPLED)


@pytest.mark.parametrize("shape", NARROW_SHAPES)
def test_models_of_many_shapes_on_a_folded_chip(shape: str):
    alike(small_program("micro", **FOUR_LANES | FOLDED | NARROW_SHAPES[shape]), "model", [1], 18, **SAMPLED)


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_folded_chip_over_its_whole_context_on_the_rtl(sampling: dict):
    program = small_program("micro", **FOUR_LANES | {"n_layers": 2})
    assert len(program.buckets) > 1
    alike(program, "rtl", [1, 5, 9], program.context, **sampling)


def test_a_model_of_eight_lanes_on_the_rtl():
    """18 positions cross a multiple of 16, where the coarse rotation changes."""
    alike(small_program("ulx3s", **WIDE_HEADS), "rtl", [1, 5], 18, **SAMPLED)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_eight_lanes_on_the_cycle_model(weights: str):
    """Two heads share a vector, and int4 has twice the rows, which no named config of eight lanes has."""
    config = replace(CONFIGS["tiny"], name="eight", lanes=8, mem_depths=(512, 1024), act_depth=32, acc_depth=16)
    model = small_config(dim=40, hidden_dim=60, n_heads=6, n_kv_heads=3, head_dim=4, vocab_size=100)
    program = compile_checkpoint(random_checkpoint(model), random_tokenizer(100), config=config, weights=weights,
                                 measure=False)
    alike(program, "model", [1], 20, **SAMPLED)


def looped(program: Program) -> list[int]:
    """Turns of the classifier's loop."""
    return [segment.turns for segment in program.buckets[0].segments if segment.name == "classifier"]


def test_a_looped_classifier_whose_last_vector_is_padded(monkeypatch: pytest.MonkeyPatch):
    """12 vectors a side are three bursts of 4: the loop must leave the padding to the code behind it."""
    monkeypatch.setattr(placement, "MOST_STRAIGHT", 4)
    program = small_program("wide", vocab_size=378)
    assert looped(program) == [1]
    alike(program, "model", [1], 6, temperature=10.0, seed=3)


def test_tokens_of_every_turn_of_a_looped_classifier():
    """Hot enough, any token is chosen: those of the loop's first and last turns, and of the code behind it. Some tokens
    are known before."""
    program = small_program("large", vocab_size=5107, n_layers=1)
    assert looped(program) == [4]
    chosen = alike(program, "model", [1, 700, 5106, 3], 30, temperature=10.0, seed=4)
    assert {token // (16 * 2 * 32) for token in chosen} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("shape", SHAPES)
def test_models_of_many_shapes_on_the_rtl(shape: str):
    """20 positions cross a chunk and a bucket border."""
    program = small_program("wide", **SHAPES[shape])
    assert program.buckets[0].limit <= 32
    alike(program, "rtl", [1], 40, **SAMPLED)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["model", "rtl"])
def test_a_small_model_on_the_largest_chip(name: str):
    alike(small_program("large"), name, [1, 5], 20, **SAMPLED)


# ---- a large model ----


def test_a_model_of_millions_of_weights_compiles():
    checkpoint = fifteen_million(vocab_size=4096, n_layers=2, seq_len=64)
    assert checkpoint.n_parameters > MANY_PARAMETERS
    program = compile_checkpoint(checkpoint, random_tokenizer(4096), config=CONFIGS["large"], accept_quality=True)
    assert program.quality is not None and program.quality.ratio < 0.01, str(program.quality)
    assert program.context == 64


@pytest.mark.nightly
def test_fifteen_million_weights_compile_in_half_a_minute_and_run(tmp_path: Path):
    write_llama2c(tmp_path / "model.bin", fifteen_million())
    write_letters(tmp_path / "tokenizer.bin", FIFTEEN["vocab_size"])
    command = [sys.executable, "-m", "cli.main", "compile", "model.bin", "--config", "large", "-o", "model.tsp"]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_utime + usage.ru_stime < 30, "seconds"
    assert usage.ru_maxrss < 4 << 20, "KiB"
    alike(load(tmp_path / "model.tsp"), "rtl", [1, 20000], 3)


# ---- choice of the next token ----


def negative_program(config: str, **sizes: int) -> Program:
    """All logits are negative at every position: the residual stays positive, and the classifier is negative."""
    model = small_config(**sizes, shared_classifier=False)
    checkpoint = random_checkpoint(model)
    positive = {"tok_emb": np.abs(checkpoint.tok_emb) + np.float32(0.5),
                "final_norm": np.abs(checkpoint.final_norm) + np.float32(0.5),
                "classifier": -np.abs(checkpoint.classifier) - np.float32(0.01)}
    small = {name: getattr(checkpoint, name) / np.float32(64) for name in ("wo", "w2")}
    return compile_checkpoint(replace(checkpoint, **positive, **small), random_tokenizer(model.vocab_size),
                              config=CONFIGS[config], scales="static", measure=False)


@pytest.mark.parametrize(("config", "vocab"), [("tiny", 97), ("tiny", 99), ("tiny", 111), ("small", 97), ("small", 99)])
def test_no_token_beyond_the_vocabulary_is_chosen(config: str, vocab: int):
    """Padding has the logit 0, which is more than all others: every lane of it must be masked."""
    sizes = {"dim": 32, "hidden_dim": 40, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16,
             "seq_len": 16}
    program = negative_program(config, **sizes, vocab_size=vocab)
    with opened("reference", program) as reference, opened("model", program) as model:
        for device in (reference, model):
            device.start([1])
        expected, result = reference.run(2), model.run(2)
        assert (model.logits() < 0).all() and np.array_equal(model.logits(), reference.logits())
        assert [each.token for each in result] == [each.token for each in expected]
        assert all(each.token < vocab for each in result)


@pytest.mark.parametrize(("config", "sizes"), [("tiny", {}), ("small", FOUR_LANES | {"n_layers": 1}),
                                               ("micro", FOUR_LANES | FOLDED)], ids=["tiny", "small", "micro"])
def test_sampling_scores_bit_for_bit(config: str, sizes: dict):
    """The scores that the choice is among, not only the choice, which a wrong bit of the noise seldom changes."""
    program = small_program(config, **sizes)
    device = open_device("model", program.config)
    assert isinstance(device, ChipDevice)
    device.load(program)
    device.start([1], temperature=1.3, seed=5)
    sampler = sampler_of(program, 1.3, 5)
    for _ in range(2):
        (result,) = device.run(1)
        scores = sampler.scores(device.logits().astype(np.int64))
        held = device._seat._read("z", 0, program.symbols["z"].quads)[: program.model.vocab_size]
        assert np.array_equal(held, scores)
        assert result.token == int(np.argmax(scores))


# ---- a slice of more than 65,536 quads ----

DEEP = replace(CONFIGS["small"], name="deep", mem_depths=(20_000, 1 << 17), icu_words=(), act_depth=256, acc_depth=32)
"""Offsets of 17 bits, for an embedding whose last row lies 67,000 quads behind its first."""


def deep_program() -> Program:
    model = small_config(dim=132, hidden_dim=32, n_layers=1, n_heads=1, n_kv_heads=1, vocab_size=16_380, seq_len=8)
    return compile_checkpoint(random_checkpoint(model), random_tokenizer(16_380), config=DEEP, scales="static",
                              measure=False)


@pytest.mark.parametrize("name", ["model", pytest.param("rtl", marks=pytest.mark.nightly)])
def test_tokens_far_down_a_deep_slice(name: str):
    program = deep_program()
    assert program.symbols["weights classifier E1"].quads > 1 << 16
    alike(program, name, [16_379, 16_371], 2)


# ---- what every device does ----


@pytest.mark.parametrize("name", ["reference", "model", "rtl"])
def test_a_restart_tells_the_same_story(name: str):
    program = small_program()
    with opened(name, program) as device:
        stories = []
        for seed, count in ((3, 6), (4, 8), (3, 6)):
            device.start([1, 5], 1.0, seed)
            stories.append((device.run(count), device.logits().tolist()))
        assert stories[0] == stories[2] and stories[0][0] != stories[1][0][:6]
        assert device.counters.tokens == 20


@pytest.mark.parametrize("name", ["reference", "model", "rtl"])
def test_tokens_run_alone_or_in_blocks(name: str):
    program = small_program()
    with opened(name, program) as device:
        device.start([1, 5], 1.0, 3)
        together = device.run(10)
        device.start([1, 5], 1.0, 3)
        assert device.run(0) == []
        assert [*device.run(1), *device.run(6), *device.run(3)] == together


@pytest.mark.parametrize("name", ["reference", "model"])
def test_what_does_not_fit_the_context_is_refused(name: str):
    program = small_program()
    with opened(name, program) as device:
        device.start([1])
        with pytest.raises(TspError, match="exceed the program's context of 40"):
            device.run(41)
        for prompt, words in (([], "BOS"), ([1] * 41, "41 tokens"), ([1, 100], "0..99, not 100"), ([-1], "not -1")):
            with pytest.raises(TspError, match=words):
                device.start(prompt)


def test_a_chip_refuses_a_foreign_program():
    device = open_device("model", CONFIGS["ulx3s"])
    with pytest.raises(TspError, match=chip_digest(CONFIGS["tiny"])):
        device.load(small_program())


def test_a_prompt_as_long_as_the_context():
    program = small_program()
    tokens = [1, *range(3, 42)]
    with opened("reference", program) as reference, opened("rtl", program) as rtl:
        results = []
        for device in (reference, rtl):
            device.start(tokens)
            results.append([result.token for result in device.run(40)])
        assert results[0] == results[1] and results[0][:39] == tokens[1:]


# ---- the shipped model ----


def test_two_sequences_of_the_shipped_model_fit():
    """Each has half of the VXM's registers, of which none is to spare."""
    model = read_model(REPOSITORY / "models" / "stories263k.bin")[0].config
    assert fit(model, CONFIGS["ulx3s"], sequences=2).context == 128


def test_cycles_of_the_shipped_model(shipped: Program):
    assert [(bucket.limit, bucket.period) for bucket in shipped.buckets] == [
        (32, 3_571), (64, 3_716), (96, 3_806), (128, 3_936), (160, 4_026), (192, 4_201),
        (224, 4_331), (256, 4_516)]


def test_the_shipped_model_on_the_cycle_model(shipped: Program):
    prompt = Tokenizer.from_bytes(shipped.tokenizer).encode(PROMPT)
    alike(shipped, "model", prompt[:2], 3, **SAMPLED)


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_the_shipped_model_on_the_rtl(shipped: Program, sampling: dict):
    """In blocks that end at the borders of the buckets, in the middle of them, and at the end of the context."""
    prompt = Tokenizer.from_bytes(shipped.tokenizer).encode(PROMPT)
    borders = sorted({b.limit + offset for b in shipped.buckets for offset in (-1, 0, 1)} | {7, 20, shipped.context})
    with opened("reference", shipped) as reference, opened("rtl", shipped) as rtl:
        for device in (reference, rtl):
            device.start(prompt, **sampling)
        done = 0
        for border in (b for b in borders if b <= shipped.context):
            expected, results = reference.run(border - done), rtl.run(border - done)
            assert np.array_equal(rtl.logits(), reference.logits()), f"logits before position {border}"
            assert [r.token for r in results] == [r.token for r in expected]
            assert [r.cycles for r in results] == [shipped.cycles(p) for p in range(done, border)]
            done = border
        assert done == shipped.context and not rtl.errors


def test_the_shipped_model_tells_a_story_on_the_rtl(shipped: Program):
    with opened("rtl", shipped) as device:
        story = begin(Session(device, shipped), plan(shipped, PROMPT, tokens=20))
        steps = list(story.steps())
    assert len(steps) == len(story.prompt) - 1 + 20
    assert story.text.startswith(PROMPT) and len(story.text) > len(PROMPT) + 20
    assert story.measured == story.predicted


def test_a_story_ends_where_the_model_ends_it(shipped: Program):
    with opened("reference", shipped) as device:
        story = begin(Session(device, shipped), plan(shipped, PROMPT))
        steps = list(story.steps())
    assert steps[-1].token in (story.tokenizer.bos, story.tokenizer.eos) and len(steps) < shipped.context
    assert story.text == story.tokenizer.decode([*story.prompt[:1], *(step.token for step in steps)])
    assert story.text.endswith(".")


def test_devices_are_devices():
    for name in ("reference", "model"):
        device: Device = open_device(name, CONFIGS["tiny"])
        assert device.name == name
        assert isinstance(device, ChipDevice) is (name == "model")


if SHARED_MODELS.is_dir():  # an extra where the project's shared models lie beside the repository

    @pytest.mark.shared
    def test_cycles_of_stories260k():
        """The goal is 5,000 in the mean of positions 0..255 (docs/reference/bench.md)."""
        program = open_program(SHARED_MODELS / "stories260K.bin")
        assert (program.context, sum(map(program.cycles, range(256)))) == (256, 1_097_824)
