"""SmolLM2-135M-Instruct on the chip of 220 MiB: three answers of 32 tokens, alike on the reference and the RTL.

Needs the model: `tsp get smollm2`. The RTL takes some four seconds a token.
"""

import pytest

from program.tokenizer import Tokenizer
from run.chat import choose_template
from run.conversation import Conversation
from run.devices import open_device
from run.models import KNOWN
from run.programs import open_program
from run.sampling import Sampling
from run.session import Session
from run.story import logits_digest

MODEL = KNOWN["smollm2"].path
QUESTIONS = ("Why is the sky blue?", "How do I make a cup of tea?", "Write a short poem about the sea.")
TOKENS, CONTEXT = 32, 2048

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(not MODEL.exists(), reason="needs `tsp get smollm2`")]


def test_three_questions():
    program = open_program(MODEL, config="sram220", context=CONTEXT)
    words = Tokenizer.from_bytes(program.tokenizer)
    template = choose_template(None, MODEL, words)
    assert template is not None
    told = {}
    for name in ("reference", "rtl"):
        device = open_device(name, program.config)
        session = Session(device, program)
        told[name] = []
        for question in QUESTIONS:
            talk = Conversation(session, words, template, Sampling(), tokens=TOKENS)
            turn = talk.ask(question)
            list(turn.prefill())
            answer = [(piece.token, piece.text, logits_digest(session.logits())) for piece in turn.pieces()]
            # the session raises where a measured cycle differs from the prediction; on the RTL all are measured
            assert name == "reference" or all(step.measured == step.predicted for step in turn.steps)
            told[name].append(answer)
            print(name, question, repr("".join(text for _, text, _ in answer)), sum(s.predicted for s in turn.steps),
                  "cycles", flush=True)
        device.close()
    assert told["reference"] == told["rtl"]
    assert [len(answer) for answer in told["rtl"]] == [TOKENS] * len(QUESTIONS)
