"""Does the working tree make the same programs and the same RTL as another revision? For changes that must not matter.

`python tests/same_output.py REV` compiles models for several chips, and writes the RTLIL of every named config, from
the files of `REV` and from those of the working tree. It takes some minutes, and exits with 1 if a byte differs. Both
run in this environment, so REV must get along with the packages installed in it.
"""

import functools
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from checkpoints import SHARED_MODELS, random_checkpoint, small_config, write_llama2c
from programs import TINY, write_letters

from base.cache import cached_text, content_key

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "models" / "stories263k.bin"
OTHER = SHARED_MODELS / "stories260K.bin"
RTLIL = """
import sys
from amaranth.back import rtlil
from hw.__main__ import CONFIGS, Chip
for name, config in CONFIGS.items():
    with open(f"{sys.argv[1]}/{name}.il", "w") as file:
        file.write(rtlil.convert(Chip(config=config), emit_src=False))
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model compiled for a chip: a checkpoint, or random weights of the sizes `TINY`, some changed."""

    name: str
    config: str
    model: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    options: tuple[str, ...] = ()


HALVES = {"n_heads": 6, "n_kv_heads": 3, "head_dim": 8, "dim": 48, "vocab_size": 1500}
"""Heads of half a vector; a vocabulary that takes a loop."""
LONG = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 48, "dim": 192, "hidden_dim": 300, "seq_len": 200}
"""Heads of several vectors, masks and the residual in SRAM, two groups of channels."""
CASES = [
    Case(name="tiny", config="tiny", options=("--scales", "static")),
    Case(name="tiny, dynamic", config="tiny", options=("--scales", "dynamic")),
    Case(name="halves, static", config="large", sizes=HALVES, options=("--scales", "static")),
    Case(name="halves, dynamic", config="large", sizes=HALVES, options=("--scales", "dynamic")),
    Case(name="long, static", config="large", sizes=LONG, options=("--scales", "static")),
    Case(name="long, dynamic", config="large", sizes=LONG, options=("--scales", "dynamic")),
    Case(name="int4", config="wide", options=("--weights", "int4")),
    *(Case(name="shipped", config=config, model=SHIPPED) for config in ("ulx3s", "wide", "large")),
    *(Case(name="stories260K", config=config, model=OTHER) for config in ("ulx3s", "wide") if OTHER.exists()),
]


def main(revision: Annotated[str, typer.Argument(help="A commit to compare the working tree with.")] = "HEAD",
         programs: Annotated[bool, typer.Option(help="Compare programs.")] = True,
         rtl: Annotated[bool, typer.Option(help="Compare RTLIL.")] = True) -> None:
    """Compare programs and RTLIL of the working tree with those of another revision."""
    commit = git("rev-parse", f"{revision}^{{commit}}").decode().strip()
    items: dict[str, Callable[[Path], str]] = {}
    if programs:
        items |= {f"{case.name} for {case.config}": functools.partial(program_digest, case) for case in CASES}
    if rtl:
        items["RTLIL of all configs"] = rtlil_digest
    differing = [name for name, of in items.items() if not same(name, of, commit)]
    raise SystemExit(bool(differing))


def same(name: str, of: Callable[[Path], str], commit: str) -> bool:
    """Whether something is the same in the working tree as in a commit, whose digests are kept in the cache."""

    def make() -> str:
        with unpacked(commit) as tree:
            return of(tree)

    then, now = cached_text("same-output", content_key(commit, name, Path(__file__).read_bytes()), make), of(ROOT)
    print(f"{now[:16]}  {name}" if then == now else f"{name} DIFFERS: {then[:16]} then, {now[:16]} now", flush=True)
    return then == now


@contextmanager
def unpacked(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit."""
    with tempfile.TemporaryDirectory(prefix="same-output-") as folder:
        with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def git(*arguments: str) -> bytes:
    """What a git command prints. Exits if it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout


def program_digest(case: Case, tree: Path) -> str:
    """SHA-256 of the program of a case, by the compiler in a tree."""
    with tempfile.TemporaryDirectory(prefix="same-output-") as folder:
        model, output = case.model or random_model(Path(folder), case.sizes), Path(folder, "program.tsp")
        python(tree, "-m", "cli.main", "compile", str(model), "--config", case.config, "-o", str(output),
               *case.options)
        return hashlib.sha256(output.read_bytes()).hexdigest()


def rtlil_digest(tree: Path) -> str:
    """SHA-256 of the RTLIL of all named configs, by the RTL in a tree."""
    with tempfile.TemporaryDirectory(prefix="same-output-") as folder:
        python(tree, "-c", RTLIL, folder)
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).iterdir())}
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def random_model(folder: Path, sizes: dict[str, int]) -> Path:
    """A llama2.c file of random weights, and its tokenizer beside it."""
    model = small_config(**(TINY | sizes))
    write_letters(folder / "tokenizer.bin", model.vocab_size)
    return write_llama2c(folder / "model.bin", random_checkpoint(model))


def python(tree: Path, *arguments: str) -> None:
    """Run Python on the sources of a tree. Raises CalledProcessError, its output printed, if that fails."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()


if __name__ == "__main__":
    typer.run(main)
