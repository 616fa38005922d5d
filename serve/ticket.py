"""A question on its way through the server."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from run.answer import Question

from .worker import Message

if TYPE_CHECKING:
    from .handle import Handle


@dataclass(eq=False)
class Ticket:
    """A question on its way.

    number: of the ticket. owner: who asks, for the fair queue. events: what has become of it, message by message; the
    last is "end", "invalid", "fault", "refused" or "gone". asked, begun, first, last, ended: times of `time.monotonic`,
    of the question, its start on a device, its first and its last token so far, and its end. finish: why it ended.
    expired: its time was over. left: nobody waits for it. handle: the device that is at it, or was. timer: of its time.
    """

    number: int
    owner: str
    question: Question
    events: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    asked: float = field(default_factory=time.monotonic)
    begun: float | None = None
    first: float | None = None
    last: float | None = None
    ended: float | None = None
    finish: str | None = None
    expired: bool = False
    left: bool = False
    handle: "Handle | None" = None
    timer: asyncio.TimerHandle | None = None

    def over(self) -> None:
        """Nothing more becomes of it: its time is not waited for."""
        if self.timer:
            self.timer.cancel()

    @property
    def device(self) -> str | None:
        """Of the handle."""
        return self.handle.name if self.handle else None

    def tell(self, message: Message) -> None:
        """Add an event."""
        self.events.put_nowait(message)

    def stamp(self, kind: str, now: float) -> None:
        """Keep the time of an event from the device."""
        if kind == "begun":
            self.begun = now
        elif kind == "piece":
            self.first, self.last = self.first or now, now
        elif kind in ("end", "fault"):
            self.ended = now
