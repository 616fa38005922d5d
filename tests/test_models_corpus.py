"""The story grammar, its checker, the tokenizer and the shipped checkpoint; none of it needs torch."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # models/ is no part of the installed package

from models.corpus import _patterns, check, echoes, generate, information, stories  # noqa: E402
from models.evaluate import Checkpoint, Decoder, sample  # noqa: E402
from models.grammar import BOYS, EDGES, GIRLS, ROLES, TEMPLATES  # noqa: E402
from models.tokenizer import BOS, BYTES, Tokenizer  # noqa: E402

MODELS = ROOT / "models"
STORY = (
    "Once upon a time there was a little girl named Lily. She lived near the park. Lily was a very silly girl. "
    'One day, Lily wanted to go to the park. It was a very rainy day. "Take your big umbrella," said her mom. '
    "But Lily did not listen and left the big umbrella at home. Soon Lily got wet and very sad. She ran home as fast "
    'as she could. "Next time I will take my big umbrella," said Lily. Lily learned to listen to her mom.'
)


@pytest.fixture(scope="module")
def told() -> list[str]:
    return list(stories(300, seed=5))


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.load(MODELS / "tok512.bin")


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    return Checkpoint(MODELS / "stories263k.bin")


def test_the_checker_accepts_what_the_generator_tells(told: list[str]) -> None:
    assert [(story, check(story)) for story in told if check(story)] == []


def test_generation_is_deterministic_and_varied(told: list[str]) -> None:
    assert told == list(stories(300, seed=5))
    assert len(set(told)) == 300
    assert not set(told) & set(stories(300, seed=6))


def test_length(told: list[str]) -> None:
    words = [len(story.split()) for story in told]
    assert min(words) >= 50 and max(words) <= 200 and 90 < np.mean(words) < 130


def test_every_event_state_and_role_is_used() -> None:
    events = {edge.event for edges in EDGES.values() for edge in edges}
    assert events == set(TEMPLATES)
    assert {edge.to for edges in EDGES.values() for edge in edges} == (set(EDGES) | {"end"}) - {"start"}
    assert {role for _, roles, _ in _patterns() for role in roles} == set(ROLES)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("said Lily", "said Mia", "hero must be Lily, not 'Mia'"),
        ("She lived", "He lived", "He must be She, not 'He'"),
        ("got wet", "got cold", "effect must be wet, not 'cold'"),
        ("Take your big umbrella", "Take your straw hat", "gear must be big umbrella, not 'straw hat'"),
        ("to her mom.", "to her dad.", "parent must be mom, not 'dad'"),
        ("go to the park", "go to the lake", "place must be park, not 'lake'"),
        ("little girl", "little boy", "hero must be Tim or"),
        ("very silly girl", "very careful girl", "'forget' cannot happen in state 'warned'"),
        (" Soon Lily got wet and very sad.", "", "'run_home' cannot happen in state 'bare'"),
        (" Lily learned to listen to her mom.", "", "the story stops in state 'promised'"),
        ("She ran home", "She flew home", "no sentence of the grammar: 'She flew home"),
        ("to her mom.", "to her mom. The end.", "text after the end: 'The end.'"),
    ],
)
def test_the_checker_rejects(old: str, new: str, complaint: str) -> None:
    assert check(STORY) == []
    assert old in STORY
    assert any(complaint in fault for fault in check(STORY.replace(old, new))), check(STORY.replace(old, new))


def test_a_changed_name_and_a_lost_ending_are_noticed(told: list[str]) -> None:
    for story in told:
        hero = re.findall(r" named (\w+)", story)[0]
        other = next(name for name in (GIRLS if hero in GIRLS else BOYS) if name not in story)
        head, _, tail = story.rpartition(hero)
        if hero in head:
            assert check(head + other + tail), story
        assert check(story[:-1])
        assert check(story.rpartition(". ")[0] + ".")


def test_empty_text_is_no_story() -> None:
    assert check("") == ["the story stops in state 'start'"]


def test_tokenizer_file(tok: Tokenizer, tmp_path: Path) -> None:
    assert len(tok.pieces) == 512 and tok.pieces[:4] == [b"<unk>", b"\n<s>\n", b"\n</s>\n", b"<0x00>"]
    assert tok.pieces[BYTES + 255] == b"<0xFF>" and tok.scores[BYTES + 256 :] == [-float(i) for i in range(253)]
    tok.save(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (MODELS / "tok512.bin").read_bytes()


def test_tokenizer_round_trips_and_merges_like_run_c(tok: Tokenizer, told: list[str]) -> None:
    for text in [*told[:30], "", "x", "Zoë said: 5 € \n for\ta  kite!", '"Hi,"she  said.']:
        assert tok.decode(tok.encode(text)) == text
        assert tok.encode(text) == tok.encode_slowly(text)
        assert tok.encode(text, bos=True) == [BOS, *tok.encode(text)]


def test_most_stories_fit_the_context(tok: Tokenizer, told: list[str]) -> None:
    assert np.mean([len(tok.encode(story, bos=True)) < 256 for story in told]) > 0.85


def test_checkpoint_header_and_size() -> None:
    data = (MODELS / "stories263k.bin").read_bytes()
    assert struct.unpack_from("<7i", data) == (64, 176, 5, 4, 2, 512, 256)
    assert len(data) == 28 + 4 * (263_872 + 2 * 256 * 8)
    assert np.isfinite(np.frombuffer(data, "<f4", offset=28)).all()


def test_the_model_predicts_stories(model: Checkpoint, tok: Tokenizer) -> None:
    """Cross-entropy of unseen stories; chance is ln 512 = 6.2 nats a token, the grammar's own choices cost 0.17."""
    ids = [tok.encode(generate(i), bos=True)[:100] for i in range(20)]
    batch = np.array([i for i in ids if len(i) == 100])
    decoder, losses = Decoder(model, len(batch)), []
    for pos in range(batch.shape[1] - 1):
        logits = decoder.step(batch[:, pos]).astype(np.float64)
        losses.append(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(batch)), batch[:, pos + 1]])
    assert np.mean(losses) < 0.4


def test_information_is_the_log_of_the_choices() -> None:
    assert 15 < information(STORY) < 40
    assert information(STORY.replace("Lily", "Mia")) == pytest.approx(information(STORY))
    with pytest.raises(ValueError, match="story must be one that the checker accepts"):
        information("Once upon a midnight dreary.")


def test_echoes_are_what_the_facts_decide() -> None:
    said = [STORY[start:end] for start, end in echoes(STORY)]
    assert said[:4] == ["She", "Lily", "girl", "Lily"] and "wet" in said and "Her" not in said
    assert said.count("big umbrella") == 3 and said.count("Lily") == STORY.count("Lily") - 1


def test_sampling_keeps_the_prompt_and_ends(model: Checkpoint, tok: Tokenizer) -> None:
    prompt = "Once upon a time there was a little girl named Lily."
    told, _ = sample(model, [tok.encode(prompt, bos=True)] * 2, 0.0)
    assert told[0] == told[1] and tok.decode(told[0]).startswith(prompt)
    assert BOS not in told[0] and len(told[0]) < 255


def test_training_without_torch_is_one_line():
    hidden = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('models.train', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert ".venv/bin/pip install -c constraints.txt -e '.[train]'" in done.stderr
