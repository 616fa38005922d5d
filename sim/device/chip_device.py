"""A chip as a device: programs are loaded, started and read through its host port, whatever kind of chip it is."""

from collections.abc import Sequence

import numpy as np

from arch.host_map import Control, Space, Trap
from arch.identity import chip_digest
from arch.row import slices
from arch.vectors import quads_of_int32, vectors_of
from base.errors import TspError
from base.progress import progress
from program.image import image_of
from program.program import Program, Symbol

from .hosted_chip import HostedChip
from .protocol import Counters, TokenResult, check_cached, check_prompt, check_run, sampler_of

UNKNOWN = -1
"""Entry of the token table for a token that the chip chooses."""


class ChipDevice:
    """A device that runs a chip.

    name: the device's name.
    chip: the chip, just reset.
    """

    def __init__(self, name: str, chip: HostedChip) -> None:
        self.name, self.chip = name, chip
        self._position = 0
        self._tokens = self._cycles = 0

    def load(self, program: Program) -> None:
        """Write queues, tables and SRAM."""
        identity, digest = self.chip.host_read(Space.CONTROL, Control.IDENTITY.value), chip_digest(program.config)
        if identity != int(digest, 16):
            raise TspError(f"the program is for config {program.config.name} ({digest}), "
                           f"the chip of device {self.name} is {identity:016x}")
        self._program = program
        with progress(f"loading device {self.name}") as tell:
            self.chip.load(image_of(program), tell)
        self.chip.host_write(Space.CONTROL, Control.ERRORS.value, 0)
        self._tokens = self._cycles = 0

    def start(self, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *, cached: int = 0) -> None:
        """Write the tables of a run: prompt, first token, position, temperature, and states of the noise generator."""
        check_prompt(self._program, prompt)
        check_cached(prompt, cached)
        sampler = sampler_of(self._program, temperature, seed, cached)
        lanes = self._program.config.lanes
        tokens = np.full(self._symbol("tokens").quads * lanes, UNKNOWN)
        tokens[: len(prompt)] = prompt
        self._write("tokens", tokens)
        self.force(prompt[cached])
        self._write("position", np.full(lanes, cached))
        self._write("temperature", np.full(lanes, sampler.temperature_q))
        self._write("noise", sampler.state)
        self.chip.host_write(Space.CONTROL, Control.POSITION.value, cached)
        self._position = cached

    def force(self, token: int) -> None:
        """Write the token of the next position. The chip reads it when that position begins."""
        self._write("token", np.full(self._program.config.lanes, token))

    def run(self, n: int) -> list[TokenResult]:
        """Run n tokens on the chip, then read them from its table."""
        check_run(self._program, self._position, n)
        if not n:
            return []
        cycles = [int(count) for count in self.chip.run(n)]
        first, self._position = self._position + 1, self._position + n
        lanes = self._program.config.lanes
        tokens = self._read("tokens", first // lanes, self._position // lanes + 1)
        self._tokens += len(cycles)
        self._cycles += sum(cycles)
        chosen = tokens[first % lanes :][: len(cycles)].tolist()
        return [TokenResult(token, count) for token, count in zip(chosen, cycles, strict=True)]

    def logits(self) -> np.ndarray:
        """Read from SRAM."""
        return self._read("logits", 0, self._symbol("logits").quads)[: self._program.model.vocab_size]

    @property
    def counters(self) -> Counters:
        """Positions and cycles, as the chip counts them."""
        return Counters(self._tokens, self._cycles)

    @property
    def errors(self) -> set[Trap]:
        """The chip's ERRORS register."""
        bits = self.chip.host_read(Space.CONTROL, Control.ERRORS.value)
        return {trap for trap in Trap if bits >> trap.value & 1}

    def close(self) -> None:
        """Close the chip."""
        self.chip.close()

    def _symbol(self, name: str) -> Symbol:
        return self._program.symbols[name]

    def _slice(self, symbol: Symbol) -> str:
        """The queue name of a tensor's slice."""
        return slices(self._program.config)[symbol.slice].name

    def _write(self, name: str, values: np.ndarray) -> None:
        """Write int32 values to the beginning of a tensor, or of each of its layers."""
        symbol, vectors = self._symbol(name), vectors_of(values, self._program.config.lanes)
        quads = quads_of_int32(vectors)
        for layer, start in enumerate(range(0, len(quads), symbol.quads)):
            part = quads[start : start + symbol.quads]
            self.chip.load_mem(self._slice(symbol), part, symbol.addr + layer * symbol.stride)

    def _read(self, name: str, first: int, end: int) -> np.ndarray:
        """int32 values of quads first..end-1 of a tensor, one after the other."""
        symbol = self._symbol(name)
        quads = self.chip.read_mem(self._slice(symbol), symbol.addr + first, end - first)
        return np.ascontiguousarray(np.moveaxis(quads, -2, -1)).view("<i4").reshape(-1)
