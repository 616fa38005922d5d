"""Puts a page together: one HTML file with everything inside, or a folder for a web host.

The folder holds the scripts as they are. In the single file they are joined, and data is compressed; it runs from a
disk, and its policy forbids it to fetch anything.
"""

from pathlib import Path

from base.errors import TspError
from report import web

ROOM = Path(__file__).parent
SCRIPTS = ROOM / "js"
STYLE_TAG = '<link rel="stylesheet" href="style.css">'
SCRIPT_TAG = '<script type="module" src="js/main.js"></script>'
POLICY = ("default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:; "
          "style-src 'unsafe-inline'; img-src data:")
"""What the single file may do: run itself."""


def single(wasm: bytes, program: bytes) -> bytes:
    """The page as one file."""
    data = web.packed("chip.wasm", wasm) + web.packed("program.bin", program)
    worker = web.script(_joined("worker.js"), "text/plain", "worker.js")
    style = f"<style>\n{(ROOM / 'style.css').read_text()}</style>"
    page = (ROOM / "index.html").read_text()
    for tag, text in ((STYLE_TAG, f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n{style}'),
                      (SCRIPT_TAG, data + worker + web.script(_joined("main.js")))):
        if tag not in page:
            raise TspError(f"page/index.html must hold {tag}")
        page = page.replace(tag, text)
    return page.encode()


def folder(wasm: bytes, program: bytes) -> dict[str, bytes]:
    """The page as files of a folder, by relative path."""
    files = {name: (ROOM / name).read_bytes() for name in ("index.html", "style.css")}
    for scripts in (web.SCRIPTS, SCRIPTS):
        files |= {f"js/{path.name}": path.read_bytes() for path in sorted(scripts.glob("*.js"))}
    return files | {"chip.wasm": wasm, "program.bin": program}


def _joined(main: str) -> str:
    return web.joined(SCRIPTS / main, SCRIPTS, web.SCRIPTS)
