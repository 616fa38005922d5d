"""The files of a command: a checkpoint, its tokenizer, and a text to calibrate on."""

import codecs
from glob import escape
from pathlib import Path

from base.errors import TspError
from base.inputs import cannot_read, check_input, read_head, template_beside
from program.tokenizer import Tokenizer

from .checkpoint import Checkpoint
from .load import load_checkpoint
from .vocabulary import HF_CONFIGS, find_vocabulary, load_tokenizer

TEXT_BYTES, LEAST_TOKENS, MOST_TOKENS = 1 << 15, 16, 4096
"""Limits of a text to calibrate on. Its beginning is enough."""


def read_model(checkpoint: str | Path, tokenizer: str | Path | None = None) -> tuple[Checkpoint, Tokenizer]:
    """The checkpoint and its tokenizer. By default, the tokenizer is a file next to the checkpoint. Raises TspError.

    A chat template NAME.jinja beside the checkpoint NAME goes before the tokenizer's own.
    """
    path, model = Path(checkpoint), load_checkpoint(checkpoint)
    vocab = model.config.vocab_size
    found = load_tokenizer(tokenizer or find_tokenizer(path, vocab), vocab, checkpoint)
    found.chat_template = template_beside(path) or found.chat_template
    return model, found


def read_text(path: Path, tokenizer: Tokenizer) -> list[int]:
    """The tokens, without BOS, of the beginning of a calibration text. Raises TspError."""
    check_input(path, "the text")
    try:
        with path.open("rb") as file:
            data = file.read(TEXT_BYTES)
    except OSError as error:
        raise cannot_read(path, error, "the text") from error
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=len(data) < TEXT_BYTES)
        tokens = tokenizer.encode(text, bos=False)[:MOST_TOKENS]
    except UnicodeDecodeError as error:
        raise TspError(f"{path}: the text must be UTF-8, but byte {error.start} is not: convert it") from None
    except TspError as error:
        raise TspError(f"{path}: {error}") from None
    if len(tokens) < LEAST_TOKENS:
        raise TspError(f"{path}: the text must have at least {LEAST_TOKENS} tokens to calibrate on, not {len(tokens)}: "
                       "give a longer one")
    return tokens


def find_tokenizer(checkpoint: Path, vocab: int) -> Path:
    """The tokenizer in a Hugging Face folder, in a GGUF file or next to a file. Raises TspError if there is none."""
    if checkpoint.is_dir():
        return checkpoint / find_vocabulary(checkpoint)
    if read_head(checkpoint).startswith(b"GGUF"):
        return checkpoint
    folder = checkpoint.parent
    names = (f"tok{vocab}.bin", "tokenizer.bin", "tokenizer.json", "tokenizer.model")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise TspError(f"{folder}: this folder has no tokenizer ({', '.join(names)}); name one with --tokenizer")


def sources(checkpoint: Path, tokenizer: Path | None = None) -> list[Path]:
    """The files that may be read for a program, a checkpoint or a folder, including the tokenizer's files."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if checkpoint.is_dir():
        patterns = (*HF_CONFIGS, "tokenizer.json", "tokenizer.model", "*.safetensors", "*.safetensors.index.json")
    else:
        patterns = ("tok[0-9]*.bin", "tokenizer.bin", "tokenizer.json", "tokenizer.model",
                    f"{escape(checkpoint.stem)}.jinja")
    beside = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return [checkpoint, *([tokenizer] if tokenizer else []), *beside]
