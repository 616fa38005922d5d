"""What the server answers, for its OpenAPI description. No field is there that is not named here."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Exact(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(Exact):
    """What went wrong: for a person, and for a program."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Exact):
    """Every answer that is no 200."""

    error: ErrorBody


class Cached(Exact):
    """Details of a prompt. cached_tokens: they were in the cache of keys and values."""

    cached_tokens: int


class Usage(Exact):
    """Tokens, and seconds by the clock on the wall; total_time is without the queue."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    queue_time: float
    prompt_time: float
    completion_time: float
    total_time: float
    prompt_tokens_details: Cached


class Groq(Exact):
    """As GroqCloud has it."""

    id: str
    usage: Usage | None = None


class Tsp(Exact):
    """What the device did. Times on the chip are cycles by its clock; null on a device without time."""

    device: str | None
    clock_mhz: float | None
    predicted_cycles: int
    measured_cycles: int | None
    on_chip_prompt_time: float | None
    on_chip_completion_time: float | None
    logits_digest: str | None
    seed: int
    sampled_by: Literal["chip", "host"]
    expired: bool


class TokenCycles(Exact):
    """Of one token of a stream."""

    position: int
    token: int
    predicted_cycles: int
    measured_cycles: int | None


class TopLogprob(Exact):
    """A token, its probability, and its bytes."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """With the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Exact):
    """Of all tokens."""

    content: list[TokenLogprob] | None
    refusal: None


class Said(Exact):
    """The answer."""

    role: Literal["assistant"]
    content: str


class ChatChoice(Exact):
    """One answer."""

    index: int
    message: Said
    finish_reason: Literal["stop", "length"]
    logprobs: ChatLogprobs | None


class Head(Exact):
    """What all answers begin with."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default", "on_demand"]


class ChatCompletion(Head):
    """Answer of /v1/chat/completions."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    x_groq: Groq
    x_tsp: Tsp


class Delta(Exact):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Exact):
    """What a chunk says of a choice."""

    index: int
    delta: Delta
    finish_reason: Literal["stop", "length"] | None
    logprobs: ChatLogprobs | None


class ChatChunk(Head):
    """One event of a streamed chat."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: Usage | None = None
    x_groq: Groq | None = None
    x_tsp: Tsp | TokenCycles | None = None


class TextLogprobs(Exact):
    """Of all tokens, in the manner of /v1/completions."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Exact):
    """One continuation; finish_reason is null in the chunks before the last."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: TextLogprobs | None


class TextCompletion(Head):
    """Answer of /v1/completions."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage
    x_groq: Groq
    x_tsp: Tsp


class TextChunk(Head):
    """One event of a streamed completion."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None
    x_groq: Groq | None = None
    x_tsp: Tsp | TokenCycles | None = None


class ModelTsp(Exact):
    """Chip config, and whether the model has a chat template."""

    config: str
    chat: bool


class ModelEntry(Exact):
    """One name of the model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    active: bool
    context_window: int
    max_completion_tokens: int
    public_apps: None
    x_tsp: ModelTsp


class Models(Exact):
    """All names."""

    object: Literal["list"]
    data: list[ModelEntry]


class Device(Exact):
    """A device, and why it is out of service if it is."""

    device: str
    state: Literal["starting", "ready", "busy", "lost", "out of service", "closed"]
    reason: str | None
    pid: int | None
    clock_mhz: float | None


class Health(Exact):
    """Of the server. wait_seconds: about how long a new request would wait."""

    status: Literal["ok", "degraded", "starting", "down", "draining"]
    devices: list[Device]
    running: int
    waiting: int
    wait_seconds: float


class Tokens(Exact):
    """Answer of /tokenize."""

    tokens: list[int]
    count: int
    max_model_len: int


class Prompt(Exact):
    """Answer of /detokenize."""

    prompt: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "A field is wrong, which `param` names."},
    401: {"model": Error, "description": "The key is missing or wrong."},
    403: {"model": Error, "description": "Without keys, only this machine is answered."},
    404: {"model": Error, "description": "The model does not exist."},
    408: {"model": Error, "description": "The body came too slowly."},
    413: {"model": Error, "description": "The body is too large."},
    429: {"model": Error, "description": "Too much of this key; `retry-after-ms` says when to come again."},
    500: {"model": Error, "description": "The device failed; `code` says how."},
    503: {"model": Error, "description": "The queue is full, or no device is in service."},
}
"""Of everything that needs a key."""
PLAIN: dict[int | str, dict[str, Any]] = {code: ERRORS[code] for code in (400, 403)}
"""Of everything else."""


def streamed(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The 200 of an endpoint that can stream."""
    return {200: {"model": model, "content": {"text/event-stream": {}},
                  "description": "The answer, or a stream of chunks that ends with [DONE]."}}
