"""The process of one device: it takes questions from a socket and answers with a line of JSON a token.

A device of several sequences answers as many questions at once, each in a thread of its own.

`python -m serve.worker FD`; the first line that it reads says which program and which device. It ends when the other
end of the socket is closed, between two tokens at the latest.
"""

import hashlib
import json
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from base.errors import TspError
from program import file as program_file
from program.program import DEFAULT_CLOCK_MHZ
from program.rack import AnyProgram
from program.tokenizer import Tokenizer
from run.answer import Answer, Piece, Question
from run.devices import open_device, open_in_flight
from run.lanes import Lane, Lanes
from run.sampling import Sampling
from run.session import BrokenPromise, ChipFault, Session, check_prompt, self_test

MISMATCH, FAULT, LOST = "schedule_mismatch", "uncorrectable_error", "device_lost"
"""Kinds of faults: cycles that were not predicted; an error that the chip reports; a device that does not answer."""
Message = dict[str, Any]
IDLE_SECONDS = 3.0
"""Between looks at a device that has nothing to do."""


class Gone(Exception):
    """The server has closed its end."""


class Wire:
    """Lines of JSON over a socket. socket: connected, and blocking."""

    def __init__(self, line: socket.socket) -> None:
        self._line, self._held, self._sending = line, b"", threading.Lock()

    def send(self, message: Message) -> None:
        """From any thread. Raises Gone."""
        try:
            with self._sending:
                self._line.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise Gone from error

    def receive(self) -> Message:
        """The next message, whenever it comes. Raises Gone."""
        while b"\n" not in self._held:
            try:
                data = self._line.recv(1 << 16)
            except OSError as error:
                raise Gone from error
            if not data:
                raise Gone
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)

    def hang_up(self) -> None:
        """Let whoever receives raise Gone."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RD)

    def waiting(self, seconds: float = 0.0) -> bool:
        """Whether `receive` would return at once, or raise; waits for that, for so many seconds."""
        return b"\n" in self._held or bool(select.select([self._line], [], [], seconds)[0])


class Worker:
    """Answers questions, one at a time. session: loaded."""

    def __init__(self, wire: Wire, session: Session) -> None:
        self._wire, self._session = wire, session
        self._tokenizer = Tokenizer.from_bytes(session.program.tokenizer)
        self._links = (0, 0)

    def serve(self) -> None:
        """Until the other end closes. Raises BrokenPromise and TspError of the device, which then cannot be used."""
        while True:
            while not self._wire.waiting(IDLE_SECONDS):
                self._check()
            message = self._wire.receive()
            if message["do"] == "ask":
                self.answer(message["id"], question_of(message["question"]))

    def _check(self) -> None:
        """Raises TspError if the device is gone; only a board can go while its process stays."""
        check = getattr(self._session.device, "check", None)
        if check:
            check()

    def answer(self, number: int, question: Question) -> None:
        """Send all that becomes of a question."""
        try:
            check_prompt(self._session.program, question.prompt)
        except TspError as error:  # not the device's fault
            self._wire.send({"is": "invalid", "id": number, "message": str(error)})
            return
        answer = Answer(self._session, self._tokenizer, question)
        self._wire.send({"is": "begun", "id": number, "cached": answer.cached})
        for message in self._lines(answer):
            self._wire.send({"id": number, **message})
            if self._stopped(number):
                break
        digest = hashlib.sha256(self._session.logits().astype("<i4").tobytes()).hexdigest()
        self._wire.send({"is": "end", "id": number, "digest": digest, "cached": self._session.position,
                         "link_errors": self._link_errors()})

    def _link_errors(self) -> tuple[int, int]:
        """Corrected and uncorrectable errors of the device's links since the last time; most devices have no links."""
        now = getattr(self._session.device, "link_errors", (0, 0))
        before, self._links = self._links, now
        return now[0] - before[0], now[1] - before[1]

    @staticmethod
    def _lines(answer: Answer) -> Iterator[Message]:
        for step in answer.prefill():
            yield {"is": "prompt", "predicted": step.predicted, "measured": step.measured}
        for piece in answer.pieces():
            yield {"is": "piece", **line_of(piece)}

    def _stopped(self, number: int) -> bool:
        """Whether the server wants no more of this answer."""
        while self._wire.waiting():
            message = self._wire.receive()
            if message["do"] == "stop" and message["id"] == number:
                return True
        return False


class LaneWorker(Worker):
    """The same of one of several sequences, whose lane it is. stopped: numbers of questions whose answers nobody
    wants."""

    def __init__(self, wire: Wire, session: Session, lane: Lane, stopped: set[int]) -> None:
        super().__init__(wire, session)
        self._lane, self._unwanted, self._over = lane, stopped, False

    def answer(self, number: int, question: Question) -> None:
        """Send all that becomes of a question; the other sequences then go on without this one."""
        try:
            super().answer(number, question)
        finally:
            self._lane.rest()
            self._unwanted.discard(number)

    def end(self) -> None:
        """End the present answer."""
        self._over = True

    def _stopped(self, number: int) -> bool:
        return self._over or number in self._unwanted


def serve_lanes(wire: Wire, workers: Sequence[LaneWorker], stopped: set[int]) -> None:
    """Answer a question for each sequence at once, until the other end closes. Raises what `Worker.serve` does.

    stopped: as all workers have it.
    """
    failed: list[BaseException] = []
    askers = [ThreadPoolExecutor(1, thread_name_prefix=f"sequence {n}") for n in range(len(workers))]

    def answer(worker: LaneWorker, number: int, question: Question) -> None:
        try:
            worker.answer(number, question)
        except Exception as error:
            failed.append(error)
            wire.hang_up()

    try:
        while True:
            message = wire.receive()
            if message["do"] == "ask":
                n = message["sequence"]
                askers[n].submit(answer, workers[n], message["id"], question_of(message["question"]))
            else:
                stopped.add(message["id"])
    except Gone:
        if failed:
            raise failed[0] from None
        raise
    finally:
        for worker in workers:
            worker.end()
        for asker in askers:
            asker.shutdown(cancel_futures=True)


def line_of(piece: Piece) -> Message:
    """What is told of a token."""
    found: Message = {"text": piece.text, "token": piece.token, "position": piece.step.position,
                      "predicted": piece.step.predicted, "measured": piece.step.measured, "finish": piece.finish}
    if piece.logprob is not None:
        found |= {"logprob": piece.logprob, "alternatives": piece.alternatives}
    return found


def question_line(question: Question) -> Message:
    """A question as a message."""
    return asdict(question) | {"sampling": asdict(question.sampling)}


def question_of(message: Message) -> Question:
    """The question of a message. JSON has made the tokens of logit_bias texts."""
    sampling = dict(message["sampling"])
    sampling["logit_bias"] = {int(token): value for token, value in sampling["logit_bias"].items()}
    fields: Message = message | {"sampling": Sampling(**sampling)}
    return Question(**fields)


def run(wire: Wire) -> None:
    """Open the device that the first message names, test it and serve."""
    order = wire.receive()
    try:
        program: AnyProgram = program_file.load_any(Path(order["program"]))
        if program.sequences > 1:
            _run_lanes(wire, program, order["device"])
            return
        device = open_device(order["device"], program.config)
        try:
            session = Session(device, program)
            self_test(session)
            clock = getattr(device, "clock_mhz", DEFAULT_CLOCK_MHZ)
            wire.send({"is": "ready", "device": device.name, "clock_mhz": clock})
            Worker(wire, session).serve()
        finally:
            device.close()
    except ChipFault as error:
        wire.send({"is": "fault", "kind": FAULT, "message": str(error)})
    except BrokenPromise as error:
        wire.send({"is": "fault", "kind": MISMATCH, "message": str(error)})
    except (TspError, OSError) as error:
        wire.send({"is": "fault", "kind": LOST, "message": str(error)})


def _run_lanes(wire: Wire, program: AnyProgram, name: str) -> None:
    device = open_in_flight(name, program.config)
    lanes = Lanes(device, program)
    try:
        sessions = [Session(lane, program) for lane in lanes.lanes]
        self_test(sessions[0])
        clock = getattr(device, "clock_mhz", DEFAULT_CLOCK_MHZ)
        wire.send({"is": "ready", "device": name, "clock_mhz": clock})
        stopped = set[int]()
        workers = [LaneWorker(wire, session, lane, stopped)
                   for session, lane in zip(sessions, lanes.lanes, strict=True)]
        serve_lanes(wire, workers, stopped)
    finally:
        lanes.close()


def main() -> None:
    """With the number of the socket as the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the server says when to end
    with socket.socket(fileno=int(sys.argv[1])) as line, suppress(Gone):
        run(Wire(line))


if __name__ == "__main__":
    main()
