"""A rack as a device: its chips, loaded and served alike, run together and must agree."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from arch.host_map import Trap
from arch.rack import Port, RackConfig
from base.errors import TspError
from base.progress import progress
from program.rack import AnyProgram, RackProgram
from sim.lines import Failure, Lines

from .hosted_chip import HostPort
from .protocol import (
    BrokenPromise,
    ChipFault,
    Counters,
    TokenResult,
    check_alone,
    check_cached,
    check_prompt,
    check_run,
    sampler_of,
)
from .seat import Seat

REPLAYS = 10
"""How often a token is run again whose flits had errors that the code cannot correct."""
Changes = Mapping[Port, Mapping[int, int]]
"""What the line changes in flits: by the port that sends, the wrong bits of a flit by its number in the run."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run of some tokens. cycles: of each token, by chip. sent: flits by the port that sent them.

    failures: errors of links that were not corrected, as the chips report them. The last token is then invalid.
    """

    cycles: list[list[int]]
    sent: dict[Port, int] = field(default_factory=dict)
    failures: Sequence[Failure] = ()


class HostedRack(ABC):
    """The chips of a rack, just reset, whose tokens start together. Each way to run a rack is a subclass.

    rack: the rack. chips: its chips, for host accesses.
    has_lines: its links are lines that can fail, so tokens are run one by one, and again if need be.
    link_errors: errors of the links that were corrected, and those that were not.
    """

    rack: RackConfig
    chips: Sequence[HostPort]
    has_lines: bool = False
    link_errors: tuple[int, int] = (0, 0)

    @abstractmethod
    def run(self, n_tokens: int, changes: Changes | None = None) -> Ran:
        """Run tokens on all chips from their current positions. Raises ChipFault where the flits do not match the
        schedule."""

    @property
    @abstractmethod
    def now(self) -> int:
        """Cycles of chip 0 since its reset."""

    @abstractmethod
    def close(self) -> None:
        """Free all chips."""


class SeatedRack:
    """The chips of a rack with their programs.

    name: the device's name.
    chip: the rack, just reset.
    """

    def __init__(self, name: str, chip: HostedRack) -> None:
        self.name, self.chip = name, chip
        self._tokens = self._cycles = 0

    def load(self, program: AnyProgram) -> None:
        """Write queues, tables and SRAM of all chips."""
        rack = self.chip.rack
        if not isinstance(program, RackProgram):
            raise TspError(f"the program is for one chip, config {program.config.name}; device {self.name} is rack "
                           f"{rack.name}")
        if program.rack.digest() != rack.digest():
            raise TspError(f"the program is for rack {program.rack.name} ({program.rack.digest()}), device {self.name} "
                           f"is rack {rack.name} ({rack.digest()})")
        self._program = program
        self._seats = [Seat(f"{self.name}, chip {n}", chip, part)
                       for n, (chip, part) in enumerate(zip(self.chip.chips, program.chips, strict=True))]
        with progress(f"loading device {self.name}") as tell:
            for n, seat in enumerate(self._seats):
                seat.load(lambda done, n=n: tell((n + done) / len(self._seats)))
        self._tokens = self._cycles = 0

    def _compare(self, what: str, first: int, found: Sequence[Sequence[int]]) -> None:
        """Raises BrokenPromise, naming chip and position, unless all chips have the same list."""
        for n, own in enumerate(found):
            for at, (one, other) in enumerate(zip(found[0], own, strict=False)):
                if one != other:
                    raise BrokenPromise(f"device {self.name}: for position {first + at}, chip 0 {what.format(one)}, "
                                        f"chip {n} {what.format(other)}")
            if len(own) != len(found[0]):
                raise BrokenPromise(f"device {self.name}: chip 0 ended {len(found[0])} tokens, chip {n} {len(own)}")

    def _logits_of_all(self) -> np.ndarray:
        """Logits, from the SRAM of the chips that hold them."""
        found = np.zeros(self._program.model.vocab_size, np.int32)
        for seat in self._seats:
            seat.add_logits(found)
        return found

    @property
    def counters(self) -> Counters:
        """Positions and cycles, as the chips count them."""
        return Counters(self._tokens, self._cycles)

    @property
    def errors(self) -> set[Trap]:
        """The ERRORS registers of all chips together."""
        return {trap for seat in self._seats for trap in seat.errors()}

    def close(self) -> None:
        """Close the chips."""
        self.chip.close()


class RackDevice(SeatedRack):
    """A device that runs a rack.

    All chips get the same prompt, position, temperature and seed, and choose the same tokens in the same cycles.

    lines: errors of the links, if there are to be some. A token with an error that the code cannot correct is run again
    from its position.
    """

    def __init__(self, name: str, chip: HostedRack, lines: Lines | None = None) -> None:
        super().__init__(name, chip)
        self.lines, self.replays, self._position = lines, 0, 0

    def load(self, program: AnyProgram) -> None:
        """Write queues, tables and SRAM of all chips. Raises TspError if the program is for another machine, or for
        several sequences."""
        check_alone(program)
        super().load(program)
        self.replays = 0

    def start(self, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *, cached: int = 0) -> None:
        """Write the tables of a run to all chips."""
        check_prompt(self._program, prompt)
        check_cached(prompt, cached)
        sampler = sampler_of(self._program, temperature, seed, cached)
        for seat in self._seats:
            seat.start(prompt, sampler, cached)
        self._position, self._sampling = cached, (temperature, seed)
        self._known = list(prompt)

    def logits(self) -> np.ndarray:
        """Read from SRAM."""
        return self._logits_of_all()

    def force(self, token: int) -> None:
        """Write the token of the next position to all chips."""
        for seat in self._seats:
            seat.force(token)
        self._known[self._position :] = [token, *self._known[self._position + 1 :]]

    def run(self, n: int) -> list[TokenResult]:
        """Run n tokens on all chips.

        Raises BrokenPromise if their cycles or their tokens differ, ChipFault if a link fails for good.
        """
        check_run(self._program, self._position, n)
        if not n:
            return []
        if self.lines is None and not self.chip.has_lines:
            return self._results(self.chip.run(n))
        return [result for _ in range(n) for result in self._results(self._safe())]

    def _safe(self) -> Ran:
        """One token, run again as long as a link had an error that was not corrected."""
        failures: Sequence[Failure] = []
        for attempt in range(REPLAYS + 1):
            if attempt:
                self.replays += 1
                self._rewind()
            ran, failures = self._try()
            if not failures:
                return ran
            if any(failure.lasting for failure in failures):
                break
        raise ChipFault(f"device {self.name}: the token at position {self._position} is lost: {failures[0]}"
                        + (f", and {attempt} times before" if attempt else ""))

    def _try(self) -> tuple[Ran, Sequence[Failure]]:
        """One token, and the errors of links that were not corrected."""
        if self.lines is None:
            ran = self.chip.run(1)
            return ran, ran.failures
        most = self._program.cycles(self._position) // min(chip.slot for chip in self.chip.rack.chips) + 1
        ran = self.chip.run(1, self.lines.begin(self._position, most))
        return ran, self.lines.end(ran.sent)

    def _rewind(self) -> None:
        """Let the next token be that of the current position again. It writes the same places again."""
        sampler = sampler_of(self._program, *self._sampling, self._position)
        for seat in self._seats:
            seat.start(self._known, sampler, self._position)

    def _results(self, ran: Ran) -> list[TokenResult]:
        """What all chips agree on."""
        count, first = min(map(len, ran.cycles)), self._position + 1
        tokens = [seat.tokens(first, count) for seat in self._seats]
        if not self.errors:
            self._compare("took {} cycles", first, ran.cycles)
            self._compare("chose token {}", first, tokens)
        self._position += count
        self._known[first:] = [*tokens[0], *self._known[first + count :]]
        self._tokens += count
        self._cycles += sum(ran.cycles[0][:count])
        return [TokenResult(token, cycles) for token, cycles in zip(tokens[0], ran.cycles[0], strict=False)]

    @property
    def link_errors(self) -> tuple[int, int]:
        """Errors of the links that were corrected, and those that were not."""
        return (self.lines.corrected, self.lines.failed) if self.lines else self.chip.link_errors
