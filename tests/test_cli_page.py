"""`tsp page`: what it writes, and what it refuses before it compiles anything."""

from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
from checkpoints import REPOSITORY
from page_program import story_program, story_wasm

from base.errors import TspError
from cli.main import app
from page import payload
from program.file import save
from program.tokenizer import KIND_HF, Tokenizer

MODEL = str(REPOSITORY / "models" / "stories263k.bin")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "story.tsp"
    save(story_program(), path)
    return path


def test_a_file_and_a_folder(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, site = tmp_path / "page.html", tmp_path / "site"
    for _ in range(2):  # the second time over the first
        assert app(["page", str(file), "-o", str(one), "--folder", str(site)]) == 0
    assert "the chip ulx3s and story inside" in capsys.readouterr().out
    assert (site / "chip.wasm").read_bytes() == story_wasm()
    assert {path.name for path in site.iterdir()} == {"index.html", "style.css", "js", "chip.wasm", "program.bin"}
    assert len(one.read_bytes()) < 800_000
    assert '<script type="module" src=' not in one.read_text()


def test_the_same_program_gives_the_same_bytes(file: Path, tmp_path: Path):
    for name in ("one.html", "two.html"):
        assert app(["page", str(file), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize(("options", "why"), [
    ([], "give --output page.html, or --folder site"),
    (["-o", "/nowhere/page.html"], "there is no folder"),
    (["--folder", "/nowhere/site/there"], "there is no folder"),
    (["--folder", MODEL], "this is a file"),
    (["--folder", str(REPOSITORY / "docs")], "the folder holds files that are not of a page"),
])
def test_places_that_it_refuses(file: Path, options: list[str], why: str, capsys: pytest.CaptureFixture[str]):
    assert app(["page", str(file), *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and why in said[0]


def test_programs_that_it_refuses():
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    library.normalizer = tokenizers.normalizers.Nmt()
    words = Tokenizer(kind=KIND_HF, payload=library.to_str().encode(), bos=0, stops=[1], vocab_size=512)
    with pytest.raises(TspError, match=r"the normalizer Nmt: compile the model with a tokenizer.bin"):
        payload.payload(replace(story_program(), tokenizer=words.to_bytes()), "story")
    with pytest.raises(TspError, match="a page runs one sequence, the program has 2: compile without --sequences"):
        payload.payload(replace(story_program(), sequences=2), "story")
