"""Chooses the frontend for a path: a folder is Hugging Face's, a file is llama2.c's."""

from pathlib import Path

from base.errors import TspError

from .checkpoint import Checkpoint
from .hf import load_hf
from .llama2c import load_llama2c


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint from a Hugging Face folder or a legacy llama2.c `.bin`; raises `TspError`."""
    path = Path(path)
    if not path.exists():
        raise TspError(f"{path}: no such checkpoint; give a llama2.c .bin file or a Hugging Face Llama folder")
    if path.is_dir() and not (path / "config.json").exists():
        raise TspError(f"{path}: no config.json is in this folder; give a Hugging Face Llama folder, with config.json "
                       "and safetensors, or a llama2.c .bin file")
    return load_hf(path) if path.is_dir() else load_llama2c(path)
