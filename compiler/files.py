"""Reads a checkpoint and the tokenizer that belongs to it."""

from pathlib import Path

from .checkpoint import Checkpoint
from .errors import TspError
from .frontend import load_checkpoint
from .tokenizer import Tokenizer, load_tokenizer


def read_model(checkpoint: str | Path, tokenizer: str | Path | None = None) -> tuple[Checkpoint, Tokenizer]:
    """Both; the tokenizer is by default a file next to the checkpoint. Raises TspError."""
    model = load_checkpoint(checkpoint)
    vocab = model.config.vocab_size
    return model, load_tokenizer(tokenizer or find_tokenizer(Path(checkpoint), vocab), vocab)


def find_tokenizer(checkpoint: Path, vocab: int) -> Path:
    """The tokenizer in a Hugging Face folder or next to a file. Raises TspError if there is none."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    names = ("tokenizer.json",) if checkpoint.is_dir() else (f"tok{vocab}.bin", "tokenizer.bin", "tokenizer.json")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise TspError(f"{folder}: no tokenizer ({', '.join(names)}) is there; name one with --tokenizer")
