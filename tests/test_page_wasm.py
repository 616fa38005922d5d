"""The chip as WebAssembly, under wasmtime: tokens, logits and cycles of the promise, and the same bytes every time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import wasmtime
from checkpoints import REPOSITORY
from page_program import PROMPT, story_program, story_wasm

from arch.config import CONFIGS, ChipConfig
from arch.host_map import Control, Space
from base.errors import TspError
from page.wasm import check_config
from program.image import ACCESS
from program.tokenizer import Tokenizer
from run.devices import open_device
from sim.device.chip_device import ChipDevice
from sim.device.hosted_chip import HostedChip
from sim.device.protocol import TokenResult

TOKENS = 10
BATCH = 1024


class WasmChip(HostedChip):
    """The module as a chip that is reached through its host port only."""

    def __init__(self, config: ChipConfig, wasm: bytes) -> None:
        self.config = config
        engine = wasmtime.Engine()
        self._store = wasmtime.Store(engine)
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        self._store.set_wasi(wasmtime.WasiConfig())
        instance = linker.instantiate(self._store, wasmtime.Module(engine, wasm))
        self.exports = instance.exports(self._store)
        self.call("_initialize")
        self._sim = self.call("sim_create", 0)
        self._room = self.call("sim_buffer", BATCH * ACCESS.itemsize)

    def call(self, name: str, *arguments: int) -> int:
        return self.exports[name](self._store, *arguments)  # type: ignore[operator]

    def sim(self, name: str, *arguments: int) -> int:
        return self.call(f"sim_{name}", self._sim, *arguments)

    @property
    def memory(self) -> wasmtime.Memory:
        memory = self.exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        return memory

    def write(self, accesses: np.ndarray) -> None:
        for first in range(0, len(accesses), BATCH):
            batch = accesses[first : first + BATCH]
            self.memory.write(self._store, batch.tobytes(), self._room)
            self.sim("write", self._room, len(batch))

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        found = []
        for addr in addrs:
            self.sim("read", space.value, addr, 1, self._room)
            found.append(int.from_bytes(self.memory.read(self._store, self._room, self._room + 16), "little"))
        return found

    def run(self, n_tokens: int) -> list[int]:
        """Cycles are counted by clocks, from the start pulse to the end, as the page counts them."""
        cycles = []
        for _ in range(n_tokens):
            self.host_write(Space.CONTROL, Control.RUN.value, 1)
            while not self.sim("token_start"):
                self.sim("advance", 1)
            cycles.append(self.sim("advance", 1 << 20))
            assert not self.sim("running")
        return cycles


def test_ten_tokens_are_the_reference_in_the_predicted_cycles():
    program = story_program()
    prompt = Tokenizer.from_bytes(program.tokenizer).encode(PROMPT)
    device = ChipDevice("wasm", WasmChip(program.config, story_wasm()))
    reference = open_device("reference", program.config)
    for each in (device, reference):
        each.load(program)
        each.start(prompt, 0.8, 3)
    for position in range(TOKENS):
        (expected,), (found,) = reference.run(1), device.run(1)
        assert found == TokenResult(expected.token, program.cycles(position)), position
        assert np.array_equal(device.logits(), reference.logits()), position
    assert not device.errors


def test_a_chip_too_large_for_a_browser_is_refused():
    with pytest.raises(TspError, match=r"config sram220 has 225,280 KiB of SRAM, a page at most 32,768 KiB"):
        check_config(CONFIGS["sram220"])
    for name in ("tiny", "small", "ulx3s", "wide", "large"):
        check_config(CONFIGS[name])


@pytest.mark.nightly
def test_the_same_sources_give_the_same_bytes(tmp_path: Path):
    """Built again, in another folder: everything from the RTL on."""
    code = ("import sys; from arch.config import CONFIGS; from page.wasm import chip_wasm;"
            "sys.stdout.buffer.write(chip_wasm(CONFIGS['ulx3s']).read_bytes())")
    environment = os.environ | {"METRONOME_CACHE": str(tmp_path / "another")}
    again = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True,
                           check=True)
    assert again.stdout == story_wasm()
