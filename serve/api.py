"""The paths of the server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from .answers import Chat, Completion
from .declared import (
    ERRORS,
    PLAIN,
    ChatCompletion,
    Health,
    ModelEntry,
    Models,
    Prompt,
    TextCompletion,
    Tokens,
    streamed,
)
from .engine import Engine
from .errors import ApiError, of_exception, of_validation
from .errors import body as body_of_error
from .guard import Guard
from .metrics import Metrics
from .model import Model
from .page import policy
from .program_figures import program_figures
from .respond import Json, respond
from .schema import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest, check

MOUNTS = ("/v1", "/openai/v1", "/openai/v1/openai/v1")
"""OpenAI's prefix, Groq's, and that of a Groq client which was given OpenAI's base URL."""

PAGE = Path(__file__).with_name("page.html").read_text()
PAGE_HEADERS = {"cache-control": "no-cache", "content-security-policy": policy(PAGE),
                "x-content-type-options": "nosniff"}


def application(model: Model, engine: Engine, metrics: Metrics) -> Guard:
    """The ASGI application. The engine starts and ends with it."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await engine.close()

    app = FastAPI(title="Metronome", lifespan=life, docs_url=None, redoc_url=None)
    api = _api(model, engine)
    for n, mount in enumerate(MOUNTS):
        app.include_router(api, prefix=mount, include_in_schema=not n)
    app.include_router(_tools(model, engine, metrics))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _bug)
    return Guard(app, model.settings)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, body, headers = of_exception(error)
    return Json(body, status, dict(headers))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _http_error(request, of_validation(error))


async def _bug(_: Request, error: Exception) -> Response:
    """uvicorn writes the traceback to its log."""
    return Json(body_of_error(500, f"a bug of the server: {type(error).__name__}", code="internal_error"), 500)


def _api(model: Model, engine: Engine) -> APIRouter:
    api = APIRouter(responses=ERRORS)

    @api.post("/chat/completions", responses=streamed(ChatCompletion))
    async def chat(body: ChatRequest, request: Request) -> Response:
        """An answer to a conversation."""
        model.check_name(body.model)
        check(body)
        questions = await model.questions_of_chat(body)
        return await respond(engine, request, Chat(model, request.state.request_id, request.url.path), questions,
                             stream=bool(body.stream),
                             include_usage=bool(body.stream_options and body.stream_options.include_usage))

    @api.post("/completions", responses=streamed(TextCompletion))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """What follows a text."""
        model.check_name(body.model)
        check(body)
        questions = await model.questions_of_completion(body)
        return await respond(engine, request, Completion(model, request.state.request_id, request.url.path), questions,
                             stream=bool(body.stream),
                             include_usage=bool(body.stream_options and body.stream_options.include_usage))

    @api.get("/models", response_model=Models)
    async def models() -> Response:
        """The model, under all its names."""
        names = [model.settings.name, *(a for a in model.settings.aliases if a != "*")]
        return Json({"object": "list", "data": [model.entry(name) for name in names]})

    @api.get("/models/{name:path}", response_model=ModelEntry)
    async def one_model(name: str) -> Response:
        """One of the names."""
        model.check_name(name)
        return Json(model.entry(name))

    return api


def _tools(model: Model, engine: Engine, metrics: Metrics) -> APIRouter:
    tools = APIRouter(responses=PLAIN)

    @tools.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """200 while a device answers questions, and what each device does."""
        state = _health(engine)
        return Json(state, 200 if state["status"] in ("ok", "degraded") else 503)

    @tools.get("/", include_in_schema=False)
    async def page() -> Response:
        """Chat in the browser, and what the chip does meanwhile."""
        return Response(PAGE, headers=PAGE_HEADERS, media_type="text/html")

    @tools.get("/tsp/program", responses=ERRORS)
    async def figures() -> Response:
        """What is known of the program: the chip, cycles a token, and how busy its units are."""
        return Json(program_figures(model.program))

    @tools.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Figures for Prometheus."""
        metrics.running.set(engine.running)
        metrics.waiting.set(engine.waiting)
        metrics.in_service.set(engine.alive)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @tools.post("/tokenize", response_model=Tokens, responses=ERRORS)
    async def tokenize(body: TokenizeRequest) -> Response:
        """The tokens of a text, or of messages as the chat template writes them."""
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "give either prompt or messages", param="prompt")
        if body.prompt is None:
            tokens = await model.chat_tokens(body.messages or [])
        elif body.add_special_tokens:
            tokens = await model.tokens(body.prompt)
        else:
            tokens = await model.plain_tokens(body.prompt)
        return Json({"tokens": tokens, "count": len(tokens), "max_model_len": model.program.context})

    @tools.post("/detokenize", response_model=Prompt, responses=ERRORS)
    async def detokenize(body: DetokenizeRequest) -> Response:
        """The text of tokens."""
        return Json({"prompt": model.tokenizer.decode(_known(model, body.tokens))})

    return tools


def _known(model: Model, tokens: Sequence[int]) -> Sequence[int]:
    vocab = model.program.model.vocab_size
    if bad := [token for token in tokens if not 0 <= token < vocab]:
        raise ApiError(400, f"tokens must be in 0..{vocab - 1}, not {bad[0]}", param="tokens")
    return tokens


def _health(engine: Engine) -> dict[str, Any]:
    devices = [{"device": h.name, "state": h.state.value, "reason": h.reason or None, "pid": h.pid,
                "clock_mhz": h.clock_mhz} for h in engine.handles]
    status = ("draining" if engine.draining else "starting" if not engine.settled.is_set() and not engine.alive
              else "down" if not engine.alive else "ok" if engine.alive == len(engine.handles) else "degraded")
    return {"status": status, "devices": devices, "running": engine.running, "waiting": engine.waiting,
            "wait_seconds": round(engine.wait_seconds, 3)}
