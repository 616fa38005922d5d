"""LiteLLM's own calls, by OpenAI's and by Groq's provider, and its Router.

Run as: python litellm_snippets.py ROOT_URL.
"""

import asyncio
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm import Router

ROOT = sys.argv[1]
QUESTION = [{"role": "user", "content": "Once upon a time"}]
litellm.suppress_debug_info = True


def by_provider(provider, base):
    fields = {"model": f"{provider}/stories263k", "messages": QUESTION, "api_base": base, "api_key": "x",
              "max_tokens": 8, "temperature": 0}
    whole = litellm.completion(**fields)
    text = whole.choices[0].message.content
    assert text.startswith(" there was") and whole.usage.completion_tokens == 8
    parts = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**fields, stream=True)]
    assert "".join(parts) == text
    for wrong, error in (({"temperature": 9}, litellm.BadRequestError), ({"model": f"{provider}/x"},
                                                                        litellm.NotFoundError)):
        try:
            litellm.completion(**{**fields, **wrong})
            raise AssertionError(f"{wrong} must be refused")
        except error:
            pass


def too_long():
    try:
        litellm.completion(model="openai/stories263k", api_base=f"{ROOT}/v1", api_key="x",
                           messages=[{"role": "user", "content": "story " * 1000}])
        raise AssertionError("a long prompt must be refused")
    except litellm.ContextWindowExceededError:
        pass


async def routed():
    deployment = {"model": "openai/stories263k", "api_base": f"{ROOT}/v1", "api_key": "x"}
    router = Router(model_list=[{"model_name": "chip", "litellm_params": deployment}], num_retries=1)
    answers = await asyncio.gather(*(router.acompletion(model="chip", messages=QUESTION, max_tokens=4, temperature=0)
                                     for _ in range(8)))
    assert len({answer.choices[0].message.content for answer in answers}) == 1


by_provider("openai", f"{ROOT}/v1")
by_provider("groq", f"{ROOT}/openai/v1")
too_long()
asyncio.run(routed())
print("done")
