"""A device that runs a program, token by token, and remembers what lies in its cache of keys and values."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from base.progress import progress
from program.rack import AnyProgram
from program.reference import IntegerState, Prepared
from program.tokenizer import Tokenizer
from sim.device.protocol import BrokenPromise, ChipFault, Device, check_prompt

from .sampling import HostSampler, Sampling

__all__ = ["BrokenPromise", "ChipFault", "Session", "Step", "check_prompt"]


@dataclass(frozen=True)
class Step:
    """One position that ran.

    position: of the token that went in. token: the one that comes next. predicted, measured: cycles; measured is None
    on a device without time.
    """

    position: int
    token: int
    predicted: int
    measured: int | None


class Session:
    """A program on a device: `prompt`, then `run` as often as wanted, and a `prompt` again.

    A prompt that begins with the tokens whose keys and values are in the cache runs only what is new; tokens and logits
    are those of a run from the start, bit for bit.

    device: open; it is loaded here and stays the caller's to close. program: for that device.
    """

    def __init__(self, device: Device, program: AnyProgram) -> None:
        self.device, self.program = device, program
        self._cached: list[int] = []
        self._prompt: list[int] = []
        self._next: int | None = None
        self._host: HostSampler | None = None
        device.load(program)

    @property
    def cached(self) -> list[int]:
        """The tokens whose keys and values are in the cache, from position 0 on."""
        return list(self._cached)

    @property
    def position(self) -> int:
        """The next position to run."""
        return len(self._cached)

    def prompt(self, tokens: Sequence[int], sampling: Sampling) -> int:
        """Begin with the tokens of a prompt, BOS first; how many of them need not run.

        Raises TspError if the prompt does not fit the program, or a number of the sampling is out of range.
        """
        tokens = list(tokens)
        check_prompt(self.program, tokens)
        host = None if sampling.on_chip else HostSampler(self.program, sampling, len(tokens) - 1, tokens)
        kept = common(self._cached, tokens[:-1])
        self._next = None  # until the device has started
        self.device.start(tokens, sampling.temperature, sampling.seed, cached=kept)
        del self._cached[kept:]
        self._prompt, self._next, self._host = tokens, tokens[kept], host
        return kept

    def run(self, n: int = 1) -> list[Step]:
        """The next n positions.

        Where the host chooses, beyond the prompt they run one by one. Raises BrokenPromise where a measured cycle
        differs from the prediction, ChipFault where the chip reports an error, TspError beyond the context. After an
        error only a new session helps.
        """
        if self._next is None:
            raise ValueError("a prompt must come before tokens run")
        steps: list[Step] = []
        while len(steps) < n:
            ahead = max(1, len(self._prompt) - 1 - self.position) if self._host else n - len(steps)
            steps += self._block(min(ahead, n - len(steps)))
        return steps

    def logits(self) -> np.ndarray:
        """int32 [vocab] of the last position that ran."""
        return self.device.logits()

    def _block(self, n: int) -> list[Step]:
        with self._progress(n):
            results = self.device.run(n)
        self._check_errors(len(results), n)
        steps = []
        for result in results:
            assert self._next is not None
            position, token = self.position, result.token
            self._cached.append(self._next)
            if self._host and position + 1 >= len(self._prompt):
                token = self._host.choose(self.device.logits())
                if position + 1 < self.program.context:
                    self.device.force(token)
            self._next = token
            predicted = self.program.cycles(position) if result.predicted is None else result.predicted
            step = Step(position, token, predicted, result.cycles)
            _check_cycles(step)
            steps.append(step)
        return steps

    def _progress(self, n: int) -> AbstractContextManager:
        """Tells how far the next n positions are, on a device with a clock that can be read."""
        end = min(self.position + n, self.program.context)
        cycles = sum(self.program.cycles(position) for position in range(self.position, end))
        what = f"device {self.device.name}: position {self.position}, {cycles:,} cycles"
        chip = getattr(self.device, "chip", None)
        if chip is None or not hasattr(chip, "now"):
            return progress(what)
        began = chip.now
        return progress(what, done=lambda: min(1.0, (chip.now - began) / max(1, cycles)))

    def _check_errors(self, found: int, wanted: int) -> None:
        errors = sorted(trap.name for trap in self.device.errors)
        if errors or found != wanted:
            named = ", ".join(errors) or f"{found} of {wanted} tokens ended"
            raise ChipFault(f"device {self.device.name} reports {named} at positions from {self.position} on")


def _check_cycles(step: Step) -> None:
    if step.measured is not None and step.measured != step.predicted:
        raise BrokenPromise(f"token {step.position} took {step.measured} cycles, {step.predicted} were predicted")


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def begun(program: AnyProgram, tokens: Sequence[int]) -> list[int]:
    """A prompt that begins as the program wants it: some programs have a constant first token."""
    first = program.first_token
    return list(tokens) if first < 0 or list(tokens[:1]) == [first] else [first, *tokens]


def self_test(session: Session) -> None:
    """Run the first token and hold it against the integer reference. Raises ChipFault where a logit differs."""
    program = session.program
    token = Tokenizer.from_bytes(program.tokenizer).bos if program.first_token < 0 else program.first_token
    session.prompt([token], Sampling())
    session.run()
    wanted = IntegerState(Prepared(program.integer_model())).step(token)
    if wrong := np.count_nonzero(session.logits() != wanted):
        raise ChipFault(f"device {session.device.name} gives {wrong} of {len(wanted)} logits of the first token "
                        "otherwise than the integer reference")

