"""Puts a page together: one HTML file with everything inside, or a folder for a web host.

The sources are plain ES modules that a browser loads as they are; the folder holds them so. For the single file they
are joined into one script, in the order of their imports, each name unique: no tool, and nothing to be fetched.
"""

import base64
import gzip
import re
from pathlib import Path

from compiler.errors import TspError

ROOM = Path(__file__).parent
SCRIPTS = ROOM / "js"
MAIN, WORKER = "main.js", "worker.js"
IMPORT = re.compile(r'^import [^;]*? from "\./([\w]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)
NAME = re.compile(r"^(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
STYLE_TAG = '<link rel="stylesheet" href="style.css">'
SCRIPT_TAG = '<script type="module" src="js/main.js"></script>'
POLICY = '<meta http-equiv="Content-Security-Policy" content="{}">'
ALONE = ("default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:; "
         "style-src 'unsafe-inline'; img-src data:")
"""What the single file may do: run itself. It can reach no network."""


def joined(main: str) -> str:
    """A module and all that it imports as one classic script. Raises TspError where two of them use one name."""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name in texts:
            return
        texts[name] = ""
        text = (SCRIPTS / name).read_text()
        for needed in IMPORT.findall(text):
            add(needed)
        del texts[name]  # behind what it needs
        texts[name] = EXPORT.sub("", IMPORT.sub("", text))

    add(main)
    seen: dict[str, str] = {}
    for name, text in texts.items():
        for word in NAME.findall(text):
            if word in seen:
                raise TspError(f"page/js: {name} and {seen[word]} both define {word!r}; joined they must not")
            seen[word] = name
    return "\n".join(f"// {name}\n{text}" for name, text in texts.items())


def single(wasm: bytes, program: bytes) -> bytes:
    """The page as one file."""
    page = (ROOM / "index.html").read_text()
    data = "".join(f'<script type="application/gzip" id="{name}">{_packed(data)}</script>\n'
                   for name, data in (("chip.wasm", wasm), ("program.bin", program)))
    worker = f'<script type="text/plain" id="worker.js">{_inline(joined(WORKER))}</script>\n'
    script = f'{data}{worker}<script type="module">\n{_inline(joined(MAIN))}</script>'
    style = f"<style>\n{(ROOM / 'style.css').read_text()}</style>"
    for tag, text in ((STYLE_TAG, f"{POLICY.format(ALONE)}\n{style}"), (SCRIPT_TAG, script)):
        if tag not in page:
            raise TspError(f"page/index.html must hold {tag}")
        page = page.replace(tag, text)
    return page.encode()


def folder(wasm: bytes, program: bytes) -> dict[str, bytes]:
    """The page as files of a folder, by relative path."""
    files = {name: (ROOM / name).read_bytes() for name in ("index.html", "style.css")}
    files |= {f"js/{path.name}": path.read_bytes() for path in sorted(SCRIPTS.glob("*.js"))}
    return files | {"chip.wasm": wasm, "program.bin": program}


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def _inline(script: str) -> str:
    """A script cannot hold the tag that would end it."""
    return script.replace("</script", "<\\/script")
