"""A board as a device that runs programs, and the host's end of its serial line."""

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
from sim.device.chip_device import ChipDevice
from sim.device.port_chip import PortChip

from .frames import Read, Replies, Write, reads, writes

BAUD = 3_000_000
WINDOW = 8
"""Most unanswered writes. They last 55 ms on a line of 3 Mbaud, longer than USB takes to deliver an answer."""
RETRIES = 16
"""Failures without progress between them after which a line is given up."""
HELLO = (0.5, 1.0, 2.0)
"""Seconds to wait for the identity, for each try."""
ROUND_TRIPS, PATIENCE = 100, (0.25, 8.0)
"""An answer counts as lost after a silence of ROUND_TRIPS times the first answer's time, within the bounds of PATIENCE
in seconds. On a slow line that is about the time of a window of frames."""
DOUBLED = 3
"""Most doublings of that time. Each failure in a row doubles it."""


WRITE_TIMEOUT = 60.0
"""Seconds after which a line that accepts no bytes is lost. A board always accepts them, a simulated board slowly."""


class Line(Protocol):
    """The part of `serial.Serial` that is used."""

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
    """The host port of a board, a `sim.device.port_chip.Port`.

    `write` may return before its writes are done. A read comes after all writes. Lost or damaged frames are sent again.
    If that does not help, any method raises TspError.

    line: the line, just opened.
    name: its name for messages.
    payload: most bytes of words in a frame.
    """

    def __init__(self, line: Line, name: str, *, payload: int = PAYLOAD) -> None:
        self._line, self._name, self._payload = line, name, payload
        self._replies, self._tag = Replies(), 0
        self._unanswered: deque[Write] = deque()
        self._base = 0  # tag of the first unanswered write
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
        """The words at these addresses, after all writes so far."""
        return [word for read in reads(space, addrs, self._payload) for word in self._read(read)]

    def settle(self) -> None:
        """Wait until all writes are done."""
        self._settle(0)

    def check(self) -> None:
        """Raises TspError if the board does not answer, or was restarted."""
        self._read(Read(IDENTITY, 0, 1))

    def close(self) -> None:
        """Close the line, without waiting for answers."""
        self._line.close()

    # --- writes --------------------------------------------------------------------------------------------------

    def _settle(self, most: int) -> None:
        """Wait until at most `most` writes are unanswered."""
        while len(self._unanswered) > most:
            reply = self._next()
            if reply is None or not self._taken(reply):
                self._recover()

    def _taken(self, reply: Reply) -> bool:
        """Forget the writes that are done according to a reply. False if the board needs another write again."""
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
        """Recover from a failure: ask which writes are done, and send the others again."""
        while (reply := self._probe()) is None:
            pass
        if (reply.expected - self._base) % TAGS > len(self._unanswered):
            raise TspError(f"{self._name}: the board was restarted while it ran")
        self._taken(reply)
        for n, frame in enumerate(self._unanswered):
            self._send(frame.frame((self._base + n) % TAGS))

    def _probe(self) -> Reply | None:
        """Read a word of the identity. A run of zeros before it ends any frame that the board may be receiving."""
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
        """Send a read. Returns its tag, which no recent read had."""
        self._tag = (self._tag + 1) % TAGS
        self._replies.expect(self._tag, read.size)
        self._send(read.frame(self._tag))
        return self._tag

    def _answer(self, tag: int) -> Reply | None:
        """The reply to a read, after any other replies; None if it does not come."""
        while (reply := self._next()) is not None:
            if reply.status is Status.DATA and reply.tag == tag:
                return reply
            self._taken(reply)
        return None

    def _hello(self) -> Identity:
        """The board's identity. Sets `_base` to the board's next tag, and `_patience` to the longest wait."""
        self._line.reset_input_buffer()
        for tries, self._patience in enumerate(HELLO):
            self._flush(PAYLOAD if tries else 0)  # at the first try, a board is rarely in the middle of a frame
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
        """The next reply; None if the silence is too long."""
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
    """A board at the end of a line, as a device.

    clock_mhz: clock of its chip.
    """

    def __init__(self, link: Link, name: str, config: ChipConfig) -> None:
        self.link, self.clock_mhz = link, link.identity.clock_khz / 1e3
        super().__init__(name, PortChip(config, link))

    def check(self) -> None:
        """Raises TspError if the board does not answer, or was restarted and has lost its program."""
        self.link.check()

    def close(self) -> None:
        """Close the line."""
        self.link.close()


def open_board(port: str, config: ChipConfig) -> Board:
    """The board at a serial port.

    port: "/dev/ttyUSB0", or a URL of pyserial.
    config: the config that its chip must have.

    Raises TspError if the port is missing, not permitted or in use, if no board answers, or if it has another chip.
    """
    line = open_line(port)
    try:
        link = Link(line, port)
        check_identity(port, link.identity, config)
    except TspError:
        line.close()
        raise
    return Board(link, port, config)


def check_identity(port: str, found: Identity, config: ChipConfig, option: str = "config") -> None:
    """Raises TspError unless the board at a port has this chip. option: of `tsp compile` that names it."""
    if found.digest != chip_digest(config):
        remedy = ("build its bitstream again" if found.config == config.name
                  else f"compile with --{option} {found.config}, or load the other bitstream" if option == "config"
                  else "load the bitstream of the rack's chip")
        raise TspError(f"{port} is a board with config {found.config} ({found.digest}), the program is for config "
                       f"{config.name} ({chip_digest(config)}): {remedy}")


def open_line(port: str) -> Line:
    """A serial port at BAUD, opened for exclusive use. Raises TspError."""
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
        line.set_low_latency_mode(True)  # 1 ms instead of 16 on a USB adapter
    return line


def _check_url(port: str) -> None:
    """Raises TspError if a URL of the network lacks its host or its port number."""
    kind, _, rest = port.partition("://")
    if kind not in ("rfc2217", "socket"):
        return
    try:
        whole = urlsplit(f"//{rest}")
        known = whole.hostname and whole.port
    except ValueError:
        known = False
    if not known:
        raise TspError(f"{port}: a network line needs a host and a port in 1..65535, such as {kind}://localhost:4000")


def _reason(error: Exception) -> str:
    """The reason why a port cannot be opened, and the remedy."""
    code = getattr(error, "errno", None) or next(iter(getattr(error.__context__, "args", ())), None)
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return "no such port: is the board connected? `ls /dev/ttyUSB* /dev/ttyACM*` shows those that there are"
    if code in (errno.EACCES, errno.EPERM):
        return "not permitted: join the group that owns it (`sudo usermod -aG dialout $USER`), then log in again"
    if code in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
        return "nobody answers there: is the server of the serial line running, and is this its host and port?"
    if code in (errno.EBUSY, errno.EWOULDBLOCK):
        return "used by another program"
    if code in (errno.ENOTTY, errno.EISDIR):
        return "not a serial port"
    return f"cannot be opened: {error}"
