"""A server for tests: it runs in a thread of the test, its devices in processes of their own."""

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from checkpoints import REPOSITORY

from base.inputs import template_beside
from program.file import save
from program.program import Program
from program.rack import AnyProgram
from run.chat import ChatTemplate
from run.programs import open_program
from serve.api import application
from serve.engine import Engine
from serve.handle import COMMAND
from serve.http import Protocol
from serve.metrics import Metrics
from serve.model import Model
from serve.server import bind
from serve.settings import Settings

SHIPPED = REPOSITORY / "models" / "stories263k.bin"
NAME = "stories263k"
SECONDS = 120.0
"""What a busy machine may need to start a device."""
Json = dict[str, Any]


@cache
def shipped() -> Program:
    """The shipped model, compiled."""
    return open_program(SHIPPED)


@dataclass
class Answer:
    """A response: status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.data)

    @property
    def events(self) -> list[Any]:
        """The events of a stream, without the end, which must be there."""
        lines = [line for line in self.data.decode().split("\n\n") if line and not line.startswith(":")]
        assert lines[-1] == "data: [DONE]", lines[-1]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@dataclass
class Running:
    """A server that runs. port: of 127.0.0.1."""

    port: int
    engine: Engine
    settings: Settings

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def send(self, method: str, path: str, body: Json | bytes | None = None, **headers: str) -> Answer:
        """One request."""
        connection = self.connect()
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            given = {"content-type": "application/json"} if data is not None else {}
            connection.request(method, path, data, given | {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def complete(self, prompt: Any = "Once upon a time", **fields: Any) -> Answer:
        """POST /v1/completions."""
        return self.send("POST", "/v1/completions", {"model": NAME, "prompt": prompt, "max_tokens": 8, **fields})

    def chat(self, text: str = "Once upon a time", **fields: Any) -> Answer:
        """POST /v1/chat/completions."""
        messages = [{"role": "user", "content": text}]
        return self.send("POST", "/v1/chat/completions", {"model": NAME, "messages": messages, "max_tokens": 8,
                                                          **fields})

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.send("GET", "/metrics").data.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and line[len(name)] in " {")

    def wait(self, what: Any, seconds: float = SECONDS) -> None:
        """Until `what()` is true."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.005)


@contextmanager
def running(*, program: AnyProgram | None = None, template: str | None = "", command: Sequence[str] = COMMAND,
            folder: Path, ready: bool = True, **settings: Any) -> Iterator[Running]:
    """A server on a free port. template: "" is the shipped model's. ready: wait until a device is."""
    program = program or shipped()
    source = template_beside(SHIPPED) if template == "" else template
    file = folder / "served.tsp"
    save(program, file)
    chosen = replace(Settings(name=NAME), **settings)
    metrics = Metrics(chosen.name)
    engine = Engine(chosen.devices, file, most=chosen.most, seconds=chosen.seconds, observe=metrics.observe,
                    command=command, sequences=program.sequences)
    app = application(Model.of(chosen, program, None if source is None else ChatTemplate(source)), engine, metrics)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, http=Protocol, ws="none",
                                           timeout_graceful_shutdown=2, lifespan="on"))
    with bind("127.0.0.1", 0) as listener:
        found = Running(listener.getsockname()[1], engine, chosen)
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            if ready:
                found.wait(lambda: server.started and engine.alive == len(engine.handles))
            yield found
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            for handle in engine.handles:
                handle.kill()
    assert not thread.is_alive(), "the server did not end"


def script(folder: Path, text: str) -> tuple[str, ...]:
    """The command of a worker that does something first, such as to make its device fail."""
    file = folder / "worker_for_a_test.py"
    file.write_text(text + "\nfrom serve import worker\nworker.main()\n")
    return sys.executable, str(file)
