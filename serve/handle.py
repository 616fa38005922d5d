"""The server's end of a device: a process of its own, which can be killed and started anew.

A device of several sequences has a handle for each of them, and all of these have one process.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from run.session import common

from .ticket import Ticket
from .worker import FAULT, LOST, MISMATCH, Message, question_line

COMMAND = (sys.executable, "-P", "-m", "serve.worker")
"""-P: nothing is imported from the folder that the server was started in."""
LINE_BYTES = 1 << 22
"""The longest message of a worker."""
STOP_SECONDS = 60.0
"""A worker that does not stop within this time is killed: a token takes less, or its device hangs."""
PAUSES = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before a lost device is tried again, time after time."""
FATAL = (MISMATCH, FAULT)
"""Faults after which a device is not tried again."""


class State(StrEnum):
    """Of a device, as /health shows it."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    LOST = "lost"
    FAULTY = "out of service"
    CLOSED = "closed"


class Handle:
    """One device, or one of its sequences.

    name: of the device or of the sequence, for messages. process: the device's. number: of the sequence, whose
    questions it answers. changed: called when it can take a ticket, or has left service. observe: called with a ticket
    and what has become of it.
    """

    def __init__(self, name: str, process: "DeviceProcess", number: int, changed: Callable[["Handle"], None],
                 observe: Callable[[Ticket, Message], None]) -> None:
        self.name, self._process, self._number = name, process, number
        self._changed, self._observe = changed, observe
        self.state, self.reason = State.STARTING, ""
        self.clock_mhz: float | None = None
        self.cached: list[int] = []
        self.ticket: Ticket | None = None
        self.faults: list[str] = []
        self._watch: asyncio.TimerHandle | None = None
        self.was_ready = self.greeted = False

    def start(self) -> None:
        """Start the process, and again where it is lost."""
        self._process.start()

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid

    def ask(self, ticket: Ticket) -> None:
        """Give a ticket to a device that is ready."""
        assert self.state is State.READY
        self.state, self.ticket, ticket.handle = State.BUSY, ticket, self
        self._process.send({"do": "ask", "id": ticket.number, "sequence": self._number,
                            "question": question_line(ticket.question)})

    def stop(self, ticket: Ticket) -> None:
        """End a ticket after the present token; the device is killed if it does not obey."""
        if self.ticket is ticket and self._watch is None:
            self._process.send({"do": "stop", "id": ticket.number})
            self._watch = asyncio.get_running_loop().call_later(STOP_SECONDS, self.kill)

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    async def close(self) -> None:
        """End the process; what it is at comes to nothing."""
        self.state = State.CLOSED
        await self._process.close()

    def ready(self, clock_mhz: float) -> None:
        """The process takes questions."""
        self.clock_mhz, self.cached = clock_mhz, []
        self.was_ready = True
        self.state, self.reason = State.READY, ""
        self._changed(self)

    def take(self, message: Message) -> None:
        """A message of the process about a ticket, perhaps that of this handle."""
        ticket = self.ticket
        if ticket is None or ticket.number != message["id"]:
            return
        if message["is"] == "begun":
            self.cached = list(ticket.question.prompt)
        elif message["is"] == "piece":
            self.cached.append(message["token"])
            ticket.finish = message["finish"]
        elif message["is"] == "end":
            del self.cached[message["cached"] :]
        last = message["is"] in ("end", "invalid")
        if last:
            self._done()
            self.state = State.READY
        self._tell(ticket, message)
        if last:
            self._changed(self)

    def fail(self, fault: Message) -> None:
        """The process has ended, and the state says so."""
        self.reason, self.cached = fault["message"], []
        self.faults.append(fault["kind"])
        ticket = self.ticket
        self._done()
        if ticket:
            self._tell(ticket, fault)
        self._changed(self)

    def _tell(self, ticket: Ticket, message: Message) -> None:
        self._observe(ticket, message)
        ticket.stamp(message["is"], time.monotonic())
        ticket.tell(message)

    def _done(self) -> None:
        self.ticket = None
        if self._watch:
            self._watch.cancel()
            self._watch = None

    def fits(self, prompt: list[int]) -> int:
        """Tokens of a prompt that are in the cache."""
        return common(self.cached, prompt)


class DeviceProcess:
    """The process of a device, and its handles: one for each sequence.

    name: as `--device` names it. program: the file of its program. command: starts a worker; the number of its socket
    is appended.
    """

    def __init__(self, name: str, program: Path, command: Sequence[str] = COMMAND) -> None:
        self.name, self._program, self._command = name, program, command
        self.handles: list[Handle] = []
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._lived = self._closed = False

    def start(self) -> None:
        """Start it, and again where it is lost; once for all handles."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=f"device {self.name}")

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def kill(self) -> None:
        """End it now."""
        if self._process:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End it for good."""
        self._closed = True
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def send(self, message: Message) -> None:
        """A message to it."""
        assert self._writer
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def _keep(self) -> None:
        failures = 0
        while True:
            self._lived = False
            try:
                await self._live()
            except (OSError, ValueError) as error:  # no process can be had, or it sends what is no message
                self._fail({"is": "fault", "kind": LOST, "message": f"device {self.name}: {error}"})
            if any(handle.state is State.FAULTY or not handle.was_ready for handle in self.handles):
                return
            failures = 0 if self._lived else failures + 1
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            for handle in self.handles:
                handle.state = State.STARTING

    async def _live(self) -> None:
        """From the start of a process to its end."""
        near, far = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, str(far.fileno()), pass_fds=[far.fileno()], stdin=DEVNULL)
        finally:
            far.close()
        reader, self._writer = await asyncio.open_connection(sock=near, limit=LINE_BYTES)
        fault: Message = {"is": "fault", "kind": LOST}
        try:
            self.send({"program": str(self._program), "device": self.name})
            async for line in reader:
                message = json.loads(line)
                if message["is"] == "fault":
                    fault = message
                    break
                self._take(message)
        except OSError:
            pass
        finally:
            self._writer.close()
            if self._closed or fault["is"] == "fault":
                self.kill()
            code = await self._process.wait()
            self._process = None
        fault.setdefault("message", f"the process of device {self.name} ended ({_how(code)})")
        self._fail(fault)

    def _take(self, message: Message) -> None:
        if message["is"] == "ready":
            self._lived = True
        for handle in self.handles:
            if message["is"] == "ready":
                handle.ready(message["clock_mhz"])
            else:
                handle.take(message)

    def _fail(self, fault: Message) -> None:
        for handle in self.handles:  # first of all, or a question that waits goes to a handle that has no process
            handle.state = State.FAULTY if fault["kind"] in FATAL else State.LOST
        for handle in self.handles:
            handle.fail(fault)


def handles_of(process: DeviceProcess, sequences: int, changed: Callable[[Handle], None],
               observe: Callable[[Ticket, Message], None]) -> list[Handle]:
    """A handle for each sequence of a device."""
    names = [process.name] if sequences == 1 else [f"{process.name}, sequence {n}" for n in range(sequences)]
    process.handles = [Handle(name, process, number, changed, observe) for number, name in enumerate(names)]
    return process.handles


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
