"""Verilog to a library and back: built once, found again, refused in one line."""

import ctypes
import os
import threading
from pathlib import Path

import pytest

from base import cache
from base.errors import TspError
from sim.rtl import toolchain
from sim.rtl.build import build

COUNTER = """
module counter(input clk, input [7:0] step, output reg [31:0] count);
  initial count = 0;
  always @(posedge clk) count <= count + step;
endmodule
"""

HARNESS = """
#include "Vcounter.h"
#include "verilated.h"
extern "C" unsigned count(unsigned step, unsigned cycles) {
    VerilatedContext context;
    Vcounter counter{&context};
    counter.step = step;
    counter.eval();
    for (unsigned i = 0; i < cycles; ++i) { counter.clk = 1; counter.eval(); counter.clk = 0; counter.eval(); }
    return counter.count;
}
"""


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METRONOME_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fresh_tools():
    toolchain.find.cache_clear()
    yield
    toolchain.find.cache_clear()


def test_a_module_is_built_called_and_found_again(capfd: pytest.CaptureFixture[str]):
    path = build(COUNTER, "counter", HARNESS, opt="-O1")
    assert ctypes.CDLL(str(path)).count(3, 1000) == 3000
    assert "building the simulator of counter" in capfd.readouterr().err

    stamp = path.stat().st_mtime_ns
    assert build(COUNTER, "counter", HARNESS, opt="-O1") == path
    assert path.stat().st_mtime_ns == stamp
    said = capfd.readouterr().err
    assert "from the cache" in said and "building" not in said


def test_another_source_or_another_option_is_another_library():
    base = build(COUNTER, "counter", HARNESS, opt="-O1")
    other = build(COUNTER.replace("+ step", "- step"), "counter", HARNESS, opt="-O1")
    assert other != base
    # both in one process, each with its own design
    assert ctypes.CDLL(str(other)).count(3, 1000) == -3000
    assert ctypes.CDLL(str(base)).count(3, 1000) == 3000


def test_only_the_harness_is_visible():
    library = ctypes.CDLL(str(build(COUNTER, "counter", HARNESS, opt="-O1")))
    assert library.count
    with pytest.raises(AttributeError):
        library._ZN9Verilated7timeFormatUnitsEi  # noqa: B018


def test_the_run_time_library_is_compiled_once(monkeypatch: pytest.MonkeyPatch):
    """Without ccache, a simulator takes its objects from those of another one."""
    which = toolchain.shutil.which
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name == "ccache" else which(name))
    toolchain.find.cache_clear()
    try:
        found = []
        for step in ("3", "4"):
            path = build(COUNTER.replace("+ step", f"+ {step} * step"), "counter", HARNESS, opt="-O1")
            assert ctypes.CDLL(str(path)).count(1, 10) == 10 * int(step)
            found.append({path: path.stat().st_mtime_ns for path in (cache.cache_root() / "runtime").rglob("*.o")})
    finally:
        toolchain.find.cache_clear()
    assert found[0] == found[1] and len(found[0]) >= 2


def test_two_builders_at_once_make_one_library(monkeypatch: pytest.MonkeyPatch):
    runs: list[Path] = []
    run = build.__globals__["_verilate"]
    monkeypatch.setitem(build.__globals__, "_verilate", lambda *a: (runs.append(a[1]), run(*a)))
    source = COUNTER.replace("+ step", "+ 2 * step")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(build(source, "counter", HARNESS))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1 and len(set(found)) == 1


@pytest.mark.parametrize(
    ("verilog", "harness", "words"),
    [
        ("module counter(input clk); assign = ; endmodule", HARNESS, ["Verilator refuses counter", "counter.v:1"]),
        (COUNTER, HARNESS + "syntax error;", ["harness of counter does not compile", "harness.cpp"]),
    ],
)
def test_what_a_tool_refuses_is_one_line(verilog: str, harness: str, words: list[str]):
    with pytest.raises(TspError) as caught:
        build(verilog, "counter", harness, opt="-O1")
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_failed_build_leaves_no_entry_and_can_be_repeated():
    for _ in range(2):
        with pytest.raises(TspError):
            build("module counter(", "counter", HARNESS)


@pytest.mark.usefixtures("fresh_tools")
def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TspError, match=r"C\+\+ compiler.*no-such-compiler.*apt-get install"):
        toolchain.find()


@pytest.mark.usefixtures("fresh_tools")
@pytest.mark.parametrize("cxx", ["g++ -pipe -DARGUMENT", "ccache g++ -DARGUMENT"])
def test_a_compiler_with_arguments(cxx: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """They reach the compiler; and a ccache that is on PATH is called once, because it refuses to start itself."""
    wrapper = tmp_path / "ccache"
    wrapper.write_text("#!/bin/sh\ncase $1 in *ccache) echo error: ccache starts itself >&2; exit 1;; esac\n"
                       "exec \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CXX", cxx)
    harness = f"#ifndef ARGUMENT\n#error no argument\n#endif\n{HARNESS}"
    assert ctypes.CDLL(str(build(COUNTER, "counter", harness, opt="-O1"))).count(3, 1000) == 3000


@pytest.mark.usefixtures("fresh_tools")
def test_a_compiler_that_cannot_be_split_into_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", 'g++ "-pipe')
    with pytest.raises(TspError, match=r"CXX must be a command and its arguments, not .*No closing quotation"):
        toolchain.find()


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("METRONOME_CACHE", str(tmp_path / "a"))
    assert cache.cache_root() == tmp_path / "a"
    monkeypatch.delenv("METRONOME_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / "metronome"
    monkeypatch.setenv("METRONOME_CACHE", str(tmp_path / "with space"))
    with pytest.raises(TspError, match="METRONOME_CACHE"):
        cache.cache_root()


def test_keys_tell_apart_where_parts_end():
    assert cache.content_key("ab", "c") != cache.content_key("a", "bc")


def test_an_interrupted_entry_is_made_again():
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.cached("kind", "key", fail)
    entry = cache.cached("kind", "key", lambda folder: None)
    assert os.listdir(entry) == [cache.LIST]


def test_sources_younger_than_the_process_have_a_digest_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was imported may be what stood there before."""
    source = tmp_path / "unit.py"
    source.write_text("delay = 1")
    edited = cache.source_digest(tmp_path)
    assert edited == cache.source_digest(tmp_path)
    os.utime(source, (1e9, 1e9))
    old = cache.source_digest(tmp_path)
    assert old != edited
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert cache.source_digest(tmp_path) == old
    os.utime(source)
    assert cache.source_digest(tmp_path) not in (old, edited)
