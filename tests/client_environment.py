"""Virtual environments of clients whose pins are not this project's, made once and kept in the cache."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from base.cache import cached, content_key

FOLDER = Path(__file__).parent / "environments"


def client_environment(name: str) -> Path:
    """The folder of the environment of `environments/NAME.txt`; takes minutes at the first call."""
    pins = FOLDER / f"{name}.txt"

    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--no-compile", "-r", pins], check=True)

    return cached("environments", content_key(sys.version, pins.read_bytes()), make)


def node_environment(name: str) -> Path:
    """The folder with the node_modules of `environments/NAME/package-lock.json`; takes a minute at the first call."""
    files = [FOLDER / name / file for file in ("package.json", "package-lock.json")]

    def make(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        # without install scripts: those of optional packages fetch browsers and libraries that no client needs
        subprocess.run(["npm", "ci", "--ignore-scripts", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)

    return cached("environments", content_key(*(file.read_bytes() for file in files)), make)
