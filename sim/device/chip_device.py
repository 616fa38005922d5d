"""A chip as a device: programs are loaded, started and read through its host port, whatever kind of chip it is."""

from collections.abc import Sequence

import numpy as np

from arch.host_map import Trap
from base.errors import TspError
from base.progress import progress
from program.rack import AnyProgram, RackProgram

from .hosted_chip import HostedChip
from .protocol import Counters, TokenResult, check_alone, check_cached, check_prompt, check_run, sampler_of
from .seat import Seat


class ChipDevice:
    """A device that runs a chip.

    name: the device's name.
    chip: the chip, just reset.
    """

    def __init__(self, name: str, chip: HostedChip) -> None:
        self.name, self.chip = name, chip
        self._position = 0
        self._tokens = self._cycles = 0

    def load(self, program: AnyProgram) -> None:
        """Write queues, tables and SRAM."""
        check_alone(program)
        if isinstance(program, RackProgram):
            raise TspError(f"the program is for rack {program.rack.name}, but device {self.name} is one chip")
        self._program, self._seat = program, Seat(self.name, self.chip, program)
        with progress(f"loading device {self.name}") as tell:
            self._seat.load(tell)
        self._tokens = self._cycles = 0

    def start(self, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *, cached: int = 0) -> None:
        """Write the tables of a run: prompt, first token, position, temperature, and states of the noise generator."""
        check_prompt(self._program, prompt)
        check_cached(prompt, cached)
        self._seat.start(prompt, sampler_of(self._program, temperature, seed, cached), cached)
        self._position = cached

    def force(self, token: int) -> None:
        """Write the token of the next position. The chip reads it when that position begins."""
        self._seat.force(token)

    def run(self, n: int) -> list[TokenResult]:
        """Run n tokens on the chip, then read them from its table."""
        check_run(self._program, self._position, n)
        if not n:
            return []
        cycles = [int(count) for count in self.chip.run(n)]
        first, self._position = self._position + 1, self._position + n
        chosen = self._seat.tokens(first, len(cycles))
        self._tokens += len(cycles)
        self._cycles += sum(cycles)
        return [TokenResult(token, count) for token, count in zip(chosen, cycles, strict=True)]

    def logits(self) -> np.ndarray:
        """Read from SRAM."""
        return self._seat.logits()

    @property
    def counters(self) -> Counters:
        """Positions and cycles, as the chip counts them."""
        return Counters(self._tokens, self._cycles)

    @property
    def errors(self) -> set[Trap]:
        """The chip's ERRORS register."""
        return self._seat.errors()

    def close(self) -> None:
        """Close the chip."""
        self.chip.close()
