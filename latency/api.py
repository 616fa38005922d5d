"""A client of an OpenAI-compatible server that measures how long its streamed answers take."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from base.errors import TspError

from .sample import Reader, Sample

CONNECT_SECONDS = 5.0
SHOWN = 200
"""Letters of a server's message that an error repeats."""


class Refused(TspError):
    """The server answered, with an error. status: of HTTP, 200 for an error within a stream."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request. chat: of chat completions, otherwise of plain ones."""

    model: str
    prompt: str
    tokens: int
    chat: bool = True
    temperature: float = 0.0
    seed: int = 0

    @property
    def path(self) -> str:
        """Below the base URL."""
        return "chat/completions" if self.chat else "completions"

    @property
    def body(self) -> dict[str, Any]:
        """The request's JSON."""
        asked = {"messages": [{"role": "user", "content": self.prompt}]} if self.chat else {"prompt": self.prompt}
        return {"model": self.model, **asked, "max_tokens": self.tokens, "temperature": self.temperature,
                "seed": self.seed, "stream": True, "stream_options": {"include_usage": True}}


class Api:
    """A server by its base URL; `/v1` is added to one without a path. seconds: to wait for the next piece of an answer.

    Every method raises TspError, one line that begins with the URL, if nobody or nobody of the right kind answers.
    """

    def __init__(self, url: str, *, key: str = "", seconds: float = 60.0) -> None:
        self.url = url
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise TspError(f"{url}: no URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise TspError(f"{url}: this is not the URL of a server: give one such as http://127.0.0.1:8000/v1")
        base = parsed if parsed.path.strip("/") else parsed.copy_with(path="/v1")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.AsyncClient(base_url=base, headers=headers,
                                          timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS))

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def models(self) -> list[str]:
        """Names of the models that the server has."""
        try:
            response = await self._client.get("models")
        except httpx2.HTTPError as error:
            raise self._failed(error) from None
        if response.status_code != 200:
            raise self._refused("GET models", response)
        try:
            found = [entry["id"] for entry in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise TspError(f"{self.url}: this is not an OpenAI-compatible API: GET models gives no list of "
                           "models") from None
        if not found:
            raise TspError(f"{self.url}: the server has no model")
        return found

    async def question(self, model: str | None, prompt: str, tokens: int) -> tuple[Question, Sample]:
        """What to ask, tried once: the first model if none is named, and as a chat if the model can chat."""
        question = Question(model=model or (await self.models())[0], prompt=prompt, tokens=tokens)
        try:
            return question, await self.ask(question)
        except Refused as refused:
            if refused.status not in (400, 404):
                raise
            plain = Question(model=question.model, prompt=prompt, tokens=tokens, chat=False)
            try:
                return plain, await self.ask(plain)
            except Refused:
                raise refused from None

    async def ask(self, question: Question) -> Sample:
        """Ask, and measure the answer. Raises Refused on an error of the server's."""
        reader = Reader(time.perf_counter())
        try:
            async with self._client.stream("POST", question.path, json=question.body) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._refused(f"POST {question.path}", response)
                async for event in httpx2.EventSource(response):
                    if event.data == "[DONE]":
                        break
                    self._take(reader, event.json())
                else:
                    raise TspError(f"{self.url}: the answer stops before its end")
                found = reader.sample(time.perf_counter())
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.SSEError) as error:
            raise self._failed(error) from None
        except ValueError as error:
            raise TspError(f"{self.url}: a chunk is not JSON: {error}") from None
        if found is None:
            raise Refused(200, f"{self.url}: the answer to POST {question.path} had no token")
        return found

    def _take(self, reader: Reader, chunk: object) -> None:
        if not isinstance(chunk, Mapping):
            raise TspError(f"{self.url}: a chunk must be a JSON object")
        if chunk.get("error"):
            raise Refused(200, f"{self.url}: {_message(chunk)}")
        reader.take(chunk, time.perf_counter())

    def _refused(self, what: str, response: httpx2.Response) -> Refused:
        try:
            said = _message(response.json())
        except ValueError:
            said = "which is not an answer of an OpenAI-compatible API"
        return Refused(response.status_code, f"{self.url}: {what} answers {response.status_code}: {said}")

    def _failed(self, error: Exception) -> TspError:
        kind = {httpx2.ConnectTimeout: f"nobody answers within {CONNECT_SECONDS:g} s",
                httpx2.ReadTimeout: "the answer stops: the next piece of it does not come in time"}.get(type(error))
        said = kind or (f"cannot connect: {error}" if isinstance(error, httpx2.ConnectError) else
                        str(error) or type(error).__name__)
        return TspError(f"{self.url}: {said}")


def _message(body: object) -> str:
    """What an error says, shortened."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    said = error.get("message", error) if isinstance(error, Mapping) else error
    return " ".join(str(said).split())[:SHOWN]
