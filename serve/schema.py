"""What clients send. Fields that nobody knows are ignored; known ones that are not implemented are refused by name."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from run.sampling import Sampling

from .errors import ApiError

MOST_CHOICES = 16
"""Answers of one request at most."""
Stop = str | Annotated[list[str], Field(max_length=4)] | None


class Lenient(BaseModel):
    """Types are as they are; what else there is is kept and not looked at."""

    model_config = ConfigDict(extra="allow", strict=True)


class TextPart(Lenient):
    """A piece of a message's content."""

    type: str
    text: str | None = None


class Message(Lenient):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None


class StreamOptions(Lenient):
    """Of a streamed answer."""

    include_usage: bool | None = None


class Common(Lenient):
    """Fields of chat and of completion requests."""

    model: str
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    repetition_penalty: Annotated[float | None, Field(ge=0.01, le=100)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int | None, Field(ge=-(1 << 63), lt=1 << 64)] = None
    stop: Stop = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None


class ChatRequest(Common):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None


class CompletionRequest(Common):
    """Body of /v1/completions. A prompt is a text, a list of tokens, or a list of either."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    logprobs: Annotated[int | None, Field(ge=0, le=5)] = None


class TokenizeRequest(Lenient):
    """Body of /tokenize: a text, or messages for the chat template."""

    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = True


class DetokenizeRequest(Lenient):
    """Body of /detokenize."""

    tokens: list[int]


NOTHING = (None, False, [], {}, "")
HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "tools": (), "functions": (), "audio": (), "documents": (), "search_settings": (), "web_search_options": (),
    "reasoning_effort": ("none",), "reasoning_format": ("hidden", "parsed"), "include_reasoning": (), "verbosity": (),
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "suffix": (), "echo": (), "best_of": (1,), "min_tokens": (0,), "guided_json": (),
    "guided_regex": (), "guided_choice": (), "ignore_eos": (), "bad_words": (), "stop_token_ids": (),
    "prompt_logprobs": (), "use_beam_search": (),
}
"""Fields that change what other servers answer and are not implemented, and the values of each that change nothing."""


def check(request: Common) -> None:
    """Raises ApiError for what cannot be done as asked."""
    for name, value in (request.model_extra or {}).items():
        if name in HARMLESS and value not in NOTHING and value not in HARMLESS[name]:
            raise ApiError(400, f"{name} is not supported by this server: leave it out", param=name,
                           code="unsupported_parameter")
    if isinstance(request, ChatRequest) and request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options is for streams only: set stream: true", param="stream_options")


def sampling_of(request: Common, vocab: int) -> Sampling:
    """How tokens are chosen; a seed that is not given is drawn. Raises ApiError."""
    bias = {}
    for name, value in (request.logit_bias or {}).items():
        if not name.isascii() or not name.isdigit() or int(name[:10]) >= vocab or len(name) > 10:
            raise ApiError(400, f"logit_bias: {name[:20]!r} is not a token id: ids are in 0..{vocab - 1}",
                           param="logit_bias")
        bias[int(name)] = value
    seed = secrets.randbits(32) if request.seed is None else request.seed % (1 << 64)
    return Sampling(temperature=_or(request.temperature, 1.0), seed=seed, top_p=_or(request.top_p, 1.0),
                    top_k=max(0, request.top_k or 0), min_p=_or(request.min_p, 0.0),
                    repetition_penalty=_or(request.repetition_penalty, 1.0),
                    frequency_penalty=_or(request.frequency_penalty, 0.0),
                    presence_penalty=_or(request.presence_penalty, 0.0), logit_bias=bias)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def stops_of(request: Common) -> list[str]:
    """Stop strings. Raises ApiError on an empty one."""
    found = [request.stop] if isinstance(request.stop, str) else list(request.stop or ())
    if "" in found:
        raise ApiError(400, "stop: an empty string would end every answer at once: leave it out", param="stop")
    return found


def text_of(message: Message, number: int) -> str:
    """The text of a message. Raises ApiError for content that is none."""
    if message.content is None:
        return ""
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if part.type != "text" or part.text is None:
            raise ApiError(400, f"messages.{number}.content: only text is supported, not {part.type[:40]!r}",
                           param=f"messages.{number}.content")
    return "".join(part.text or "" for part in message.content)
