"""Devices that run as many sequences in flight as a rack has groups of chips, period by period (decision 0027)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from arch.host_map import Trap
from base.errors import TspError
from program.rack import AnyProgram
from program.reference import IntegerState, Prepared
from program.sampler import Sampler

from .protocol import BrokenPromise, check_cached, check_prompt, sampler_of
from .rack import HostedRack, SeatedRack
from .timeline import Timeline


@dataclass(frozen=True, kw_only=True)
class Period:
    """What a period gave.

    sequence, position: whose token left the last chip; None if it is of no sequence that runs.
    token: the one at the next position. Within the prompt, it is the prompt's token.
    predicted, cycles: from start pulse to start pulse; cycles is None on a device without time.
    """

    sequence: int | None
    position: int
    token: int
    predicted: int
    cycles: int | None

    def check(self, number: int) -> None:
        """Raises BrokenPromise, with the period's number, if the measured cycles differ from the prediction."""
        if self.cycles not in (None, self.predicted):
            raise BrokenPromise(f"period {number} took {self.cycles} cycles, {self.predicted} were predicted")


class InFlight(Protocol):
    """Runs sequences in flight. The order of calls is `load`, then the others, then `close`."""

    name: str

    def load(self, program: AnyProgram) -> None:
        """Load a program. Raises TspError if it is for another machine, or for one sequence."""
        ...

    def start(self, sequence: int, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *,
              cached: int = 0) -> None:
        """Begin a sequence anew when its turn on the first chip comes. Arguments as of `Device.start`."""
        ...

    def end(self, sequence: int) -> None:
        """Let nothing more of a sequence be told."""
        ...

    def run(self, periods: int) -> list[Period]:
        """Run periods of all sequences. One at the end of its context ends."""
        ...

    def logits(self) -> np.ndarray:
        """Logits of the sequence whose token left in the last period: int32 [vocab]."""
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


class _Flights(ABC):
    """When sequences begin and end, and how long periods take."""

    _program: AnyProgram

    def _open(self, program: AnyProgram) -> None:
        if program.sequences == 1:
            raise TspError("the program serves one sequence: compile it with --sequences, as many as the rack has "
                           "chips")
        self._program = program
        self._timeline = Timeline(program.sequences, program.context)
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
            if (begun := self._waiting.pop(line.enters, None)) is not None:
                line.start(line.enters, begun.cached)
                self._begin(line.enters, begun)
            elif not line.free_run:
                line.end(line.enters)
            until = min((line.wait(sequence) for sequence in self._waiting), default=periods)
            found += self._fly(min(until or periods, line.free_run, periods - len(found)))
        return found

    def _predicted(self, counter: int, periods: int) -> list[int]:
        """Cycles of periods from a number on, see `Timeline.least_counter`."""
        return [self._program.cycles((counter + n) // self._program.sequences) for n in range(periods)]

    @abstractmethod
    def _begin(self, sequence: int, begun: _Begun) -> None:
        """Write the state of a sequence that enters the first chip in the next period."""

    @abstractmethod
    def _fly(self, periods: int) -> list[Period]:
        """Run periods in which no sequence begins."""


class RackInFlight(SeatedRack, _Flights):
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
        cycles = ran.cycles[0]
        self._tokens, self._cycles = self._tokens + len(cycles), self._cycles + sum(cycles)
        found = []
        for predicted, measured in zip(self._predicted(counter, len(cycles)), cycles, strict=True):
            sequence, position = line.pass_period() or (None, -1)
            token = -1 if sequence is None else self._seats[-1].token(sequence, position + 1)
            found.append(Period(sequence=sequence, position=position, token=token, predicted=predicted,
                                cycles=measured))
        return found


class ReferenceInFlight(_Flights):
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
        self._left = 0

    def _begin(self, sequence: int, begun: _Begun) -> None:
        self._begun[sequence], self._tokens[sequence] = begun, begun.prompt[begun.cached]
        self._states[sequence].position = begun.cached

    def _fly(self, periods: int) -> list[Period]:
        found = []
        for predicted in self._predicted(self._timeline.least_counter, periods):
            if self._timeline.active(entered := self._timeline.enters):
                self._step(entered)
            self._left = self._timeline.leaves
            sequence, position = self._timeline.pass_period() or (None, -1)
            token = -1 if sequence is None else self._tokens[sequence]
            found.append(Period(sequence=sequence, position=position, token=token, predicted=predicted, cycles=None))
        return found

    def _step(self, sequence: int) -> None:
        state, begun = self._states[sequence], self._begun[sequence]
        self._logits[sequence] = state.step(self._tokens[sequence])
        chosen = begun.sampler.choose(self._logits[sequence])
        known = state.position < len(begun.prompt)
        self._tokens[sequence] = begun.prompt[state.position] if known else chosen

    def logits(self) -> np.ndarray:
        """Those of the sequence that left last."""
        return self._logits[self._left].astype(np.int32)

    @property
    def errors(self) -> set[Trap]:
        """No traps, ever."""
        return set()

    def close(self) -> None:
        """Nothing to free."""
