"""One protocol for everything that runs a program: reference, cycle model, RTL, a board, and racks.

`ReferenceDevice`, `ChipDevice` and `RackDevice` implement it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from arch.host_map import Trap
from base.errors import TspError
from program.noise import advanced
from program.rack import AnyProgram
from program.sampler import Sampler, temperature_q


class BrokenPromise(Exception):
    """A chip took other cycles than predicted, chips of a rack differ, or one reported an error: a bug of ours. One
    line."""


class ChipFault(BrokenPromise):
    """A chip or a link reported an error, or tokens did not end."""


@dataclass(frozen=True)
class TokenResult:
    """The result of one position.

    token: the token at the next position. Within the prompt, it is the prompt's token.
    cycles: from start pulse to start pulse; None on a device without time.
    predicted: its cycles, if they are not those of its position: of a period, they are those of another sequence.
    """

    token: int
    cycles: int | None
    predicted: int | None = None


@dataclass(frozen=True)
class Counters:
    """Positions run since `load`, and their cycles in all (None on a device without time)."""

    tokens: int
    cycles: int | None


class Device(Protocol):
    """Runs a program. The order of calls is `load`, then `start` and `run` any number of times, then `close`."""

    name: str

    def load(self, program: AnyProgram) -> None:
        """Load a program. Raises TspError if it is for another machine."""
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


def check_prompt(program: AnyProgram, prompt: Sequence[int]) -> None:
    """Raises TspError if a prompt does not fit a program."""
    if not prompt:
        raise TspError("the prompt must hold at least the BOS token")
    if len(prompt) > program.context:
        most = program.model.seq_len
        longer = f", or compile with a longer --context, up to the model's {most}" if program.context < most else ""
        raise TspError(f"the prompt has {len(prompt)} tokens, the {'program' if longer else 'model'}'s context has "
                       "only "
                       f"{program.context} positions: shorten it{longer}")
    if program.first_token not in (-1, prompt[0]):
        raise TspError(f"the prompt must begin with token {program.first_token}, a constant of the program, not "
                       f"with {prompt[0]}: compile with --scales dynamic to begin with any token")
    vocab = program.model.vocab_size
    if bad := [token for token in prompt if not 0 <= token < vocab]:
        raise TspError(f"prompt tokens must be in 0..{vocab - 1}, not {bad[0]}")


def check_alone(program: AnyProgram) -> None:
    """Raises TspError if a program serves several sequences."""
    if program.sequences > 1:
        raise TspError(f"the program serves {program.sequences} sequences: run it with `tsp run`, or compile "
                       "it without --sequences")


def check_cached(prompt: Sequence[int], cached: int) -> None:
    """Raises ValueError unless at least the last token of a prompt runs."""
    if not 0 <= cached < len(prompt):
        raise ValueError(f"cached must be in 0..{len(prompt) - 1}, because the last token of the prompt runs, not "
                         f"{cached}")


def check_run(program: AnyProgram, position: int, n: int) -> None:
    """Raises TspError unless n positions from `position` on are within the context."""
    if n < 0 or position + n > program.context:
        raise TspError(f"{n} tokens from position {position} on exceed the program's context of {program.context}")


def sampler_of(program: AnyProgram, temperature: float, seed: int, position: int = 0) -> Sampler:
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
