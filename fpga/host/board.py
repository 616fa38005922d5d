"""The host's end of the serial line: a board as a device that runs programs."""

import errno
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from arch.config import ChipConfig
from arch.host_map import Space
from arch.identity import chip_digest
from base.errors import TspError
from fpga.protocol import IDENTITY, OVERHEAD, PAYLOAD, TAGS, Identity, Reply, Status
from program.image import Access
from sim.device.device import ChipDevice
from sim.device.port_chip import PortChip

from .frames import Read, Replies, Write, reads, writes

BAUD = 3_000_000
WINDOW = 8
"""Writes that may be without an answer: 55 ms of a line of 3 Mbaud, more than USB takes to bring one."""
RETRIES = 16
"""Failures in a row, without any progress between them, after which a line is given up."""
HELLO = (0.5, 1.0, 2.0)
"""Seconds to wait for the identity, try after try."""
ROUND_TRIPS, PATIENCE = 100, (0.25, 8.0)
"""Seconds of silence after which an answer counts as lost: so many times what the first one took, which is about what a
window of frames takes on a line that is slow, within these bounds."""
DOUBLED = 3
"""How often that time is doubled at most, once for each failure in a row."""


WRITE_TIMEOUT = 60.0
"""Seconds after which a line that takes no bytes is lost. A board always takes them, a simulated one slowly."""


class Line(Protocol):
    """What is used of `serial.Serial`."""

    @property
    def timeout(self) -> float | None: ...

    @timeout.setter
    def timeout(self, seconds: float | None, /) -> None: ...

    @property
    def in_waiting(self) -> int: ...

    def write(self, data: bytes, /) -> int | None: ...

    def read(self, size: int = 1, /) -> bytes: ...

    def reset_input_buffer(self) -> None: ...

    def close(self) -> None: ...


class Link:
    """The host port of a board, as a `sim.device.port_chip.Port`.

    line: just opened. name: what it is called. payload: bytes of words in a frame at most.

    Writes are sent ahead and need not be done when `write` returns; a read comes after all of them. Whatever is lost or
    damaged is sent again; if that does not help, any method raises TspError.
    """

    def __init__(self, line: Line, name: str, *, payload: int = PAYLOAD) -> None:
        self._line, self._name, self._payload = line, name, payload
        self._replies, self._tag = Replies(), 0
        self._unanswered: deque[Write] = deque()
        self._base = 0  # tag of the first of them
        self._patience, self._failures = HELLO[0], 0
        self.sent = 0
        """Bytes sent so far."""
        self.identity = self._hello()

    # --- the port ------------------------------------------------------------------------------------------------

    def write(self, accesses: Iterable[Access]) -> None:
        """Send writes, in order."""
        for frame in writes(accesses, self._payload):
            self._settle(WINDOW - 1)
            self._unanswered.append(frame)
            self._send(frame.frame((self._base + len(self._unanswered) - 1) % TAGS))

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        """The words at these addresses, behind all writes so far."""
        return [word for read in reads(space, addrs, self._payload) for word in self._read(read)]

    def settle(self) -> None:
        """Return when all writes are done."""
        self._settle(0)

    def close(self) -> None:
        """Give the line back; what was not answered is not waited for."""
        self._line.close()

    # --- writes --------------------------------------------------------------------------------------------------

    def _settle(self, most: int) -> None:
        """Wait until at most so many writes are unanswered."""
        while len(self._unanswered) > most:
            reply = self._next()
            if reply is None or not self._taken(reply):
                self._recover()

    def _taken(self, reply: Reply) -> bool:
        """Forget the writes that a reply tells to be done. False if the board wants one of the others again."""
        done = (reply.expected - self._base) % TAGS
        if done > len(self._unanswered):
            return False
        for _ in range(done):
            self._unanswered.popleft()
        self._base = reply.expected
        if done:
            self._failures = 0
        return bool(done) or reply.status not in (Status.REFUSED, Status.DAMAGED) or not self._unanswered

    def _recover(self) -> None:
        """After a failure: ask which writes are done, and send the others again."""
        while (reply := self._probe()) is None:
            pass
        if (reply.expected - self._base) % TAGS > len(self._unanswered):
            raise TspError(f"{self._name}: the board was restarted while it was being used")
        self._taken(reply)
        for n, frame in enumerate(self._unanswered):
            self._send(frame.frame((self._base + n) % TAGS))

    def _probe(self) -> Reply | None:
        """Read a word of the identity behind a run of zeros, which ends every frame that the board may be in."""
        self._failures += 1
        if self._failures > RETRIES:
            raise TspError(f"{self._name}: {RETRIES} tries in a row failed: the line is too bad, or the board stopped")
        self._flush(self._payload)
        return self._answer(self._ask(Read(IDENTITY, 0, 1)))

    def _flush(self, payload: int) -> None:
        self._replies.clear()
        self._send(bytes(payload + OVERHEAD))

    # --- reads ---------------------------------------------------------------------------------------------------

    def _read(self, read: Read) -> list[int]:
        while True:
            reply = self._answer(self._ask(read))
            if reply is not None and reply.expected == (self._base + len(self._unanswered)) % TAGS:
                self._taken(reply)
                self._failures = 0
                return read.words(reply.data)
            self._recover()

    def _ask(self, read: Read) -> int:
        """Send a read; its tag, which no read of late had."""
        self._tag = (self._tag + 1) % TAGS
        self._replies.expect(self._tag, read.size)
        self._send(read.frame(self._tag))
        return self._tag

    def _answer(self, tag: int) -> Reply | None:
        """The reply to a read, whatever comes before it; None if none comes."""
        while (reply := self._next()) is not None:
            if reply.status is Status.DATA and reply.tag == tag:
                return reply
            self._taken(reply)
        return None

    def _hello(self) -> Identity:
        """Who is there. Leaves the board's next tag in `_base`, and in `_patience` how long an answer may take."""
        self._line.reset_input_buffer()
        for tries, self._patience in enumerate(HELLO):
            self._flush(PAYLOAD if tries else 0)  # a board is rarely in the middle of a frame
            began = time.monotonic()
            reply = self._answer(self._ask(Read(IDENTITY, 0, Identity.WORDS)))
            if reply is not None:
                self._base = reply.expected
                low, high = PATIENCE
                self._patience = min(high, max(low, ROUND_TRIPS * (time.monotonic() - began)))
                try:
                    return Identity.unpack(reply.data)
                except TspError as error:
                    raise TspError(f"{self._name}: {error}") from None
        raise TspError(f"{self._name}: no board answers at {BAUD / 1e6:g} Mbaud: is it powered, is its bitstream "
                       "loaded, and is this its serial line?")

    # --- bytes ---------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        try:
            self._line.write(data)
        except OSError as error:
            raise self._lost(error) from error
        self.sent += len(data)

    def _next(self) -> Reply | None:
        """The next reply; None after a silence that is too long."""
        patience = min(PATIENCE[1], self._patience * 2 ** max(0, min(self._failures - 1, DOUBLED)))
        while (reply := self._replies.next()) is None:
            try:
                self._line.timeout = patience
                data = self._line.read(max(1, self._line.in_waiting))
            except OSError as error:
                raise self._lost(error) from error
            if not data:
                return None
            self._replies.feed(data)
        return reply

    def _lost(self, error: OSError) -> TspError:
        return TspError(f"{self._name}: the line was lost: {error.strerror or error}")


class Board(ChipDevice):
    """A board at the end of a line, as a device. clock_mhz: of its chip."""

    def __init__(self, link: Link, name: str, config: ChipConfig) -> None:
        self.link, self.clock_mhz = link, link.identity.clock_khz / 1e3
        super().__init__(name, PortChip(config, link))

    def close(self) -> None:
        """Give the line back."""
        self.link.close()


def open_board(port: str, config: ChipConfig) -> Board:
    """The board at a serial port, which must have a chip of this config.

    port: "/dev/ttyUSB0", or a URL of pyserial. Raises TspError if the port is missing, is not permitted or is in use,
    if no board answers, or if it has another chip.
    """
    line = open_line(port)
    try:
        link = Link(line, port)
        _check_identity(port, link.identity, config)
    except TspError:
        line.close()
        raise
    return Board(link, port, config)


def _check_identity(port: str, found: Identity, config: ChipConfig) -> None:
    if found.digest != chip_digest(config):
        remedy = ("build its bitstream anew" if found.config == config.name
                  else f"compile with --config {found.config}, or load the other bitstream")
        raise TspError(f"{port} is a board with config {found.config} ({found.digest}), the program is for config "
                       f"{config.name} ({chip_digest(config)}): {remedy}")


def open_line(port: str) -> Line:
    """A serial port at BAUD, used by nobody else. Raises TspError."""
    try:
        import serial
    except ImportError:
        raise TspError("a board needs pyserial: .venv/bin/pip install pyserial") from None
    _check_url(port)
    try:
        line = serial.serial_for_url(port, baudrate=BAUD, timeout=HELLO[0], write_timeout=WRITE_TIMEOUT, exclusive=True)
    except (OSError, ValueError) as error:
        raise TspError(f"{port}: {_reason(error)}") from error
    with suppress(OSError, ValueError, AttributeError, NotImplementedError):
        line.set_low_latency_mode(True)  # of a USB adapter: 1 ms instead of 16
    return line


def _check_url(port: str) -> None:
    """Raises TspError where a line of the network lacks its host, or the number of its port."""
    kind, _, rest = port.partition("://")
    if kind not in ("rfc2217", "socket"):
        return
    try:
        whole = urlsplit(f"//{rest}")
        known = whole.hostname and whole.port
    except ValueError:
        known = False
    if not known:
        raise TspError(f"{port}: a line of the network has a host and a port in 1..65535: {kind}://localhost:4000")


def _reason(error: Exception) -> str:
    """Why a port cannot be opened, and what helps."""
    code = getattr(error, "errno", None) or next(iter(getattr(error.__context__, "args", ())), None)
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return "no such port: is the board connected? `ls /dev/ttyUSB* /dev/ttyACM*` shows those that there are"
    if code in (errno.EACCES, errno.EPERM):
        return "not permitted: join the group that owns it (`sudo usermod -aG dialout $USER`), then log in anew"
    if code in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
        return "nobody answers there: is the server of the serial line running, and is this its host and port?"
    if code in (errno.EBUSY, errno.EWOULDBLOCK):
        return "used by another program"
    if code in (errno.ENOTTY, errno.EISDIR):
        return "not a serial port"
    return f"cannot be opened: {error}"
