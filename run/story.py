"""A story from a device: text to tokens, tokens to text, and every token's cycles held against the prediction."""

import codecs
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from base.errors import TspError
from program.rack import AnyProgram
from program.tokenizer import Tokenizer
from sim.device.protocol import Device, check_prompt, sampler_of

from .sampling import Sampling
from .session import Session

BLOCK_SECONDS = 0.1
"""Tokens run in blocks of about this long, so that the text flows."""
MAX_BLOCK = 16


@dataclass(frozen=True)
class Told:
    """One position: the token that it gave, its text, its cycles as predicted and as measured (None without time).

    digest: sha256 of the int32 logits, if asked for.
    """

    position: int
    token: int
    text: str
    predicted: int
    measured: int | None
    digest: str | None


@dataclass
class Story:
    """A story that is being told: iterate `steps()` once; the rest is about the steps so far.

    plan: what was asked for. digests: hash the logits of every token.
    """

    session: Session
    tokenizer: Tokenizer
    plan: "Plan"
    digests: bool
    done: list[Told] = field(default_factory=list)

    def steps(self) -> Iterator[Told]:
        """Step by step until a token ends the story or all positions have run. Raises as `Session.run`."""
        decode, previous, block = codecs.getincrementaldecoder("utf-8")("replace").decode, self.prompt[0], 1
        first = self.prompt[0]
        before = b"" if first in self.tokenizer.stops else self.tokenizer.piece(None, first)
        positions = self.plan.positions
        while len(self.done) < positions:
            count = 1 if self.digests else min(block, positions - len(self.done))
            began = time.perf_counter()
            steps = self.session.run(count)
            elapsed = time.perf_counter() - began
            block = max(1, min(MAX_BLOCK, int(count * BLOCK_SECONDS / max(elapsed, 1e-9))))
            digest = logits_digest(self.session.logits()) if self.digests else None
            for step in steps:
                ends = self._ends(step.position, step.token)
                piece = b"" if ends else self.tokenizer.piece(previous, step.token)
                text = decode(before + piece, ends or step.position + 1 == positions)
                previous, before = step.token, b""
                self.done.append(Told(step.position, step.token, text, step.predicted, step.measured, digest))
                yield self.done[-1]
                if ends:
                    return

    def _ends(self, position: int, token: int) -> bool:
        """Whether the story ends here: the model chose a token that ends a text."""
        return position + 1 >= len(self.prompt) and token in self.tokenizer.stops

    @property
    def device(self) -> Device:
        """What tells it."""
        return self.session.device

    @property
    def program(self) -> AnyProgram:
        """What it is told with."""
        return self.session.program

    @property
    def prompt(self) -> list[int]:
        """Tokens of the prompt, BOS first."""
        return self.plan.prompt

    @property
    def text(self) -> str:
        """The story so far, with its prompt."""
        return "".join(step.text for step in self.done)

    @property
    def predicted(self) -> int:
        """Cycles predicted for the steps so far."""
        return sum(step.predicted for step in self.done)

    @property
    def measured(self) -> int | None:
        """Cycles that the device took; None without time."""
        cycles = [step.measured for step in self.done]
        return None if None in cycles else sum(c for c in cycles if c is not None)

    @property
    def roofline_fraction(self) -> float:
        """Of the steps so far."""
        total = sum(self.program.bytes_read(step.position) for step in self.done)
        return total / (self.program.macs * self.predicted)

    def tokens_per_second(self, clock_mhz: float) -> float:
        """Of the steps so far, at a clock."""
        return self.program.tokens_per_second(clock_mhz, self.predicted / len(self.done))

    def as_json(self, clock_mhz: float) -> dict[str, object]:
        """What `tsp run --json` prints; the lists hold an entry a position, the prompt's included."""
        return {
            "device": self.device.name,
            "config": self.program.config.name,
            "temperature": self.plan.temperature,
            "seed": self.plan.seed,
            "prompt_tokens": self.prompt,
            "tokens": [step.token for step in self.done],
            "text": self.text,
            "predicted_cycles": [step.predicted for step in self.done],
            "measured_cycles": [step.measured for step in self.done],
            "roofline_fraction": self.roofline_fraction,
            "logits_digest": [step.digest for step in self.done],
            "clock_mhz": clock_mhz,
            "tokens_per_second": self.tokens_per_second(clock_mhz),
        }


def logits_digest(logits: np.ndarray) -> str:
    """sha256 of int32 logits, little-endian."""
    return hashlib.sha256(np.asarray(logits).astype("<i4").tobytes()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A story that a program can tell: prompt tokens, positions to run at most, and the sampling."""

    prompt: list[int]
    positions: int
    temperature: float
    seed: int


def plan(program: AnyProgram, prompt: str = "", *, tokens: int | None = None, temperature: float = 0.0,
         seed: int = 0) -> Plan:
    """Check what is asked of a program, before any device is opened.

    tokens: at most so many new ones, and at most up to the context. Raises TspError on a prompt or number that does not
    fit.
    """
    if tokens is not None and tokens < 1:
        raise TspError(f"tokens must be at least 1, not {tokens}")
    ids = Tokenizer.from_bytes(program.tokenizer).prompt(prompt)
    if program.first_token not in (-1, ids[0]):  # a constant of the program, which begins every text
        ids = [program.first_token, *ids]
    check_prompt(program, ids)
    sampler_of(program, temperature, seed)
    room = program.context if tokens is None else min(program.context, len(ids) - 1 + tokens)
    return Plan(ids, room, temperature, seed)


def begin(session: Session, plan: Plan, *, digests: bool = False) -> Story:
    """Start a story. digests: hash the logits of every token, which are then run one by one."""
    session.prompt(plan.prompt, Sampling(temperature=plan.temperature, seed=plan.seed))
    return Story(session, Tokenizer.from_bytes(session.program.tokenizer), plan, digests)
