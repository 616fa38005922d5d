"""The sizes of a checkpoint alone: no weight is read, and but for GGUF there need be none."""

from pathlib import Path

from base.errors import TspError
from program.shape import ModelConfig

from .hf import load_hf_config
from .llama2c import load_llama2c_config
from .load import load_checkpoint


def load_config(path: str | Path) -> ModelConfig:
    """Of whatever `load_checkpoint` takes: a folder's config.json, a llama2.c header, a GGUF header. Raises `TspError`
    as it does."""
    path = Path(path)
    if (path / "config.json").is_file():
        return load_hf_config(path)
    if path.is_file():
        try:
            return load_llama2c_config(path)
        except TspError:
            pass  # of another form, or of none, which is said next
    return load_checkpoint(path).config
