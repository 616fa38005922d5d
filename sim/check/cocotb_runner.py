"""Runs cocotb testbenches on one Amaranth component, from pytest.

    def test_mxm():
        run_cocotb(Mxm(config=TINY), "mxm_bench", toplevel_name="mxm")

where `mxm_bench.py` holds `@cocotb.test()` coroutines. The cache keeps the binary, and a changed test module needs no
rebuild. Verilator is a two-state simulator. `SIM=icarus` in the environment, or `simulator="icarus"`, runs the same
bench in Icarus Verilog, a four-state simulator, in which a value that was never written is X.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from amaranth.hdl import Elaboratable
from cocotb_tools import runner as cocotb_runner
from cocotb_tools.runner import VerilatorControlFile

from base import cache
from base.errors import TspError
from sim.rtl import toolchain
from sim.rtl.verilog import verilog_of

# Not VL_TIME_CONTEXT (cocotb 2.1 hangs with it), not plain --coverage (Verilator 5.48 crashes on Amaranth's output).
BUILD_ARGS = ("-Wno-fatal", "-Wno-lint", "-Wno-style", "--timescale", "1ns/1ps")
COVERAGE_ARGS = ("--coverage-line", "--coverage-toggle")
# A testbench spends its time in Python, and its build in the C++ compiler. So optimise little.
MAKE_VARIABLES = ("OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1")


class Verilator(cocotb_runner.Verilator):
    """cocotb's runner for Verilator, with only the ports of the top module public.

    cocotb's `--public-flat-rw` makes every signal of the design public. Verilator then optimises nothing away, and a
    unit's build is five to ten times larger. Here a control file makes only the ports public (`_public_ports`).
    """

    def _build_command(self):
        return [[word for word in command if word != "--public-flat-rw"] for command in super()._build_command()]


Icarus = cocotb_runner.Icarus
SIMULATORS: Mapping[str, type[cocotb_runner.Runner]] = {"verilator": Verilator, "icarus": Icarus}
"""The runners by the values of SIM."""


class CocotbFailure(AssertionError):
    """A testbench failed, crashed, or contains no test."""


@dataclass(frozen=True, kw_only=True)
class CocotbResult:
    """The results of one run of a testbench."""

    passed: tuple[str, ...]
    log: str
    coverage: str | None = None
    """Verilator's coverage data, if requested."""


def run_cocotb(
    component: Elaboratable,
    test_module: str,
    *,
    toplevel_name: str,
    seed: int = 0,
    env: Mapping[str, str] | None = None,
    testcase: str | None = None,
    coverage: bool = False,
    simulator: str | None = None,
) -> CocotbResult:
    """Build the component, unless the cache has it, and run a module's tests on it.

    test_module: module that `sys.path` leads to.
    env: environment variables for the module.
    simulator: one of `SIMULATORS`; by default the one of the environment variable SIM, or Verilator.

    Raises CocotbFailure unless at least one test ran and all tests passed. A testbench that ends the simulator, or that
    cannot be imported, counts as failed. Raises TspError if the simulator is not installed.
    """
    tools = toolchain.find()
    simulator = simulator_of(simulator)
    if simulator == "icarus":
        build = _build_icarus(component, toplevel_name)
    else:
        build = _build(component, toplevel_name, tools, coverage=coverage)
    with tempfile.TemporaryDirectory(prefix="metronome-") as work, _environment(tools):
        folder = Path(work)
        results, log = folder / "results.xml", folder / "log"
        runner = SIMULATORS[simulator]()
        try:
            runner.test(
                test_module,
                toplevel_name,
                hdl_toplevel_lang="verilog",
                testcase=testcase,
                seed=seed,
                extra_env=dict(env or {}),
                build_dir=build,
                test_dir=folder,
                results_xml=str(results),
                log_file=log,
            )
        except SystemExit as end:  # the runner reports a failed simulator this way
            code = end.code
        else:
            code = 0
        text = log.read_text(errors="replace") if log.exists() else ""
        passed = _check(results, test_module, text, code)
        data = folder / "coverage.dat"
        return CocotbResult(passed=passed, log=text, coverage=data.read_text() if data.exists() else None)


def simulator_of(name: str | None) -> str:
    """The requested simulator. Raises TspError if it is not known or not installed."""
    chosen = name or os.environ.get("SIM") or "verilator"
    if chosen not in SIMULATORS:
        raise TspError(f"SIM must be one of {', '.join(SIMULATORS)}, not {chosen!r}")
    if chosen == "icarus" and not (shutil.which("iverilog") and shutil.which("vvp")):
        raise TspError("SIM=icarus needs Icarus Verilog, but `iverilog` was not found; apt-get install iverilog")
    return chosen


def _build_icarus(component: Elaboratable, name: str) -> Path:
    source = verilog_of(component, name)
    version = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    key = cache.content_key(source, name, version, _cocotb_version())

    def make(folder: Path) -> None:
        path = folder / f"{name}.v"
        path.write_text(source)
        log = folder / "build.log"
        try:
            Icarus().build(sources=[path], hdl_toplevel=name, build_dir=folder, timescale=("1ns", "1ps"), always=True,
                           log_file=log)
        except (SystemExit, RuntimeError, OSError) as error:
            raise TspError(f"Icarus Verilog refuses {name}: {error} (see {log})") from error

    return cache.cached("icarus", key, make)


def _build(component: Elaboratable, name: str, tools: toolchain.Toolchain, *, coverage: bool) -> Path:
    source = verilog_of(component, name)
    args = [*BUILD_ARGS, *(COVERAGE_ARGS if coverage else ())]
    public = _public_ports(source, name)
    key = cache.content_key(source, public, name, *args, *MAKE_VARIABLES, _cocotb_version(), *tools.versions)

    def make(folder: Path) -> None:
        path, control = folder / f"{name}.v", folder / "public.vlt"
        path.write_text(source)
        control.write_text(public)
        log = folder / "build.log"
        with _environment(tools):
            try:
                Verilator().build(
                    sources=[VerilatorControlFile(control), path],
                    hdl_toplevel=name,
                    build_args=args,
                    build_dir=folder,
                    always=True,
                    log_file=log,
                )
            except (SystemExit, RuntimeError, OSError) as error:
                raise TspError(f"the testbench binary of {name} does not build: {error} (see {log})") from error
        for left in (*folder.glob("*.o"), *folder.glob("*.gch"), *folder.glob("*.a")):
            left.unlink()

    return cache.cached("cocotb", key, make)


def _public_ports(source: str, name: str) -> str:
    """A Verilator control file that makes only the ports of a module readable and writable."""
    header = re.search(rf"^module \\?{re.escape(name)}\s*\(([^)]*)\);", source, re.MULTILINE)
    if header is None:
        raise TspError(f"the Verilog has no module {name}")
    ports = [port.strip().lstrip("\\") for port in header[1].split(",")]
    return "`verilator_config\n" + "".join(f'public_flat_rw -module "{name}" -var "{port}"\n' for port in ports)


def _cocotb_version() -> str:
    import cocotb

    # The binary refers to this installation's libraries by their path.
    return f"{cocotb.__version__} {Path(cocotb.__file__).parent}"


@contextmanager
def _environment(tools: toolchain.Toolchain) -> Iterator[None]:
    """Set `os.environ` for cocotb's runner, which takes tools and make's flags only from there.

    It also hides pytest from the runner. Under pytest the runner would end the process at a failing test, and leave no
    results to read.
    """
    saved = dict(os.environ)
    env = tools.environment()
    env["MAKEFLAGS"] += " " + " ".join(MAKE_VARIABLES)
    for name in [n for n in env if n.startswith(("PYTEST_", "COCOTB_"))] + ["WAVES", "GUI"]:
        env.pop(name, None)
    try:
        os.environ.clear()
        os.environ.update(env)
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _check(results: Path, test_module: str, log: str, code: object) -> tuple[str, ...]:
    """The names of the tests, all of which passed. Raises CocotbFailure otherwise."""
    if not results.is_file():
        raise CocotbFailure(f"{test_module}: the simulator ended ({code}) without results\n{_tail(log)}")
    cases = list(ElementTree.parse(results).getroot().iter("testcase"))
    bad = [_describe(case) for case in cases if _verdict(case) != "passed"]
    if bad:
        raise CocotbFailure(f"{test_module}: {len(bad)} of {len(cases)} tests failed: {'; '.join(bad)}\n{_tail(log)}")
    if not cases:
        raise CocotbFailure(f"{test_module}: no test ran\n{_tail(log)}")
    if code != 0:
        raise CocotbFailure(f"{test_module}: the simulator ended with {code} after its tests\n{_tail(log)}")
    return tuple(case.get("name", "?") for case in cases)


def _verdict(case: ElementTree.Element) -> str:
    """The verdict on a test. A skipped test does not pass, because it asserts nothing."""
    for tag in ("failure", "error", "skipped"):
        if case.find(tag) is not None:
            return tag
    return "passed"


def _describe(case: ElementTree.Element) -> str:
    element = case.find(_verdict(case))
    message = element.get("message", "") if element is not None else ""
    return f"{case.get('name')} ({_verdict(case)}{': ' + message.splitlines()[0] if message else ''})"


def _tail(log: str, lines: int = 30) -> str:
    return "\n".join(log.splitlines()[-lines:])
