"""Chooses the frontend for a path: a folder is a Hugging Face model, a file is GGUF or llama2.c."""

from pathlib import Path

from base.errors import TspError
from base.inputs import cannot_read, describe, is_safetensors, read_head

from .checkpoint import Checkpoint
from .hf import load_hf
from .llama2c import load_llama2c
from .shards import instead

FORMS = "a GGUF file, a Hugging Face Llama folder or a llama2.c .bin file"


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint from a GGUF file, a Hugging Face folder or a legacy llama2.c `.bin`. Raises TspError."""
    path = Path(path)
    try:
        folder = path.stat() and path.is_dir()
        named = folder and (path / "config.json").exists()
    except FileNotFoundError:
        raise TspError(f"{path}: no such checkpoint; give {FORMS}") from None
    except (OSError, ValueError) as error:
        raise cannot_read(path, error) from error
    if folder and not named:
        raise TspError(f"{path}: this folder has no config.json; give a Hugging Face Llama folder, with config.json "
                       f"and safetensors, a GGUF file or a llama2.c .bin file{instead(path)}")
    return load_hf(path) if folder else _load_file(path)


def _load_file(path: Path) -> Checkpoint:
    head = read_head(path)
    if head.startswith(b"GGUF"):
        from .gguf import load_gguf  # a library that takes a while to import

        return load_gguf(path)
    if is_safetensors(head) or describe(head) == "a JSON file":
        raise TspError(f"{path}: this is {describe(head)}, a part of a model: give the folder that holds config.json, "
                       "the weights and the tokenizer")
    return load_llama2c(path)
