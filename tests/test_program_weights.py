"""program.weights: a program's integer model is the one that was compiled, though its file has the weights once."""

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer

from arch.config import CONFIGS
from compiler import compile as driver
from compiler.compile import compile_checkpoint
from program.integer import MATRICES, to_arrays

SHAPES = {
    "shared heads, padded": ("tiny", {}, "int8"),
    "odd sizes": ("wide", {"dim": 40, "hidden_dim": 72, "vocab_size": 378, "n_heads": 3, "n_kv_heads": 3}, "int8"),
    "two heads to a word": ("wide", {"n_heads": 4, "n_kv_heads": 2, "head_dim": 8}, "int8"),
    "four bits": ("wide", {}, "int4"),
    "two weight groups": ("ulx3s", {"n_heads": 4, "n_kv_heads": 4, "head_dim": 8}, "int8"),
    "its own classifier": ("wide", {"shared_classifier": False}, "int8"),
}


@pytest.mark.parametrize(("config", "sizes", "weights"), SHAPES.values(), ids=SHAPES)
def test_the_integer_model_comes_back(config: str, sizes: dict, weights: str, monkeypatch: pytest.MonkeyPatch):
    models = []
    pack = driver.pack
    monkeypatch.setattr(driver, "pack", lambda own, tokenizer, model, *rest: models.append(model) or pack(
        own, tokenizer, model, *rest))
    shape = small_config(**TINY | sizes)
    program = compile_checkpoint(random_checkpoint(shape), random_tokenizer(shape.vocab_size), config=CONFIGS[config],
                                 weights=weights, scales="static", measure=False)
    assert not set(program.arrays) & {*MATRICES, "embedding"}
    expected, found = to_arrays(models[0]), to_arrays(program.integer_model())
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
