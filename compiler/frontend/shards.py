"""The files of weights in a Hugging Face folder, and the kinds of the other files."""

import json
from pathlib import Path

from base.errors import TspError
from base.inputs import read_input

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NO_MODELS = ("adapter_", "consolidated", "optimizer", "training_")
"""Prefixes of safetensors files that do not hold a model's weights in Hugging Face's form."""
OTHERS = {
    "adapter_model.safetensors": "an adapter (LoRA), not a model: merge it into its model first",
    "adapter_config.json": "of an adapter (LoRA), not a model: merge it into its model first",
    "consolidated*.safetensors": "in the form of the model's maker: give the folder in Hugging Face's form",
    "consolidated*.pth": "in the form of the model's maker: give the folder in Hugging Face's form",
    "*.gguf": "a GGUF file: give that file itself",
    "pytorch_model*.bin": "a Python pickle, which may run code and is not opened: save the model as safetensors "
                          "(save_pretrained)",
    "*.pt": "a Python pickle, which may run code and is not opened: save the model as safetensors",
    "*.pth": "a Python pickle, which may run code and is not opened: save the model as safetensors",
    "tf_model.h5": "of TensorFlow: save the model as safetensors",
    "flax_model.msgpack": "of Flax: save the model as safetensors",
    "*.onnx": "an ONNX file: give the folder of the original model",
}
"""Files that may be there in place of weights, and their kinds."""


def weight_files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Files of weights, and notes on similar files that are left out. Raises TspError if there are no weights."""
    whole, index = folder / WHOLE, folder / INDEX
    if whole.exists():
        stale = [f"{INDEX} and its shards are ignored, because {WHOLE} exists"] if index.exists() else []
        shards = folder.glob("model-*-of-*.safetensors") if index.exists() else []
        return [whole], (*stale, *_left_out(folder, [whole, *shards]))
    if index.exists():
        files = _indexed(index)
        return files, _left_out(folder, files)
    files = [path for path in sorted(folder.glob("*.safetensors")) if not path.name.startswith(NO_MODELS)]
    if len(files) == 1:
        return files, _left_out(folder, files)
    if files:
        raise TspError(f"{folder}: needs {WHOLE} or {INDEX}, found {len(files)} files: {files[0].name}, "
                       f"{files[1].name}{', ..' if len(files) > 2 else ''}")
    raise TspError(f"{folder}: this folder has no weights ({WHOLE}, or shards with {INDEX}){instead(folder)}")


def instead(folder: Path) -> str:
    """The end of a message: what a folder holds in place of weights in safetensors; "" if it is not known."""
    found = ((path, what) for pattern, what in OTHERS.items() for path in sorted(folder.glob(pattern)))
    return next((f": {path.name} is {what}" for path, what in found), "")


def _indexed(index: Path) -> list[Path]:
    try:
        fields = json.loads(read_input(index))
    except (ValueError, RecursionError) as error:
        raise TspError(f"{index}: not valid JSON: {error}") from error
    weight_map = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise TspError(f"{index}: must hold a 'weight_map' from tensors to files")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise TspError(f"{index}: file {outside[0]!r} must lie in the folder itself")
    return [index.parent / name for name in names]


def _left_out(folder: Path, used: list[Path]) -> tuple[str, ...]:
    others = [path.name for path in sorted(folder.glob("*.safetensors")) if path not in used]
    return tuple(f"{name} is left out: it is not of the model's weights" for name in others)
