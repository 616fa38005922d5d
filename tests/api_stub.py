"""A small server that answers as an OpenAI-compatible one does, for tests of clients."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

CYCLES, CLOCK = 4000, 50.0


@dataclass
class Stub:
    """How the server behaves. seconds: of a token, by the number of the request. status: answered instead, from request
    `refuse_from` on. chat: whether chat completions are served. chip: send `x_tsp`; timed: with measured cycles; off:
    cycles too many. cut: an error after the first token; ends: send the end of the stream."""

    words: tuple[str, ...] = ("Once", " upon", " a", " time")
    seconds: Callable[[int], float] = lambda number: 0.002
    status: int = 0
    refuse_from: int = 0
    chat: bool = True
    chip: bool = True
    timed: bool = True
    off: int = 0
    models: Any = field(default_factory=lambda: {"data": [{"id": "stub"}]})
    cut: bool = False
    ends: bool = True
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serving(stub: Stub) -> Iterator[str]:
    """The base URL of a running server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    numbers, lock = count(), threading.Lock()
    at_once = [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._whole(200, stub.models)
            else:
                self._whole(404, {"error": {"message": "not found"}})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            stub.seen.append(body)
            stub.keys.append(self.headers.get("authorization"))
            number = next(numbers)
            chat = self.path == "/v1/chat/completions"
            if chat and not stub.chat:
                return self._whole(400, {"error": {"message": "the model has no chat template", "param": "messages"}})
            if stub.status and number >= stub.refuse_from:
                return self._whole(stub.status, {"error": {"message": "the queue is full"}})
            with lock:
                at_once[0] += 1
                stub.most_at_once = max(stub.most_at_once, at_once[0])
            try:
                self._stream(chat, number)
            except ConnectionError:
                pass  # the client has left
            finally:
                with lock:
                    at_once[0] -= 1

        def _whole(self, status: int, body: object) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, chat: bool, number: int) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            if chat:
                self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            for word in stub.words:
                time.sleep(stub.seconds(number))
                choice = {"index": 0, "delta": {"content": word}} if chat else {"index": 0, "text": word}
                told = {"token": 1, "predicted_cycles": CYCLES, "measured_cycles": CYCLES if stub.timed else None}
                self._event({"choices": [choice]} | ({"x_tsp": told} if stub.chip else {}))
                if stub.cut:
                    self._event({"error": {"message": "uncorrectable error"}})
                    return
            total = CYCLES * (len(stub.words) + 2)
            measured = total + stub.off if stub.timed else None
            told = {"device": "stub", "clock_mhz": CLOCK, "predicted_cycles": total, "measured_cycles": measured,
                    "on_chip_prompt_time": 3 * CYCLES / CLOCK / 1e6 if stub.timed else None}
            last = {"index": 0, "finish_reason": "length", **({"delta": {}} if chat else {"text": ""})}
            self._event({"choices": [last]} | ({"x_tsp": told} if stub.chip else {}))
            usage = {"prompt_tokens": 3, "completion_tokens": len(stub.words),
                     "prompt_tokens_details": {"cached_tokens": 2}}
            self._event({"choices": [], "usage": usage})
            if stub.ends:
                self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, body: object) -> None:
            self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")

    return Handler
