"""What the server knows of its model: texts to prompts and back, and what a request asks of a device."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from base.errors import TspError
from program.rack import AnyProgram
from program.tokenizer import Tokenizer
from run.answer import Question
from run.chat import ChatTemplate, TemplateError, prompt_of
from run.session import begun

from .errors import ApiError
from .schema import ChatRequest, Common, CompletionRequest, Message, sampling_of, stops_of, text_of
from .settings import Settings

AT_ONCE = 4096
"""Letters that are made to tokens in the event loop; longer texts go to a thread."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One served program.

    template: None makes it a completion model. created: seconds since 1970. longest: bytes of the longest token.
    """

    settings: Settings
    program: AnyProgram
    tokenizer: Tokenizer
    template: ChatTemplate | None
    created: int
    longest: int

    @staticmethod
    def of(settings: Settings, program: AnyProgram, template: ChatTemplate | None) -> "Model":
        """With the program's own tokenizer."""
        tokenizer = Tokenizer.from_bytes(program.tokenizer)
        longest = max(len(tokenizer.piece(tokenizer.eos, token)) for token in range(tokenizer.vocab_size))
        return Model(settings=settings, program=program, tokenizer=tokenizer, template=template,
                     created=int(time.time()), longest=longest)

    @property
    def fingerprint(self) -> str:
        """Names what decides the tokens: the chip's config."""
        return f"fp_{self.program.config.digest()[:12]}"

    def entry(self, name: str) -> dict[str, object]:
        """What /v1/models tells."""
        context = self.program.context
        return {"id": name, "object": "model", "created": self.created, "owned_by": "metronome", "active": True,
                "context_window": context, "max_completion_tokens": context, "public_apps": None,
                "x_tsp": {"config": self.program.config.name, "chat": self.template is not None}}

    def check_name(self, name: str) -> None:
        """Raises ApiError for another model."""
        if not self.settings.knows(name):
            raise ApiError(404, f"The model `{name[:100]}` does not exist; this server has `{self.settings.name}`",
                           param="model", code="model_not_found")

    # --- texts ---------------------------------------------------------------------------------------------------

    async def tokens(self, text: str) -> list[int]:
        """The prompt of a text. Raises ApiError on text that no tokens express, or too much of it."""
        return await self._encoded(self.tokenizer.prompt, text, "prompt")

    async def plain_tokens(self, text: str) -> list[int]:
        """The tokens of a text alone. Raises ApiError as `tokens`."""
        return await self._encoded(lambda t: self.tokenizer.encode(t, bos=False), text, "prompt")

    async def _encoded(self, encode: Callable[[str], list[int]], text: str, param: str) -> list[int]:
        if len(text) > self.program.context * self.longest:
            raise self._too_long(f"a text of {len(text)} letters", param)
        try:
            return await asyncio.to_thread(encode, text) if len(text) > AT_ONCE else encode(text)
        except TspError as error:
            raise ApiError(400, str(error), param=param) from error

    def _too_long(self, what: str, param: str) -> ApiError:
        return ApiError(400, f"This model's maximum context length is {self.program.context} tokens. However, your "
                             f"prompt is {what}. Please shorten it.", param=param, code="context_length_exceeded")

    async def chat_tokens(self, messages: Sequence[Message]) -> list[int]:
        """The prompt of a conversation. Raises ApiError."""
        if self.template is None:
            raise ApiError(400, f"`{self.settings.name}` has no chat template: it is a completion model. Use "
                                "/v1/completions, or start the server with --chat-template", param="messages",
                           code="no_chat_template")
        plain = [{"role": m.role, **(m.model_extra or {}), "content": text_of(m, n)} for n, m in enumerate(messages)]
        try:
            text = self.template.render(plain)
        except TemplateError as error:
            raise ApiError(400, str(error), param="messages") from error
        return await self._encoded(lambda t: prompt_of(self.tokenizer, t), text, "messages")

    def check_prompt(self, prompt: Sequence[int], param: str = "prompt") -> list[int]:
        """A prompt that begins as the program wants it, if the context has room for it. Raises ApiError."""
        prompt = begun(self.program, prompt or [self.tokenizer.bos])
        if len(prompt) > self.program.context:
            raise self._too_long(f"{len(prompt)} tokens", param)
        if bad := [token for token in prompt if not 0 <= token < self.program.model.vocab_size]:
            raise ApiError(400, f"prompt: tokens must be in 0..{self.program.model.vocab_size - 1}, not {bad[0]}",
                           param="prompt")
        return list(prompt)

    # --- requests ------------------------------------------------------------------------------------------------

    async def questions_of_chat(self, request: ChatRequest) -> list[Question]:
        """One for each choice. Raises ApiError."""
        prompt = self.check_prompt(await self.chat_tokens(request.messages), "messages")
        alternatives = (request.top_logprobs or 0) if request.logprobs else None
        tokens = request.max_completion_tokens or request.max_tokens
        return self._choices(request, [prompt], tokens, alternatives)

    async def questions_of_completion(self, request: CompletionRequest) -> list[Question]:
        """One for each prompt and choice. Raises ApiError."""
        prompts = [self.check_prompt(p if isinstance(p, list) else await self.tokens(p))
                   for p in prompts_of(request)]
        return self._choices(request, prompts, request.max_tokens or DEFAULT_TOKENS, request.logprobs)

    def _choices(self, request: Common, prompts: Sequence[list[int]], tokens: int | None,
                 alternatives: int | None) -> list[Question]:
        sampling, stops = sampling_of(request, self.program.model.vocab_size), stops_of(request)
        return [Question(prompt=prompt, tokens=tokens, stop=stops, alternatives=alternatives,
                         sampling=replace(sampling, seed=(sampling.seed + n) % (1 << 64)))
                for prompt in prompts for n in range(request.n or 1)]


DEFAULT_TOKENS = 16
"""New tokens of a completion that names no number, as OpenAI has it."""
MOST_PROMPTS = 16


def prompts_of(request: CompletionRequest) -> list[str | list[int]]:
    """Each prompt of a completion request: text, or tokens. Raises ApiError if there are too many."""
    prompt = request.prompt if request.prompt is not None else ""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt or isinstance(prompt[0], int):
        return [[token for token in prompt if isinstance(token, int)]]
    if len(prompt) > MOST_PROMPTS:
        raise ApiError(400, f"prompt must have at most {MOST_PROMPTS} prompts, not {len(prompt)}", param="prompt")
    return [p for p in prompt if not isinstance(p, int)]
