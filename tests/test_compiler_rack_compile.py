"""Models on racks: every logit, token and cycle of the model's reference, however the model is divided."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import REPOSITORY, SHARED_MODELS, random_checkpoint, small_config
from programs import TINY, random_tokenizer
from rack_programs import EVEN, UNEVEN, rack_program
from racks import ring
from small_racks import PAIR, SHARED

from arch.config import CONFIGS
from arch.rack import RACKS, RackConfig, linked, mesh, shelves
from base.errors import TspError
from compiler.capacity import hollow_model
from compiler.compile import compile_checkpoint
from compiler.rack import buckets, capacity, compile
from compiler.rack.by_rows import shares, sum_planes
from compiler.rack.capacity import best_plan
from compiler.rack.fit import fit_rack
from compiler.rack.plan import Plan
from program.check import check_any
from program.rack import AnyProgram, RackProgram
from run.devices import open_device
from run.programs import open_any

GROUPED = {"dim": 40, "hidden_dim": 72, "head_dim": 8, "vocab_size": 108}
LONG_HEADS = {"hidden_dim": 320, "head_dim": 32, "vocab_size": 300}
"""Heads of two vectors, whose keys and values chips compute for each other."""
CASES = {  # rack, scales, sizes
    "two chips": (ring(2), "static", EVEN),
    "uneven, exponents": (ring(2), "dynamic", UNEVEN),
}
NIGHTLY = {
    "uneven": (ring(2), "static", UNEVEN),
    "exponents": (ring(2), "dynamic", EVEN),
    "robust": (ring(2), "robust", EVEN),
    "three chips": (ring(3), "static", UNEVEN),
    "over two links": (ring(4), "static", {**EVEN, "n_heads": 8, "n_kv_heads": 4}),
    "nine query heads on four chips": (mesh("four", "ulx3s", 4), "dynamic", {**GROUPED, "n_heads": 9, "n_kv_heads": 3}),
    "one head for two chips": (mesh("two", "ulx3s", 2), "static", {**GROUPED, "n_heads": 1, "n_kv_heads": 1}),
    "a loop over the vocabulary": (mesh("three", "sram28", 3), "static", {
        **LONG_HEADS, "n_heads": 3, "n_kv_heads": 1, "dim": 96, "hidden_dim": 192, "vocab_size": 4100}),
}
LINKED = {  # of chips that are all linked with each other, each of which has a part of the residual
    "robust": ("robust", {**LONG_HEADS, "n_heads": 6, "n_kv_heads": 2, "dim": 160, "vocab_size": 2100}),
    "static, thirteen vectors": ("static", {**LONG_HEADS, "n_heads": 5, "n_kv_heads": 1, "dim": 208}),
    "dynamic": ("dynamic", {**LONG_HEADS, "n_heads": 9, "n_kv_heads": 3, "dim": 176}),
    "a chip without a head": ("dynamic", {**LONG_HEADS, "n_heads": 3, "n_kv_heads": 3, "dim": 96}),
}


def check(compiled: RackProgram, tokens: int) -> None:
    """Two runs, greedy with a prompt and sampled, against the reference."""
    for prompt, temperature, seed in (([1, 5, 7], 0.0, 0), ([1], 0.8, 3)):
        check_run(compiled, "model", prompt, temperature, seed, min(tokens, compiled.context))


def check_run(compiled: AnyProgram, name: str, prompt: list[int], temperature: float, seed: int, tokens: int) -> None:
    """Every token, cycle and logit of a run on a device against the reference and the prediction."""
    device, reference = (open_device(each, compiled.config) for each in (name, "reference"))
    for each in (device, reference):
        each.load(compiled)
        each.start(prompt, temperature, seed)
    for position in range(tokens):
        (found,), (wanted,) = device.run(1), reference.run(1)
        assert (found.token, found.cycles) == (wanted.token, compiled.cycles(position))
        assert np.array_equal(device.logits(), reference.logits())
    assert not device.errors
    device.close()


@pytest.mark.parametrize("name", CASES)
def test_a_rack_gives_the_reference_s_logits_in_the_predicted_cycles(name: str):
    rack, scales, sizes = CASES[name]
    check(rack_program(rack, scales, **sizes), 4)


@pytest.mark.parametrize("name", [*CASES, pytest.param("robust", marks=pytest.mark.nightly)])
def test_shapes_alone_tell_the_cycles(name: str):
    rack, scales, sizes = (CASES | NIGHTLY)[name]
    found = fit_rack(small_config(**(TINY | sizes)), rack, cycles=True, tensor=len(rack.chips), scales=scales)
    compiled = rack_program(rack, scales, **sizes)
    assert found.cycles == tuple((min(each.limit, compiled.context), each.period) for each in compiled.buckets)


def test_a_rack_of_consecutive_layers():
    compiled = rack_program(RACKS["pair"], "static", 1, **EVEN, n_layers=3)
    assert [len(chip.channels["layers"]) for chip in compiled.chips] == [2, 1]
    assert [len(chip.logit_tokens()) for chip in compiled.chips] == [0, 104 - 4]
    check(compiled, 4)


def test_groups_of_chips_by_rows_and_a_pipeline_of_groups():
    """The only links between the groups are those at both ends of the ring."""
    compiled = rack_program(ring(4), "static", 2, **EVEN, n_layers=3)
    assert [chip.channels["layers"].tolist() for chip in compiled.chips] == [[0, 1], [0, 1], [2], [2]]
    assert [len(chip.logit_tokens()) for chip in compiled.chips] == [0, 0, 48, 56]
    check_any(compiled)
    check(compiled, 3)


def test_a_head_is_where_its_query_heads_are():
    """Three K/V heads of three query heads each on eight chips: each chip has one query head, one has two, and none
    computes more than two of the fifteen heads of the projections."""
    sizes = {**LONG_HEADS, "dim": 576, "n_heads": 9, "n_kv_heads": 3, "head_dim": 64}
    model = hollow_model(small_config(**(TINY | sizes)), 16, 16, frozenset())
    found = shares(RACKS["node"], model, {}, scattered=True)[0].heads
    assert [heads.queries for heads in found] == [(0, 1), (2,), (3,), (4,), (5,), (6,), (7,), (8,)]
    assert [heads.kv for heads in found] == [(0, 0), (0,), (1,), (1,), (1,), (2,), (2,), (2,)]
    assert max(len(heads.queries) + len(heads.keys) + len(heads.values) for heads in found) == 2
    assert sorted(head for heads in found for head in heads.keys) == [0, 1, 2]
    assert sorted(head for heads in found for head in heads.values) == [0, 1, 2]
    halved = shares(RACKS["node"], model, {}, scattered=True, halve=True)[0].heads
    assert [heads.kv for heads in halved] == [(0,), (0,), (1,), (1,), (1,), (2,), (2,), (2,)]
    assert [heads.queries for heads in halved] == [heads.queries for heads in found]


def with_plan(monkeypatch: pytest.MonkeyPatch, rack: RackConfig, halve: bool, scattered: bool = False) -> None:
    """Let models be divided by rows among all chips of a rack, with or without `Plan.halve`."""
    plan = Plan(tensor=len(rack.chips), pipeline=1, scattered=scattered, halve=halve)
    monkeypatch.setattr(compile, "plans", lambda *arguments: [plan])
    monkeypatch.setattr(capacity, "halved", lambda *arguments: [])


HALVED = {  # rack, scales, sizes: chips with one K/V head, or with one vector of them
    "two query heads each": (mesh("two", "sram28", 2), "robust", {**LONG_HEADS, "n_heads": 4, "n_kv_heads": 2}),
    "greatest products from the matrix units": (mesh("two", "ulx3s", 2), "static", {
        **EVEN, "n_heads": 2, "n_kv_heads": 2}),
    "heads that share a vector": (mesh("two", "sram28", 2), "dynamic", {
        "dim": 64, "hidden_dim": 64, "head_dim": 8, "n_heads": 6, "n_kv_heads": 3}),
    "a key and a value for two chips": (ring(2), "static", {**EVEN, "n_heads": 2, "n_kv_heads": 1}),
}


@pytest.mark.parametrize("name", [
    name if "greatest" in name else pytest.param(name, marks=pytest.mark.nightly) for name in HALVED])
def test_both_hemispheres_work_on_one_head(name: str, monkeypatch: pytest.MonkeyPatch):
    """At every position: also where one of them has none, or one vector of them less than the other."""
    rack, scales, sizes = HALVED[name]
    compiled = halved_program(monkeypatch, rack, scales, 5 * rack.chips[0].lanes - 3, sizes)
    check_run(compiled, "model", [1, 5, 7], 0.8, 3, compiled.context)


def halved_program(monkeypatch: pytest.MonkeyPatch, rack: RackConfig, scales: str, context: int, sizes: dict[str, int],
                   ) -> RackProgram:
    """A model of one layer with `Plan.halve` in two context buckets, scheduled without search."""
    with_plan(monkeypatch, rack, halve=True)
    for effort in ("EFFORT", "EFFORT_OF_FEW"):
        monkeypatch.setattr(buckets, effort, 0)
    model = small_config(**(TINY | {"n_layers": 1, "seq_len": context} | sizes))
    return compile.compile_rack(random_checkpoint(model), random_tokenizer(model.vocab_size), rack=rack, scales=scales,
                                buckets=2, measure=False)


def test_both_hemispheres_work_on_one_head_on_the_rtl(monkeypatch: pytest.MonkeyPatch):
    compiled = halved_program(monkeypatch, PAIR, "dynamic", 40, SHARED)
    check_run(compiled, "rtl", [1, 5, 7], 0.8, 3, compiled.context)


def test_few_positions_are_not_halved():
    """For what it saves, both hemispheres need more vectors of positions than one."""
    rack, model = mesh("two", "ulx3s", 2), small_config(**(TINY | EVEN | {"seq_len": 128}))
    for context, halve in ((8, False), (128, True)):
        assert best_plan(model, rack, context, frozenset(), [Plan(tensor=2, pipeline=1)]).plan.halve == halve


@pytest.mark.nightly
@pytest.mark.parametrize("halve", [False, True])
@pytest.mark.parametrize("name", LINKED)
def test_a_residual_in_parts(name: str, halve: bool, monkeypatch: pytest.MonkeyPatch):
    rack, (scales, sizes) = mesh("four", "sram28", 4), LINKED[name]
    with_plan(monkeypatch, rack, halve, scattered=True)
    compiled = rack_program.__wrapped__(rack, scales, **sizes)
    check(compiled, compiled.context)


SUMMED = {  # rack, chips of a group, scales, sizes; W2 has the columns of each chip
    "two chips": (mesh("two", "ulx3s", 2), 2, "dynamic", {**GROUPED, "hidden_dim": 256}),
    "two links": (ring(2), 2, "static", EVEN),
    "robust": (mesh("three", "ulx3s", 3), 3, "robust", GROUPED),
    "from both ends": (mesh("six", "ulx3s", 6), 6, "static", {
        **GROUPED, "dim": 72, "hidden_dim": 200, "n_heads": 9, "n_kv_heads": 3}),
    "from both ends, robust": (mesh("six", "ulx3s", 6), 6, "robust", {
        **GROUPED, "dim": 72, "hidden_dim": 200, "n_heads": 9, "n_kv_heads": 3}),
    "groups of chips": (mesh("six", "ulx3s", 6), 3, "dynamic", {**GROUPED, "n_heads": 9, "n_kv_heads": 3}),
    "residual in SRAM": (mesh("two", "ulx3s", 2), 2, "robust", {**GROUPED, "dim": 192, "hidden_dim": 80}),
    "thirteen vectors": (mesh("four", "sram28", 4), 4, "static", LINKED["static, thirteen vectors"][1]),
    "a chip without a head": (mesh("four", "sram28", 4), 4, "dynamic", LINKED["a chip without a head"][1]),
}


def test_an_inner_layer_longer_than_an_activation_buffer():
    """No chip has room for all inputs of W2, so each multiplies its own, and they add up their sums."""
    rack, sizes = mesh("three", "ulx3s", 3), {**GROUPED, "hidden_dim": 320, "n_layers": 1, "seq_len": 16}
    compiled = rack_program(rack, "static", **sizes)
    inputs = [chip.channels["w2/inputs"] for chip in compiled.chips]
    assert np.array_equal(np.concatenate(inputs), np.arange(320))
    check_run(compiled, "model", [1, 5, 7], 0.8, 3, 3)
    rows = Plan(tensor=3, pipeline=1, scattered=True)
    without = best_plan(small_config(**(TINY | sizes)), rack, None, frozenset(), [rows])
    assert not without.context and "activation buffer" in without.limit


@pytest.mark.nightly
@pytest.mark.parametrize("name", SUMMED)
def test_sums_across_chips_over_the_whole_context(name: str, monkeypatch: pytest.MonkeyPatch):
    rack, tensor, scales, sizes = SUMMED[name]
    plan = Plan(tensor=tensor, pipeline=len(rack.chips) // tensor, scattered=True, summed=True)
    monkeypatch.setattr(compile, "plans", lambda *arguments: [plan])
    compiled = rack_program.__wrapped__(rack, scales, tensor, **sizes)
    check_any(compiled)
    check(compiled, compiled.context)


@pytest.mark.nightly
def test_sums_across_chips_on_the_rtl_over_the_whole_context(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compile, "plans", lambda *arguments: [Plan(tensor=3, pipeline=1, scattered=True, summed=True)])
    compiled = rack_program.__wrapped__(mesh("three", "ulx3s", 3), "dynamic", **GROUPED)
    check_run(compiled, "rtl", [1, 5], 0.8, 3, compiled.context)


def test_planes_of_sums_hold_the_greatest_of_all():
    """Every weight and input of the greatest magnitude: the sums of all columns, or of a group's, fit their planes."""
    for hidden, scales, planes in ((400, "static", 3), (600, "static", 4), (600, "robust", 3)):
        model = hollow_model(small_config(**(TINY | {"hidden_dim": hidden})), 8, 16, frozenset(), scales)
        columns = model.group if "silu" in model.dynamic else hidden
        greatest = 127 * np.full(columns, -128).sum()
        assert sum_planes(model) == planes
        assert -(1 << 8 * planes - 1) <= greatest < 0 and greatest < -(1 << 8 * (planes - 1) - 1)


GROUPS = {  # rack, chips of a group, scales, sizes
    "ring": (ring(6), 2, "robust", {**UNEVEN, "n_layers": 4}),
    "linked groups": (mesh("six", "ulx3s", 6), 3, "dynamic", {**GROUPED, "n_heads": 9, "n_kv_heads": 3}),
    "residual in parts": (shelves("two shelves", "sram28", 2, 4), 4, "dynamic", {
        **LINKED["dynamic"][1], "n_layers": 3}),
    "chips without heads": (ring(4, chip=linked("sram28", (1, 1), 2)), 4, "dynamic", {
        **LONG_HEADS, "n_heads": 2, "n_kv_heads": 1, "dim": 160}),
    "a loop over the vocabulary": (mesh("four", "sram28", 4), 2, "static", {
        **LONG_HEADS, "n_heads": 4, "n_kv_heads": 2, "dim": 96, "hidden_dim": 192, "vocab_size": 4100}),
    "a loop, by layers": (mesh("two", "sram28", 2), 1, "static", {
        **LONG_HEADS, "n_heads": 4, "n_kv_heads": 2, "dim": 96, "hidden_dim": 192, "vocab_size": 4100}),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_many_kinds_over_the_whole_context(name: str):
    rack, tensor, scales, sizes = GROUPS[name]
    compiled = rack_program(rack, scales, tensor, **sizes)
    check_any(compiled)
    check(compiled, compiled.context)


@pytest.mark.nightly
def test_groups_on_the_rtl_over_the_whole_context():
    compiled = rack_program(ring(4), "dynamic", 2, **EVEN)
    check_run(compiled, "rtl", [1, 5], 0.8, 3, compiled.context)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*CASES, *NIGHTLY])
def test_racks_of_many_kinds_over_the_whole_context(name: str):
    rack, scales, sizes = (CASES | NIGHTLY)[name]
    compiled = rack_program(rack, scales, **sizes)
    check(compiled, compiled.context)


@pytest.mark.nightly
@pytest.mark.parametrize("scales", ["static", "dynamic", "robust"])
def test_racks_of_consecutive_layers_over_the_whole_context(scales: str):
    compiled = rack_program(mesh("three", "ulx3s", 3), scales, 1, **EVEN, n_layers=4)
    check(compiled, compiled.context)


@pytest.mark.nightly
@pytest.mark.parametrize("tensor", [2, 1])
@pytest.mark.parametrize(("temperature", "seed"), [(0.0, 0), (0.8, 5)])
def test_the_shipped_model_on_the_rtl_of_a_pair_over_the_whole_context(tensor: int, temperature: float, seed: int):
    compiled = open_any(REPOSITORY / "models" / "stories263k.bin", rack="pair", tensor=tensor)
    assert isinstance(compiled, RackProgram)
    check_run(compiled, "rtl", [1], temperature, seed, compiled.context)


if SHARED_MODELS.is_dir():  # an extra where the project's shared models lie beside the repository

    @pytest.mark.shared
    @pytest.mark.nightly
    def test_two_chips_are_faster_than_one():
        """The goal is 1.3, in the mean of positions 0..255 (docs/decisions/0025-models-on-racks.md)."""
        path = SHARED_MODELS / "stories260K.bin"
        one = open_any(path, config="ulx3s", context=256, scales="static")
        two = open_any(path, rack="pair", context=256, scales="static")
        assert one.mean_cycles > 1.38 * two.mean_cycles


def test_the_model_is_put_together_from_all_chips():
    rack, scales, sizes = CASES["uneven, exponents"]
    compiled = rack_program(rack, scales, **sizes)
    model = small_config(**(TINY | sizes))
    alone = compile_checkpoint(random_checkpoint(model), random_tokenizer(model.vocab_size), config=CONFIGS["ulx3s"],
                               scales=scales, context=compiled.context, measure=False)
    whole, parts = alone.integer_model(), compiled.integer_model()
    assert all(np.array_equal(array, getattr(parts, name)) for name, array in vars(whole).items()
               if isinstance(array, np.ndarray))
    assert [len(np.unique(chip.channels["logits"])) for chip in compiled.chips] == [7 * 8, 108 - 7 * 8 + 1]


@pytest.mark.parametrize(("chips", "sizes", "what"), [
    (2, {**EVEN, "hidden_dim": 8}, r"1 vectors of 8 inner channels \(hidden_dim\) cannot be divided among 2 chips"),
    (2, {**EVEN, "dim": 16, "vocab_size": 24}, r"3 vectors of 8 tokens \(vocab_size\) cannot be divided"),
])
def test_what_is_too_small_to_be_divided_is_named(chips: int, sizes: dict[str, int], what: str):
    with pytest.raises(TspError, match=f"^rack ring of {chips}: {what}"):
        rack_program(ring(chips), "static", **sizes)


@pytest.mark.parametrize(("options", "what"), [
    ({"tensor": 3}, "--tensor must divide its 4 chips, not be 3"),
    ({"pipeline": 0}, "--pipeline must divide its 4 chips, not be 0"),
    ({"tensor": 2, "pipeline": 4}, r"--tensor times --pipeline must be its 4 chips, not 2 \* 4 = 8"),
    ({"pipeline": 2, "sequences": 4}, "sequences in flight must be as many as groups of chips, 2, not 4"),
    ({"sequences": 3}, "sequences in flight must be as many as groups of chips, 1 or 2 or 4, not 3"),
])
def test_groups_that_cannot_be(options: dict[str, Any], what: str):
    model = small_config(**TINY)
    with pytest.raises(TspError, match=what):
        compile.compile_rack(random_checkpoint(model), random_tokenizer(model.vocab_size), rack=ring(4), **options)


@pytest.mark.parametrize(("vocab", "first"), [(104, 48), (512, 256), (304, 152)])
def test_two_chips_choose_the_first_token_of_the_greatest_score(vocab: int, first: int):
    """Tokens of the second chip have the scores of the first chip's, and the greedy choice is a tie. first: tokens of
    the first chip. Prompts of tokens of both."""
    config = small_config(**(TINY | EVEN | {"vocab_size": vocab, "n_layers": 1}))
    checkpoint = random_checkpoint(config)
    rows = checkpoint.classifier.copy()
    rows[first : 2 * first] = rows[: min(first, vocab - first)]
    compiled = compile.compile_rack(replace(checkpoint, tok_emb=rows, classifier=rows), random_tokenizer(vocab),
                                    rack=RACKS["pair"], scales="static", tensor=2, measure=False)
    assert [len(chip.logit_tokens()) for chip in compiled.chips] == [first, vocab - first]
    check_run(compiled, "model", [1, vocab - 1, 7, first, first - 1, vocab - 2], 0.0, 0, 12)
    check_run(compiled, "model", [1, vocab - 3], 1.5, 5, 12)


def test_a_token_of_the_second_chip_wins_by_itself():
    config = small_config(**(TINY | EVEN | {"vocab_size": 512, "n_layers": 1}))
    checkpoint = random_checkpoint(config)
    compiled = compile.compile_rack(checkpoint, random_tokenizer(512), rack=RACKS["pair"], scales="static", tensor=2,
                                    measure=False)
    device = open_device("model", compiled.config)
    device.load(compiled)
    device.start([1], 0.0, 0)
    assert {token.token >= 256 for token in device.run(12)} == {False, True}
    check_run(compiled, "model", [1], 0.0, 0, 12)


@pytest.mark.nightly
@pytest.mark.parametrize("tensor", [2, 1], ids=["rows", "layers"])
@pytest.mark.parametrize("model", [
    REPOSITORY / "models" / "stories263k.bin",
    pytest.param(SHARED_MODELS / "stories260K.bin", marks=pytest.mark.shared)], ids=lambda path: path.stem)
def test_every_position_of_a_context_on_the_rtl_of_two_chips(model: Path, tensor: int):
    """Greedy and sampled: every token, cycle and logit."""
    compiled = open_any(model, rack="pair", tensor=tensor, context=256)
    check_run(compiled, "rtl", [1], 0.0, 0, 256)
    check_run(compiled, "rtl", [1, 403], 0.9, 11, 256)
