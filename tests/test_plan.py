"""Planning: shapes against published sizes, bytes against the placement, bounds against a search, and the command."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from gguf_files import BLOCKS, write_gguf

from arch.config import CONFIGS
from arch.rack import RACKS
from base.errors import TspError
from cli.main import app
from compiler.capacity import check_fit, four_bit_matrices
from compiler.frontend.load import load_checkpoint
from compiler.frontend.sizes import load_config
from compiler.rack.capacity import place_hollow
from compiler.rack.plan import Plan
from plan.claims import claims
from plan.divided import divide
from plan.machines import A100, GROQCHIP, H100, chip_of
from plan.need import Tiling, kv_bytes, need
from plan.plan import make_plan
from plan.roofline import Work, compute_bound_batch, tokens_per_second
from plan.shapes import PRESETS, from_config, shape_of
from program.shape import ModelConfig

MODEL = Path(__file__).parents[1] / "models" / "stories263k.bin"
PUBLISHED = {
    "llama-3-8b": (8_030_261_248, None), "llama-3-70b": (70_553_706_496, None),
    "mixtral-8x7b": (46_702_792_704, 12.9e9), "gemma-2-9b": (9_241_705_984, None),
    "smollm2-135m": (134_515_008, None), "tinyllama-1.1b": (1_100_048_384, None),
}
"""Parameters as the files of the models hold them, and as their authors say a token uses."""
SHAPES: dict[str, dict[str, Any]] = {
    "263k": dict(dim=64, hidden_dim=172, n_layers=5, n_heads=8, n_kv_heads=4, vocab_size=512, seq_len=256, head_dim=8),
    "heads of 12": dict(dim=72, hidden_dim=200, n_layers=3, n_heads=6, n_kv_heads=3, vocab_size=700, seq_len=100,
                        head_dim=12),
    "15M": dict(dim=288, hidden_dim=768, n_layers=6, n_heads=6, n_kv_heads=6, vocab_size=32000, seq_len=256,
                head_dim=48),
    "untied": dict(dim=96, hidden_dim=256, n_layers=2, n_heads=6, n_kv_heads=2, vocab_size=1001, seq_len=64,
                   head_dim=16, shared_classifier=False),
    "SmolLM2-135M": dict(dim=576, hidden_dim=1536, n_layers=30, n_heads=9, n_kv_heads=3, vocab_size=49152,
                         seq_len=2048, head_dim=64),
}
ROOM = {"263k": 0.04, "heads of 12": 0.04, "15M": 0.002, "untied": 0.04, "SmolLM2-135M": 0.002}
"""By how much all bytes together may be too few, as docs/guide/planning.md says."""


@pytest.mark.parametrize("name", PRESETS)
def test_known_models_have_their_published_size(name: str):
    total, active = PUBLISHED[name]
    assert PRESETS[name].parameters == total
    assert active is None or PRESETS[name].active_parameters == pytest.approx(active, rel=0.005)


def test_a_checkpoint_is_planned_by_its_header(tmp_path: Path):
    whole = load_checkpoint(MODEL)
    assert load_config(MODEL) == whole.config
    assert shape_of(str(MODEL)).parameters == whole.n_parameters
    alone = tmp_path / "header.bin"
    alone.write_bytes(MODEL.read_bytes()[: struct.calcsize("<7i")])
    assert load_config(alone) == whole.config


def test_a_gguf_file_is_planned_by_its_fields(tmp_path: Path):
    checkpoint = random_checkpoint(BLOCKS)
    file = write_gguf(tmp_path / "model.gguf", checkpoint, kind="Q8_0")
    assert load_config(file) == checkpoint.config


def test_a_folder_is_planned_by_its_configuration(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
        "tie_word_embeddings": True}))
    assert shape_of(str(tmp_path)).parameters == PRESETS["smollm2-135m"].parameters


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("chip", ["ulx3s", "wide", "large", "sram220"])
@pytest.mark.parametrize("name", SHAPES)
def test_bytes_are_those_that_the_compiler_places(name: str, chip: str, precision: str):
    """Weights and cache to the byte; everything together within what the documentation says. The compiler's model has
    static keys, which have no scales. Masks in the matrix unit take room that is left, and no model needs them."""
    model, config = ModelConfig(**SHAPES[name]), CONFIGS[chip]
    try:
        layout = check_fit(model, config, model.seq_len, four_bit_matrices(precision)).layout
    except TspError:
        if chip == "sram220":  # which holds all of them
            raise
        return
    found = need(from_config(model, name=name, source=""), chip_of(chip), precision=precision, context=model.seq_len,
                 batch=1)
    placed = {tensor: layout.cost(tensor) * config.quad_bytes for tensor in layout.tensors}
    tiling = Tiling(from_config(model, name=name, source=""), config.lanes)
    scales = found.kv - kv_bytes(tiling, "fp16", model.seq_len) // 2  # of keys
    cache = ("K cache", "V cache")
    assert found.weights == sum(count for tensor, count in placed.items() if tensor.name.startswith("weights "))
    assert found.kv - scales == sum(count for tensor, count in placed.items() if tensor.name.startswith(cache))
    total = sum(count for tensor, count in placed.items() if tensor.name != "masks")
    assert total * (1 - ROOM[name]) <= found.model and found.model - scales <= total


@pytest.mark.parametrize(("rack", "tensor", "pipeline"), [
    ("node", 8, 1), ("rack", 6, 3), ("rack", 9, 2), ("card", 2, 1)])
def test_bytes_of_a_rack_are_those_that_the_compiler_places(rack: str, tensor: int, pipeline: int):
    """Within 2 %, on the rack itself, and without one where the plan assumes the same links."""
    small: dict[str, Any] = {"n_layers": 6, "vocab_size": 6000} if rack == "card" else {}
    model = ModelConfig(**(SHAPES["SmolLM2-135M"] | small))
    group = Plan(tensor=tensor, pipeline=pipeline, scattered=tensor > 2, halve=True)
    placed = [sum(map(each.layout.cost, each.layout.tensors)) * each.geometry.config.quad_bytes
              for each in place_hollow(model, RACKS[rack], 512, frozenset(), group).chips]
    groups = [placed[chips.start : chips.stop] for chips in group.groups]
    wanted = [groups[0], *([max(groups[1:-1], key=sum)] if pipeline > 2 else []), groups[-1]][:pipeline]
    for linked in (RACKS[rack], *([None] if tensor < 9 else [])):
        found = divide(from_config(model, name="SmolLM2-135M", source=""), CONFIGS["sram28"], precision="int8",
                       context=512, tensor=tensor, pipeline=pipeline, rack=linked)
        for total in (max, sum):
            assert [total(own) for own in found.bytes] == pytest.approx([total(own) for own in wanted], rel=0.02)


def test_cache_of_a_position_is_the_published_one():
    """Llama-3 8B: 128 KiB a position in fp16. Gemma-2 9B: half of its layers keep 4,096 positions."""
    assert kv_bytes(Tiling(PRESETS["llama-3-8b"], 1), "fp16", 1) == 128 * 1024
    gemma = PRESETS["gemma-2-9b"]
    assert kv_bytes(Tiling(gemma, 1), "fp16", 8192) == 21 * (8192 + 4096) * 2 * 8 * 256 * 2


def test_ridge_points_of_the_data_sheets():
    assert A100.ridge("fp16") == pytest.approx(156, abs=0.5)
    assert H100.ridge("fp16") == pytest.approx(295, abs=0.5)
    assert chip_of("large").ridge("int8") == 2


def test_chips_cards_and_racks():
    plan = make_plan("llama-3-70b", precision="int8", context=4096)
    assert plan.weights_alone == 306  # 70.55 GB of 230.69 MB
    assert plan.weights_alone < plan.chips < plan.chips_most
    assert plan.packaging == {"cards": 155, "racks": 18, "nodes_of_8": 39, "racks_of_72": 5}
    assert make_plan(str(MODEL), chip="ulx3s").packaging == {}


@pytest.mark.parametrize("name", ["llama-3-8b", "mixtral-8x7b"])
@pytest.mark.parametrize("context", [1, 64])
def test_the_batch_that_computes(name: str, context: int):
    """From it on the multipliers limit, below it the memory."""
    work = Work(shape=PRESETS[name], precision="fp16", context=context)
    batch = compute_bound_batch(work, A100)
    assert batch is not None
    compute = A100.operations("fp16") / work.operations
    assert tokens_per_second(work, A100, batch) == pytest.approx(compute)
    assert tokens_per_second(work, A100, batch - 1) < compute


def test_no_batch_computes_where_the_caches_are_long():
    work = Work(shape=PRESETS["llama-3-8b"], precision="fp16", context=8192)
    assert compute_bound_batch(work, A100) is None
    assert work.intensity(1 << 24) < A100.ridge("fp16")


def test_a_batch_uses_its_experts():
    work = Work(shape=PRESETS["mixtral-8x7b"], precision="int8", context=1)
    assert [work.experts(batch) for batch in (1, 2, 1000)] == pytest.approx([2, 3.5, 8])


def test_one_sequence_is_bound_by_bandwidth():
    """Bandwidth over bytes: no 80 tokens/s of a 70 B model from one A100, not even in int4."""
    work = Work(shape=PRESETS["llama-3-70b"], precision="int4", context=1)
    assert tokens_per_second(work, A100, 1) == pytest.approx(2e12 / work.bytes(1))
    assert tokens_per_second(work, A100, 1) < 80


def test_every_constant_has_a_source():
    plan = make_plan("smollm2-135m")
    assert {machine for machine, *_ in plan.sources()} == {"a100", "h100", GROQCHIP.name}
    assert all(figure.source and figure.unit for *_, figure in plan.sources())


def test_claims_are_answered_by_numbers():
    text = "\n".join(" | ".join(claim) for claim in claims())
    for number in ("4.14 GB", "305 chips", "989 / 3.35 = 295", "50.7 TB/s", "46.7 B", "12.9 B"):
        assert number in text


def test_the_command(capsys: pytest.CaptureFixture[str]):
    assert app(["plan", "llama-3-70b", "--batch", "8"]) == 0
    out = capsys.readouterr().out
    assert "racks of 9 such cards (18 chips)" in out and "tokens/s at batch 8" in out and "a100 bandwidth" in out
    assert app(["plan", str(MODEL), "--chip", "ulx3s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"]["weights"] == 263168 and found["chips"]["model"] == 1
    assert [side["machine"] for side in found["roofline"]] == ["a100", "h100", "ulx3s"]


@pytest.mark.parametrize(("arguments", "named"), [
    (["nope"], "no known model"), (["llama-3-8b", "--chip", "tpu"], "chip must be one of"),
    (["llama-3-8b", "--precision", "fp4"], "precision must be one of"),
    (["llama-3-8b", "--precision", "fp16", "--chip", "large"], "use --precision int8"),
    (["llama-3-8b", "--context", "9000"], "context must be in 1..8192"),
    (["llama-3-8b", "--batch", "0"], "batch must be in 1.."),
    (["llama-3-8b", "--tensor", "2"], "give --chip"),
    (["mixtral-8x7b", "--chip", "sram220", "--tensor", "2"], "the compiler takes no experts"),
    (["smollm2-135m", "--rack", "node", "--tensor", "3"], "--tensor must divide its 8 chips, not be 3"),
    (["smollm2-135m", "--chip", "sram28", "--tensor", "0"], "must be at least 1"),
    (["smollm2-135m", "--rack", "card", "--chip", "sram28"], "give --chip or --rack, not both"),
    (["smollm2-135m", "--rack", "card", "--sequences", "3"], "as many as groups of chips, 1 or 2, not 3"),
    (["smollm2-135m", "--rack", "card", "--scales", ""], "scales must be one of static, dynamic, robust, not ''"),
    (["smollm2-135m", "--chip", "sram28", "--pipeline", "31"], "30 layers cannot be divided among 31 chips"),
])
def test_what_is_wrong_is_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]):
    assert app(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and named in err and err.count("\n") == 1


@pytest.mark.parametrize(("machine", "what"), [
    (["--rack", "card"], "cycles of a token, 2 sequences in flight, for"),
    (["--chip", "sram220"], "cycles of 2 tokens, for")])
def test_what_several_sequences_advance_by(machine: list[str], what: str, capsys: pytest.CaptureFixture[str]):
    """A period gives a token of each on one chip, and one token in flight."""
    assert app(["plan", "smollm2-135m", *machine, "--tensor", "1", "--sequences", "2"]) == 0
    assert what in capsys.readouterr().out


def test_a_rack_of_several_kinds_of_chips_is_for_fit():
    pair, one = RACKS["pair"], RACKS["pair"].chips[0]
    with pytest.raises(TspError, match="rack pair must have chips of one kind to be planned for: use `tsp fit`"):
        make_plan("smollm2-135m", chip="ulx3s", rack=replace(pair, chips=(one, replace(one, name="another"))))
