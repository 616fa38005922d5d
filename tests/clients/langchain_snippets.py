"""LangChain with its OpenAI and its Groq package. Run as: python langchain_snippets.py ROOT_URL."""

import sys

from langchain_groq import ChatGroq
from langchain_openai import ChatOpenAI, OpenAI

ROOT = sys.argv[1]
for model in (ChatOpenAI(model="stories263k", base_url=f"{ROOT}/v1", api_key="x", temperature=0, max_tokens=8),
              ChatGroq(model="stories263k", base_url=ROOT, api_key="x", temperature=0, max_tokens=8)):
    text = model.invoke("Once upon a time").content
    assert text.startswith(" there was"), text
    assert "".join(chunk.content for chunk in model.stream("Once upon a time")) == text
    assert [answer.content for answer in model.batch(["Once upon a time"] * 3)] == [text] * 3
text = OpenAI(model="stories263k", base_url=f"{ROOT}/v1", api_key="x", temperature=0, max_tokens=8).invoke("Once upon")
assert text
print("done")
