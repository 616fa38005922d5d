"""base.command: what the system refuses is one line and exit code 2; SIGTERM ends what was begun."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import REPOSITORY

from base.command import INTERRUPTED, REFUSED, TERMINATED, refusal
from base.errors import TspError

SHIPPED = REPOSITORY / "models" / "stories263k.bin"


def tsp(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | options.pop("env", {})
    return subprocess.run([sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True, check=False,
                          env=env, **options)


def refused(answer: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a command that refused."""
    assert answer.returncode == REFUSED and answer.stdout == "", answer
    (line,) = answer.stderr.splitlines()
    assert line.startswith("tsp: ")
    return line


@pytest.mark.parametrize(("error", "text"), [
    (TspError("a\nb"), "a b"), (MemoryError(), "this machine has too little memory for this"),
    (OSError(errno.EIO, "Input/output error", "x"), "x: input/output error: name another one"),
    (OSError(errno.EIO, "Input/output error"), "the system refuses: input/output error"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "xx.. (300 characters): file name too long: name a"),
])
def test_refusals_are_one_line(error: Exception, text: str):
    line = refusal(error)
    assert line is not None and text in line and "\n" not in line


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOSPC, "full"), BrokenPipeError(), KeyError(1)])
def test_bugs_and_full_disks_are_no_refusals(error: Exception):
    assert refusal(error) is None


@pytest.mark.parametrize("command", [
    ("run", "{}"), ("compile", "{}", "-o", "a.tsp"), ("run", str(SHIPPED), "--text", "{}"),
    ("compile", str(SHIPPED), "-o", "{}"), ("fit", "{}"), ("report", "{}")])
def test_names_that_are_too_long(command: tuple[str, ...], tmp_path: Path):
    assert "too long" in refused(tsp(*(word.format("n" * 300) for word in command), cwd=tmp_path))


CLOSED = [
    (("run", "{}"), "cannot read it: Permission denied: give this user access"),
    (("fit", "{}/model.bin"), "model.bin: permission denied: name another one, or give this user access"),
    (("plan", "{}"), "config.json: permission denied"),
    (("compile", str(SHIPPED), "-o", "{}/program.tsp"), "program.tsp: cannot write: permission denied: name a file"),
    (("page", str(SHIPPED), "--folder", "{}/page"), "page: permission denied"),
]


@pytest.mark.parametrize(("command", "text"), CLOSED, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_a_folder_that_may_not_be_entered(command: tuple[str, ...], text: str, tmp_path: Path):
    folder = closed(tmp_path)
    assert text in refused(unprivileged(*(word.format(folder) for word in command)))
    assert os.listdir(tmp_path) == [folder.name]


@pytest.mark.parametrize("inside", ["", "cache"])
def test_a_cache_that_may_not_be_entered(inside: str, tmp_path: Path):
    answer = unprivileged("run", str(SHIPPED), "--device", "reference", "--tokens", "1",
                          env={"METRONOME_CACHE": str(closed(tmp_path) / inside)})
    assert "cannot be created or entered: Permission denied; set METRONOME_CACHE to another folder" in refused(answer)


def closed(parent: Path) -> Path:
    """A folder that its owner may not enter."""
    folder = parent / "closed"
    folder.mkdir()
    folder.chmod(0)
    return folder


def unprivileged(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`tsp` for which permissions hold. For root they do not, so the command gives that power up."""
    weaker = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run([*weaker, sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True,
                          check=False, env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | (env or {}))


def test_out_of_memory():
    code = "import cli.main as m, sys\nm.fit_model = lambda *a, **k: bytearray(1 << 62)\nsys.exit(m.app())"
    answer = subprocess.run([sys.executable, "-c", code, "fit", str(SHIPPED)], capture_output=True, text=True,
                            check=False, cwd=REPOSITORY)
    assert refused(answer) == ("tsp: this machine has too little memory for this: use a smaller model, config or "
                               "--context")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_letter_that_the_output_has_not(encoding: str):
    answer = tsp("run", str(SHIPPED), "--device", "reference", "--tokens", "1", "--prompt", "世",
                 env={"PYTHONIOENCODING": encoding})
    assert answer.returncode == 0 and "Error" not in answer.stderr, answer
    assert "\\u4e16" in answer.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str):
    """The command runs, and a tool that it starts has the streams, too."""
    code = ("import subprocess, sys\nfrom base.command import prepare\nprepare()\nsys.stdin.read()\nprint(1)\n"
            "print(2, file=sys.stderr)\nsubprocess.run('cat && echo 1 && echo 2 >&2', shell=True, check=True)")
    script = f'exec "$0" -c "$1" {closed}'
    answer = subprocess.run(["bash", "-c", script, sys.executable, code], stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, check=False, cwd=REPOSITORY)
    assert answer.returncode == 0, answer
    assert answer.stdout == ("" if ">&-" in closed.split() else "1\n1\n")
    assert answer.stderr == ("" if "2>&-" in closed.split() else "2\n2\n")


def test_ctrl_c_while_modules_are_imported():
    code = ("import sys\nclass Stop:\n    def find_spec(self, name, *_):\n        if name == 'typer':\n"
            "            raise KeyboardInterrupt\nsys.meta_path.insert(0, Stop())\nfrom cli.start import app\n"
            "sys.exit(app())")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert (answer.returncode, answer.stderr) == (INTERRUPTED, "")


BUILDS = {
    "Verilator build": "from sim.rtl.build import build\nbuild('module t(input clk); endmodule', 't', '')",
    "FPGA tool": "from fpga.flow.tools import Tool, run\nfrom pathlib import Path\n"
                 "run(Tool('slow', (sys.argv[1],), '1'), [], Path(sys.argv[2]), 'log')",
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_sigterm_ends_the_children_of_a_build(build: str, tmp_path: Path):
    """A tool that never ends, and its child, both end. In a simulator's build make starts the tool."""
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo slow 1 && exit\nsleep 1000 &\n"
                    f"echo $$ $! >> {tmp_path}/pids\nwait\n")
    tool.chmod(0o755)
    code = f"import sys\nfrom base.command import prepare\nprepare()\n{build}"
    process = subprocess.Popen([sys.executable, "-c", code, str(tool), str(tmp_path)], cwd=REPOSITORY,
                               stderr=subprocess.DEVNULL,
                               env=os.environ | {"CXX": str(tool), "METRONOME_CACHE": str(tmp_path / "cache")})
    end = time.monotonic() + 60
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == TERMINATED
    for pid in (tmp_path / "pids").read_text().split():
        while _lives(int(pid)):
            assert time.monotonic() < end
            time.sleep(0.1)


def _lives(pid: int) -> bool:
    """Whether there is a process of that number, other than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
