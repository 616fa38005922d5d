"""Runs of the chips of a rack that are in several ranks of MPI: the channels between them, by messages.

Each rank has the channels between its chips and those of others twice: once at the sender, once at the receiver. A
message brings the newer one up to the other: flits, and how far both sides are. So the chips see what they would see in
one process, later.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from arch.rack import Port, RackConfig
from sim.device.rack import Changes

from .ranks import FLITS as TAG
from .ranks import abort
from .share import CLOSED, FLITS, PASSED, SENT, TAKEN, Share, ShareRan

HELD, WORDS = 1024, 4
"""Flits that a channel holds, and words of each: as links.cpp has it."""


def owner(rack: RackConfig, ranks: int, chip: int) -> int:
    """The rank that holds a chip: adjacent chips are in the same one, as far as may be."""
    return chip * ranks // len(rack.chips)


def chips_of(rack: RackConfig, ranks: int, rank: int) -> range:
    """The chips that a rank holds."""
    mine = [chip for chip in range(len(rack.chips)) if owner(rack, ranks, chip) == rank]
    return range(mine[0], mine[-1] + 1) if mine else range(0)


@dataclass
class _Out:
    """What a port of ours sends to another rank. posted: flits that went out."""

    channel: np.ndarray
    flits: np.ndarray
    posted: int = 0

    def fresh(self) -> int:
        """Flits that have not gone out; none to a chip that takes no more."""
        return 0 if self.channel.item(CLOSED) else self.channel.item(SENT) - self.posted

    def take(self, count: int) -> np.ndarray:
        """The next flits to go out, uint64 [count * WORDS]."""
        places = (self.posted + np.arange(count)) % HELD
        self.posted += count
        return self.flits[places].reshape(-1)


class _Peer:
    """Another rank with which ours exchanges flits.

    outs, ins: channels that we send to it, and those that we receive from it, both in the order of sending ports.
    ended: it has told that its chips have ended. told: that ours have.
    """

    def __init__(self, comm: Any, rank: int, share: Share, outs: list[Port], ins: list[Port]) -> None:
        self._comm, self.rank = comm, rank
        self._outs = [_Out(channel, _flits(channel)) for channel in map(share.channels.__getitem__, outs)]
        self._ins = [share.channels[near] for near in ins]
        self._in_flits = [_flits(channel) for channel in self._ins]
        self._request: Any = None
        self._told: list[int] = []
        self.ended = self.told = False

    def begin(self) -> None:
        """Before a run."""
        self.ended = self.told = False
        self._told = []
        for out in self._outs:
            out.posted = 0

    def post(self, idle: bool, done: bool) -> bool:
        """Tell what is new; whether anything was told. Flits go at once, counters if our chips are idle or done."""
        fresh = [out.fresh() for out in self._outs]
        if not (idle or done or any(fresh)) or self.told or not self._free():
            return False
        passed = [out.channel.item(PASSED) for out in self._outs]
        state = [int(done), *passed, *(channel.item(word) for channel in self._ins for word in (TAKEN, CLOSED))]
        if state == self._told and not any(fresh):
            return False
        flits = [out.take(count) for out, count in zip(self._outs, fresh, strict=True) if count]
        self._buffer = np.concatenate([np.array([*state, *fresh], np.uint64), *flits])
        self._request = self._comm.Isend(self._buffer, dest=self.rank, tag=TAG)
        self._told, self.told = state, done
        return True

    def _free(self) -> bool:
        """Whether the message before has left."""
        if self._request is not None and not self._request.Test():
            return False
        self._request = None
        return True

    def finish(self) -> None:
        """Let the last message leave."""
        if self._request is not None:
            self._request.Wait()
            self._request = None

    def take(self, status: Any) -> bool:
        """Take all messages that are there; whether there were any."""
        found = False
        while not self.ended and self._comm.Iprobe(source=self.rank, tag=TAG, status=status):
            words = np.empty(status.Get_count(MPI.UINT64_T), np.uint64)
            self._comm.Recv(words, source=self.rank, tag=TAG)
            self._apply(words)
            found = True
        return found

    def _apply(self, words: np.ndarray) -> None:
        """Bring our channels up to a message of `post`, as the peer has made it: its outs are our ins."""
        ins, at = len(self._ins), 1 + 2 * len(self._ins) + 2 * len(self._outs)
        head = words[:at].tolist()
        passed, taken, fresh = head[1 : 1 + ins], head[1 + ins : at - ins], head[at - ins :]
        for n, (channel, flits) in enumerate(zip(self._ins, self._in_flits, strict=True)):
            if count := fresh[n]:
                sent = channel.item(SENT)
                flits[(sent + np.arange(count)) % HELD] = words[at : at + count * WORDS].reshape(count, WORDS)
                channel[SENT] = sent + count
                at += count * WORDS
            channel[PASSED] = passed[n]
        for n, out in enumerate(self._outs):
            out.channel[TAKEN], out.channel[CLOSED] = taken[2 * n : 2 * n + 2]
        self.ended = bool(head[0])


def _flits(channel: np.ndarray) -> np.ndarray:
    """uint64 [HELD, WORDS]: a view of a channel's flits."""
    return channel[FLITS : FLITS + HELD * WORDS].reshape(HELD, WORDS)


class Exchange:
    """The chips of one rank, and its channels to all others."""

    def __init__(self, comm: Any, share: Share) -> None:
        self._comm, self._share, self._status = comm, share, MPI.Status()
        self._peers = []
        for rank in range(comm.size):
            theirs = chips_of(share.rack, comm.size, rank)
            outs = [near for near in share.channels if near.chip in share.chips and self._far(near) in theirs]
            ins = [near for near in share.channels if near.chip in theirs and self._far(near) in share.chips]
            if rank != comm.rank and outs:
                self._peers.append(_Peer(comm, rank, share, outs, ins))

    def _far(self, near: Port) -> int:
        return self._share.rack.across[near][0].chip

    def run(self, n_tokens: int, changes: Changes | None, most: int) -> tuple[dict[int, int], ShareRan | None]:
        """Run tokens: what `Share.prepare` found on all chips of all ranks, and what became of ours if all are ready.

        All ranks must call it. A failure of ours ends all of them: they would wait for ever.
        """
        try:
            return self._started(n_tokens, changes, most)
        except BaseException as error:
            abort(self._comm, error)

    def _started(self, n_tokens: int, changes: Changes | None, most: int) -> tuple[dict[int, int], ShareRan | None]:
        for peer in self._peers:
            peer.begin()
        found = self._comm.allgather(self._share.prepare(n_tokens, changes))
        ready = {number: one for each in found for number, one in each.items()}
        return ready, self._run(n_tokens, most) if all(one == 1 for one in ready.values()) else None

    def _run(self, n_tokens: int, most: int) -> ShareRan:
        jobs, cycles = self._share.jobs(n_tokens)
        functions, tries = next(iter(self._share.chips.values())).functions, ctypes.c_uint32(0)
        left = True
        while left or not all(peer.told and peer.ended for peer in self._peers):
            if left:
                left = bool(functions.link_turn(jobs.ctypes.data, len(jobs), most, ctypes.byref(tries)))
            else:
                tries.value += 1
            posted = [peer.post(tries.value > 0, not left) for peer in self._peers]
            taken = [peer.take(self._status) for peer in self._peers]
            if any(posted) or any(taken):
                tries.value = 0
            functions.link_wait(tries)
        for peer in self._peers:
            peer.finish()
        return self._share.ran(jobs, cycles)
