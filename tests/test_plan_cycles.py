"""Scheduled cycles of a plan against those of programs, and of `tsp fit`, which are the same: for chips that hold the
model, and for the same chips with SRAM that does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import small_config
from programs import TINY

from arch.config import CONFIGS, ChipConfig
from arch.rack import RACKS, RackConfig, mesh
from cli.main import app
from compiler.fit import fit
from compiler.frontend.load import load_checkpoint
from compiler.rack.fit import fit_rack
from compiler.rack.plan import plans
from plan.cycles import Cycles, schedule
from plan.divided import divide
from plan.shapes import PRESETS
from program.shape import ModelConfig
from run.bench import SHAPES
from run.models import KNOWN
from run.programs import open_any

MODEL = Path(__file__).parents[1] / "models" / "stories263k.bin"
SMALL = small_config(**(TINY | {"dim": 72, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2}))
CHIP = replace(CONFIGS["tiny"], mem_depths=(2048, 4096))
FOUR = replace(mesh("four", "tiny", 4, slot=4), chips=(replace(CHIP, ports=(0, 3), slot=4),) * 4)
BOARDS = mesh("four boards", "ulx3s", 4)
CLOSE = 0.02
"""Agreement that the documentation promises."""


def shrunk(machine: Any) -> Any:
    """The same with SRAM that holds no model."""
    if isinstance(machine, RackConfig):
        return replace(machine, chips=tuple(map(shrunk, machine.chips)))
    return replace(machine, mem_depths=(16,) * len(machine.mem_depths))


def agree(found: Cycles, first: int, last: int) -> None:
    assert [found.periods[0].cycles, found.periods[-1].cycles] == pytest.approx([first, last], rel=CLOSE)


def check(model: ModelConfig, machine: ChipConfig | RackConfig, scales: str = "static", tensor: int | None = None,
          pipeline: int | None = None, sequences: int = 1, context: int | None = None) -> None:
    """The first and the last bucket of a context, by default the model's."""
    if isinstance(machine, RackConfig):
        exact = fit_rack(model, machine, context=context, cycles=True, tensor=tensor, pipeline=pipeline,
                         sequences=sequences, scales=scales)
        among = plans(machine, tensor, pipeline, sequences)
    else:
        exact, among = fit(model, machine, context=context, cycles=True, sequences=sequences, scales=scales), []
    assert exact.context == (context or model.seq_len)
    for chips in (machine, shrunk(machine)):
        found = schedule(model, chips, among, context=exact.context, four_bit=frozenset(), scales=scales,
                         sequences=sequences)
        assert found.assumed == (() if chips is machine else ("SRAM of any size",)) and not found.beyond
        assert (found.periods[0].first, found.periods[-1].last) == (0, exact.context - 1)
        agree(found, exact.cycles[0][1], exact.cycles[-1][1])


@pytest.mark.parametrize("machine", ["ulx3s", "pair"])
def test_the_shipped_model(machine: str):
    """Equal to the program where it fits the chips."""
    rack = RACKS.get(machine)
    program = open_any(MODEL, rack=machine) if rack else open_any(MODEL, config=machine)
    found = schedule(program.model, rack or CONFIGS[machine], plans(rack) if rack else [], context=256,
                     four_bit=frozenset(), scales="static", sequences=1)
    assert [(each.last, each.cycles) for each in found.periods] == [
        (program.positions(bucket)[-1], bucket.period) for bucket in (program.buckets[0], program.buckets[-1])]
    assert found.buckets == len(program.buckets) and not found.assumed


def test_a_chip():
    check(SMALL, CHIP)


def test_groups_with_sequences_in_flight():
    check(SMALL, FOUR, tensor=2, pipeline=2, sequences=2)


@pytest.mark.nightly
@pytest.mark.parametrize(("scales", "tensor", "pipeline", "sequences", "context"), [
    ("static", 4, 1, 1, 256), ("dynamic", 4, 1, 1, 256), ("static", 2, 2, 1, 256), ("static", 2, 2, 2, 128),
    ("static", 1, 4, 4, 128), ("robust", 1, 4, 1, 256)])
def test_the_shipped_model_on_four_chips(scales: str, tensor: int, pipeline: int, sequences: int, context: int):
    check(load_checkpoint(MODEL).config, BOARDS, scales, tensor, pipeline, sequences, context)


@pytest.mark.nightly
@pytest.mark.parametrize(("scales", "sequences"), [("dynamic", 1), ("static", 2)])
def test_the_shipped_model_on_a_chip(scales: str, sequences: int):
    check(load_checkpoint(MODEL).config, replace(CONFIGS["ulx3s"], mem_depths=(2048, 5120, 5120)), scales,
          sequences=sequences, context=128)


@pytest.mark.nightly
def test_fifteen_million_weights():
    check(SHAPES[0].model, CONFIGS["large"], "dynamic", context=256)
    check(SHAPES[0].model, mesh("four", "large", 4), tensor=4, context=256)


@pytest.mark.nightly
@pytest.mark.parametrize(("rack", "tensor", "pipeline", "context"), [("node", 8, 1, 544), ("rack", 6, 3, 256)])
def test_smollm2_on_racks(rack: str, tensor: int, pipeline: int, context: int):
    """Whose chips hold it; the cycles of `node` are those of the program, if the model is there."""
    machine, model = RACKS[rack], PRESETS["smollm2-135m"].model
    exact = fit_rack(model, machine, context=context, cycles=True, tensor=tensor, pipeline=pipeline, scales="robust")
    found = divide(PRESETS["smollm2-135m"], CONFIGS["sram28"], precision="int8", context=context, tensor=tensor,
                   pipeline=pipeline, rack=machine, scales="robust", cycles=True).cycles
    assert found and not found.assumed
    agree(found, exact.cycles[0][1], exact.cycles[-1][1])
    if rack == "node" and KNOWN["smollm2"].path.exists():
        buckets = open_any(KNOWN["smollm2"].path, rack="node", context=context).buckets
        agree(found, buckets[0].period, buckets[-1].period)


def test_a_model_beyond_the_instructions():
    """Its inner layer has more vectors than LOAD can number activations."""
    model = replace(SMALL, hidden_dim=4800, n_layers=1)
    found = schedule(model, CONFIGS["large"], [], context=16, four_bit=frozenset(), scales="static", sequences=1)
    assert found.beyond == ("LOAD.act (at most 255)", "MAC.act (at most 255)")
    assert found.assumed == ("SRAM of any size", "activation buffers of 512 entries, not 256")
    assert found.periods[0].cycles > 3 * model.dim * model.hidden_dim / CONFIGS["large"].macs


def test_the_command(capsys: pytest.CaptureFixture[str]):
    arguments = ["plan", str(MODEL), "--chip", "ulx3s", "--context", "8", "--cycles"]
    assert app(arguments) == 0
    out = capsys.readouterr().out
    assert "scheduled, positions 0..7" in out and "not measured, for static scales" in out and "does not fit" not in out
    assert app([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["divided"]
    (only,) = found["cycles"]["periods"]
    assert only["last"] == 7 and f"{only['cycles']:,} (" in out and found["least_cycles"] < only["cycles"]


@pytest.mark.parametrize(("arguments", "named"), [
    (["smollm2-135m", "--cycles"], "give --chip or --rack"),
    (["smollm2-135m", "--chip", "large", "--scales", "dynamic"], "give --cycles, --rack"),
    (["smollm2-135m", "--chip", "large", "--cycles", "--scales", "measured"], "scales must be one of"),
    (["smollm2-135m", "--chip", "large", "--cycles", "--sequences", "3"], "must be 1 or 2, not 3"),
    (["smollm2-135m", "--chip", "large", "--tensor", "2", "--sequences", "2"], "as many as groups of chips, 1, not 2"),
    (["smollm2-135m", "--chip", "large", "--cycles", "--tensor", "9", "--pipeline", "2"], "--rack NAME.json"),
    (["gemma-2-9b", "--chip", "large", "--cycles"], "the compiler takes no experts and no windows"),
    (["llama-3-8b", "--chip", "sram220", "--cycles", "--context", "64"], "at most 65536 tokens, not 128256"),
    (["smollm2-135m", "--chip", "micro", "--cycles", "--context", "64"], "use "),
])
def test_what_is_wrong_is_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]):
    assert app(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and named in err and err.count("\n") == 1
