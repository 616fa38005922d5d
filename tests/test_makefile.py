"""The Makefile: what is given to `make sim` reaches `tsp run` as it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import REPOSITORY

TSP = f"""#!{sys.executable}
import json, sys
print(json.dumps(sys.argv[1:]))
"""


@pytest.mark.parametrize("prompt", [
    "Once upon a time", 'She said "no"', "it's", "$HOME $(pwd) $$ $5 ${x}", "back`tick` \\ # ; & | >", "two  words ",
    "世"])
def test_a_prompt_survives_make_and_the_shell(prompt: str, tmp_path: Path):
    tool = tmp_path / "tsp"
    tool.write_text(TSP)
    tool.chmod(0o755)
    command = ["make", "--silent", "sim", f"BIN={tmp_path}", "STAMP=pyproject.toml", "DEVICE=model", f"PROMPT={prompt}"]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == ["run", "models/stories263k.bin", "--device", "model", "--prompt", prompt]
