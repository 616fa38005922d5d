"""The fair queue, token buckets, keys and settings."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import TspError
from serve.fair import Bucket, FairQueue
from serve.settings import Settings, read_keys


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_each_owner_has_his_turn_and_his_order(owners: list[str]):
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for n, owner in enumerate(owners):
        queue.put(owner, (owner, n))
    assert len(queue) == len(owners) == len(list(queue))
    taken = [queue.take() for _ in owners]
    assert sorted(taken) == sorted((owner, n) for n, owner in enumerate(owners))
    for owner in "abc":
        own = [n for who, n in taken if who == owner]
        assert own == sorted(own)
    waiting = Counter(owners)
    for turn in range(max(waiting.values(), default=0)):  # in every round, all who still wait
        size = sum(count > turn for count in waiting.values())
        start = sum(min(count, turn) for count in waiting.values())
        assert len({who for who, _ in taken[start : start + size]}) == size


def test_what_is_not_there_is_not_removed():
    queue: FairQueue[int] = FairQueue()
    queue.put("a", 1)
    assert not queue.remove("b", 1) and not queue.remove("a", 2) and queue.remove("a", 1)
    assert not len(queue)
    with pytest.raises(IndexError):
        queue.take()


def test_a_bucket_fills_all_the_time():
    bucket = Bucket(60, now=0.0)
    assert bucket.wait(60, 0.0) == 0
    bucket.spend(60, 0.0)
    assert (bucket.level(0.0), bucket.wait(1, 0.0), bucket.reset(0.0)) == (0, 1.0, 60.0)
    assert bucket.wait(1, 0.25) == 0.75 and bucket.wait(1, 1.0) == 0
    bucket.spend(10, 1.0)  # more than there is
    assert bucket.level(1.0) == -9 and bucket.wait(1, 1.0) == 10
    assert bucket.level(1000.0) == 60, "it holds no more"
    assert bucket.wait(1000, 1000.0) == 0, "nobody waits for more than it can hold"


def test_keys_are_lines(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key-1\n\n  second-key  \n")
    assert read_keys(file) == ("first-key-1", "second-key")
    for text, words in (("", "no key"), ("short", "at least 8"), ("with a space", "no space"),
                        ("schlüssel", "ASCII")):
        file.write_text(text)
        with pytest.raises(TspError, match=words):
            read_keys(file)


@pytest.mark.parametrize(("fields", "words"), [
    ({"host": "0.0.0.0"}, "127.0.0.1 without keys"), ({"port": -1}, "port must be"), ({"most": -1}, "--max-queue"),
    ({"seconds": float("nan")}, "--max-seconds"), ({"requests": 0}, "--requests-per-minute"),
    ({"tokens": 0}, "--tokens-per-minute"), ({"body": 0}, "--max-body")])
def test_settings_have_limits(fields: dict[str, Any], words: str):
    with pytest.raises(TspError, match=words):
        Settings(name="m", **fields)
    assert Settings(name="m", host="0.0.0.0", keys=("a-long-key",)).knows("m")
    assert Settings(name="m", aliases=("*",)).knows("whatever") and not Settings(name="m").knows("n")
    assert "a-long-key" not in repr(Settings(name="m", keys=("a-long-key",)))
