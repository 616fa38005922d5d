"""Devices that run several sequences, period by period: one for each group of a rack's chips, or two on one chip
(decisions 0027 and 0033)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from arch.host_map import Trap
from base.errors import TspError
from base.progress import progress
from program.program import DEFAULT_CLOCK_MHZ
from program.rack import AnyProgram, RackProgram
from program.reference import IntegerState, Prepared
from program.sampler import Sampler

from .chip_device import ChipDevice
from .protocol import BrokenPromise, check_cached, check_prompt, sampler_of
from .rack import HostedRack, SeatedRack
from .seat import Seat
from .timeline import InTurn, Together


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token that a period gave.

    sequence, position: whose position was done. token: the one at the next position. Within the prompt, it is the
    prompt's token.
    """

    sequence: int
    position: int
    token: int


@dataclass(frozen=True, kw_only=True)
class Period:
    """What a period gave.

    tokens: of sequences that run: of those in flight, at most the one that left the last chip.
    predicted, cycles: from start pulse to start pulse; cycles is None on a device without time.
    """

    tokens: tuple[Token, ...]
    predicted: int
    cycles: int | None

    def check(self, number: int) -> None:
        """Raises BrokenPromise, with the period's number, if the measured cycles differ from the prediction."""
        if self.cycles not in (None, self.predicted):
            raise BrokenPromise(f"period {number} took {self.cycles} cycles, {self.predicted} were predicted")


class InFlight(Protocol):
    """Runs several sequences. The order of calls is `load`, then the others, then `close`."""

    name: str

    def load(self, program: AnyProgram) -> None:
        """Load a program. Raises TspError if it is for another machine, or for one sequence."""
        ...

    def start(self, sequence: int, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *,
              cached: int = 0) -> None:
        """Begin a sequence anew when its turn comes. Arguments as of `Device.start`."""
        ...

    def end(self, sequence: int) -> None:
        """Let nothing more of a sequence be told."""
        ...

    def run(self, periods: int) -> list[Period]:
        """Run periods of all sequences. One at the end of its context ends."""
        ...

    def logits(self, sequence: int) -> np.ndarray:
        """Logits of a sequence of which the last period gave a token: int32 [vocab]."""
        ...

    @property
    def errors(self) -> set[Trap]:
        """Traps of all chips since `load`. A legal program causes none."""
        ...

    def close(self) -> None:
        """Free what the device holds."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A sequence that is to begin. Fields as arguments of `Seat.begin`."""

    prompt: list[int]
    sampler: Sampler
    cached: int


class Flights(ABC):
    """When sequences begin and end, and how long periods take."""

    _program: AnyProgram

    def _open(self, program: AnyProgram) -> None:
        if program.sequences == 1:
            raise TspError("the program serves one sequence: compile it with --sequences: 2, or as many as the rack "
                           "has groups of chips")
        self._program = program
        kind = Together if program.periods_a_token == 1 else InTurn
        self._timeline = kind(program.sequences, program.context)
        self._waiting: dict[int, _Begun] = {}

    def start(self, sequence: int, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *,
              cached: int = 0) -> None:
        """Let a sequence begin when its turn comes."""
        check_prompt(self._program, prompt)
        check_cached(prompt, cached)
        self._timeline.end(sequence)
        sampler = sampler_of(self._program, temperature, seed, cached)
        self._waiting[sequence] = _Begun(prompt=list(prompt), sampler=sampler, cached=cached)

    def end(self, sequence: int) -> None:
        """Forget a sequence. Its place goes on with tokens that nobody reads."""
        self._timeline.end(sequence)
        self._waiting.pop(sequence, None)

    def run(self, periods: int) -> list[Period]:
        """Run periods, without a stop from one sequence that begins or ends to the next."""
        found: list[Period] = []
        while len(found) < periods:
            line = self._timeline
            for sequence in line.entering:
                if (begun := self._waiting.pop(sequence, None)) is not None:
                    line.start(sequence, begun.cached)
                    self._begin(sequence, begun)
                elif line.full(sequence):
                    line.end(sequence)
            until = min((line.wait(sequence) for sequence in self._waiting), default=periods)
            found += self._fly(min(until or periods, line.free_run, periods - len(found)))
        return found

    def _predicted(self, counter: int, periods: int) -> list[int]:
        """Cycles of periods from a number on, see `Timeline.least_counter`."""
        return [self._program.cycles((counter + n) // self._timeline.periods_a_token) for n in range(periods)]

    def _passed(self, counter: int, cycles: Sequence[int | None], token: Callable[[int, int], int]) -> list[Period]:
        """Periods that ran, from a number on. token: of a sequence at a position."""
        found = []
        for predicted, measured in zip(self._predicted(counter, len(cycles)), cycles, strict=True):
            tokens = tuple(Token(sequence=sequence, position=position, token=token(sequence, position + 1))
                           for sequence, position in self._timeline.pass_period())
            found.append(Period(tokens=tokens, predicted=predicted, cycles=measured))
        return found

    @abstractmethod
    def _begin(self, sequence: int, begun: _Begun) -> None:
        """Write the state of a sequence that begins in the next period."""

    @abstractmethod
    def _fly(self, periods: int) -> list[Period]:
        """Run periods in which no sequence begins."""


class RackInFlight(SeatedRack, Flights):
    """A rack that runs a sequence for each chip."""

    def __init__(self, name: str, chip: HostedRack) -> None:
        super().__init__(name, chip)

    def load(self, program: AnyProgram) -> None:
        """Write queues, tables and SRAM of all chips."""
        self._open(program)
        super().load(program)
        for n, seat in enumerate(self._seats):
            group = n * program.sequences // len(self._seats)
            seat.work_on(-group % program.sequences)

    def logits(self, sequence: int) -> np.ndarray:
        """Read from the SRAM of the last chip, whatever the sequence: it has those of the token that left last."""
        return self._logits_of_all()

    def _begin(self, sequence: int, begun: _Begun) -> None:
        for seat in self._seats:
            seat.begin(sequence, begun.prompt, begun.sampler, begun.cached)

    def _fly(self, periods: int) -> list[Period]:
        line = self._timeline
        counter, first = line.least_counter, line.period
        for seat in self._seats:
            seat.count_from(counter)
        ran = self.chip.run(periods)
        self._compare("took {} cycles", first, ran.cycles)
        return self._passed(counter, ran.cycles[0], self._seats[-1].token)


class ChipTogether(Flights):
    """A chip that advances all sequences by a token in each period.

    device: the chip, just reset; closed with this device.
    """

    def __init__(self, device: ChipDevice) -> None:
        self.name, self.chip, self._device = device.name, device.chip, device

    def load(self, program: AnyProgram) -> None:
        """Write queues, tables and SRAM."""
        self._open(program)
        if isinstance(program, RackProgram):
            raise TspError(f"the program is for rack {program.rack.name}, but device {self.name} is one chip")
        self._seat = Seat(self.name, self.chip, program)
        with progress(f"loading device {self.name}") as tell:
            self._seat.load(tell)

    def _begin(self, sequence: int, begun: _Begun) -> None:
        self._seat.begin(sequence, begun.prompt, begun.sampler, begun.cached)

    def _fly(self, periods: int) -> list[Period]:
        counter = self._timeline.least_counter
        self._seat.count_from(counter)
        return self._passed(counter, [int(count) for count in self.chip.run(periods)], self._seat.token)

    def logits(self, sequence: int) -> np.ndarray:
        """Read from SRAM."""
        return self._seat.logits(sequence)

    @property
    def errors(self) -> set[Trap]:
        """The chip's ERRORS register."""
        return self._seat.errors()

    @property
    def clock_mhz(self) -> float:
        """Of a board, its clock."""
        return getattr(self._device, "clock_mhz", DEFAULT_CLOCK_MHZ)

    def close(self) -> None:
        """Close the chip."""
        self._device.close()


class ReferenceInFlight(Flights):
    """The integer model, once for each sequence. It has no time."""

    name = "reference"

    def load(self, program: AnyProgram) -> None:
        """Load the integer model of a program."""
        self._open(program)
        prepared = Prepared(program.integer_model())
        self._states = [IntegerState(prepared) for _ in range(program.sequences)]
        self._begun: dict[int, _Begun] = {}
        self._logits: dict[int, np.ndarray] = {}
        self._tokens: dict[int, int] = {}

    def _begin(self, sequence: int, begun: _Begun) -> None:
        self._begun[sequence], self._tokens[sequence] = begun, begun.prompt[begun.cached]
        self._states[sequence].position = begun.cached

    def _fly(self, periods: int) -> list[Period]:
        found, counter = [], self._timeline.least_counter
        for period in range(periods):
            for sequence in filter(self._timeline.active, self._timeline.entering):
                self._step(sequence)
            found += self._passed(counter + period, [None], lambda sequence, position: self._tokens[sequence])
        return found

    def _step(self, sequence: int) -> None:
        state, begun = self._states[sequence], self._begun[sequence]
        self._logits[sequence] = state.step(self._tokens[sequence])
        chosen = begun.sampler.choose(self._logits[sequence])
        known = state.position < len(begun.prompt)
        self._tokens[sequence] = begun.prompt[state.position] if known else chosen

    def logits(self, sequence: int) -> np.ndarray:
        """Those of its last step."""
        return self._logits[sequence].astype(np.int32)

    @property
    def errors(self) -> set[Trap]:
        """No traps, ever."""
        return set()

    def close(self) -> None:
        """Nothing to free."""
