"""What follows a prompt, as text: pieces that can be shown at once, and why it ends."""

import codecs
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from program.tokenizer import Tokenizer

from .sampling import Sampling, logprobs
from .session import Session, Step

BLOCK_SECONDS = 0.02
"""Nobody waits longer for the end of tokens that he does not want, if a token is shorter."""
Finish = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a session.

    prompt: token ids, BOS first. tokens: new ones at most; None for as many as the context has room for. stop: strings
    that end the answer; neither they nor what follows is part of it. alternatives: how many likeliest tokens are told
    of each; None for no probabilities at all.
    """

    prompt: Sequence[int]
    tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] = ()
    alternatives: int | None = None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One new token.

    text: what can be shown now; it may be empty, since the beginning of a character or of a stop string is held back.
    raw: the token's own bytes. ends: a token that ends texts, which shows nothing. logprob, alternatives: of the
    model's own distribution, as (token, logarithm), if asked for. finish: why the answer ends with this token, if so.
    """

    step: Step
    text: str
    raw: bytes
    ends: bool = False
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    finish: Finish | None = None

    @property
    def token(self) -> int:
        """The token's id."""
        return self.step.token


class Answer:
    """What a session says to a question. Iterate `prefill()` and then `pieces()`, once each; stop whenever you like.

    cached: tokens of the prompt that need not run. Raises TspError as `Session.prompt`.
    """

    def __init__(self, session: Session, tokenizer: Tokenizer, question: Question) -> None:
        self._session, self._tokenizer, self._question = session, tokenizer, question
        self.cached = session.prompt(question.prompt, question.sampling)

    def prefill(self) -> Iterator[Step]:
        """Run all tokens of the prompt but the last: one by one, or as many as take less than BLOCK_SECONDS."""
        left, block = len(self._question.prompt) - 1 - self.cached, 1
        while left > 0:
            count, began = min(block, left), time.perf_counter()
            steps = self._session.run(count)
            each = (time.perf_counter() - began) / count
            left, block = left - count, max(1, int(BLOCK_SECONDS / max(each, 1e-9)))
            yield from steps

    def pieces(self) -> Iterator[Piece]:
        """Run the last token of the prompt, and then one for each piece."""
        text = Text(self._question.stop)
        left = room(self._session.program.context, self._question)
        previous = self._question.prompt[-1]
        while left:
            left -= 1
            [step] = self._session.run()
            ends = step.token in self._tokenizer.stops
            raw = b"" if ends else self._tokenizer.piece(previous, step.token)
            previous = step.token
            shown = text.add(raw, last=ends or not left)
            finish: Finish | None = "stop" if ends or text.stopped else None if left else "length"
            logprob, alternatives = self._probabilities(step.token)
            yield Piece(step=step, text=shown, raw=raw, ends=ends, logprob=logprob, alternatives=alternatives,
                        finish=finish)
            if finish:
                return

    def _probabilities(self, token: int) -> tuple[float | None, tuple[tuple[int, float], ...]]:
        count = self._question.alternatives
        if count is None:
            return None, ()
        logs = logprobs(self._session.logits())
        likeliest = np.argsort(-logs, kind="stable")[:count]
        return float(logs[token]), tuple((int(t), float(logs[t])) for t in likeliest)


def room(context: int, question: Question) -> int:
    """New tokens at most. The token that the last position gives needs no position of its own."""
    most = context - len(question.prompt) + 1
    return most if question.tokens is None else min(most, question.tokens)


class Text:
    """Bytes of tokens to text, up to the first stop string.

    A character whose bytes are not all there is held back, as is what may become a stop string.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = [s for s in stop if s]
        self._held = ""
        self.stopped = False
        """A stop string was found."""

    def add(self, raw: bytes, *, last: bool = False) -> str:
        """What can be shown after these bytes; with `last`, all that is held."""
        self._held += self._decoder.decode(raw, last)
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        keep = 0 if last else self._beginning()
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def _beginning(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
