"""What clients of the server get: shapes, errors, streams, sampling."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from serving import NAME, Running, running, shipped

from program.tokenizer import Tokenizer
from run.answer import Answer, Question
from run.devices import open_device
from run.sampling import Sampling
from run.session import Session
from serve import declared

GREEDY: dict[str, Any] = {"temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(folder=tmp_path_factory.mktemp("serve"), aliases=("gpt-4o-mini",)) as found:
        yield found


def alone(prompt: str, sampling: Sampling, tokens: int = 8) -> str:
    """What the device says without a server."""
    session = Session(open_device("reference", shipped().config), shipped())
    tokenizer = Tokenizer.from_bytes(shipped().tokenizer)
    answer = Answer(session, tokenizer, Question(prompt=tokenizer.encode(prompt), tokens=tokens, sampling=sampling))
    list(answer.prefill())
    return "".join(piece.text for piece in answer.pieces())


def test_a_completion(server: Running):
    answer = server.complete(**GREEDY)
    body = answer.json
    assert answer.status == 200
    assert (body["object"], body["model"], body["service_tier"]) == ("text_completion", NAME, "default")
    [choice] = body["choices"]
    assert choice["text"] == alone("Once upon a time", Sampling())
    assert choice["finish_reason"] == "length"
    usage = body["usage"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (8, usage["prompt_tokens"] + 8)
    assert usage["total_time"] == usage["prompt_time"] + usage["completion_time"] > 0
    assert body["x_groq"]["id"] == answer.headers["x-request-id"]


def test_a_chat_says_what_the_completion_says(server: Running):
    message = server.chat(**GREEDY).json["choices"][0]["message"]
    assert message == {"role": "assistant", "content": server.complete(**GREEDY).json["choices"][0]["text"]}


@pytest.mark.parametrize("path", ["/v1", "/openai/v1", "/openai/v1/openai/v1"])
def test_every_mount_answers(server: Running, path: str):
    body = {"model": NAME, "messages": [{"role": "user", "content": [{"type": "text", "text": "Once"}]}],
            "max_completion_tokens": 1}
    answer = server.send("POST", f"{path}/chat/completions", body).json
    assert answer["usage"]["completion_tokens"] == 1
    assert answer["service_tier"] == ("default" if path == "/v1" else "on_demand")
    assert server.send("GET", f"{path}/models/{NAME}").json["id"] == NAME


def test_models_are_listed_under_their_names(server: Running):
    assert [entry["id"] for entry in server.send("GET", "/v1/models").json["data"]] == [NAME, "gpt-4o-mini"]
    assert server.complete(model="gpt-4o-mini").json["model"] == NAME
    assert server.send("GET", "/v1/models/org/name").json["error"]["code"] == "model_not_found"


def test_a_stream_says_the_same(server: Running):
    whole = server.chat(**GREEDY).json
    events = server.chat(**GREEDY, stream=True, stream_options={"include_usage": True}).events
    assert len({event["id"] for event in events}) == len({event["created"] for event in events}) == 1
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert "".join(delta["content"] for delta in deltas[:-1]) == whole["choices"][0]["message"]["content"]
    finishes = [event["choices"][0]["finish_reason"] for event in events[:-1]]
    assert finishes == [None] * (len(finishes) - 1) + ["length"]
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 8
    assert events[-2]["x_groq"]["usage"] == events[-1]["usage"]
    assert events[-2]["x_tsp"]["logits_digest"] == whole["x_tsp"]["logits_digest"]


def test_usage_comes_in_a_stream_only_if_it_is_asked_for(server: Running):
    events = server.complete(stream=True).events
    assert all(event["choices"] for event in events) and not any("usage" in event for event in events)


def test_every_token_of_a_stream_tells_its_cycles(server: Running):
    events = server.chat(**GREEDY, stream=True).events[1:-1]
    positions = [event["x_tsp"]["position"] for event in events]
    assert positions == list(range(positions[0], positions[0] + 8))
    assert [event["x_tsp"]["predicted_cycles"] for event in events] == [shipped().cycles(p) for p in positions]


def test_a_seed_gives_the_same_text_however_it_is_asked_for(server: Running):
    fields: dict[str, Any] = {"temperature": 1, "seed": 11, "max_tokens": 30}
    expected = alone("Once upon a time", Sampling(temperature=1.0, seed=11), 30)
    assert server.complete(**fields).json["choices"][0]["text"] == expected
    server.complete("Something else", **fields)
    assert server.complete(**fields).json["choices"][0]["text"] == expected
    two = server.complete(**fields, n=2).json
    assert two["choices"][0]["text"] == expected and two["choices"][1]["text"] != expected
    assert two["choices"][1]["text"] == server.complete(**fields | {"seed": 12}).json["choices"][0]["text"]
    assert two["usage"]["prompt_tokens"] == server.complete().json["usage"]["prompt_tokens"]


def test_a_seed_that_is_not_given_is_told(server: Running):
    one = server.complete(max_tokens=20).json
    again = server.complete(max_tokens=20, seed=one["x_tsp"]["seed"]).json
    assert again["choices"][0]["text"] == one["choices"][0]["text"]


def test_what_the_host_chooses_is_said(server: Running):
    assert server.complete().json["x_tsp"]["sampled_by"] == "chip"
    for field in ({"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.1}, {"presence_penalty": 1}):
        assert server.complete(**field).json["x_tsp"]["sampled_by"] == "host"
    assert server.complete(**GREEDY, top_p=0.9).json["x_tsp"]["sampled_by"] == "chip"  # one token is left anyway


def test_a_continued_prompt_runs_only_what_is_new(server: Running):
    first = server.complete("Once upon a time there was", **GREEDY).json
    tokens = Tokenizer.from_bytes(shipped().tokenizer).encode("Once upon a time there was")
    server.complete("Another beginning", **GREEDY)
    assert server.complete(tokens, **GREEDY).json["usage"]["prompt_tokens_details"]["cached_tokens"] == 1
    again = server.complete(tokens, **GREEDY).json
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == len(tokens) - 1
    assert again["choices"][0]["text"] == first["choices"][0]["text"]
    assert again["x_tsp"]["logits_digest"] == first["x_tsp"]["logits_digest"]


def test_stop_strings_end_the_answer(server: Running):
    whole = server.complete(**GREEDY, max_tokens=40).json["choices"][0]["text"]
    at = whole.index("named")
    for stop in ("named", ["zzz", "e named"]):
        [choice] = server.complete(**GREEDY, max_tokens=40, stop=stop).json["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["text"] == whole[: at if isinstance(stop, str) else at - 2]
    events = server.complete(**GREEDY, max_tokens=40, stop="named", stream=True).events
    assert "".join(event["choices"][0]["text"] for event in events) == whole[:at]


def test_logprobs(server: Running):
    chat = server.chat(**GREEDY, logprobs=True, top_logprobs=3).json["choices"][0]["logprobs"]["content"]
    assert len(chat) == 8
    for entry in chat:
        assert len(entry["top_logprobs"]) == 3 and entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0
        assert bytes(entry["bytes"]).decode() == entry["token"]
    text = server.complete(**GREEDY, logprobs=3).json["choices"][0]
    assert text["logprobs"]["token_logprobs"] == [entry["logprob"] for entry in chat]
    assert "".join(text["logprobs"]["tokens"]) == text["text"]
    assert [text["text"][at:][:2] for at in text["logprobs"]["text_offset"]] == [
        (token + follower)[:2] for token, follower in zip(text["logprobs"]["tokens"],
                                                         [*text["logprobs"]["tokens"][1:], ""], strict=True)]


def test_a_bias_forbids_and_forces(server: Running):
    tokenizer = Tokenizer.from_bytes(shipped().tokenizer)
    [token] = tokenizer.encode("the", bos=False)
    forced = server.complete(**GREEDY, max_tokens=2, logit_bias={str(token): 100}).json["choices"][0]["text"]
    assert forced == " the the"
    first = server.complete(**GREEDY, max_tokens=1, logprobs=1).json["choices"][0]["logprobs"]["tokens"][0]
    [likely] = tokenizer.encode(first.strip(), bos=False)
    assert server.complete(**GREEDY, max_tokens=1, logit_bias={str(likely): -100}).json["choices"][0]["text"] != first


def test_prompts_are_texts_or_tokens_or_several(server: Running):
    tokens = Tokenizer.from_bytes(shipped().tokenizer).encode("Once upon a time")
    text = server.complete(**GREEDY).json["choices"][0]["text"]
    assert server.complete(tokens, **GREEDY).json["choices"][0]["text"] == text
    several = server.complete(["Once upon a time", "Lily"], **GREEDY).json
    assert [choice["index"] for choice in several["choices"]] == [0, 1]
    assert several["choices"][0]["text"] == text
    assert server.complete([tokens, tokens], **GREEDY).json["choices"][1]["text"] == text
    assert server.complete("", **GREEDY).json["usage"]["prompt_tokens"] == 1


def test_an_answer_ends_with_the_context(server: Running):
    body = server.complete(max_tokens=100_000, **GREEDY).json
    assert body["choices"][0]["finish_reason"] == "stop"
    full = server.complete([1, *[100] * 255], max_tokens=9, **GREEDY).json
    assert full["usage"]["completion_tokens"] == 1 and full["choices"][0]["finish_reason"] == "length"


def test_tokenize_and_back(server: Running):
    found = server.send("POST", "/tokenize", {"prompt": "Once upon a time"}).json
    assert found["count"] == len(found["tokens"]) and found["max_model_len"] == 256
    assert server.send("POST", "/detokenize", {"tokens": found["tokens"]}).json["prompt"] == "Once upon a time"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Once upon a time"}]
    assert server.send("POST", "/tokenize", {"messages": messages}).json == found  # a story has no system message


REFUSED = [
    ({"temperature": 3}, 400, "temperature"), ({"temperature": float("nan")}, 400, "temperature"),
    ({"temperature": "warm"}, 400, "temperature"), ({"top_p": -1}, 400, "top_p"),
    ({"max_tokens": 0}, 400, "max_tokens"), ({"n": 17}, 400, "n"), ({"stop": ["a"] * 5}, 400, "stop"),
    ({"stop": ""}, 400, "stop"),
    ({"logit_bias": {"600": 1}}, 400, "logit_bias"), ({"logit_bias": {"the": 1}}, 400, "logit_bias"),
    ({"top_logprobs": 3}, 400, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    ({"tools": [{"type": "function"}]}, 400, "tools"), ({"response_format": {"type": "json_object"}}, 400,
                                                        "response_format"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options"), ({"seed": 1 << 70}, 400, "seed"),
    ({"model": "gpt-9"}, 404, "model"), ({"messages": []}, 400, "messages"), ({"messages": "hello"}, 400, "messages"),
    ({"messages": [{"role": "king", "content": "a"}]}, 400, "messages.0.role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": "story " * 400}]}, 400, "messages"),
]


@pytest.mark.parametrize(("fields", "status", "param"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_is_refused_is_named(server: Running, fields: dict[str, Any], status: int, param: str):
    answer = server.chat(**fields)
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert answer.headers["x-request-id"]


def test_too_long_a_prompt_is_told_in_the_known_words(server: Running):
    for prompt in ("story " * 300, "story " * 100_000, [1] * 300):
        error = server.complete(prompt).json["error"]
        assert "maximum context length is 256 tokens" in error["message"]
        assert error["code"] == "context_length_exceeded"


def test_fields_that_change_nothing_are_taken(server: Running):
    answer = server.chat(tools=[], tool_choice="auto", response_format={"type": "text"}, user="me", metadata={"a": "b"},
                         service_tier="auto", something="else", store=None, best_of=1, top_k=-1, **GREEDY)
    assert answer.status == 200, answer.json


def test_malformed_bodies(server: Running):
    bad = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"[" * 100_000, b'{"model": 1}',
           b'{"model":"x","messages":1e999}']
    for body in bad:
        answer = server.send("POST", "/v1/chat/completions", body)
        assert answer.status == 400 and answer.json["error"]["message"], body[:20]
    answer = server.send("POST", "/v1/chat/completions", b"{}", content_type="text/plain")
    assert answer.status == 400 and "application/json" in answer.json["error"]["message"]
    assert server.send("GET", "/v1/chat/completions").status == 405
    assert server.send("GET", "/nothing").json["error"]["type"] == "invalid_request_error"


def test_a_model_without_a_template_is_a_completion_model(tmp_path_factory: pytest.TempPathFactory):
    with running(folder=tmp_path_factory.mktemp("serve"), template=None) as server:
        error = server.chat().json["error"]
        assert error["code"] == "no_chat_template" and "completion model" in error["message"]
        assert server.complete().status == 200


def test_answers_are_what_is_declared(server: Running):
    """Each object has the fields of its strict model and no other."""
    more: dict[str, Any] = {"max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}, "n": 2}
    for event in server.chat(**more, logprobs=True, top_logprobs=1).events:
        declared.ChatChunk.model_validate(event)
    for event in server.complete(**more, logprobs=2).events:
        declared.TextChunk.model_validate(event)
    declared.ChatCompletion.model_validate(server.chat(logprobs=True, top_logprobs=2).json)
    declared.TextCompletion.model_validate(server.complete(logprobs=2, n=2).json)
    declared.Models.model_validate(server.send("GET", "/v1/models").json)
    declared.Health.model_validate(server.send("GET", "/health").json)
    declared.Error.model_validate(server.chat(temperature=5).json)
    declared.Tokens.model_validate(server.send("POST", "/tokenize", {"prompt": "Once"}).json)


def test_the_page_may_ask_only_this_server(server: Running):
    page = server.send("GET", "/")
    policy = page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html") and "connect-src 'self'" in policy
    script = page.data.decode().partition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert b"http://" not in page.data.replace(b"http://www.w3.org/2000/svg", b"") and b"https://" not in page.data
    figures = server.send("GET", "/tsp/program").json
    assert [bucket["cycles"] for bucket in figures["buckets"]] == [bucket.period for bucket in shipped().buckets]
    assert all(0 < part <= 1 for bucket in figures["buckets"] for part in bucket["units"].values())
