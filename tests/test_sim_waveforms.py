"""Waveforms: VCD and FST of the same run hold the same, says a reader that is not ours; and nothing complains."""

import ctypes
import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from checkpoints import REPOSITORY
from programs import small_program
from pywellen import Waveform  # pyright: ignore[reportAttributeAccessIssue]

from arch.config import CONFIGS, ChipConfig
from program.file import save
from sim.check.random_programs import random_image
from sim.rtl import chip as verilated
from sim.rtl import toolchain
from sim.rtl.build import FST_HEADERS, TRACES
from sim.rtl.chip import VerilatedChip

SMALL = """
module chip(input clk, input rst, input [2:0] host_space, input [31:0] host_addr, input [127:0] host_wdata,
            input host_write, input host_read, output [127:0] host_rdata, output running, output token_start);
  reg [15:0] count;
  reg [31:0] noise, table_[0:3];
  reg [199:0] wide;
  wire never = 0;
  assign running = count[10];
  assign token_start = count[2:0] == 0;
  assign host_rdata = {4{noise}};
  always @(posedge clk) begin
    count <= rst ? 0 : count + 1;
    noise <= rst ? 1 : {noise[30:0], noise[31] ^ noise[21] ^ noise[1] ^ noise[0]};
    table_[count[1:0]] <= noise;
    wide <= count[7] ? wide : {wide[167:0], noise};
  end
endmodule
"""
"""A chip with the ports that the harness uses: what is dull, what is noise, what is wide."""


def changes(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Every signal's changes of value."""
    return {var.full_name: list(var.signal) for var in Waveform(str(path)).all_vars()}


def quiet(capfd: pytest.CaptureFixture[str]) -> str:
    """What the simulator printed, which C keeps back."""
    ctypes.CDLL(None).fflush(None)
    return capfd.readouterr().out


@pytest.fixture
def small_chip(monkeypatch: pytest.MonkeyPatch) -> ChipConfig:
    """A config whose Verilog is SMALL."""
    monkeypatch.setattr(verilated, "chip_verilog", lambda config: SMALL)
    return CONFIGS["tiny"]


def test_both_formats_hold_the_same_and_time_is_that_of_the_chip(
        small_chip: ChipConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    found = {}
    for name in TRACES:
        with VerilatedChip(small_chip, trace=tmp_path / name, trace_format=name) as chip:
            chip.step(5000)
            assert chip.now == 5000 and not chip.brief
        assert quiet(capfd) == ""
        found[name] = changes(tmp_path / name)
    assert found["fst"] == found["vcd"]
    assert (tmp_path / "fst").read_bytes() != (tmp_path / "vcd").read_bytes()
    signals = found["fst"]
    clock = next(values for name, values in signals.items() if name.endswith(".clk"))
    assert [time for time, _ in clock] == list(range(1, 10002))
    count = next(values for name, values in signals.items() if name.endswith(".count"))
    assert count == [(1, 0)] + [(2 * cycle, cycle) for cycle in range(1, 5001)]


@pytest.mark.nightly
@pytest.mark.parametrize("debug", [False, True])
def test_both_formats_hold_the_same_of_a_whole_chip(debug: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    config = CONFIGS["tiny"]
    image, tokens = random_image(config, 1)
    found = {}
    for name in TRACES:
        with VerilatedChip(config, debug=debug, trace=tmp_path / name, trace_format=name) as chip:
            chip.load(image)
            chip.run(tokens)
            last = 2 * chip.now + 1
        assert quiet(capfd) == ""
        found[name] = changes(tmp_path / name)
    assert found["fst"] == found["vcd"]
    assert len(found["fst"]) > 10000 and max(max(values)[0] for values in found["fst"].values()) == last


@pytest.mark.nightly
@pytest.mark.parametrize("name", TRACES)
def test_a_story_leaves_waveforms(name: str, tmp_path: Path):
    """A process of its own: what the simulator prints comes at its end."""
    save(small_program(), tmp_path / "small.tsp")
    command = [sys.executable, "-m", "cli.main", "run", "small.tsp", "--tokens", "2", "--json", f"--{name}", "waves"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    story = json.loads(done.stdout)
    assert story["measured_cycles"] == story["predicted_cycles"]
    signals = changes(tmp_path / "waves")
    starts = [time for time, level in signals["chip.chip.token_start"] if level]
    ends = [time for time, level in signals["chip.chip.running"] if not level][1:]
    assert [(end - start) // 2 for start, end in zip(starts, ends, strict=True)] == story["measured_cycles"]


# --- the headers that stand for lz4.h and zlib.h ---------------------------------------------------------------------

LIBRARY = """
#include <lz4.h>
#include <zlib.h>
extern "C" int lz4(const char* in, int size, char* out) {
    return LZ4_compress_default(in, out, size, LZ4_compressBound(size));
}
extern "C" unsigned long zlib(const unsigned char* in, unsigned long size, unsigned char* out) {
    unsigned long room = compressBound(size);
    return compress2(out, &room, in, size, 9) == Z_OK ? room : 0;
}
"""


@pytest.fixture(scope="module")
def compressors(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("headers")
    (folder / "library.cpp").write_text(LIBRARY)
    command = [*toolchain.find().cxx, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined",
               "-fsanitize-undefined-trap-on-error", f"-I{FST_HEADERS}", "library.cpp", "-o", "library.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "library.so"))
    library.zlib.restype = ctypes.c_ulong
    library.zlib.argtypes = ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p
    return library


def payloads() -> list[bytes]:
    rng = random.Random(1)
    noise, few = rng.randbytes(70000), bytes(rng.choices(b"abc", k=5000))
    sizes = [*range(40), 254, 255, 256, 269, 270, 271, 525, 4000]
    return [part[:size] for part in (noise, few, bytes(5000)) for size in sizes] + [
        noise, bytes(200000), noise * 2, noise[:65535] + noise[:40], noise[:65536] + noise[:40], few * 40]


def unpacked(block: bytes) -> bytes:
    """The contents of an LZ4 block, by the letter of its format."""
    out, at = bytearray(), 0

    def length(total: int) -> int:
        nonlocal at
        more = total == 15
        while more:
            total, more, at = total + block[at], block[at] == 255, at + 1
        return total

    while True:
        token = block[at]
        at += 1
        literals = length(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at == len(block):
            return bytes(out)
        distance = int.from_bytes(block[at : at + 2], "little")
        at += 2
        assert 0 < distance <= len(out)
        for _ in range(length(token & 15) + 4):
            out.append(out[-distance])


def test_blocks_are_lz4(compressors: ctypes.CDLL):
    for payload in payloads():
        out = ctypes.create_string_buffer(len(payload) + len(payload) // 255 + 16)
        size = compressors.lz4(payload, len(payload), out)
        assert unpacked(out.raw[:size]) == payload
        assert size < 32 + len(payload) // 100 or payload.strip(b"\0")


def test_streams_are_zlib(compressors: ctypes.CDLL):
    for payload in payloads():
        out = ctypes.create_string_buffer(len(payload) + len(payload) // 1000 + 100)
        size = compressors.zlib(payload, len(payload), out)
        assert zlib.decompress(out.raw[:size]) == payload
