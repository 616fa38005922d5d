"""HTTP of one connection: uvicorn's, with limits on what comes before a request's body."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""A request's head that takes longer ends its connection."""
HEAD_BYTES = 1 << 16
"""The head of a request, at most."""
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Protocol(HttpToolsProtocol):
    """Closes a connection that sends no head, a slow one or an endless one."""

    _waiting: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._expected()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head."""
        if self._waiting:
            self._head += len(data)
        super().data_received(data)
        if self._waiting and self._head > HEAD_BYTES:
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        if self._waiting is None:
            self._expect()

    def on_headers_complete(self) -> Any:
        """The head is there."""
        self._expected()
        return super().on_headers_complete()

    def _expect(self) -> None:
        self._head = 0
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _expected(self) -> None:
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
