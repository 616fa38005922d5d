"""Small programs for tests: random models compiled for small chips."""

import functools
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import random_checkpoint, small_config, tokenizer_bin

from arch.config import CONFIGS
from compiler.compile import compile_checkpoint
from compiler.frontend.checkpoint import Checkpoint
from compiler.frontend.vocabulary import load_tokenizer
from program.program import Program
from program.tokenizer import Tokenizer

TINY = {"dim": 32, "hidden_dim": 40, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "vocab_size": 100,
        "seq_len": 40}
"""Fits `tiny`; 40 positions are two and a half chunks."""


FIFTEEN = {"dim": 288, "hidden_dim": 768, "n_layers": 6, "n_heads": 6, "n_kv_heads": 6, "head_dim": 48,
           "vocab_size": 32000, "seq_len": 256}
"""The sizes of llama2.c's model of 15 million weights."""


def fifteen_million(**sizes: int) -> Checkpoint:
    """Random weights of these sizes, some changed, about as large as trained ones."""
    config = small_config(**FIFTEEN | sizes)
    rng = np.random.default_rng(15)
    weights: dict[str, Any] = {name: np.ones(shape, np.float32) if "norm" in name
                               else rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
                               for name, shape in config.shapes().items()}
    return Checkpoint(config=config, **weights | {"classifier": weights["tok_emb"]})


@functools.cache
def random_tokenizer(vocab: int) -> Tokenizer:
    """A tokenizer of letters, pairs and triples of them."""
    with tempfile.TemporaryDirectory() as folder:
        return load_tokenizer(write_letters(Path(folder) / "tokenizer.bin", vocab), vocab)


def write_letters(path: Path, vocab: int) -> Path:
    """A tokenizer.bin of any size from 40 on: no byte tokens, so that it suits the smallest models."""
    letters = [bytes([c]) for c in b" abcdefghijklmnopqrstuvwxyz.,!\n'"]
    words = (b"".join(word) for length in (1, 2, 3) for word in itertools.product(letters, repeat=length))
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *itertools.islice(words, vocab - 3)]
    path.write_bytes(tokenizer_bin(pieces, [-float(i) for i in range(len(pieces))]))
    return path


@functools.cache
def small_program(config: str = "tiny", weights: str = "int8", scales: str = "measured", **sizes: int) -> Program:
    """A random model of the sizes `TINY`, some changed, compiled for a named config."""
    model = small_config(**(TINY | sizes))
    return compile_checkpoint(random_checkpoint(model), random_tokenizer(model.vocab_size), config=CONFIGS[config],
                              weights=weights, scales=scales, measure=False)
