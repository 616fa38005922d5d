"""The integer reference as a device. It gives the same tokens and logits as a chip, but has no time."""

from collections.abc import Sequence

import numpy as np

from arch.host_map import Trap
from program.rack import AnyProgram
from program.reference import MOST_ROWS, IntegerState, Prepared

from .protocol import Counters, TokenResult, check_alone, check_cached, check_prompt, check_run, sampler_of


class ReferenceDevice:
    """Runs the program's integer model, without a chip."""

    name = "reference"

    def load(self, program: AnyProgram) -> None:
        """Load the integer model of a program. Raises TspError if it is for several sequences."""
        check_alone(program)
        self._program = program
        self._state = IntegerState(Prepared(program.integer_model()))
        self._tokens = 0

    def start(self, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *, cached: int = 0) -> None:
        """Begin a run with new noise. It overwrites the K/V cache from position `cached` on."""
        check_prompt(self._program, prompt)
        check_cached(prompt, cached)
        self._prompt, self._token = list(prompt), prompt[cached]
        self._sampler = sampler_of(self._program, temperature, seed, cached)
        self._state.position = cached

    def force(self, token: int) -> None:
        """Set the token of the next step."""
        self._token = token

    def run(self, n: int) -> list[TokenResult]:
        """Run the known tokens of the prompt together, then one position after the other."""
        check_run(self._program, self._state.position, n)
        known = self._known(n)
        return known + [self._step() for _ in range(n - len(known))]

    def _known(self, n: int) -> list[TokenResult]:
        """Run those of the next n positions whose next token is in the prompt."""
        prompt, first = self._prompt, self._state.position
        end = min(first + n, len(prompt) - 1)
        for start in range(first, end, MOST_ROWS):
            tokens = [self._token, *prompt[start + 1 : min(start + MOST_ROWS, end)]]
            self._logits = self._state.advance(tokens, last=True)[0]
            self._token = prompt[start + len(tokens)]
        for _ in range(first, end):
            self._sampler.advance()
        self._tokens += max(0, end - first)
        return [TokenResult(token, None) for token in prompt[first + 1 : end + 1]]

    def _step(self) -> TokenResult:
        self._logits = self._state.step(self._token)
        chosen, position = self._sampler.choose(self._logits), self._state.position
        self._token = self._prompt[position] if position < len(self._prompt) else chosen
        self._tokens += 1
        return TokenResult(self._token, None)

    def logits(self) -> np.ndarray:
        """Logits of the last step."""
        return self._logits.astype(np.int32)

    @property
    def counters(self) -> Counters:
        """Positions only, no cycles."""
        return Counters(self._tokens, None)

    @property
    def errors(self) -> set[Trap]:
        """No traps, ever."""
        return set()

    def close(self) -> None:
        """Nothing to free."""
