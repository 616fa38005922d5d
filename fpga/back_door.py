"""The way from a terminal to a simulated board with a back door.

Of a bulk frame, only the last write goes over the serial line. If the board takes that, all writes of the frame are
made through the back door, a cycle each, and then the board's reply is passed on. So the bridge still decides on every
frame by its tag, the host gets the same replies, and the chip's memories end up the same. While tokens run, frames go
over the line as they are.
"""

import ctypes
import os
import select
import threading
from contextlib import suppress

from .bulk import Bulk, Splitter

SLICE = 1 << 12
"""Cycles between looks at the terminal while tokens run."""
CHUNK = 1 << 12
"""Most bytes that are read at once."""


class BackDoorLine:
    """Passes bytes between a terminal and a board.

    lib: the board's simulator, with `board_write`.
    board: the board.
    terminal: file descriptor of the terminal's master. It must not block.
    stop: set when the simulation is to end.
    """

    def __init__(self, lib: ctypes.CDLL, board: ctypes.c_void_p, terminal: int, stop: threading.Event) -> None:
        self._lib, self._board, self._terminal, self._stop = lib, board, terminal, stop
        self._splitter = Splitter()
        # Pipes, because the board sends byte by byte: a pipe holds at least 4,096 bytes, a socket 278 messages.
        self._from, self._to_board = os.pipe()
        self._from_board, self._reply = os.pipe()
        for end in (self._from, self._to_board, self._from_board, self._reply):
            os.set_blocking(end, False)

    def close(self) -> None:
        """Close the pipes."""
        for end in (self._from, self._to_board, self._from_board, self._reply):
            os.close(end)

    def step(self) -> bool:
        """Pass on what has come, and up to SLICE cycles. Returns whether nothing happens until more comes."""
        if not _waits(self._from):
            for piece in self._splitter.feed(_read(self._terminal)):
                if isinstance(piece, Bulk):
                    self._write(piece)
                else:
                    self._send(piece)
        return self._run(self._terminal)

    def _write(self, bulk: Bulk) -> None:
        if not self._rest(self._terminal):
            self._send(bulk.frame)
            return
        self._send(bulk.last)
        self._rest(self._reply)
        reply = _read(self._from_board)
        if reply == bulk.taken:
            self._lib.board_write(self._board, bulk.writes, len(bulk.writes))
        with suppress(BlockingIOError):  # as on a board: lost if nobody reads
            os.write(self._terminal, reply)

    def _send(self, data: bytes) -> None:
        """Put bytes on the line. Cycles pass while it is full."""
        while data and not self._stop.is_set():
            try:
                data = data[os.write(self._to_board, data) :]
            except BlockingIOError:
                self._run(self._terminal)

    def _rest(self, to: int) -> bool:
        """Run until nothing happens any more. False if tokens run."""
        while not self._run(to):
            if self._stop.is_set() or self._lib.board_running(self._board):
                return False
        return True

    def _run(self, to: int) -> bool:
        return bool(self._lib.board_run(self._board, self._from, to, SLICE))


def _waits(fd: int) -> bool:
    """Whether bytes can be read."""
    return bool(select.select([fd], [], [], 0)[0])


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return b""
