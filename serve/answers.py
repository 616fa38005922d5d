"""What a ticket's events become: choices, chunks of a stream, and usage."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from program.tokenizer import Tokenizer

from .model import Model
from .ticket import Ticket
from .worker import Message

Json = dict[str, Any]


@dataclass
class Progress:
    """One choice, as far as it has come."""

    index: int
    ticket: Ticket
    text: str = ""
    pieces: list[Message] = field(default_factory=list)
    finish: str | None = None
    cached: int = 0
    prompt_cycles: list[tuple[int, int | None]] = field(default_factory=list)
    digest: str | None = None

    def take(self, event: Message) -> None:
        """Count an event in."""
        if event["is"] == "begun":
            self.cached = event["cached"]
        elif event["is"] == "prompt":
            self.prompt_cycles.append((event["predicted"], event["measured"]))
        elif event["is"] == "piece":
            self.text += event["text"]
            self.pieces.append(event)
            self.finish = event["finish"]
        elif event["is"] == "end":
            self.digest = event["digest"]
            self.finish = self.finish or "length"  # it was stopped after its time

    @property
    def cycles(self) -> tuple[list[tuple[int, int | None]], list[tuple[int, int | None]]]:
        """(predicted, measured) of the positions of the prompt, whose last gives the first token, and of the others."""
        own = [(piece["predicted"], piece["measured"]) for piece in self.pieces]
        return self.prompt_cycles + own[:1], own[1:]


def total(cycles: Sequence[tuple[int, int | None]]) -> tuple[int, int | None]:
    """Cycles in all: predicted, and measured if the device has time."""
    measured = [m for _, m in cycles if m is not None]
    return sum(p for p, _ in cycles), sum(measured) if len(measured) == len(cycles) else None


def usage(choices: Sequence[Progress]) -> Json:
    """Tokens, and seconds by the clock on the wall. A prompt counts once, whatever the number of its choices."""
    prompts = {id(choice.ticket.question.prompt): len(choice.ticket.question.prompt) for choice in choices}
    completion = sum(len(choice.pieces) for choice in choices)
    spans = [_seconds(choice) for choice in choices]
    queue, prompt, tokens = (sum(span[n] for span in spans) for n in range(3))
    return {"prompt_tokens": sum(prompts.values()), "completion_tokens": completion,
            "total_tokens": sum(prompts.values()) + completion, "queue_time": queue, "prompt_time": prompt,
            "completion_time": tokens, "total_time": prompt + tokens,
            "prompt_tokens_details": {"cached_tokens": choices[0].cached}}


def _seconds(choice: Progress) -> tuple[float, float, float]:
    """Queue, prompt with the first token, and the other tokens."""
    ticket = choice.ticket
    begun = ticket.begun or ticket.asked
    first = ticket.first or ticket.ended or begun
    return begun - ticket.asked, first - begun, (ticket.ended or first) - first


def x_tsp(choices: Sequence[Progress]) -> Json:
    """What no other server can tell: cycles, and the time on the chip."""
    handle = choices[0].ticket.handle
    clock = handle.clock_mhz if handle else None
    parts = [[cycles for choice in choices for cycles in choice.cycles[n]] for n in range(2)]
    (prompt, prompt_measured), (tokens, tokens_measured) = total(parts[0]), total(parts[1])
    known = prompt_measured is not None and tokens_measured is not None and clock

    def on_chip(cycles: int | None) -> float | None:
        return cycles / (clock * 1e6) if known and cycles is not None and clock else None

    return {"device": handle.name if handle else None, "clock_mhz": clock, "predicted_cycles": prompt + tokens,
            "measured_cycles": prompt_measured + tokens_measured
            if prompt_measured is not None and tokens_measured is not None else None,
            "on_chip_prompt_time": on_chip(prompt_measured), "on_chip_completion_time": on_chip(tokens_measured),
            "logits_digest": choices[-1].digest, "seed": choices[0].ticket.question.sampling.seed,
            "sampled_by": "chip" if choices[0].ticket.question.sampling.on_chip else "host",
            "expired": any(choice.ticket.expired for choice in choices)}


def cycles_of(piece: Message) -> Json:
    """`x_tsp` of a chunk."""
    return {name: piece[key] for name, key in (("position", "position"), ("token", "token"),
                                               ("predicted_cycles", "predicted"), ("measured_cycles", "measured"))}


class Shape(ABC):
    """The objects of one endpoint. kind: prefix of ids; whole, chunk: names of objects.

    path: of the request. Groq's clients know the service tier "on_demand", OpenAI's know "default".
    """

    kind = whole = chunk = ""

    def __init__(self, model: Model, request_id: str, path: str) -> None:
        self.model, self.created = model, int(time.time())
        self._tier = "on_demand" if path.startswith("/openai/") else "default"
        self.id = f"{self.kind}-{request_id.removeprefix('req_')}"
        self.request_id = request_id

    def head(self, name: str) -> Json:
        """What all objects of an answer begin with."""
        return {"id": self.id, "object": name, "created": self.created, "model": self.model.settings.name,
                "system_fingerprint": self.model.fingerprint, "service_tier": self._tier}

    def answer(self, choices: Sequence[Progress]) -> Json:
        """The whole answer."""
        return self.head(self.whole) | {"choices": [self.choice(choice) for choice in choices],
                                        "usage": usage(choices), "x_groq": {"id": self.request_id},
                                        "x_tsp": x_tsp(choices)}

    @abstractmethod
    def choice(self, choice: Progress) -> Json:
        """A finished choice."""

    @abstractmethod
    def opening(self, choice: Progress) -> Json | None:
        """What a choice of a stream begins with."""

    @abstractmethod
    def part(self, choice: Progress, piece: Message | None) -> Json:
        """A choice within a chunk; without a piece, its end."""


class Chat(Shape):
    """/v1/chat/completions."""

    kind, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, choice: Progress) -> Json:
        return {"index": choice.index, "message": {"role": "assistant", "content": choice.text},
                "finish_reason": choice.finish, "logprobs": self._logprobs(choice.pieces)}

    def opening(self, choice: Progress) -> Json | None:
        return {"index": choice.index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None,
                "logprobs": None}

    def part(self, choice: Progress, piece: Message | None) -> Json:
        delta = {"content": piece["text"]} if piece else {}
        return {"index": choice.index, "delta": delta, "finish_reason": None if piece else choice.finish,
                "logprobs": self._logprobs([piece]) if piece else None}

    def _logprobs(self, pieces: Sequence[Message]) -> Json | None:
        if not pieces or "logprob" not in pieces[0]:
            return None
        one = _one_of(self.model.tokenizer)
        return {"content": [one(p["token"], p["logprob"]) | {"top_logprobs": [one(*a) for a in p["alternatives"]]}
                            for p in pieces], "refusal": None}


class Completion(Shape):
    """/v1/completions."""

    kind, whole, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, choice: Progress) -> Json:
        return {"index": choice.index, "text": choice.text, "finish_reason": choice.finish,
                "logprobs": self._logprobs(choice.pieces, 0)}

    def opening(self, choice: Progress) -> Json | None:
        return None

    def part(self, choice: Progress, piece: Message | None) -> Json:
        before = len(choice.text) - len(piece["text"]) if piece else 0
        return {"index": choice.index, "text": piece["text"] if piece else "",
                "finish_reason": None if piece else choice.finish,
                "logprobs": self._logprobs([piece], before) if piece else None}

    def _logprobs(self, pieces: Sequence[Message], offset: int) -> Json | None:
        if not pieces or "logprob" not in pieces[0]:
            return None
        one, offsets = _one_of(self.model.tokenizer), []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece["text"])
        texts = [one(piece["token"], 0.0)["token"] for piece in pieces]
        return {"tokens": texts, "token_logprobs": [piece["logprob"] for piece in pieces],
                "top_logprobs": [{one(*a)["token"]: a[1] for a in piece["alternatives"]} for piece in pieces],
                "text_offset": offsets}


def _one_of(tokenizer: Tokenizer) -> Callable[[int, float], Json]:
    def one(token: int, logprob: float) -> Json:
        raw = tokenizer.piece(tokenizer.eos, token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    return one


def event(data: Json) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
ALIVE = b": the chip is at work\n\n"
