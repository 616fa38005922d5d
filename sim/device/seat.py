"""A chip with its program, as the host serves it: the tensors that are written before a run and read after it."""

from collections.abc import Sequence

import numpy as np

from arch.host_map import Control, Space, Trap
from arch.identity import chip_digest
from arch.row import slices
from arch.vectors import quads_of_int32, vectors_of
from base.errors import TspError
from base.progress import Tell
from program.image import image_of
from program.program import Program, Symbol
from program.sampler import Sampler

from .hosted_chip import HostPort

UNKNOWN = -1
"""Entry of the token table for a token that the chip chooses."""


class Seat:
    """One chip and its program.

    device: name of the device, for messages.
    chip: the chip, just reset.
    program: for that chip; perhaps one of a rack's.
    """

    def __init__(self, device: str, chip: HostPort, program: Program) -> None:
        self._device, self.chip, self.program = device, chip, program
        self._logits = program.logit_tokens()

    def load(self, tell: Tell) -> None:
        """Write queues, tables and SRAM, and clear the errors. Raises TspError if the program is for another chip."""
        config = self.program.config
        identity, digest = self.chip.host_read(Space.CONTROL, Control.IDENTITY.value), chip_digest(config)
        if identity != int(digest, 16):
            raise TspError(f"the program is for config {config.name} ({digest}), "
                           f"the chip of device {self._device} is {identity:016x}")
        self.chip.load(image_of(self.program), tell)
        self.chip.host_write(Space.CONTROL, Control.ERRORS.value, 0)

    def start(self, prompt: Sequence[int], sampler: Sampler, position: int) -> None:
        """Write the tables of a run that begins at a position.

        prompt: all tokens that are known, from position 0 on; the chip chooses those that follow.
        sampler: with the states of the noise generator at this position.
        """
        lanes = self.program.config.lanes
        tokens = np.full(self._symbol("tokens").quads * lanes, UNKNOWN)
        tokens[: len(prompt)] = prompt
        self._write("tokens", tokens)
        self.force(prompt[position])
        self._write("position", np.full(lanes, position))
        self._write("temperature", np.full(lanes, sampler.temperature_q))
        self._write_noise(sampler)
        self.chip.host_write(Space.CONTROL, Control.POSITION.value, position)

    def begin(self, sequence: int, prompt: Sequence[int], sampler: Sampler, position: int) -> None:
        """Write the state of one of several sequences, whose next period is on chip 0. Arguments as of `start`."""
        lanes = self.program.config.lanes
        self._write("position", np.full(lanes, position), sequence)
        if not len(self._logits):
            return
        tokens = np.full(self._symbol("tokens").quads // self.program.sequences * lanes, UNKNOWN)
        tokens[: len(prompt)] = prompt
        self._write("tokens", tokens, sequence)
        self._write("temperature", np.full(lanes, sampler.temperature_q), sequence)
        self._write_noise(sampler, sequence)
        self.force(prompt[position], sequence)

    def _write_noise(self, sampler: Sampler, sequence: int = 0) -> None:
        """States of the noise generator; those that the end of a token advances may have a tensor of their own."""
        states = np.where(self._logits < 0, 0, sampler.state[self._logits])
        rest = len(states)
        if "noise_rest" in self.program.symbols:
            symbol = self._symbol("noise")
            own = symbol.quads // self.program.copies("noise")
            rest = own * self.program.config.lanes * (self.program.model.n_layers if symbol.stride else 1)
            self._write("noise_rest", states[rest:], sequence)
        if rest:
            self._write("noise", states[:rest], sequence)

    def work_on(self, sequence: int) -> None:
        """Let the next period be of one of several sequences."""
        self._write("current", self._entry("next", (sequence - 1) % self.program.sequences))

    def count_from(self, position: int) -> None:
        """The sequencer's position: that of the sequence, or of several the number of a period."""
        self.chip.host_write(Space.CONTROL, Control.POSITION.value, position)

    def force(self, token: int, sequence: int = 0) -> None:
        """Write the token of the next position. The chip reads it when that position begins. sequence: of several in
        one program."""
        self._write("token", np.full(self.program.config.lanes, token), sequence)

    def tokens(self, first: int, count: int) -> list[int]:
        """The tokens at positions from `first` on, which the chip has chosen or was told."""
        lanes = self.program.config.lanes
        return self._read("tokens", first // lanes, (first + count) // lanes + 1)[first % lanes :][:count].tolist()

    def token(self, sequence: int, position: int) -> int:
        """The token at a position of one of several sequences."""
        quad, lane = divmod(position, self.program.config.lanes)
        return int(self._entry("tokens", self.program.quad("tokens", quad, sequence))[lane])

    def _entry(self, name: str, quad: int) -> np.ndarray:
        return self._read(name, quad, quad + 1)

    def logits(self, sequence: int = 0) -> np.ndarray:
        """Logits of the last position: int32 [vocab]; 0 of tokens that are on other chips. sequence: of several in one
        program."""
        found = np.zeros(self.program.model.vocab_size, np.int32)
        self.add_logits(found, sequence)
        return found

    def add_logits(self, found: np.ndarray, sequence: int = 0) -> None:
        """Write the logits that the chip holds into int32 [vocab]."""
        if len(self._logits):
            mine, first = self._logits >= 0, self.program.quad("logits", 0, sequence)
            quads = self._symbol("logits").quads // self.program.copies("logits")
            values = self._read("logits", first, first + quads)[: len(self._logits)]
            found[self._logits[mine]] = values[mine]

    def errors(self) -> set[Trap]:
        """The chip's ERRORS register."""
        bits = self.chip.host_read(Space.CONTROL, Control.ERRORS.value)
        return {trap for trap in Trap if bits >> trap.value & 1}

    def _symbol(self, name: str) -> Symbol:
        return self.program.symbols[name]

    def _slice(self, symbol: Symbol) -> str:
        """The queue name of a tensor's slice."""
        return slices(self.program.config)[symbol.slice].name

    def _write(self, name: str, values: np.ndarray, sequence: int = 0) -> None:
        """Write int32 values to the beginning of a tensor, or of each of its layers: of its copy for a sequence, if it
        belongs to the state of one of several."""
        symbol, vectors = self._symbol(name), vectors_of(values, self.program.config.lanes)
        quads, own = quads_of_int32(vectors), symbol.quads // self.program.copies(name)
        for layer, start in enumerate(range(0, len(quads), own)):
            part, at = quads[start : start + own], symbol.addr + layer * symbol.stride
            places = [at + self.program.quad(name, n, sequence) for n in range(len(part))]
            if places[-1] - places[0] == len(part) - 1:
                self.chip.load_mem(self._slice(symbol), part, places[0])
                continue
            for n, place in enumerate(places):
                self.chip.load_mem(self._slice(symbol), part[n : n + 1], place)

    def _read(self, name: str, first: int, end: int) -> np.ndarray:
        """int32 values of quads first..end-1 of a tensor, one after the other."""
        symbol = self._symbol(name)
        quads = self.chip.read_mem(self._slice(symbol), symbol.addr + first, end - first)
        return np.ascontiguousarray(np.moveaxis(quads, -2, -1)).view("<i4").reshape(-1)
