"""The documentation: generated blocks are up to date, links lead somewhere, commands exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # docs/ is no part of the installed package

from cli.main import app, commands  # noqa: E402
from docs import generate  # noqa: E402
from models.corpus import check  # noqa: E402

LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
FIGURES = {"configs", "buckets", "segments", "stories"}
PLANS = {name for name in generate.BLOCKS if name.startswith("plan-")}
RACKS = {"rack-cycles", "rack-links"}
PAGES = [*generate.files(), ROOT / "CHANGELOG.md", ROOT / "models" / "README.md"]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
README = (ROOT / "README.md").read_text()


def blocks(names: set[str]) -> list[tuple[Path, str, str]]:
    return [(path, name, text) for path in generate.files() for name, text in generate.blocks(path.read_text())
            if name in names]


def test_every_block_is_used_and_closed():
    used = [name for path in generate.files() for name, _ in generate.blocks(path.read_text())]
    assert sorted(used) == sorted(generate.BLOCKS)
    for path in generate.files():
        text = path.read_text()
        assert text.count("<!-- generated: ") == text.count("<!-- end generated -->") == len([*generate.blocks(text)])


@pytest.mark.parametrize("names", [generate.BLOCKS.keys() - FIGURES - PLANS - RACKS - generate.RTL_BLOCKS.keys(),
                                   FIGURES, PLANS, RACKS], ids=["isa", "figures", "plans", "racks"])
def test_generated_blocks_are_up_to_date(names: set[str]):
    for path, name, text in blocks(names):
        assert text.strip() == generate.BLOCKS[name]().strip(), f"{path.name}: {name}: run `make docs`"


def test_the_picture_is_up_to_date():
    assert generate.PICTURE.read_text() == generate.schedule(), "run `make docs`"


def test_the_output_of_make_sim_is_that_of_this_program(capsys: pytest.CaptureFixture[str]):
    """All but the speed of the simulating machine, which stands in the last bracket."""
    ((_, _, block),) = blocks({"sim"})
    assert app(["run", str(ROOT / generate.MODEL), "--device", "reference", "--prompt", "Once upon a time"]) == 0
    out = capsys.readouterr().out
    *told, _ = out[out.index("predicted cycles"):].strip().splitlines()
    assert all(line in block for line in told), "run `python -m docs.generate --rtl`"
    total = re.search(r"predicted ([\d,]+) cycles", out.splitlines()[-1])
    assert total and f"measured {total[1]} cycles == predicted {total[1]};" in block


def test_the_stories_of_the_readme_have_no_slips():
    """The checker of the model's grammar accepts what `make sim` prints, the three stories, and the example's."""
    ((_, _, block),) = blocks({"sim"})
    ((_, _, chosen),) = blocks({"stories"})
    stories = [line.removeprefix("> ") for text in (block, chosen) for line in text.splitlines()
               if line.removeprefix("> ").startswith(generate.PROMPT)]
    assert len(stories) == 1 + len(generate.SEEDS)
    assert [check(story) for story in stories] == [[]] * len(stories)
    (example,) = [line for line in code_lines() if "tsp run" in line and re.search(r"--seed \d", line)]
    words = shlex.split(example)
    asked = {option: words[words.index(option) + 1] for option in ("--prompt", "--temperature", "--seed")}
    assert asked == {"--prompt": generate.PROMPT, "--temperature": str(generate.TEMPERATURE),
                     "--seed": str(generate.SEEDS[0])}


def test_outputs_of_the_readme_are_ignored_by_git():
    words = [shlex.split(line, comments=True) for line in code_lines() if line.startswith(".venv/bin/")]
    outputs = {words[at + 1] for words in words for at, word in enumerate(words) if word in ("-o", "--html")}
    assert outputs >= {"story.tsp", "schedule.html", "chip.v"}
    ignored = subprocess.run(["git", "check-ignore", *sorted(outputs)], cwd=ROOT, capture_output=True, text=True,
                             check=False).stdout.split()
    assert ignored == sorted(outputs)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_exist(path: Path):
    for target, anchor in LINK.findall(path.read_text()):
        if "://" in target:
            continue
        file = path.parent / target
        assert file.exists(), f"{path.name}: {target}"
        headings = {re.sub(r"[^\w -]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
                    for line in file.read_text().splitlines() if line.startswith("#")} if anchor else set()
        assert not anchor or anchor[1:] in headings, f"{path.name}: {target}{anchor}"


def code_lines(text: str = README) -> list[str]:
    """Lines of a page's plain code blocks and of its spans of code; long lines are joined."""
    text = re.sub(r"<!-- generated.*?<!-- end generated -->", "", text, flags=re.DOTALL).replace("\\\n", "")
    fenced = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return fenced + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def test_make_targets_of_the_readme_exist():
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in code_lines() if line.startswith("make ")}
    assert {"sim", "test"} <= named <= known


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_tsp_commands_exist(path: Path):
    """Every command that begins a line or a span of code, with its options."""
    group = typer.main.get_command(commands)
    seen = set()
    for line in code_lines(path.read_text()):
        if not re.match(r"(\.venv/bin/)?tsp [a-z]", line):
            continue
        words = shlex.split(line, comments=True)
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        options = {"--help", *(option for parameter in command.params for option in parameter.opts)}
        assert {word for word in words if re.match("--?[a-z]", word)} <= options, line
        seen.add(words[1])
    assert path.name != "README.md" or path.parent != ROOT or {"run", "compile", "fit", "report"} <= seen


def test_the_tutorial_prints_what_it_says():
    code, output = re.search(r"```python\n(.*?)```.*?```\n(.*?)```", (ROOT / "docs/start/tutorial.md").read_text(),
                             re.DOTALL).groups()  # type: ignore[union-attr]
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", output)
