"""Two sequences in one program of a chip: every token and logit of each alone, every period in the predicted cycles."""

import pytest
from flights import fly, some, together

from arch.config import CONFIGS
from run.devices import open_in_flight

ULX3S = CONFIGS["ulx3s"]
SMALL = {"seq_len": 24, "dim": 48, "hidden_dim": 72, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8}


def test_two_sequences_on_one_chip():
    program = together(ULX3S, buckets=2, **SMALL)
    assert fly(program, open_in_flight("model", ULX3S), some(2), 30) > 40


def test_two_sequences_on_the_rtl():
    program = together(ULX3S, buckets=2, **SMALL)
    assert fly(program, open_in_flight("rtl", ULX3S), some(2), 30) > 40
