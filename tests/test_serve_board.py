"""`tsp serve` with a board, simulated at its pins: its answers, a lost line in mid-answer, and the board's return."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from checkpoints import REPOSITORY
from programs import small_program

from program.file import save
from program.program import Program
from program.tokenizer import Tokenizer
from run.answer import Answer, Question
from run.devices import open_device
from run.sampling import Sampling
from run.session import Session

MHZ = 62.5
SECONDS = 120.0
"""What a busy machine may need for anything here."""
LONG: dict[str, Any] = {"prompt": [1, 5, 9], "temperature": 0, "stream": True}
"""A request for as many tokens as the context has room for."""


def program() -> Program:
    """As small as the simulation of pins is slow."""
    return small_program(n_layers=1, vocab_size=50)


@contextmanager
def board(link: Path) -> Iterator[subprocess.Popen[str]]:
    """A board in a process of its own, whose terminal `link` points to, as udev does it for a real one."""
    command = [sys.executable, "-m", "fpga.simulate", "--config", "tiny", "--mhz", str(MHZ)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r" at (/dev/\S+):", process.stdout.readline())
            assert found
            link.unlink(missing_ok=True)
            link.symlink_to(found[1])
            yield process
        finally:
            process.kill()


@dataclass
class Served:
    """A `tsp serve` that runs: what it says, and its port."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    @property
    def port(self) -> int:
        """Where it listens; waits until it does."""
        while not (found := re.search(r"at http://127.0.0.1:(\d+)/v1", "".join(self.said))):
            assert self.process.poll() is None, "".join(self.said)
            time.sleep(0.02)
        return int(found[1])

    def _listen(self) -> None:
        assert self.process.stderr
        with self.process.stderr:
            self.said.extend(self.process.stderr)

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self._listener.join(SECONDS)

    def wait(self, what: Callable[[], Any]) -> None:
        """Until `what()` is true."""
        end = time.monotonic() + SECONDS
        while not what():
            assert time.monotonic() < end and self.process.poll() is None, "".join(self.said)
            time.sleep(0.02)

    def _send(self, method: str, path: str, body: str | None = None) -> HTTPResponse:
        """The response, whose end closes the connection."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        connection.request(method, path, body, {"content-type": "application/json", "connection": "close"})
        return connection.getresponse()

    def ask(self, body: dict[str, Any]) -> HTTPResponse:
        """POST /v1/completions; its head is there."""
        return self._send("POST", "/v1/completions", json.dumps({"model": "small", **body}))

    def answer(self, **body: Any) -> Any:
        """The whole answer."""
        response = self.ask({"prompt": [1, 5, 9], "temperature": 0, "max_tokens": 8, **body})
        assert response.status == 200, response.read()
        return json.loads(response.read())

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /health."""
        response = self._send("GET", "/health")
        return response.status, json.loads(response.read())


@contextmanager
def served(folder: Path, device: Path) -> Iterator[Served]:
    save(program(), folder / "small.tsp")
    command = [sys.executable, "-m", "cli.main", "serve", str(folder / "small.tsp"), "--port", "0", "--device",
               str(device)]
    server = Served(subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True))
    try:
        yield server
    finally:
        server.end()


def solo(sampling: Sampling, tokens: int) -> list[int]:
    """The tokens that the reference device gives to the same request."""
    session = Session(open_device("reference", program().config), program())
    answer = Answer(session, Tokenizer.from_bytes(program().tokenizer),
                    Question(prompt=[1, 5, 9], tokens=tokens, sampling=sampling))
    list(answer.prefill())
    return [piece.token for piece in answer.pieces()]


def events(response: HTTPResponse) -> Iterator[Any]:
    """The events of a stream, as they come."""
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


def tokens_of(response: HTTPResponse) -> list[int]:
    return [event["x_tsp"]["token"] for event in events(response) if "token" in event.get("x_tsp", {})]


@pytest.mark.nightly
def test_a_board_answers_is_lost_and_comes_back(tmp_path: Path):
    port = tmp_path / "board"
    with board(port) as first, served(tmp_path, port) as server:
        server.wait(lambda: server.health()[0] == 200)
        assert server.health()[1]["devices"][0]["clock_mhz"] == MHZ
        body = server.answer(temperature=1, seed=7)
        x_tsp = body["x_tsp"]
        assert (x_tsp["device"], x_tsp["sampled_by"]) == (str(port), "chip")
        assert x_tsp["predicted_cycles"] == x_tsp["measured_cycles"] > 0
        assert x_tsp["on_chip_prompt_time"] + x_tsp["on_chip_completion_time"] == pytest.approx(
            x_tsp["measured_cycles"] / MHZ / 1e6)
        drawn = Sampling(temperature=1, seed=7)
        assert tokens_of(server.ask({**LONG, "max_tokens": 8, "temperature": 1, "seed": 7})) == solo(drawn, 8)
        assert server.answer(temperature=1, seed=7, top_p=0.9)["x_tsp"]["sampled_by"] == "host"

        stream = server.ask(LONG)
        told = events(stream)
        assert stream.status == 200 and "choices" in next(told)
        first.kill()
        error = list(told)[-1]["error"]
        assert error["code"] == "device_lost" and str(port) in error["message"]
        status, health = server.health()
        assert status == 503 and health["status"] == "down"
        assert health["devices"][0]["state"] in ("lost", "starting") and str(port) in health["devices"][0]["reason"]
        refused = server.ask(LONG)
        assert refused.status == 503 and b"no device" in refused.read()
        with board(port):
            server.wait(lambda: server.health()[0] == 200)
            assert tokens_of(server.ask({**LONG, "max_tokens": 8})) == solo(Sampling(), 8)


@pytest.mark.nightly
def test_a_board_that_is_lost_while_it_rests_leaves_service(tmp_path: Path):
    port = tmp_path / "board"
    with board(port) as process, served(tmp_path, port) as server:
        server.wait(lambda: server.health()[0] == 200)
        process.kill()
        server.wait(lambda: server.health()[0] == 503)
        assert str(port) in server.health()[1]["devices"][0]["reason"]
