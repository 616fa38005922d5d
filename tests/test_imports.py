"""Walls between the packages, checked in the sources: each package imports only the ones it may."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "base": {"base"},
    "arch": {"base", "arch"},
    "hw": {"base", "arch", "hw"},
    "program": {"base", "arch", "program"},
    "compiler": {"base", "arch", "program", "compiler"},
    "report": {"base", "arch", "program", "report"},
    "sim": {"base", "arch", "program", "hw", "sim"},
    "fpga": {"base", "arch", "program", "hw", "sim", "fpga"},
    "run": {"base", "arch", "program", "hw", "compiler", "report", "sim", "fpga", "run"},
    "serve": {"base", "program", "report", "run", "serve"},
    "page": {"base", "arch", "program", "hw", "report", "sim", "page"},
    "plan": {"base", "arch", "program", "compiler", "plan"},
    "latency": {"base", "latency"},
    "cli": {"base", "arch", "program", "hw", "compiler", "report", "sim", "fpga", "run", "serve", "page", "plan",
            "latency", "cli"},
}
FLOORS = tuple(MAY_IMPORT)
# The cycle model and the contract must not know how a unit does its work.
FREE_OF_RTL = ("arch", "program", "compiler", "sim/cycle")


def sources() -> list[Path]:
    return [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that the file imports, at its top or inside a function, by full name."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            names = [_module(module, alias.name) for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in FLOORS)


def _module(module: str, name: str) -> str:
    """`from hw import isa` imports arch.isa; `from arch.isa import Op` imports arch.isa."""
    inner = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if inner.with_suffix(".py").exists() or inner.is_dir() else module


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_go_down(path: Path):
    floor = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        assert name.split(".")[0] in MAY_IMPORT[floor], f"{name_of(path)} must not import {name}"


@pytest.mark.parametrize("path", [p for p in sources() if name_of(p).startswith(FREE_OF_RTL)], ids=name_of)
def test_what_describes_the_machine_reaches_no_rtl(path: Path):
    seen: set[str] = set()
    waiting = [*imported(path)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name.split(".")[0] != "hw", f"{name_of(path)} reaches the RTL module {name}"
        file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        waiting += imported(file) if file.exists() else []


def test_package_docstrings_only():
    folders = {path.parent for path in sources()}
    assert all((folder / "__init__.py").exists() for folder in folders)
    for folder in folders:
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{folder}/__init__.py holds more than a docstring"
