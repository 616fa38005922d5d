"""From questions to an answer on the wire: whole or streamed, and given up as soon as the client has left."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from run.answer import Question

from .answers import ALIVE, DONE, Progress, Shape, cycles_of, event, usage, x_tsp
from .engine import Engine, QueueFull
from .errors import ApiError
from .guard import Limits
from .ticket import Ticket
from .worker import FAULT, LOST, MISMATCH, Message

ALIVE_SECONDS = 15.0
"""A stream is not silent for longer."""
READ_SECONDS = 60.0
"""A stream may take so much longer than its answers."""
FAULTS = {MISMATCH: "the chip took other cycles than were predicted", FAULT: "the chip reported an error",
          LOST: "the device was lost"}


class Gone(Exception):
    """The client has left."""


class Json(Response):
    """JSON in ASCII, in which every text can be written."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """As `json.dumps`."""
        return json.dumps(content, separators=(",", ":")).encode()


class Asker:
    """Asks the engine for one request, question by question; a client that leaves takes its ticket along.

    limits: on which tokens are counted. Close it at the end.
    """

    def __init__(self, engine: Engine, request: Request, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._owner: str = request.scope["state"]["owner"]
        self._ticket: Ticket | None = None
        self._gone = False
        self._tick: asyncio.TimerHandle | None = None
        self._watch = asyncio.create_task(self._until_gone(request.receive))

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._ticket:
            self._engine.leave(self._ticket)
            self._ticket.tell({"is": "gone"})

    def submit(self, index: int, question: Question) -> Progress:
        """Ask. Raises ApiError if there is no room, Gone."""
        if self._gone:
            raise Gone
        try:
            self._ticket = self._engine.submit(self._owner, question)
        except QueueFull as error:
            raise ApiError(503, str(error), code="queue_full", retry=error.seconds) from error
        return Progress(index, self._ticket)

    async def next(self, choice: Progress) -> Message:
        """The next event of a choice, which is counted in. Raises ApiError if it comes to nothing, Gone."""
        message = await choice.ticket.events.get()
        kind = message["is"]
        if kind == "gone":
            raise Gone
        if kind == "refused":
            raise ApiError(503, message["message"], code="queue_full", retry=message["seconds"])
        if kind == "invalid":
            raise ApiError(400, message["message"])
        if kind == "fault":
            what = FAULTS.get(message["kind"], "the device failed")
            raise ApiError(500, f"{what}: {message['message']}", kind=message["kind"], code=message["kind"])
        choice.take(message)
        if kind == "end":
            self._limits.spend(len(choice.pieces))
        return message

    def keep_alive(self) -> None:
        """From now on, an event "tick" every few seconds."""
        self._tick = asyncio.get_running_loop().call_later(ALIVE_SECONDS, self._alive)

    def _alive(self) -> None:
        if self._ticket:
            self._ticket.tell({"is": "tick"})
        self.keep_alive()

    def close(self) -> None:
        """Let go of whatever still runs."""
        self._watch.cancel()
        if self._tick:
            self._tick.cancel()
        if self._ticket:
            self._engine.leave(self._ticket)
            self._ticket = None


async def respond(engine: Engine, request: Request, shape: Shape, questions: Sequence[Question], *, stream: bool,
                  include_usage: bool) -> Response:
    """The response to a request. A stream begins only when its first token is there. Raises ApiError."""
    limits: Limits = request.scope["state"]["limits"]
    limits.admit(sum({id(q.prompt): len(q.prompt) for q in questions}.values()))
    asker = Asker(engine, request, limits)
    try:
        if not stream:
            return Json(shape.answer([await _whole(asker, n, q) for n, q in enumerate(questions)]))
        choice = asker.submit(0, questions[0])
        while (first := await asker.next(choice))["is"] not in ("piece", "end"):
            pass
    except Gone:
        asker.close()
        return Response(status_code=499)  # nobody reads it
    except BaseException:
        asker.close()
        raise
    finally:
        if not stream:
            asker.close()
    parts = Stream(asker, shape, questions, include_usage).parts(choice, first)
    return EventStream(parts, asker.close, READ_SECONDS + len(questions) * 2 * engine.seconds)


async def _whole(asker: Asker, index: int, question: Question) -> Progress:
    choice = asker.submit(index, question)
    while (await asker.next(choice))["is"] != "end":
        pass
    return choice


class Stream:
    """Makes the events of a streamed answer."""

    def __init__(self, asker: Asker, shape: Shape, questions: Sequence[Question], include_usage: bool) -> None:
        self._asker, self._shape, self._questions = asker, shape, questions
        self._include_usage = include_usage
        self._head = shape.head(shape.chunk)

    async def parts(self, choice: Progress, first: Message) -> AsyncIterator[bytes]:
        """Bytes to send; `first` is the first piece of the first choice. What fails now is an event with an error."""
        done: list[Progress] = []
        self._asker.keep_alive()
        try:
            while True:
                async for data in self._choice(choice, first):
                    yield data
                done.append(choice)
                if len(done) == len(self._questions):
                    break
                choice = self._asker.submit(len(done), self._questions[len(done)])
                first = await self._asker.next(choice)
            yield self._end(done) + DONE
        except ApiError as error:
            yield event(error.body)
        except Gone:
            return

    async def _choice(self, choice: Progress, message: Message) -> AsyncIterator[bytes]:
        opening = self._shape.opening(choice)
        data = self._chunk(opening) if opening else b""
        while message["is"] != "end":
            if message["is"] == "piece":
                data += self._chunk(self._shape.part(choice, message), x_tsp=cycles_of(message))
            elif message["is"] == "tick":
                data += ALIVE
            if choice.ticket.events.empty() and data:
                yield data
                data = b""
            message = await self._asker.next(choice)
        if data:
            yield data

    def _end(self, done: list[Progress]) -> bytes:
        """The last chunk of every choice, and the usage."""
        found, data = usage(done), b""
        for choice in done[:-1]:
            data += self._chunk(self._shape.part(choice, None))
        data += self._chunk(self._shape.part(done[-1], None), x_tsp=x_tsp(done),
                            x_groq={"id": self._shape.request_id, "usage": found})
        if self._include_usage:
            data += event(self._head | {"choices": [], "usage": found})
        return data

    def _chunk(self, choice: Mapping[str, Any], **more: Any) -> bytes:
        return event(self._head | {"choices": [choice]} | more)


class EventStream(Response):
    """Sends what it is given. close: called in any case at the end. seconds: after which a client that does not read is
    left.
    """

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncIterator[bytes], close: Callable[[], None], seconds: float) -> None:
        self._parts, self._close, self._seconds = parts, close, seconds
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing when the client has left."""
        try:
            async with asyncio.timeout(self._seconds):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for data in self._parts:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except (OSError, TimeoutError):  # the client has left, or does not read
            pass
        finally:
            self._close()
