"""What every request passes first: its host, key, size, pace and limits."""

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .fair import Bucket
from .settings import LOCAL, Settings

BODY_SECONDS = 30.0
"""A body that takes longer is given up."""
OPEN = ("/", "/health", "/metrics", "/openapi.json")
"""Paths that need no key."""
MOST_OWNERS = 1024
"""Owners whose limits are kept; with keys there are as many as keys."""


class Guard:
    """Lets requests in. Their `scope["state"]` has `owner`, `limits` and `request_id`; the body is read by then."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._limits: dict[str, Limits] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = f"req_{secrets.token_hex(12)}"
        extra = {"x-request-id": state["request_id"]}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                limits: Limits | None = state.get("limits")
                headers = extra | (limits.headers() if limits else {})
                message["headers"] = [*message.get("headers", ()), *((k.encode(), v.encode())
                                                                     for k, v in headers.items())]
            await send(message)

        try:
            headers = {name: value for name, value in scope["headers"]}
            self._check_host(headers)
            state["owner"] = self._owner(scope, headers)
            state["limits"] = self._limits_of(state["owner"])
            body = await self._body(headers, receive)
        except ApiError as error:
            await refuse(answer, error)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), answer)

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """A page from elsewhere must not reach a server without keys through a name of its own."""
        if self._settings.keys:
            return
        host = headers.get(b"host", b"localhost").decode("latin-1").rsplit("@")[-1].lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if name not in (*LOCAL, self._settings.host):
            raise ApiError(403, f"without keys this server answers only requests for the hosts {', '.join(LOCAL)}, "
                                f"not {name[:60]!r}")

    def _owner(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """Who asks: a key, or an address. Raises ApiError."""
        if not self._settings.keys:
            return str((scope.get("client") or ("",))[0])
        if scope["path"] in OPEN:
            return ""
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        found = -1
        for n, key in enumerate(self._settings.keys):  # all of them, so that the time tells nothing
            if hmac.compare_digest(key.encode(), given.strip()):
                found = n
        if found < 0 or kind.lower() != b"bearer":
            raise ApiError(401, "Incorrect API key provided: send one as `Authorization: Bearer KEY`",
                           code="invalid_api_key")
        return f"key {found}"

    def _limits_of(self, owner: str) -> "Limits":
        if owner not in self._limits and len(self._limits) >= MOST_OWNERS:
            self._limits.pop(next(iter(self._limits)))
        return self._limits.setdefault(owner, Limits(self._settings))

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
        """The body; None if the client has left. Raises ApiError."""
        most = self._settings.body
        too_large = ApiError(413, f"the body must have at most {most} bytes", code="request_too_large")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None


class Limits:
    """What an owner may still ask for."""

    def __init__(self, settings: Settings) -> None:
        now = time.monotonic()
        self.buckets = {"requests": Bucket(settings.requests, now), "tokens": Bucket(settings.tokens, now)}

    def admit(self, tokens: int) -> None:
        """Count a request and the tokens of its prompt. Raises ApiError if that is too much just now."""
        now = time.monotonic()
        for kind, amount in (("requests", 1), ("tokens", tokens)):
            wait = self.buckets[kind].wait(amount, now)
            if wait > 0:
                raise ApiError(429, f"Rate limit reached: {self.buckets[kind].limit:g} {kind} per minute. Please try "
                                    f"again in {wait:.3g}s.", kind=kind, code="rate_limit_exceeded", retry=wait)
        for kind, amount in (("requests", 1), ("tokens", tokens)):
            self.buckets[kind].spend(amount, now)

    def spend(self, tokens: int) -> None:
        """Count tokens that were made."""
        self.buckets["tokens"].spend(tokens, time.monotonic())

    def headers(self) -> dict[str, str]:
        """x-ratelimit-*."""
        now, found = time.monotonic(), {}
        for kind, bucket in self.buckets.items():
            found[f"x-ratelimit-limit-{kind}"] = str(int(bucket.limit))
            found[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level(now))))
            found[f"x-ratelimit-reset-{kind}"] = f"{bucket.reset(now):.3f}s"
        return found


async def refuse(send: Send, error: ApiError) -> None:
    """Answer with an error, outside of the framework."""
    data = json.dumps(error.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(data)), **(error.headers or {})}
    if error.status_code in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not waited for
    await send({"type": "http.response.start", "status": error.status_code,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
    await send({"type": "http.response.body", "body": data})


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, and then what comes."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again
