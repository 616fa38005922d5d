"""The sizes of a checkpoint, without its weights. Only a GGUF file must contain weights, and none are read."""

from pathlib import Path

from base.errors import TspError
from program.shape import ModelConfig

from .hf import load_hf_config
from .llama2c import load_llama2c_config
from .load import load_checkpoint


def load_config(path: str | Path) -> ModelConfig:
    """The sizes in a folder's config.json, a llama2.c header or a GGUF header. Raises TspError as `load_checkpoint`
    does."""
    path = Path(path)
    if (path / "config.json").is_file():
        return load_hf_config(path)
    if path.is_file():
        try:
            return load_llama2c_config(path)
        except TspError:
            pass  # another form; `load_checkpoint` raises if it is none
    return load_checkpoint(path).config
