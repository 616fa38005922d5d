"""The example of docs/guide/request-routing.md with the real LiteLLM: the chip, and another server for batch."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from client_environment import client_environment

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "guide" / "request-routing.yaml"
CHIP, OTHER = "http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1"
KEY = "sk-of-a-test-0123456789abcdef0123456789abcdef"
PROMPT = [{"role": "user", "content": "Once upon a time"}]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def running(command: list[str | Path], log: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server from its first good answer on; killed at the end."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT,
                                                 env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True",
                                                                   "LITELLM_MASTER_KEY": KEY}) as server:
        try:
            wait_for(ready, server, log)
            yield server
        finally:
            server.kill()


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        assert server.poll() is None, log.read_text()[-2000:]
        time.sleep(0.2)
    pytest.fail(f"{url} does not answer: {log.read_text()[-2000:]}")


@dataclass(frozen=True)
class Routed:
    """Two servers and a proxy in front of them."""

    proxy: str
    chip: str
    other: str
    chip_process: subprocess.Popen[bytes]

    def ask(self, model: str, tokens: int = 4) -> tuple[str, str]:
        """(base URL of who answered, the answer)."""
        asked = {"model": model, "messages": PROMPT, "max_tokens": tokens, "temperature": 0}
        response = httpx2.post(f"{self.proxy}/v1/chat/completions", timeout=120, json=asked,
                               headers={"authorization": f"Bearer {KEY}"})
        assert response.status_code == 200, response.text
        return (response.headers["x-litellm-model-api-base"].rstrip("/"),
                response.json()["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """The example, with free ports for those that it names."""
    folder = tmp_path_factory.mktemp("routing")
    litellm = client_environment("litellm") / "bin"
    ports = [free_port() for _ in range(3)]
    chip, other, proxy = (f"http://127.0.0.1:{port}" for port in ports)
    text = EXAMPLE.read_text()
    assert CHIP in text and OTHER in text
    (folder / "routing.yaml").write_text(text.replace(CHIP, f"{chip}/v1").replace(OTHER, f"{other}/v1"))
    tsp: list[str | Path] = [sys.executable, "-m", "cli.main", "serve", "models/stories263k.bin"]
    with (running([*tsp, "--device", "rtl", "--port", str(ports[0]), "--max-queue", "0"], folder / "chip.log",
                  f"{chip}/health") as chip_process,
          running([*tsp, "--device", "reference", "--port", str(ports[1])], folder / "other.log", f"{other}/health"),
          running([litellm / "python", litellm / "litellm", "--config", folder / "routing.yaml", "--host", "127.0.0.1",
                   "--port", str(ports[2])], folder / "proxy.log", f"{proxy}/health/liveliness")):
        yield Routed(proxy, f"{chip}/v1", f"{other}/v1", chip_process)


@pytest.mark.nightly
def test_who_waits_gets_the_chip_and_a_batch_does_not(routed: Routed):
    (first, text), (second, same) = routed.ask("interactive"), routed.ask("batch")
    assert (first, second) == (routed.chip, routed.other)
    assert text == same  # chip and reference are equal bit for bit


@pytest.mark.nightly
def test_what_the_chip_has_no_room_for_goes_to_the_other_server(routed: Routed):
    """One answer runs on the chip, and with `--max-queue 0` none waits behind it."""
    body = {"model": "stories263k", "messages": PROMPT, "max_tokens": 200, "temperature": 0}
    with ThreadPoolExecutor(1) as others:
        asked = others.submit(httpx2.post, f"{routed.chip}/chat/completions", json=body, timeout=120)
        wait_until(lambda: running_on(routed.chip) == 1)
        assert routed.ask("interactive")[0] == routed.other
        assert running_on(routed.chip) == 1
    assert asked.result().status_code == 200
    assert routed.ask("interactive")[0] == routed.chip


def running_on(url: str) -> float:
    """Requests that a server's device is at."""
    found = re.search(r"^tsp:num_requests_running(?:{.*})? ([\d.]+)$", httpx2.get(url.replace("/v1", "/metrics")).text,
                      re.MULTILINE)
    assert found
    return float(found[1])


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.nightly
def test_a_dead_chip_is_replaced(routed: Routed):
    routed.chip_process.kill()
    routed.chip_process.wait()
    assert routed.ask("interactive")[0] == routed.other
