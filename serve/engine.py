"""Devices, a fair queue before them, and who gets which.

A device answers one question at a time. Everything here runs in the event loop and returns at once; what takes time is
in the devices' own processes.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from run.answer import Question

from .fair import FairQueue
from .handle import COMMAND, DeviceProcess, Handle, State, handles_of
from .ticket import Ticket
from .worker import Message

SHUTTING_DOWN = "the server is shutting down"
PROGRESS_SECONDS = 5
"""Between lines about a device that has not started."""
SMOOTHING = 0.2
"""How much the last answer counts in the mean time of one."""


class QueueFull(Exception):
    """No room for another question. seconds: after which there may be."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Engine:
    """All devices of a server.

    devices: names as of `--device`. program: the file of their program. sequences: that each of them answers at once.
    most: questions that may wait. seconds: that a
    question may wait, and that its answer may take. observe: called with a ticket and what has become of it.
    say: called with a line whenever a device comes or goes. command: as of `DeviceProcess`.
    """

    def __init__(self, devices: Sequence[str], program: Path, *, most: int, seconds: float,
                 observe: Callable[[Ticket, Message], None] = lambda ticket, message: None,
                 say: Callable[[str], None] = lambda line: None, command: Sequence[str] = COMMAND,
                 sequences: int = 1) -> None:
        self.handles = [handle for name in devices for handle in handles_of(
            DeviceProcess(name, program, command), sequences, self._changed, self._note)]
        self._most, self.seconds, self._observe, self._say = most, seconds, observe, say
        self._queue: FairQueue[Ticket] = FairQueue()
        self._numbers = itertools.count(1)
        self._mean = 1.0
        self.draining = False
        self.settled = asyncio.Event()
        """Every device has been ready once, or will not be."""

    def start(self) -> None:
        """Start all devices; in a running event loop."""
        for handle in self.handles:
            handle.start()
        self._patience = asyncio.create_task(self._tell_progress())

    async def _tell_progress(self) -> None:
        """Lines while devices take long to start."""
        for seconds in itertools.count(PROGRESS_SECONDS, PROGRESS_SECONDS):
            await asyncio.sleep(PROGRESS_SECONDS)
            if self.settled.is_set():
                return
            for handle in self.handles:
                if handle.state is State.STARTING:
                    self._say(f"device {handle.name}: starting for {seconds} s (builds are cached)")

    async def close(self) -> None:
        """End all devices."""
        self._patience.cancel()
        await asyncio.gather(*(handle.close() for handle in self.handles))

    # --- what is seen from outside -----------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Questions that a device is at."""
        return sum(handle.state is State.BUSY for handle in self.handles)

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._queue)

    @property
    def alive(self) -> int:
        """Devices that answer questions."""
        return sum(handle.state in (State.READY, State.BUSY) for handle in self.handles)

    @property
    def wait_seconds(self) -> float:
        """About how long a new question would wait."""
        return self._mean * (self.waiting + self.running) / max(1, self.alive)

    # --- questions ---------------------------------------------------------------------------------------------------

    def submit(self, owner: str, question: Question) -> Ticket:
        """A ticket; its events tell what becomes of it. Raises QueueFull if it can be neither answered nor wait."""
        if self.draining:
            raise QueueFull(SHUTTING_DOWN, 1.0)
        if not self._hope():
            raise QueueFull("no device is in service", 5.0)
        if self.waiting >= self._most and not self._free():
            full = f"the queue is full: requests that wait: {self.waiting}" if self._most else "no device is free"
            raise QueueFull(full, self.wait_seconds)
        ticket = Ticket(next(self._numbers), owner, question)
        self._queue.put(owner, ticket)
        ticket.timer = asyncio.get_running_loop().call_later(self.seconds, self._late, ticket)
        self._dispatch()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Whoever asked wants no answer any more: the ticket leaves the queue, or its device."""
        ticket.left = True
        if self._queue.remove(ticket.owner, ticket):
            ticket.over()
            self._observe(ticket, {"is": "left"})
        elif ticket.handle:
            ticket.handle.stop(ticket)

    def drain(self, seconds: float) -> None:
        """Take no new questions, refuse those that wait, and after so many seconds those that still run."""
        self.draining = True
        self._refuse_all(SHUTTING_DOWN)
        asyncio.get_running_loop().call_later(seconds, self._abandon)

    def _abandon(self) -> None:
        for handle in self.handles:
            if ticket := handle.ticket:
                handle.stop(ticket)
                self._refuse(ticket, SHUTTING_DOWN)

    def _hope(self) -> bool:
        """Whether any device is or will be in service."""
        return any(handle.state in (State.READY, State.BUSY, State.STARTING) for handle in self.handles)

    def _free(self) -> list[Handle]:
        """Devices that take a question at once. While there is one, none waits."""
        return [handle for handle in self.handles if handle.state is State.READY]

    def _changed(self, handle: Handle) -> None:
        """A device is free, or gone."""
        if handle.state is State.READY and not handle.greeted:
            handle.greeted = True
            self._say(f"device {handle.name}: ready")
        elif handle.state in (State.FAULTY, State.LOST):
            handle.greeted = False
            self._say(f"device {handle.name}: {handle.state}: {handle.reason}")
        if all(h.was_ready or h.state in (State.FAULTY, State.LOST) for h in self.handles):
            self.settled.set()
        if not self._hope():
            self._refuse_all("no device is in service")
        self._dispatch()

    def _dispatch(self) -> None:
        while len(self._queue) and (free := self._free()):
            ticket = self._queue.take()
            max(free, key=lambda handle: handle.fits(list(ticket.question.prompt))).ask(ticket)

    def _late(self, ticket: Ticket) -> None:
        """The time of a ticket is over."""
        if self._queue.remove(ticket.owner, ticket):
            self._refuse(ticket, f"the request waited for {self.seconds:g} s and no device was free")
        elif ticket.handle and ticket.handle.ticket is ticket:
            ticket.expired = True
            ticket.handle.stop(ticket)

    def _refuse_all(self, why: str) -> None:
        while len(self._queue):
            self._refuse(self._queue.take(), why)

    def _refuse(self, ticket: Ticket, why: str) -> None:
        ticket.over()
        message: Message = {"is": "refused", "message": why, "seconds": max(1.0, self.wait_seconds)}
        self._observe(ticket, message)
        ticket.tell(message)

    def _note(self, ticket: Ticket, message: Message) -> None:
        if message["is"] in ("end", "invalid", "fault"):
            ticket.over()
        if message["is"] == "end" and ticket.begun is not None:
            self._mean += SMOOTHING * (time.monotonic() - ticket.begun - self._mean)
        self._observe(ticket, message)
