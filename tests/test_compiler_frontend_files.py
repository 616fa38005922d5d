"""Texts that are read; outputs: what cannot be written is refused beforehand, and what is written is whole."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import random_tokenizer

from base import files
from base.errors import TspError
from base.files import check_output, check_outputs, whole, write_whole
from compiler.frontend.files import MOST_TOKENS, TEXT_BYTES, read_text, sources


@pytest.fixture
def no_room() -> Iterator[None]:
    """Files of at most 4096 bytes: the next one gives the error of a disk that is too small."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_no_regular_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to(tmp_path / "folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    for name, words in (("fifo", "a device or a pipe"), ("folder", "it is a folder"), ("to_folder", "it is a folder"),
                        ("loop", "cannot write"), ("none/a", "make it, or name another file"), ("x" * 300, "too long"),
                        ("file/a", "cannot write")):
        with pytest.raises(TspError, match=words):
            check_output(tmp_path / name)
        with pytest.raises(TspError, match=words):
            write_whole({tmp_path / name: b"new"})
    with pytest.raises(TspError, match="a device or a pipe"):
        check_output(os.devnull)
    for nothing in "", ".":
        with pytest.raises(TspError, match="the name of an output is empty"):
            check_output(nothing)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_read_or_named_twice_is_refused(tmp_path: Path):
    there = tmp_path / "there"
    there.touch()
    (tmp_path / "link").symlink_to(there)
    os.link(there, tmp_path / "hard")
    for name in ("there", "link", "hard", "../" + tmp_path.name + "/there"):
        with pytest.raises(TspError, match="the command reads this very file"):
            check_output(tmp_path / name, tmp_path / "other", there)
    check_outputs([tmp_path / "a", None, tmp_path / "b", None], [there])
    with pytest.raises(TspError, match="two outputs"):
        check_outputs([tmp_path / "a", None, tmp_path / "." / "x" / ".." / "a"])


def test_what_is_read_of_a_checkpoint(tmp_path: Path):
    for name in ("model.bin", "tok512.bin", "tokenizer.bin", "a.tsp", "config.json", "trace.json", "b.safetensors"):
        (tmp_path / name).touch()
    assert {path.name for path in sources(tmp_path)} == {tmp_path.name, "config.json", "b.safetensors"}
    assert [path.name for path in sources(tmp_path / "model.bin", Path("t"))] == [
        "model.bin", "t", "tok512.bin", "tokenizer.bin"]


def test_a_link_is_followed_and_permissions_stay(tmp_path: Path):
    (tmp_path / "target").write_text("before")
    (tmp_path / "target").chmod(0o640)
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("fresh")
    write_whole({tmp_path / "link": b"one", tmp_path / "dangling": b"two"})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"one"
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "dangling").is_symlink() and (tmp_path / "fresh").read_bytes() == b"two"
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~files._umask()
    assert len(list(tmp_path.iterdir())) == 4


def test_without_room_nothing_is_left(tmp_path: Path, no_room: None):
    (tmp_path / "there").write_text("before")
    with pytest.raises(TspError, match=r"b: cannot write: file too large: name a file elsewhere"):
        write_whole({tmp_path / "there": b"small", tmp_path / "b": bytes(10_000)})
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and (tmp_path / "there").read_text() == "before"


def test_a_block_that_fails_leaves_nothing_unless_it_is_wanted(tmp_path: Path):
    for error, left in ((ValueError, []), (KeyboardInterrupt, ["waves"])):
        with pytest.raises(error), whole(tmp_path / "waves", keep=(KeyboardInterrupt,)) as temporary:
            temporary.write_text("so far")
            raise error
        assert [path.name for path in tmp_path.iterdir()] == left


# ---- texts ----

TOKENIZER = random_tokenizer(100)
SENTENCE = "the cat sat on the mat, and the dog ran away. "


def test_a_text_is_its_tokens(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text(SENTENCE)
    assert read_text(path, TOKENIZER) == TOKENIZER.encode(SENTENCE, bos=False)


def test_only_the_beginning_of_a_long_text_counts(tmp_path: Path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    text = SENTENCE * (2 * TEXT_BYTES // len(SENTENCE))
    first.write_text(text)
    second.write_bytes(text.encode()[:TEXT_BYTES] + b"\xff")
    tokens = read_text(first, TOKENIZER)
    assert len(tokens) == MOST_TOKENS and read_text(second, TOKENIZER) == tokens


def test_a_character_may_be_cut_where_the_reading_ends(tmp_path: Path):
    path = tmp_path / "text.txt"
    text = ("a" * (TEXT_BYTES - 1) + "\u00e9").encode()
    path.write_bytes(text)
    assert len(read_text(path, TOKENIZER)) == MOST_TOKENS
    path.write_bytes(text[:100] + text[-2:-1])
    with pytest.raises(TspError, match="the text must be UTF-8, but byte 100 is not"):
        read_text(path, TOKENIZER)
