"""SmolLM2-135M-Instruct on the eight chips of `node`: an answer of 32 tokens, alike on the reference and the RTL.

Needs the model: `tsp get smollm2`.
"""

import numpy as np
import pytest

from program.rack import RackProgram
from program.tokenizer import Tokenizer
from run.chat import choose_template
from run.conversation import Conversation
from run.devices import open_device
from run.models import KNOWN
from run.programs import open_any
from run.sampling import Sampling
from run.session import Session

MODEL = KNOWN["smollm2"].path
QUESTION = "Why is the sky blue?"
TOKENS, CONTEXT = 32, 544
ONE_CHIP = 574_208
"""Cycles of a token at position 256 on `sram220`, which has the same matrix units (docs/reference/numerics.md)."""

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(not MODEL.exists(), reason="needs `tsp get smollm2`")]


def opened() -> RackProgram:
    program = open_any(MODEL, rack="node", context=CONTEXT)
    assert isinstance(program, RackProgram)
    return program


def test_eight_chips_are_six_times_as_fast_as_one():
    assert opened().cycles(256) * 6 <= ONE_CHIP


def test_an_answer():
    program = opened()
    words = Tokenizer.from_bytes(program.tokenizer)
    template = choose_template(None, MODEL, words)
    assert template is not None
    told = {}
    for name in ("reference", "rtl"):
        device = open_device(name, program.config)
        session = Session(device, program)
        talk = Conversation(session, words, template, Sampling(), tokens=TOKENS)
        turn = talk.ask(QUESTION)
        list(turn.prefill())
        told[name] = [(piece.token, session.logits()) for piece in turn.pieces()]
        # the session raises where the cycles of a chip differ from the prediction; on the RTL all are measured
        assert name == "reference" or all(step.measured == step.predicted for step in turn.steps)
        device.close()
    assert len(told["rtl"]) == len(told["reference"]) == TOKENS
    for (token, logits), (expected, expected_logits) in zip(told["rtl"], told["reference"], strict=True):
        assert token == expected and np.array_equal(logits, expected_logits)
