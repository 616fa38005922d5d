"""One protocol for everything that runs a program: reference, cycle model, RTL, and a board.

A device with a chip is a `ChipDevice`. It loads, starts and reads results through the chip's host port, in the same way
for every kind of chip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from arch.host_map import Control, Space, Trap
from arch.identity import chip_digest
from arch.lanes import quads_of_int32, vectors_of
from arch.row import slices
from base.errors import TspError
from base.progress import progress
from program.image import image_of
from program.noise import advanced
from program.program import Program, Symbol
from program.sampler import Sampler, temperature_q

from .chip import HostedChip

UNKNOWN = -1
"""Entry of the token table for a token that the chip chooses."""


@dataclass(frozen=True)
class TokenResult:
    """The result of one position.

    token: the token at the next position. Within the prompt, it is the prompt's token.
    cycles: from start pulse to start pulse; None on a device without time.
    """

    token: int
    cycles: int | None


@dataclass(frozen=True)
class Counters:
    """Positions run since `load`, and their cycles in all (None on a device without time)."""

    tokens: int
    cycles: int | None


class Device(Protocol):
    """Runs a program. The order of calls is `load`, then `start` and `run` any number of times, then `close`."""

    name: str

    def load(self, program: Program) -> None:
        """Load a program. Raises TspError if it is for another chip."""
        ...

    def start(self, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *, cached: int = 0) -> None:
        """Begin a run with the tokens of a prompt, BOS included.

        cached: the first position that runs. The keys and values of earlier positions stay, and must belong to the same
        tokens. Tokens and logits are then those of a run from position 0.

        Raises TspError if the prompt does not fit.
        """
        ...

    def force(self, token: int) -> None:
        """Replace the token that was chosen for the next position. The sequence of noise does not change."""
        ...

    def run(self, n: int) -> list[TokenResult]:
        """Run the next n positions. Raises TspError beyond the context."""
        ...

    def logits(self) -> np.ndarray:
        """Logits of the last position that ran: int32 [vocab], in units of 2**-LOGIT_FRACTION."""
        ...

    @property
    def counters(self) -> Counters: ...

    @property
    def errors(self) -> set[Trap]:
        """Traps of the chip since `load`. A legal program causes none."""
        ...

    def close(self) -> None:
        """Free what the device holds."""
        ...


# --- checks that all devices make ----------------------------------------------------------------------------------


def check_prompt(program: Program, prompt: Sequence[int]) -> None:
    """Raises TspError if a prompt does not fit a program."""
    if not prompt:
        raise TspError("the prompt must hold at least the BOS token")
    if len(prompt) > program.context:
        most = program.model.seq_len
        longer = f", or compile with a longer --context, up to the model's {most}" if program.context < most else ""
        raise TspError(f"the prompt has {len(prompt)} tokens, the {'program' if longer else 'model'}'s context only "
                       f"{program.context}: shorten it{longer}")
    if program.first_token not in (-1, prompt[0]):
        raise TspError(f"the prompt must begin with token {program.first_token}, a constant of the program, not "
                       f"with {prompt[0]}: compile with --scales dynamic for one that begins with any")
    vocab = program.model.vocab_size
    if bad := [token for token in prompt if not 0 <= token < vocab]:
        raise TspError(f"prompt tokens must be in 0..{vocab - 1}, not {bad[0]}")


def check_cached(prompt: Sequence[int], cached: int) -> None:
    """Raises ValueError unless at least the last token of a prompt runs."""
    if not 0 <= cached < len(prompt):
        raise ValueError(f"cached must be in 0..{len(prompt) - 1}, for the last token of the prompt runs, not {cached}")


def check_run(program: Program, position: int, n: int) -> None:
    """Raises TspError unless n positions from `position` on are within the context."""
    if n < 0 or position + n > program.context:
        raise TspError(f"{n} tokens from position {position} on exceed the program's context of {program.context}")


def sampler_of(program: Program, temperature: float, seed: int, position: int = 0) -> Sampler:
    """The sampler of a run at a position. Raises TspError if temperature or seed is out of range."""
    try:
        word = temperature_q(temperature)
    except ValueError as error:
        raise TspError(str(error)) from None
    if not 0 <= seed < 1 << 64:
        raise TspError(f"seed must be in 0..{(1 << 64) - 1}, not {seed}")
    sampler = Sampler(program.model.vocab_size, word, seed)
    sampler.state = advanced(sampler.state, position)
    return sampler


# --- a chip --------------------------------------------------------------------------------------------------------


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
