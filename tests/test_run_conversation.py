"""Conversations: prompts by a template, what stays in the cache, what is forgotten, and `tsp chat` in a pipe."""

import subprocess
import sys

import pytest
from checkpoints import REPOSITORY
from programs import random_tokenizer, small_program

from base.errors import TspError
from program.file import save
from program.tokenizer import Tokenizer
from run.chat import ChatTemplate, prompt_of
from run.conversation import Conversation
from run.sampling import Sampling
from run.session import Session
from sim.device.reference_device import ReferenceDevice

TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}a")


def conversation(sampling: Sampling = Sampling(), **fields) -> Conversation:
    program = small_program()
    session = Session(ReferenceDevice(), program)
    return Conversation(session, Tokenizer.from_bytes(program.tokenizer), TEMPLATE, sampling, **fields)


def said(talk: Conversation, text: str) -> str:
    turn = talk.ask(text)
    list(turn.prefill())
    return "".join(piece.text for piece in turn.pieces())


def test_an_answer_becomes_part_of_the_conversation_and_its_tokens_stay_in_the_cache():
    talk = conversation(tokens=3)
    first = said(talk, "b")
    assert talk.messages == [{"role": "user", "content": "b"}, {"role": "assistant", "content": first}]
    turn = talk.ask("c")
    assert turn.cached >= 2  # at least BOS and the first message
    list(turn.prefill())
    again = "".join(piece.text for piece in turn.pieces())
    fresh = conversation(tokens=3)
    fresh.messages = talk.messages[:2]
    assert said(fresh, "c") == again


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came():
    talk = conversation(tokens=5)
    turn = talk.ask("b")
    list(turn.prefill())
    pieces = turn.pieces()
    text = next(pieces).text + next(pieces).text
    pieces.close()
    assert talk.messages[-1] == {"role": "assistant", "content": text}


def test_the_oldest_messages_are_forgotten_where_the_context_is_full():
    talk = conversation(tokens=2)
    for _ in range(40):
        said(talk, "abc")
    assert talk.forgotten > 0 and talk.forgotten % 2 == 0
    assert talk.messages[0]["role"] == "user"
    with pytest.raises(TspError, match="shorten it"):
        talk.ask("abc" * talk.session.program.context)
    talk.reset()
    assert (talk.messages, talk.forgotten) == ([], 0)


def test_the_system_speaks_first():
    talk = conversation(system="x", tokens=1)
    assert talk.ask("b").length == len(prompt_of(talk.tokenizer, "sxuba"))


def test_bos_goes_first_once():
    tokenizer = random_tokenizer(100)
    plain = tokenizer.encode("abc", bos=False)
    assert prompt_of(tokenizer, "abc") == [tokenizer.bos, *plain]
    assert prompt_of(tokenizer, "") == [tokenizer.bos]


def test_chat_in_a_pipe(tmp_path):
    program = tmp_path / "small.tsp"
    save(small_program(), program)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "chat", str(program), "--tokens", "3", "--chat-template", "plain",
         "--device", "model"],
        input="b\n/reset\n/what\nc\n", cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    notes = done.stderr.splitlines()
    assert sum("measured" in line and "== predicted" in line for line in notes) == 2
    assert any(line.startswith("no such command: /what") for line in notes)
    assert done.stdout.count("\n") >= 2


def test_chat_without_a_template_is_refused(tmp_path):
    program = tmp_path / "small.tsp"
    save(small_program(), program)
    done = subprocess.run([sys.executable, "-m", "cli.main", "chat", str(program)], input="", cwd=REPOSITORY,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "has no chat template" in done.stderr and done.stderr.count("\n") == 1
