"""`python -m serve.overhead`: what the server costs, over the bare device.

The same tokens run on a device in this process, and through a server and back over HTTP as a stream, round by round.
The best round of each counts, so that what else the machine does counts for little.
"""

import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

import base.one_thread  # noqa: F401  before numpy, as for `tsp serve`
from base.command import run
from program.file import save
from program.program import Program
from program.tokenizer import Tokenizer
from run.answer import Answer, Question
from run.devices import check_name, open_device
from run.programs import open_program
from run.sampling import Sampling
from run.session import Session

from .api import application
from .engine import Engine
from .http import Protocol
from .metrics import Metrics
from .model import Model
from .server import bind
from .settings import Settings

PROMPT, TOKENS = "Once upon a time there was a little dog named Tim", 10
"""So many of its tokens are the prompt."""
BANNED = {1: -100.0, 2: -100.0}
"""Tokens that would end the answer of the shipped model."""


@dataclass(frozen=True)
class Round:
    """Seconds: until the first token, and from then to the last."""

    first: float
    rest: float


def bare(session: Session, tokenizer: Tokenizer, question: Question) -> Round:
    """On the device alone."""
    began = time.perf_counter()
    answer = Answer(session, tokenizer, question)
    for _ in answer.prefill():
        pass
    times = [time.perf_counter() for _ in answer.pieces()]
    return Round(times[0] - began, times[-1] - times[0])


def served(connection: http.client.HTTPConnection, prompt: list[int], tokens: int) -> Round:
    """Through the server; an event is a token."""
    body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
            "logit_bias": BANNED}
    began, times = time.perf_counter(), []
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    while line := response.readline():
        if b'"position"' in line:
            times.append(time.perf_counter())
    return Round(times[0] - began, times[-1] - times[0])


@contextmanager
def server(program: Program, device: str) -> Iterator[tuple[int, Engine]]:
    """The port of a server in a thread of this process, and its engine."""
    settings = Settings(name="m", devices=(device,))
    metrics = Metrics(settings.name)
    with tempfile.TemporaryDirectory() as folder, bind("127.0.0.1", 0) as listener:
        file = Path(folder) / "program.tsp"
        save(program, file)
        engine = Engine(settings.devices, file, most=4, seconds=600, observe=metrics.observe)
        app = application(Model.of(settings, program, None), engine, metrics)
        http_server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, http=Protocol, ws="none"))
        thread = threading.Thread(target=http_server.run, args=[[listener]])
        thread.start()
        while not engine.alive:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1], engine
        finally:
            http_server.should_exit = True
            thread.join()


def main(
    program: Annotated[Path, typer.Argument(help="Program file or checkpoint.")] = Path("models/stories263k.bin"),
    device: Annotated[str, typer.Option(help="reference, model or rtl.")] = "reference",
    tokens: Annotated[int, typer.Option(help="New tokens of a round.")] = 200,
    rounds: Annotated[int, typer.Option(help="Rounds of each kind.")] = 10,
) -> None:
    """Measure the server's share of a token, and the time to the first one."""
    check_name(device)
    compiled = open_program(program)
    tokenizer = Tokenizer.from_bytes(compiled.tokenizer)
    prompt = tokenizer.prompt(PROMPT)[:TOKENS]
    question = Question(prompt=prompt, tokens=tokens, sampling=Sampling(logit_bias=BANNED))
    with server(compiled, device) as (port, engine):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        session = Session(open_device(device, compiled.config), compiled)
        alone, through, used = [], [], [0.0, 0.0, 0.0]
        [worker] = [handle.pid for handle in engine.handles]
        for n in range(rounds):
            marks = [time.process_time(), processor_seconds(worker)]
            alone.append(bare(session, tokenizer, question))
            session.prompt([tokenizer.bos], Sampling())
            used[0] += time.process_time() - marks[0]
            marks = [time.process_time(), processor_seconds(worker)]
            through.append(served(connection, [prompt[0], n + 3, *prompt[2:]], tokens))  # only BOS is cached
            used[1] += processor_seconds(worker) - marks[1]
            used[2] += time.process_time() - marks[0]
        connection.close()
        session.device.close()
    token, streamed = (min(r.rest for r in each) / (tokens - 1) for each in (alone, through))
    device_time, worker_time, server_time = (seconds / rounds / tokens * 1e3 for seconds in used)
    print(f"{device}, {len(prompt)} tokens of prompt, {tokens} new ones, best of {rounds}, load "
          f"{os.getloadavg()[0]:.1f}")
    print(f"a token: {token * 1e3:.3f} ms bare, {streamed * 1e3:.3f} ms streamed: {(streamed - token) * 1e3:+.3f} ms, "
          f"{streamed / token - 1:+.1%}")
    print(f"first token: {min(r.first for r in alone) * 1e3:.1f} ms bare, {min(r.first for r in through) * 1e3:.1f} ms "
          "streamed")
    whole, passed = (min(r.first + r.rest for r in each) for each in (alone, through))
    print(f"the whole answer: {whole * 1e3:.1f} ms bare, {passed * 1e3:.1f} ms streamed: "
          f"{(passed - whole) / tokens * 1e3:+.3f} ms a token, {passed / whole - 1:+.1%}")
    print(f"processor time a token: {device_time:.3f} ms bare; streamed {worker_time:.3f} ms in the device's process, "
          f"{server_time:.3f} ms in server and client together")


def processor_seconds(pid: int | None) -> float:
    """That a process has used so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


if __name__ == "__main__":
    run(main, "serve.overhead")
