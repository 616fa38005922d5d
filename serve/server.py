"""Runs the application: binds, serves, and ends in order."""

import signal
import socket
import tempfile
from pathlib import Path
from types import FrameType

import uvicorn

from compiler.errors import TspError
from compiler.program import Program
from run.chat import ChatTemplate

from .api import application
from .engine import Engine
from .model import Model
from .settings import Settings


class Server(uvicorn.Server):
    """uvicorn, which on the first signal refuses what is new and lets what runs end."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT or SIGTERM; a second SIGINT ends at once."""
        self._engine.drain()
        super().handle_exit(sig, frame)


def serve(settings: Settings, program: Program, template: ChatTemplate | None) -> None:
    """Until a signal. Raises TspError if the port is taken."""
    with tempfile.TemporaryDirectory(prefix="tsp-serve-") as folder:
        file = Path(folder) / "program.tsp"
        program.save(file)
        engine = Engine(settings.devices, file, most=settings.most, seconds=settings.seconds)
        app = application(Model.of(settings, program, template), engine)
        config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False,
                                timeout_graceful_shutdown=int(settings.drain), lifespan="on")
        with bind(settings.host, settings.port) as listener:
            Server(config, engine).run([listener])


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


__all__ = ["Server", "bind", "serve", "signal"]
