"""Who may import whom, by reading the sources: each floor imports only from below."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("hw", "compiler", "sim", "fpga", "run", "serve", "plan", "latency", "cli")
# What of hw is no RTL: the compiler needs it, and the reference model may have nothing else.
ARCHITECTURE = {"hw", "hw.config", "hw.identity", "hw.isa", "hw.tables", "hw.numerics", "hw.store"}
MAY_IMPORT = {
    "hw": {"hw"},
    "compiler": {"compiler"},  # and ARCHITECTURE
    "sim": {"hw", "compiler", "sim"},
    "fpga": {"hw", "compiler", "sim", "fpga"},
    "plan": {"hw", "compiler", "plan"},
    "latency": {"compiler", "latency"},
    "run": {"hw", "compiler", "sim", "fpga", "run"},
    "serve": {"hw", "compiler", "sim", "fpga", "run", "serve"},
    "cli": set(FLOORS),
}
FREE_OF_RTL = {"sim/model.py", *(f"{name.replace('.', '/')}.py" for name in ARCHITECTURE - {"hw"})}


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
    """`from hw import isa` imports hw.isa; `from hw.isa import Op` imports hw.isa."""
    inner = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if inner.with_suffix(".py").exists() or inner.is_dir() else module


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_go_down(path: Path):
    floor = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        allowed = name.split(".")[0] in MAY_IMPORT[floor] or (floor == "compiler" and name in ARCHITECTURE)
        assert allowed, f"{name_of(path)} must not import {name}"


@pytest.mark.parametrize("path", [p for p in sources() if name_of(p) in FREE_OF_RTL], ids=name_of)
def test_what_describes_the_machine_imports_no_rtl(path: Path):
    seen: set[str] = set()
    waiting = [*imported(path)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        assert not name.startswith("hw.") or name in ARCHITECTURE, f"{name_of(path)} reaches the RTL module {name}"
        file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        waiting += imported(file) if file.exists() else []


def test_package_docstrings_only():
    for floor in FLOORS:
        body = ast.parse((ROOT / floor / "__init__.py").read_text()).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{floor}/__init__.py holds more than a docstring"
