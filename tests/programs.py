"""Small programs for tests: random models compiled for small chips."""

import functools
import tempfile
from pathlib import Path

from checkpoints import random_checkpoint, small_config, tokenizer_bin

from compiler.compile import compile_checkpoint
from compiler.program import Program
from compiler.tokenizer import Tokenizer, load_tokenizer
from hw.config import CONFIGS

TINY = {"dim": 32, "hidden_dim": 40, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "vocab_size": 100,
        "seq_len": 40}
"""Fits `tiny`; 40 positions are two and a half chunks."""


@functools.cache
def random_tokenizer(vocab: int) -> Tokenizer:
    """A tokenizer of letters and pairs of them."""
    with tempfile.TemporaryDirectory() as folder:
        return load_tokenizer(write_letters(Path(folder) / "tokenizer.bin", vocab), vocab)


def write_letters(path: Path, vocab: int) -> Path:
    """A tokenizer.bin of any size from 40 on: no byte tokens, so that it suits the smallest models."""
    letters = [bytes([c]) for c in b" abcdefghijklmnopqrstuvwxyz.,!\n'"]
    pairs = [a + b for a in letters for b in letters]
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *letters, *pairs][:vocab]
    path.write_bytes(tokenizer_bin(pieces, [-float(i) for i in range(len(pieces))]))
    return path


@functools.cache
def small_program(config: str = "tiny", weights: str = "int8", **sizes: int) -> Program:
    """A random model of the sizes `TINY`, some changed, compiled for a named config."""
    model = small_config(**(TINY | sizes))
    return compile_checkpoint(random_checkpoint(model), random_tokenizer(model.vocab_size), config=CONFIGS[config],
                              weights=weights, measure=False)
