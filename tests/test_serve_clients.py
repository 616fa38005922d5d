"""Real clients against a server, each in an environment of its own, and the snippets that users copy."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_environment import client_environment, node_environment
from serving import Running, running

CLIENTS = Path(__file__).parent / "clients"
NAME = "llama-3.1-8b-instant"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(folder=tmp_path_factory.mktemp("serve"), aliases=(NAME,), most=128) as found:
        yield found


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """60 requests a minute, so that clients have to back off."""
    with running(folder=tmp_path_factory.mktemp("limited"), aliases=(NAME,), most=128, requests=60) as found:
        yield found


def runs(command: list[str | Path]) -> None:
    """A client's script to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "GROQ"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0 and done.stdout.strip().endswith("done"), done.stdout + done.stderr


@pytest.mark.parametrize(("environment", "package", "path"), [
    ("openai3", "openai", "/v1"), ("openai2", "openai", "/v1"), ("groq", "groq", ""), ("groq", "groq", "/openai/v1")])
def test_snippets(server: Running, limited: Running, environment: str, package: str, path: str):
    """Groq's client with OpenAI's base URL is the drop-in alias. LiteLLM and others still pin openai 2."""
    python = client_environment(environment) / "bin" / "python"
    runs([python, CLIENTS / "openai_snippets.py", package, server.url + path, limited.url + path])


def test_litellm_and_its_router(server: Running):
    python = client_environment("litellm_client") / "bin" / "python"
    runs([python, CLIENTS / "litellm_snippets.py", server.url])


@pytest.mark.nightly
def test_langchain(server: Running):
    runs([client_environment("langchain") / "bin" / "python", CLIENTS / "langchain_snippets.py", server.url])


@pytest.mark.nightly
def test_javascript(server: Running):
    """openai-node, groq-sdk and Vercel's ai."""
    folder = node_environment("javascript")
    shutil.copy(CLIENTS / "snippets.mjs", folder)
    runs(["node", folder / "snippets.mjs", server.url])


QUIET = {f"PROMPTFOO_DISABLE_{what}": "1" for what in ("TELEMETRY", "UPDATE", "SHARING", "REMOTE_GENERATION")}
"""promptfoo talks to the server alone."""


@pytest.mark.nightly
def test_promptfoo(server: Running, tmp_path: Path):
    """An evaluation whose assertions are the server's own answers to plain requests. Its environment takes 1.4 GB."""
    promptfoo = node_environment("promptfoo") / "node_modules" / ".bin" / "promptfoo"
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "seed": 1}
    answers = [(text, server.chat(text, **fields).json["choices"][0]["message"]["content"])
               for text in ("Once upon a time", "Lily had a")]
    assert all(answer.strip() for _, answer in answers)
    provider = {"id": f"openai:chat:{NAME}", "config": {"apiBaseUrl": f"{server.url}/v1", "apiKey": "none", **fields}}
    tests = [{"vars": {"text": text}, "assert": [{"type": "equals", "value": answer}]} for text, answer in answers]
    evaluation = {"prompts": ["{{text}}"], "providers": [provider], "tests": tests}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    command = [promptfoo, "eval", "-c", "evaluation.json", "--no-cache", "--no-progress-bar", "-o", "out.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
                          env=os.environ | QUIET | {"PROMPTFOO_CONFIG_DIR": str(tmp_path / "settings")})
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["results"]["stats"]
    assert (found["successes"], found["failures"], found["errors"]) == (2, 0, 0)


@pytest.mark.nightly
def test_schemathesis(tmp_path: Path):
    """Random requests from the API's own description: no 5xx, and every response is one that it declares."""
    python = client_environment("schemathesis") / "bin" / "python"
    with running(folder=tmp_path, aliases=("*",), seconds=5.0) as server:
        (tmp_path / "schema.json").write_text(json.dumps(server.send("GET", "/openapi.json").json))
        done = subprocess.run([python, "-m", "schemathesis.cli", "run", tmp_path / "schema.json", "--url", server.url,
                               "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
                                           "response_schema_conformance", "--max-examples", "50", "--seed", "1"],
                              capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-6000:]
