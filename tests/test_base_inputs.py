"""base.inputs: a file is named for what it is, and nothing waits for a pipe or reads a device to its end."""

import os
from pathlib import Path

import pytest
from checkpoints import random_checkpoint, write_hf, write_llama2c

from base.errors import TspError
from base.inputs import TEXT_LIMIT, check_content, describe, read_head, read_input, read_json
from compiler.frontend.files import read_model, read_text
from compiler.frontend.load import load_checkpoint
from compiler.frontend.vocabulary import load_tokenizer

GIB = 1 << 30


@pytest.mark.parametrize(("head", "expected"), [
    (b"", "an empty file"),
    (bytes(40), "a file of zeros"),
    (b"  <!DocType HTML>", "an HTML page"),
    (b"<?xml version=", "an HTML page"),
    (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    (b"\x10\0\0\0\0\0\0\0{", "a bare safetensors file"),
    (b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02", "a SentencePiece model"),
    (b" \n{", "a JSON file"),
    (b"GGUF", "a GGUF file"),
    (b"tjgg", "a GGML file older than GGUF"),
    (b"PK\x03\x04", "a PyTorch or zip file"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"metronome-program 3\n", "a compiled Metronome program"),
    (b"once upon a time", ""),
])
def test_what_a_file_is(head, expected):
    assert describe(head).startswith(expected) and bool(describe(head)) == bool(expected)


def test_every_sort_of_file_is_refused_where_another_is_needed(tmp_path):
    check_content(tmp_path, b"{}", wanted="a JSON file", allowed="a JSON file")
    with pytest.raises(TspError, match="a JSON file is needed, and this is a gzip archive: unpack it"):
        check_content(tmp_path, b"\x1f\x8b", wanted="a JSON file", allowed="a JSON file")


READERS = [read_head, read_input, read_json, load_checkpoint, lambda path: load_tokenizer(path, 512),
           lambda path: read_text(path, None)]  # type: ignore[arg-type]  read before the tokenizer is used


@pytest.mark.parametrize("read", READERS)
def test_pipes_and_devices_are_not_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/stdin")):
        if path.exists() and not path.is_file():
            with pytest.raises(TspError, match="this is a pipe, a socket or a device, and a regular file is needed"):
                read(path)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "nul\0byte"])
@pytest.mark.parametrize("read", READERS)
def test_names_that_the_system_refuses(tmp_path, read, name):
    with pytest.raises(TspError, match=r"cannot read|no such checkpoint"):
        read(tmp_path / name)


@pytest.mark.parametrize("names", [("model.safetensors",), ("tokenizer.json",), ("config.json",), ("model.bin",),
                                   ("tokenizer.model",)])
def test_files_of_ten_gigabytes_are_refused_by_their_size_or_header(tmp_path, names):
    """Sparse ones, which take no room here."""
    folder = write_hf(tmp_path / "hf", random_checkpoint())
    write_llama2c(folder / "model.bin", random_checkpoint())
    for name in names:
        with (folder / name).open("ab") as file:
            file.truncate(10 * GIB)
    with pytest.raises(TspError, match=r"at most|has the wrong size|damaged|a file of zeros"):
        if names == ("model.bin",):
            load_checkpoint(folder / "model.bin")
        else:
            read_model(folder, folder / "tokenizer.model" if names == ("tokenizer.model",) else None)


def test_a_text_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.write(b"{}")
        file.truncate(TEXT_LIMIT + 1)
    with pytest.raises(TspError, match="it has 268,435,457 bytes, but a file of this kind has at most 268,435,456"):
        read_json(path)
