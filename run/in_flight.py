"""Stories told at once by a device of several sequences; every period's cycles held against the prediction."""

import codecs
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from program.rack import AnyProgram
from program.tokenizer import Tokenizer
from sim.device.in_flight import InFlight, Period, Token
from sim.device.protocol import ChipFault

from .story import Plan, logits_digest


@dataclass(kw_only=True)
class Tale:
    """One of the stories.

    plan: what was asked for. sequence: the one that tells it; None before it begins. digests: sha256 of the logits, if
    asked for. over: it is at its end.
    """

    plan: Plan
    sequence: int | None = None
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    over: bool = False

    @property
    def text(self) -> str:
        """The story so far, with its prompt."""
        return "".join(self.pieces)


class _Decoder:
    """Tokens to text, one by one. first: the token that the text begins with."""

    def __init__(self, tokenizer: Tokenizer, first: int) -> None:
        self._tokenizer, self._previous = tokenizer, first
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = b"" if first in tokenizer.stops else tokenizer.piece(None, first)

    def text(self, token: int, last: bool) -> str:
        """What a token adds. last: nothing follows. A token that ends a text adds nothing."""
        ends = token in self._tokenizer.stops
        piece = b"" if ends else self._tokenizer.piece(self._previous, token)
        found, self._previous, self._held = self._held + piece, token, b""
        return self._decode(found, last)


class Tales:
    """Stories on a device: as many at once as it has sequences; another begins when one ends.

    device: open; it is loaded here and stays the caller's to close. plans: what is to be told. digests: hash the logits
    of every token, which are then read period by period.

    periods: all that ran so far.
    """

    def __init__(self, device: InFlight, program: AnyProgram, plans: Sequence[Plan], *, digests: bool = False) -> None:
        self.device, self.program, self.tales = device, program, [Tale(plan=plan) for plan in plans]
        self.periods: list[Period] = []
        self._digests, self._tokenizer = digests, Tokenizer.from_bytes(program.tokenizer)
        self._decoders: dict[int, _Decoder] = {}
        self._told: list[Tale | None] = [None] * program.sequences
        device.load(program)

    def steps(self) -> Iterator[tuple[int, str]]:
        """(number of a story, what a token adds to it), as tokens are done, until all stories are over.

        Raises BrokenPromise where a measured cycle differs from the prediction, ChipFault where a chip reports an
        error.
        """
        waiting = deque(range(len(self.tales)))
        while waiting or any(self._told):
            for sequence, tale in enumerate(self._told):
                if tale is None and waiting:
                    self._begin(sequence, waiting.popleft())
            yield from self._round()

    def _begin(self, sequence: int, number: int) -> None:
        tale = self._told[sequence] = self.tales[number]
        tale.sequence = sequence
        self._decoders[sequence] = _Decoder(self._tokenizer, tale.plan.prompt[0])
        self.device.start(sequence, tale.plan.prompt, tale.plan.temperature, tale.plan.seed)

    def _round(self) -> Iterator[tuple[int, str]]:
        """A token of each sequence; with digests, a period."""
        periods = self.device.run(1 if self._digests else self.program.periods_a_token)
        if errors := sorted(trap.name for trap in self.device.errors):
            raise ChipFault(f"device {self.device.name} reports {', '.join(errors)} in periods from "
                            f"{len(self.periods)} on")
        for period in periods:
            period.check(len(self.periods))
            self.periods.append(period)
            for token in period.tokens:
                if (tale := self._told[token.sequence]) is not None:
                    yield self._tell(tale, token)

    def _tell(self, tale: Tale, told: Token) -> tuple[int, str]:
        plan = tale.plan
        stops = told.position + 1 >= len(plan.prompt) and told.token in self._tokenizer.stops
        tale.over = stops or told.position + 1 >= plan.positions
        tale.tokens.append(told.token)
        tale.pieces.append(self._decoders[told.sequence].text(told.token, tale.over))
        if self._digests:
            tale.digests.append(logits_digest(self.device.logits(told.sequence)))
        if tale.over:
            self.device.end(told.sequence)
            self._told[told.sequence] = None
        return next(n for n, each in enumerate(self.tales) if each is tale), tale.pieces[-1]

    @property
    def tokens(self) -> int:
        """Positions of all stories that ran."""
        return sum(len(tale.tokens) for tale in self.tales)

    @property
    def predicted(self) -> int:
        """Cycles predicted for the periods so far."""
        return sum(period.predicted for period in self.periods)

    @property
    def measured(self) -> int | None:
        """Cycles that they took; None on a device without time."""
        cycles = [period.cycles for period in self.periods]
        return None if None in cycles else sum(c for c in cycles if c is not None)

    def tokens_per_second(self, clock_mhz: float) -> float:
        """Of all sequences together, at a clock."""
        return clock_mhz * 1e6 * self.tokens / self.predicted

    def as_json(self, clock_mhz: float) -> dict[str, object]:
        """What `tsp run --json` prints of several sequences; `stories` has what it prints of one."""
        return {
            "device": self.device.name, "config": self.program.config.name, "sequences": self.program.sequences,
            "stories": [{"sequence": tale.sequence, "temperature": tale.plan.temperature, "seed": tale.plan.seed,
                         "prompt_tokens": tale.plan.prompt, "tokens": tale.tokens, "text": tale.text,
                         "logits_digest": tale.digests} for tale in self.tales],
            "predicted_cycles": [period.predicted for period in self.periods],
            "measured_cycles": [period.cycles for period in self.periods],
            "clock_mhz": clock_mhz, "tokens_per_second": self.tokens_per_second(clock_mhz),
        }
