"""What users copy, with nothing changed but the base URL: for openai 2 and 3, and groq under openai's name.

Run as: python openai_snippets.py PACKAGE BASE_URL LIMITED_URL, the last with a limit of requests a minute. Ends with an
assertion that fails, or with "done".
"""

import asyncio
import importlib
import sys
import time

PACKAGE, BASE_URL, LIMITED_URL = sys.argv[1:]
module = importlib.import_module(PACKAGE)
Client = {"openai": "OpenAI", "groq": "Groq"}[PACKAGE]
OpenAI, AsyncOpenAI = getattr(module, Client), getattr(module, f"Async{Client}")
MODEL = "llama-3.1-8b-instant"
QUESTION = [{"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Once upon a time"}]

client = OpenAI(base_url=BASE_URL, api_key="sk-no-key-needed", _strict_response_validation=True)


def plain_call():
    response = client.chat.completions.create(model=MODEL, messages=QUESTION, max_completion_tokens=20, temperature=0)
    text = response.choices[0].message.content
    assert text.startswith(" there was"), text
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens
    assert response.choices[0].finish_reason == "length"
    assert response.service_tier in ("default", "on_demand") and response.system_fingerprint
    return text


def streaming_with_ttft(expected):
    began, first, parts = time.perf_counter(), None, []
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=20, temperature=0, stream=True)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            first = first or time.perf_counter() - began
            parts.append(chunk.choices[0].delta.content)
    assert "".join(parts) == expected and first < time.perf_counter() - began


def usage_of_a_stream():
    if PACKAGE == "groq":
        stream = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=5, stream=True)
        assert list(stream)[-1].x_groq.usage.completion_tokens == 5
        return
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=5, stream=True,
                                            stream_options={"include_usage": True})
    chunks = list(stream)
    assert chunks[-1].usage.completion_tokens == 5 and chunks[-1].choices == []


def logprobs_and_seed():
    def ask():
        return client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=10, seed=7, logprobs=True,
                                              top_logprobs=2)

    one, two = ask(), ask()
    assert one.choices[0].message.content == two.choices[0].message.content
    assert len(one.choices[0].logprobs.content) == 10
    assert len(one.choices[0].logprobs.content[0].top_logprobs) == 2


def the_cycles():
    response = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)
    assert response.model_extra["x_tsp"]["predicted_cycles"] > 0


def models():
    assert "stories263k" in [model.id for model in client.models.list().data]
    assert client.models.retrieve("stories263k").id == "stories263k"


def errors():
    for fields, error in (({"model": "gpt-9"}, module.NotFoundError), ({"temperature": 9}, module.BadRequestError),
                          ({"tools": [{"type": "function", "function": {"name": "f"}}]}, module.BadRequestError)):
        try:
            client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, **fields})
            raise AssertionError(f"{fields} must be refused")
        except error as refused:
            assert refused.body and refused.response.headers["x-request-id"]
            if PACKAGE == "openai":
                assert refused.param == next(iter(fields))


def back_off_on_rate_limit():
    tries = 0
    impatient = OpenAI(base_url=LIMITED_URL, api_key="x", max_retries=0)
    for _ in range(200):
        try:
            impatient.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1)
        except module.RateLimitError as error:
            tries += 1
            wait = int(error.response.headers["retry-after-ms"]) / 1000
            assert 0 < wait < 60
            time.sleep(wait)
            impatient.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1)
            break
    assert tries == 1


async def semaphore_of_ten():
    limit = asyncio.Semaphore(10)
    async with AsyncOpenAI(base_url=BASE_URL, api_key="x", max_retries=10) as many:

        async def one(n):
            async with limit:
                response = await many.chat.completions.create(
                    model=MODEL, max_tokens=3, temperature=0,
                    messages=[{"role": "user", "content": ("Once upon a time", "One day")[n % 2]}])
                return response.choices[0].message.content

        answers = await asyncio.gather(*(one(n) for n in range(100)))
    assert len(set(answers[::2])) == 1 and len(set(answers[1::2])) == 1


def latency_monitor():
    times = []
    for _ in range(10):
        began = time.perf_counter()
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4)
        times.append(time.perf_counter() - began)
    assert 0 < sorted(times)[5] < 60


def leave_a_stream():
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()
    plain_call()


answer = plain_call()
streaming_with_ttft(answer)
usage_of_a_stream()
logprobs_and_seed()
the_cycles()
models()
errors()
asyncio.run(semaphore_of_ten())
latency_monitor()
leave_a_stream()
back_off_on_rate_limit()
print("done")
