"""The processes in which `mpirun` has started a command. Rank 0 runs it; the others hold chips of a rack for it.

MPI is mpi4py's, an extra. It is imported only where a command was started in several ranks.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any, NoReturn

from base.errors import TspError

from .threads import OneThread

ORDER, ANSWER, FLITS = 1, 2, 3
"""Tags of messages."""
END = "end"
"""The order after which a rank ends."""
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
NUMBERS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
"""Variables in which a launcher tells a process how many there are, and which one it is. Slurm tells the former without
MPI, too, so the latter decides."""
SHORT, LONG, SHARE = 2e-5, 5e-3, 0.05
"""Seconds between two looks for a message, at least and at most, and their share of the time that it is waited for."""
FORWARDED_S = 1.0
"""Seconds in which a launcher forwards the last line of a rank. What it has not forwarded is lost when all end."""


def _variable(names: tuple[str, ...], default: int) -> int:
    return int(next((os.environ[name] for name in names if os.environ.get(name, "").isdigit()), default))


def started_by_mpi() -> bool:
    """Whether a launcher has started this process as one of several ranks."""
    return any(name in os.environ for name in NUMBERS) and _variable(SIZES, 1) > 1


def rank_of_environment() -> int:
    """Which of them it is, without MPI."""
    return _variable(NUMBERS, 0)


class Ranks:
    """All ranks, as rank 0 has them.

    comm: mpi4py's communicator. thread: in which all MPI happens, and what must run beside it.
    used: the others have had something to do.
    """

    def __init__(self, comm: Any) -> None:
        self.comm, self.thread, self.used = comm, OneThread(), False

    @property
    def size(self) -> int:
        return self.comm.size

    def order(self, rank: int, name: str, *arguments: object) -> None:
        """Let a rank do something."""
        self.thread.call(lambda: self.comm.send((name, arguments), dest=rank, tag=ORDER))

    def order_all(self, name: str, *arguments: object) -> None:
        """Let all other ranks do something."""
        for rank in range(1, self.size):
            self.order(rank, name, *arguments)

    def answer(self, rank: int) -> Any:
        """A rank's answer to an order. Raises what it raised there."""
        return _checked(self.thread.call(lambda: receive(self.comm, rank, ANSWER)))

    def answers(self) -> list[Any]:
        """Those of all other ranks to the same order."""
        found = self.thread.call(lambda: [receive(self.comm, rank, ANSWER) for rank in range(1, self.size)])
        return [_checked(each) for each in found]

    def end(self) -> None:
        """Let all other ranks end."""
        self.order_all(END)
        self.thread.shutdown()


_ranks: list[Ranks] = []


def current() -> Ranks | None:
    """The ranks of this command, if it has several."""
    return _ranks[0] if _ranks else None


def _checked(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def receive(comm: Any, source: int, tag: int) -> Any:
    """The next object from a rank. The processor is free while it is waited for."""
    began = time.monotonic()
    while not comm.Iprobe(source=source, tag=tag):
        time.sleep(min(max(SHORT, SHARE * (time.monotonic() - began)), LONG))
    return comm.recv(source=source, tag=tag)


def in_ranks(command: Callable[[], int], serve: Callable[[Any], None]) -> int:
    """Run a command: in rank 0, with the others at its service. Returns its exit code.

    serve: what the others do with mpi4py's communicator until they are told to end. They print nothing; if one fails,
    it says so in a line, and all end.

    Raises TspError, in rank 0, if there is no MPI.
    """
    if not started_by_mpi():
        return command()
    try:
        comm = _world()
    except TspError:
        if rank_of_environment():
            return 2
        raise
    return _serve(comm, serve) if comm.rank else _lead(comm, command)


def _world() -> Any:
    """mpi4py's communicator of all ranks. Raises TspError."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: mpi4py finds no library of MPI
        raise TspError(f"mpirun has started several ranks, but mpi4py cannot be used ({error}): pip install "
                       "'metronome-tsp[mpi]', or run without mpirun") from None
    comm = MPI.COMM_WORLD
    if comm.size == 1:
        name = MPI.get_vendor()[0]
        raise TspError(f"mpirun has started {_variable(SIZES, 1)} ranks, but mpi4py's MPI, {name}, sees one: use the "
                       f"mpirun of {name}")
    return comm


def _lead(comm: Any, command: Callable[[], int]) -> int:
    ranks = Ranks(comm)
    _ranks.append(ranks)
    try:
        code = command()
        if not ranks.used and not code:
            print(f"tsp: the other {ranks.size - 1} ranks of mpirun had nothing to do: only the chips of a rack are "
                  "divided among ranks, with --device rtl", file=sys.stderr)
        return code
    finally:
        _ranks.clear()
        try:
            ranks.end()
        except Exception as error:  # the others would wait for ever
            abort(comm, error)


def _serve(comm: Any, serve: Callable[[Any], None]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 gets it, too, and ends all
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        try:
            serve(comm)
        except SystemExit:  # another rank has ended, and so must this one
            raise
        except BaseException as error:
            abort(comm, error)
    return 0


def abort(comm: Any, error: BaseException) -> NoReturn:
    """End all ranks, with a line about what went wrong in this one."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    with suppress(OSError):
        print(f"tsp: rank {comm.rank}: {text}", file=sys.__stderr__, flush=True)
    time.sleep(FORWARDED_S)
    comm.Abort(1)
    os._exit(1)  # if MPI lets it go on
