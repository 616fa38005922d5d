"""`tsp get`, and the names of models as arguments of other commands."""

from pathlib import Path
from typing import Annotated

import typer

from run.models import KNOWN, find_model, get_model

from .show import plain

NAMES = ", ".join(KNOWN)
MODELS = f"GGUF file, Hugging Face folder, llama2.c checkpoint, or a name that `tsp get` knows: {NAMES}"
Model = Annotated[Path, typer.Argument(
    parser=find_model, metavar="MODEL",
    help=f"{MODELS}.")]


def get(
    names: Annotated[list[str] | None, typer.Argument(help=f"Models: {NAMES}.  [default: list them]")] = None,
) -> None:
    """Fetch a model by its name, check its digest, and keep it in the cache."""
    out, notes = plain(), plain(stderr=True)
    for name in names or ():
        path, known = get_model(name, notes.print), KNOWN[name]
        out.print(f"{name}: {known.about}\nlicence: {known.licence}, its text beside the file\n{path}")
    if not names:
        for name, known in KNOWN.items():
            state = f"fetched: {known.path}" if known.path.exists() else f"not fetched ({known.megabytes} MB)"
            out.print(f"{name}: {known.about}; {known.licence}; {state}")
