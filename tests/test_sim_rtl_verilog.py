"""Verilog from Amaranth: complete, the same every time, and short where memories start out uniform."""
# pyright: reportInvalidTypeForm=false, reportAttributeAccessIssue=false

import os
import re
import subprocess
import sys

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from arch.config import CONFIGS
from sim.rtl.chip import chip_verilog
from sim.rtl.verilog import fold_memories, fold_writes, verilog_by_key, verilog_of


class Rom(wiring.Component):
    """Words of a memory with the given contents, by address."""

    i_address: In(6)
    o_word: Out(16)

    def __init__(self, init: list[int]):
        self.init = init
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Memory(shape=16, depth=64, init=self.init)
        port = words.read_port()
        m.d.comb += [port.addr.eq(self.i_address), self.o_word.eq(port.data)]
        return m


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    monkeypatch.setenv("METRONOME_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_uniform_contents_become_a_loop():
    text = verilog_of(Rom([]), "rom")
    assert "for (i = 0; i < 64; i = i + 1)" in text
    assert "[63] =" not in text


def test_other_contents_stay_word_by_word():
    text = verilog_of(Rom([7] * 63), "rom")  # the last word is 0
    assert "for (" not in text
    assert "[62] = 16'h0007;" in text and "[63] = 16'h0000;" in text


def test_folding_twice_changes_nothing():
    text = verilog_of(Rom([]), "rom")
    assert fold_memories(text) == text


WRITES = """module top(clk, we, address, data);
  reg [15:0] words [3:0];
  always @(posedge clk) begin
    if (we[0])
      words[address[1:0]][7:0] <= data[7:0];
    if (we[1])
      words[address[1:0]][15:8] <= data[23:16];
  end
endmodule
"""


def test_the_parts_of_a_word_are_written_at_once():
    assert fold_writes(WRITES) == """module top(clk, we, address, data);
  reg [15:0] words [3:0];
  always @(posedge clk)
    if (|(we))
      words[address[1:0]] <= {
        we[1] ? data[23:16] : words[address[1:0]][15:8],
        we[0] ? data[7:0] : words[address[1:0]][7:0] };
endmodule
"""


@pytest.mark.parametrize("text", [
    WRITES.replace("[15:8] <=", "[15:9] <="),
    WRITES.replace("reg [15:0]", "reg [16:0]"),
    WRITES.replace("      words[address[1:0]][15:8]", "      words[other][15:8]"),
    WRITES.replace("      words[address[1:0]][15:8]", "      others[address[1:0]][15:8]"),
    WRITES.replace("endmodule", "  always @(posedge clk)\n    words[0][7:0] <= 0;\nendmodule"),
], ids=["hole", "wider", "address", "memory", "second port"])
def test_other_writes_stay_as_they_are(text: str):
    assert fold_writes(text) == text


def test_no_chip_writes_parts_of_words():
    assert re.search(r"\]\[\d+:\d+\] <=", chip_verilog(CONFIGS["ulx3s"])) is None


def test_the_second_call_neither_elaborates_nor_converts():
    first = verilog_by_key(lambda: Rom([1, 2]), "rom", "1,2")

    def never():
        raise AssertionError("made again")

    assert verilog_by_key(never, "rom", "1,2") == first


def test_the_text_does_not_depend_on_the_process():
    """Cache keys are hashes of it: set and dict order must not show."""
    script = (
        "from test_sim_rtl_verilog import Rom; from sim.rtl.verilog import verilog_of; "
        "print(verilog_of(Rom([3, 1]), 'rom'))"
    )
    texts = set()
    for hash_seed in ("1", "2"):
        path = os.pathsep.join(filter(None, sys.path))
        env = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": path,
            "METRONOME_CACHE": f"{os.environ['METRONOME_CACHE']}{hash_seed}",
        }
        texts.add(
            subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout
        )
    assert len(texts) == 1
