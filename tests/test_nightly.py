"""Every token over the full context, greedy and sampled: logits and cycles of reference, cycle model and RTL."""

from functools import cache
from pathlib import Path

import pytest
from checkpoints import SHARED_MODELS
from test_end_to_end import PROMPT, SAMPLED, SHIPPED, alike

from arch.config import CONFIGS
from compiler.compile import compile_checkpoint
from compiler.frontend.files import read_model
from program.program import Program
from program.tokenizer import Tokenizer

pytestmark = pytest.mark.nightly

STORIES260K = SHARED_MODELS / "stories260K.bin"
MODELS = [
    pytest.param(SHIPPED, id="shipped"),
    pytest.param(STORIES260K, id="stories260K", marks=[
        pytest.mark.shared, pytest.mark.skipif(not STORIES260K.exists(), reason="needs METRONOME_SHARED")]),
]


@cache
def program_of(path: Path, config: str) -> Program:
    """At the longest context that fits."""
    return compile_checkpoint(*read_model(path, None), config=CONFIGS[config], measure=False)


@pytest.mark.parametrize("device", ["rtl", "model"])
@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("path", MODELS)
@pytest.mark.parametrize("config", ["ulx3s", "wide", "mega"])
def test_every_token_over_the_full_context(config: str, path: Path, sampling: dict, device: str):
    program = program_of(path, config)
    prompt = Tokenizer.from_bytes(program.tokenizer).encode(PROMPT)
    alike(program, device, prompt, program.context, **sampling)
