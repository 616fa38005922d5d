"""A server under way: the queue, clients that leave, devices that fail, and the end."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from programs import small_program
from serving import NAME, SECONDS, SHIPPED, Answer, Running, running, script

from cli.main import app
from serve.handle import State

SLOW = """
import time
import sim.device.reference_device as reference
real = reference.ReferenceDevice._step
def slow(self):
    time.sleep(0.02)
    return real(self)
reference.ReferenceDevice._step = slow
"""
"""A device that takes 20 ms more for each token."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("slow")
    with running(folder=folder, command=script(folder, SLOW), most=4) as found:
        yield found


class Pending:
    """A long request that was sent."""

    def __init__(self, server: Running, fields: dict[str, Any]) -> None:
        self._connection = server.connect()
        body = {"model": NAME, "prompt": "Once upon a time", "max_tokens": 200, "logit_bias": {"1": -100, "2": -100}}
        self._connection.request("POST", "/v1/completions", json.dumps(body | fields),
                                 {"content-type": "application/json"})
        self._response: http.client.HTTPResponse | None = None

    @property
    def response(self) -> http.client.HTTPResponse:
        """Its head is waited for."""
        self._response = self._response or self._connection.getresponse()
        return self._response

    def read(self) -> str:
        """All of it; then the connection is closed."""
        text = self.response.read().decode()
        self.leave()
        return text

    def leave(self) -> None:
        """Close the connection now, whatever has come."""
        if self._connection.sock:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        if self._response:
            self._response.close()
        self._connection.close()


def begin(server: Running, **fields: Any) -> Pending:
    """Send a long request and do not wait."""
    return Pending(server, fields)


def free(server: Running) -> bool:
    return server.engine.running == 0 and server.engine.waiting == 0


def left_within(server: Running, request: Pending) -> float:
    """Seconds from the client's leaving until the device is free."""
    server.wait(lambda: server.engine.running == 1)
    time.sleep(0.1)
    began = time.monotonic()
    request.leave()
    server.wait(lambda: free(server))
    return time.monotonic() - began


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_device(slow: Running, stream: bool):
    before = slow.metric("tsp:aborted_total")
    connection = begin(slow, stream=stream)
    if stream:
        assert connection.response.status == 200
    assert left_within(slow, connection) < 2, "the answer would take 4 s"
    slow.wait(lambda: slow.metric("tsp:aborted_total") == before + 1)


def test_a_client_that_leaves_the_queue_is_forgotten(slow: Running):
    first = begin(slow, stream=True)
    slow.wait(lambda: slow.engine.running == 1)
    second = begin(slow)
    slow.wait(lambda: slow.engine.waiting == 1)
    second.leave()
    slow.wait(lambda: slow.engine.waiting == 0)
    assert slow.engine.running == 1
    left_within(slow, first)


def test_a_full_queue_says_when_to_come_again(slow: Running):
    connections = [begin(slow) for _ in range(5)]
    slow.wait(lambda: slow.engine.waiting == 4)
    answer = slow.complete()
    assert answer.status == 503 and answer.json["error"]["code"] == "queue_full"
    assert int(answer.headers["retry-after-ms"]) > 0 and int(answer.headers["retry-after"]) >= 1
    assert slow.send("GET", "/health").json["waiting"] == 4
    for connection in connections:
        connection.leave()
    slow.wait(lambda: free(slow))


def test_without_a_queue_a_busy_device_refuses_at_once(tmp_path: Path):
    with running(folder=tmp_path, command=script(tmp_path, SLOW), most=0) as server:
        first = begin(server, stream=True)
        server.wait(lambda: server.engine.running == 1)
        answer = server.complete()
        assert answer.status == 503 and answer.json["error"]["code"] == "queue_full"
        assert answer.json["error"]["message"].startswith("no device is free")
        assert server.engine.waiting == 0 and int(answer.headers["retry-after-ms"]) > 0
        left_within(server, first)
        assert server.complete(max_tokens=2, n=2).status == 200  # the second choice finds the device free again


def test_the_event_loop_goes_on_while_the_device_works(slow: Running):
    connection = begin(slow)
    slow.wait(lambda: slow.engine.running == 1)
    began = time.monotonic()
    for _ in range(20):
        assert slow.send("GET", "/health").status == 200
    assert time.monotonic() - began < 2 and slow.engine.running == 1
    left_within(slow, connection)


def test_an_answer_that_takes_too_long_is_cut(tmp_path: Path):
    with running(folder=tmp_path, command=script(tmp_path, SLOW), seconds=1.0) as server:
        body = json.loads(begin(server).read())
        assert body["choices"][0]["finish_reason"] == "length" and body["x_tsp"]["expired"]
        assert 1 < body["usage"]["completion_tokens"] < 60
        first, second = begin(server, stream=True), begin(server)
        assert first.response.status == 200
        assert second.response.status in (200, 503)  # it waited for about as long as it may
        second.leave()
        first.leave()


def test_two_devices_answer_two_requests_at_a_time(tmp_path: Path):
    with running(folder=tmp_path, command=script(tmp_path, SLOW), devices=("reference",) * 2) as server:
        connections = [begin(server) for _ in range(2)]
        server.wait(lambda: server.engine.running == 2)
        for connection in connections:
            connection.leave()
        server.wait(lambda: free(server))


# --- devices that fail ---------------------------------------------------------------------------------------------


def failing(action: str) -> str:
    """A worker whose device does something at position 20, the first time that a process comes there."""
    return f"""
import os, signal
import sim.device.reference_device as reference
from sim.device.protocol import TokenResult
from arch.host_map import Trap
real = reference.ReferenceDevice._step
errors = set()
reference.ReferenceDevice.errors = property(lambda self: errors)
def step(self):
    result = real(self)
    if self._state.position == 20:
        {action}
    return result
reference.ReferenceDevice._step = step
"""


def broken_stream(server: Running) -> dict[str, Any]:
    """The error in a stream that a device does not finish."""
    data = begin(server, stream=True).read()
    assert "[DONE]" not in data
    return json.loads(data.split("\n\n")[-2].removeprefix("data: "))["error"]


def test_a_killed_process_is_an_error_and_comes_back(tmp_path: Path):
    with running(folder=tmp_path) as server:
        [handle] = server.engine.handles
        for stream in (True, False):
            pid = handle.pid
            assert pid
            connection = begin(server, stream=stream)
            server.wait(lambda: server.engine.running == 1)
            os.kill(pid, signal.SIGKILL)
            status, data = connection.response.status, connection.read()
            assert "device_lost" in data and "signal 9" in data
            assert status == (200 if stream and data.startswith("data") else 500)
            server.wait(lambda: handle.state is State.READY)
            assert server.complete().status == 200
        assert server.metric("tsp:device_faults_total") == 2


@pytest.mark.parametrize(("action", "code"), [
    ("result = TokenResult(result.token, 1)", "schedule_mismatch"),
    ("errors.add(Trap.NOT_PARKED)", "uncorrectable_error"),
])
def test_a_device_that_breaks_its_promise_leaves_service(tmp_path: Path, action: str, code: str):
    command = script(tmp_path, failing(action))
    with running(folder=tmp_path, command=command, devices=("reference", "reference")) as server:
        assert broken_stream(server)["code"] == code
        health = server.send("GET", "/health")
        assert health.status == 200 and health.json["status"] == "degraded"
        assert server.complete(max_tokens=4).status == 200, "the other device answers"
        assert broken_stream(server)["code"] == code
        health = server.send("GET", "/health")
        assert health.status == 503 and health.json["status"] == "down"
        assert {device["state"] for device in health.json["devices"]} == {"out of service"}
        answer = server.complete()
        assert answer.status == 503 and "no device is in service" in answer.json["error"]["message"]
        assert server.metric("tsp:schedule_mismatch_total") == (2 if code == "schedule_mismatch" else 0)


def test_a_wrong_logit_in_the_self_test_keeps_a_device_out(tmp_path: Path):
    wrong = ("from sim.device.reference_device import ReferenceDevice as Device\n"
             "Device.logits = lambda self: self._logits.astype('i4') + 1")
    with running(folder=tmp_path, command=script(tmp_path, wrong), ready=False) as server:
        server.wait(lambda: server.engine.settled.is_set())
        health = server.send("GET", "/health")
        assert health.status == 503 and "integer reference" in health.json["devices"][0]["reason"]


def test_a_device_that_goes_while_it_rests_leaves_service(tmp_path: Path):
    going = """
from base.errors import TspError
import serve.worker
import sim.device.reference_device as reference
serve.worker.IDLE_SECONDS = 0.1
def check(self):
    raise TspError("the line was lost")
reference.ReferenceDevice.check = check
"""
    with running(folder=tmp_path, command=script(tmp_path, going), ready=False) as server:
        [handle] = server.engine.handles
        server.wait(lambda: handle.state is State.LOST)
        health = server.send("GET", "/health")
        assert health.status == 503 and health.json["devices"][0]["reason"] == "the line was lost"


def test_a_question_that_the_device_refuses_is_not_the_device_s_fault(tmp_path: Path):
    refusing = """
from base.errors import TspError
import serve.worker
def refuse(program, prompt):
    raise TspError("not this one")
serve.worker.check_prompt = refuse
"""
    with running(folder=tmp_path, command=script(tmp_path, refusing)) as server:
        for _ in range(2):
            answer = server.complete()
            assert answer.status == 400 and answer.json["error"]["message"] == "not this one"
        assert server.send("GET", "/health").json["status"] == "ok"


def test_a_program_with_a_constant_first_token_gets_it(tmp_path: Path):
    program = small_program(scales="robust")
    assert program.first_token >= 0
    with running(folder=tmp_path, program=program) as server:
        for prompt in ([30, 40], [program.first_token, 30, 40]):
            answer = server.complete(prompt)
            assert answer.status == 200 and answer.json["usage"]["prompt_tokens"] == 3


# --- keys and limits -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(folder=tmp_path_factory.mktemp("keys"), keys=("first-key", "second-key"), requests=5, tokens=400,
                 body=4096) as found:
        yield found


def test_keys(keyed: Running):
    wrong: list[dict[str, Any]] = [{}, {"authorization": "Bearer wrong-key"}, {"authorization": "Basic second-key"},
                                   {"authorization": "Bearer"}, {"authorization": "Bearer second-key x"}]
    for headers in wrong:
        answer = keyed.send("GET", "/v1/models", **headers)
        assert answer.status == 401 and "Incorrect API key provided" in answer.json["error"]["message"]
        assert answer.json["error"]["code"] == "invalid_api_key"
    assert keyed.send("GET", "/v1/models", authorization="Bearer second-key").status == 200
    assert keyed.send("GET", "/health").status == 200


def test_limits_are_a_key_s_own(keyed: Running):
    body = {"model": NAME, "prompt": "Once", "max_tokens": 1}

    def ask() -> Answer:
        return keyed.send("POST", "/v1/completions", body, authorization="Bearer first-key")

    answers = [ask() for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    error, headers = answers[-1].json["error"], answers[-1].headers
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert 0 < int(headers["retry-after-ms"]) <= 12_000 and headers["x-ratelimit-remaining-requests"] == "0"
    assert [int(a.headers["x-ratelimit-remaining-requests"]) for a in answers[:5]] == [4, 3, 2, 1, 0]
    long = body | {"prompt": [1] * 250}
    answers = [keyed.send("POST", "/v1/completions", long, authorization="Bearer second-key") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].json["error"]["type"] == "tokens"


def test_a_body_has_a_limit(keyed: Running):
    answer = keyed.send("POST", "/v1/completions", b" " * 5000, authorization="Bearer second-key")
    assert answer.status == 413 and "4096" in answer.json["error"]["message"]
    with socket.create_connection(("127.0.0.1", keyed.port)) as line:
        line.settimeout(SECONDS)
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: tsp\r\nauthorization: Bearer second-key\r\n"
                     b"transfer-encoding: chunked\r\n\r\n1388\r\n" + b" " * 5000)
        assert line.recv(100).startswith(b"HTTP/1.1 413")


def test_a_host_that_is_not_ours_is_refused_without_keys(slow: Running, keyed: Running):
    assert slow.send("GET", "/health", host="evil.example").status == 403
    assert slow.send("GET", "/health", host=f"localhost:{slow.port}").status == 200
    assert keyed.send("GET", "/health", host="tsp.example").status == 200


# --- connections ---------------------------------------------------------------------------------------------------


def test_slow_heads_and_bodies_are_given_up(slow: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serve.http.HEAD_SECONDS", 0.3)
    monkeypatch.setattr("serve.guard.BODY_SECONDS", 0.3)
    for text in (b"", b"GET /hea", b"GET /health HTTP/1.1\r\nx: "):
        with socket.create_connection(("127.0.0.1", slow.port)) as line:
            line.settimeout(SECONDS)
            line.sendall(text)
            assert line.recv(100) == b""
    with socket.create_connection(("127.0.0.1", slow.port)) as line:
        line.settimeout(SECONDS)
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
        assert line.recv(100).startswith(b"HTTP/1.1 408")


def test_an_endless_head_is_given_up(slow: Running):
    with socket.create_connection(("127.0.0.1", slow.port)) as line:
        line.settimeout(SECONDS)
        line.sendall(b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
        with suppress(ConnectionResetError):  # what was sent is more than what the server wanted to read
            assert b"431" in line.recv(100)


def test_rubbish_is_refused(slow: Running):
    with socket.create_connection(("127.0.0.1", slow.port)) as line:
        line.settimeout(SECONDS)
        line.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 400")


# --- the command ---------------------------------------------------------------------------------------------------


def test_sigterm_lets_answers_end():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "cli.main", "serve", str(SHIPPED), "--port", str(port),
                                "--device", "reference"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "ready" in line:
                break
        assert any("without keys: for this machine only" in line for line in lines)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        body = {"model": NAME, "prompt": "Once", "max_tokens": 250, "stream": True, "logit_bias": {"1": -100, "2": -99}}
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        process.send_signal(signal.SIGTERM)
        assert response.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_killed_server_leaves_nothing_behind(tmp_path: Path):
    command = [sys.executable, "-m", "cli.main", "serve", str(SHIPPED), "--port", "0", "--device", "reference"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        assert process.stderr
        assert any("ready" in line for line in process.stderr)
        process.kill()
        process.wait(SECONDS)
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


BAD = [
    ([str(SHIPPED), "--host", "0.0.0.0"], "host must be 127.0.0.1 without keys"),
    ([str(SHIPPED), "--device", "fpga9"], "device must be one of"),
    ([str(SHIPPED), "--api-key", "none"], "cannot read the keys"),
    ([str(SHIPPED), "--max-queue", "-1"], "--max-queue must be at least 0"),
    ([str(SHIPPED), "--port", "70000"], "port must be in"),
    ([str(SHIPPED), "--chat-template", "none.jinja"], "cannot read the chat template"),
    (["none.bin"], "no such program"),
    ([str(SHIPPED), "--device", "/dev/none", "--port", "0"], "/dev/none"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_what_cannot_be_served_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert app(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str]):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert app(["serve", str(SHIPPED), "--port", str(other.getsockname()[1])]) == 2
        assert "--port" in capsys.readouterr().err


# --- many ----------------------------------------------------------------------------------------------------------


def test_many_at_once_are_all_answered_alike(tmp_path: Path):
    """32 clients at once, a third of which leave: every answer equals that of a run alone."""
    with running(folder=tmp_path, devices=("reference",) * 2) as server:
        soak(server, 60)


@pytest.mark.nightly
def test_a_thousand_mixed_requests(tmp_path: Path):
    with running(folder=tmp_path, devices=("reference",) * 2) as server:
        soak(server, 200)
        [before] = [memory()]
        soak(server, 1000)
        assert memory() < before + 20_000, "KiB"


def memory() -> int:
    """KiB that this process, the server's, holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def soak(server: Running, count: int) -> None:
    asked: dict[int, dict[str, Any]] = {
        n: {"max_tokens": 1 + n % 23, "seed": n % 7, "temperature": (0, 1, 1.5)[n % 3], "stream": n % 2 == 0,
            "prompt": ("Once upon a time", "Lily had a", "One day", "Tom")[n % 4],
            **({"top_p": 0.8} if n % 5 == 0 else {})} for n in range(count)}
    found: dict[int, str] = {}
    lock = threading.Lock()

    def one(n: int) -> None:
        if n % 3 == 2:
            connection = begin(server, **asked[n] | {"max_tokens": 60})
            time.sleep(n % 10 / 100)
            connection.leave()
            return
        answer = server.complete(**asked[n])
        assert answer.status == 200, answer.data
        text = ("".join(event["choices"][0]["text"] for event in answer.events) if asked[n]["stream"]
                else answer.json["choices"][0]["text"])
        with lock:
            found[n] = text

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(count)))
    server.wait(lambda: free(server))
    assert len(found) == count - count // 3
    solo: dict[str, str] = {}
    for n, text in found.items():
        fields = asked[n] | {"stream": False}
        key = json.dumps(fields)
        solo[key] = solo.get(key) or server.complete(**fields).json["choices"][0]["text"]
        assert text == solo[key]
