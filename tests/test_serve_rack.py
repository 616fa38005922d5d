"""A rack behind the server: a program file of a rack is served as any other."""

from pathlib import Path

import numpy as np
from serving import running
from small_racks import PAIR, shared

from run.devices import open_device
from run.sampling import Sampling
from run.session import Session
from run.story import logits_digest

PROMPT = [1, 30, 40]


def test_a_rack_answers_as_the_reference(tmp_path: Path):
    reference = Session(open_device("reference", PAIR), shared())
    reference.prompt(PROMPT, Sampling())
    reference.run(len(PROMPT) + 4)
    with running(program=shared(), template=None, folder=tmp_path, devices=("model",)) as server:
        answer = server.complete(PROMPT, max_tokens=5, temperature=0).json
        assert answer["x_tsp"]["logits_digest"] == logits_digest(np.asarray(reference.logits()))
        assert answer["x_tsp"]["measured_cycles"] == answer["x_tsp"]["predicted_cycles"] > 0
        figures = server.send("GET", "/tsp/program").json
        assert figures["config"] == "twins" and figures["macs"] == 2 * PAIR.chips[0].macs
        assert 0 < figures["buckets"][0]["units"]["C2C"] < figures["buckets"][0]["units"]["MXM"] < 1
