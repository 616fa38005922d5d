"""Runs the application: binds, serves, and ends in order."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile, gettempdir
from types import FrameType

import uvicorn

from base.errors import TspError
from program.file import to_bytes
from program.rack import AnyProgram
from run.chat import ChatTemplate

from .api import application
from .engine import Engine
from .http import Protocol
from .metrics import Metrics
from .model import Model
from .settings import Settings


class Server(uvicorn.Server):
    """uvicorn, which on the first signal refuses what is new and lets what runs end.

    drain: seconds that this may take.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine, drain: float) -> None:
        super().__init__(config)
        self._engine, self._drain = engine, drain

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until a signal, or until no device can be had."""
        self._loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch())
        await super().serve(sockets)
        watch.cancel()

    async def _watch(self) -> None:
        await self._engine.settled.wait()
        if not any(handle.was_ready for handle in self._engine.handles):
            self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT or SIGTERM; a second SIGINT ends at once."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        elif not self.should_exit:
            self.should_exit = True
            self._loop.call_soon_threadsafe(self._engine.drain, self._drain)


def serve(settings: Settings, program: AnyProgram, template: ChatTemplate | None,
          say: Callable[[str], None] = lambda line: None) -> None:
    """Until a signal. Raises TspError if the port is taken, or if no device can be opened. say: takes progress."""
    metrics = Metrics(settings.name)
    with bind(settings.host, settings.port) as listener, nameless_file(program) as file:
        engine = Engine(settings.devices, file, most=settings.most, seconds=settings.seconds, observe=metrics.observe,
                        say=say, sequences=program.sequences)
        app = application(Model.of(settings, program, template), engine, metrics)
        config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, http=Protocol, ws="none",
                                loop="uvloop", timeout_graceful_shutdown=int(settings.drain) + 2, lifespan="on")
        say(_greeting(settings, listener))
        try:
            Server(config, engine, settings.drain).run([listener])
        finally:
            for handle in engine.handles:
                handle.kill()
    if not any(handle.was_ready for handle in engine.handles):
        raise TspError("; ".join(f"device {handle.name}: {handle.reason}" for handle in engine.handles if handle.reason)
                       or "stopped before a device was ready")


@contextmanager
def nameless_file(program: AnyProgram) -> Iterator[Path]:
    """A path of a program's file for processes of the same user.

    On Linux the file is in no folder, so the system removes it with this process, however that ends. Raises TspError.
    """
    linux = Path("/proc/self/fd").is_dir()
    with TemporaryFile() if linux else NamedTemporaryFile() as file:
        try:
            file.write(to_bytes(program))
            file.flush()
        except OSError as error:
            raise TspError(f"{gettempdir()}: cannot write the program: {error.strerror}: make room, or set TMPDIR to "
                           "another folder") from error
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}" if linux else file.name)


def _greeting(settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    who = f"for {len(settings.keys)} keys" if settings.keys else "without keys: for this machine only"
    return f"serving {settings.name} at {address}/v1 (a page is at {address}), {who}"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises TspError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise TspError(f"cannot listen at {host} port {port}: {error}: choose another with --port") from error
    listener.listen(1024)
    return listener
