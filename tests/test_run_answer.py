"""Text of tokens: characters in several tokens, stop strings in several tokens, chat templates."""

import copy
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import random_tokenizer, small_program

from base.errors import TspError
from base.inputs import read_template, template_beside
from run.answer import Answer, Question, Text, room
from run.chat import PLAIN, ChatTemplate, TemplateError, choose_template, prompt_of
from run.sampling import Sampling
from run.session import Session
from sim.device.reference_device import ReferenceDevice

LETTERS = st.text("abAé😀 ", max_size=20)


@given(text=LETTERS, stops=st.lists(st.text("abA", min_size=1, max_size=4), max_size=3), cuts=st.data())
def test_a_text_ends_before_its_first_stop_string_however_it_is_cut(text: str, stops: list[str], cuts: st.DataObject):
    raw = text.encode()
    borders = sorted(cuts.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    parts = [raw[a:b] for a, b in itertools.pairwise([0, *borders, len(raw)])]
    made, shown = Text(stops), ""
    for n, part in enumerate(parts):
        shown += made.add(part, last=n == len(parts) - 1)
        if made.stopped:
            break
    # The first stop string to be complete ends the text; of those complete by then, the earliest.
    found = [text.index(stop) for stop in stops if stop in text]
    assert made.stopped == bool(found)
    if found:
        assert min(found) <= len(shown) and text.startswith(shown)
        assert any(text.startswith(stop, len(shown)) for stop in stops)
    else:
        assert shown == text


def test_half_a_character_is_held_back():
    made, raw = Text(), "é".encode()
    assert made.add(raw[:1]) == "" and made.add(raw[1:]) == "é"
    assert Text().add(raw[:1], last=True) == "\ufffd"


def test_what_may_become_a_stop_string_is_held_back():
    made = Text(["END"])
    assert [made.add(part) for part in (b"a E", b"N", b"x E", b"ND b")] == ["a ", "", "ENx ", ""]
    assert made.stopped


def test_an_answer_ends_for_a_reason():
    session, tokenizer = Session(ReferenceDevice(), small_program()), random_tokenizer(100)
    prompt = [1, 30, 40]
    question = Question(prompt=prompt, tokens=5, sampling=Sampling(logit_bias={1: -100, 2: -100}), alternatives=2)
    answer = Answer(session, tokenizer, question)
    assert len(list(answer.prefill())) == 2
    pieces = list(answer.pieces())
    assert [piece.finish for piece in pieces] == [None] * 4 + ["length"]
    assert all(piece.logprob is not None and len(piece.alternatives) == 2 for piece in pieces)
    ends = Answer(session, tokenizer, Question(prompt=prompt, sampling=Sampling(logit_bias={2: 100})))
    assert ends.cached == 2 and not list(ends.prefill())
    [piece] = ends.pieces()
    assert (piece.finish, piece.text, piece.ends) == ("stop", "", True)


def test_the_last_position_gives_a_token_too():
    assert room(40, Question(prompt=[1] * 40)) == 1
    assert room(40, Question(prompt=[1] * 10, tokens=100)) == 31
    assert room(40, Question(prompt=[1] * 10, tokens=7)) == 7


MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]


def test_templates():
    template = ChatTemplate("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
                            "{% if add_generation_prompt %}[assistant]{% endif %}", {"bos_token": "<s>"})
    assert template.render(MESSAGES) == "<s>[system] S\n[user] U\n[assistant]"


@pytest.mark.parametrize("source", ["{{ raise_exception('no system, please') }}", "{{ messages[0].role.x.y }}",
                                    "{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}"])
def test_a_template_that_refuses_says_why(source: str):
    with pytest.raises(TemplateError) as error:
        ChatTemplate(source).render(MESSAGES)
    assert str(error.value)


def test_templates_are_read(tmp_path: Path):
    (tmp_path / "model.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "model.bin").touch()
    (tmp_path / "other.bin").touch()
    assert template_beside(tmp_path / "model.bin") == "{{ messages[0].content }}"
    assert template_beside(tmp_path) is template_beside(tmp_path / "other.bin") is None
    with pytest.raises(TspError, match="not a valid Jinja template"):
        ChatTemplate("{% for %}")
    with pytest.raises(TspError, match="cannot read"):
        read_template(tmp_path / "none")


def test_the_file_s_template_goes_before_the_model_s_own(tmp_path: Path):
    tokenizer, file = copy.copy(random_tokenizer(100)), tmp_path / "model.bin"
    file.touch()
    assert choose_template(None, file, tokenizer) is None
    plain = choose_template(PLAIN, file, tokenizer)
    assert plain and plain.render(MESSAGES) == "SU"
    tokenizer.chat_template = "{{ bos_token }}own"
    found = choose_template(None, file, tokenizer)
    assert found and found.render(MESSAGES) == f"{tokenizer.token_text(1)}own"
    file.with_suffix(".jinja").write_text("beside")
    found = choose_template(None, file, tokenizer)
    assert found and found.source == "beside"


def test_a_bos_is_not_written_twice():
    tokenizer = random_tokenizer(100)
    tokens = prompt_of(tokenizer, "ab")
    assert tokens == tokenizer.encode("ab") and tokens[0] == tokenizer.bos
    without = copy.copy(tokenizer)
    without.adds_bos = False
    assert prompt_of(without, "ab") == tokens[1:]
