"""Child processes of a build: a tool and all that it starts, which end with the build."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.3


def run_group(command: Sequence[str], folder: Path, output: IO, *, env: Mapping[str, str] | None = None,
              watch: Callable[[], None] = lambda: None) -> int:
    """Run a tool in a folder, in a process group of its own. Returns its exit status.

    An exception, that of SIGTERM or ctrl-C included, kills the whole group.

    output: takes what the tool prints on standard output and standard error.
    watch: called several times a second while the tool runs.
    """
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                               start_new_session=True)
    try:
        while True:
            try:
                return process.wait(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                watch()
    finally:
        with suppress(ProcessLookupError):  # processes are left only after an exception
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
