"""Sequences of one device as devices of their own: a session for each, used by a thread each."""

import threading
from collections.abc import Sequence

import numpy as np

from arch.host_map import Trap
from program.rack import AnyProgram
from sim.device.in_flight import InFlight, Period, Token
from sim.device.protocol import Counters, TokenResult, check_cached, check_prompt, check_run, sampler_of

GRACE_SECONDS = 0.05
"""How long the next period waits for a caller that has just got a token and may want the next one.

A sequence that nobody asks for stays where it is and goes on later. Its place is empty meanwhile."""


class Lanes:
    """All sequences of a device.

    device: open; it is loaded here, and closed by `close`. lanes: a device for each sequence.
    """

    def __init__(self, device: InFlight, program: AnyProgram) -> None:
        self.device, self.program = device, program
        device.load(program)
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self._closed, self._periods = False, 0
        self.lanes = [Lane(self, n) for n in range(program.sequences)]
        self._thread = threading.Thread(target=self._drive, name="periods", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, after the present period, and close the device."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._thread.join()
        self.device.close()

    def _drive(self) -> None:
        try:
            with self.changed:
                while not self._closed:
                    if any(lane.wanted for lane in self.lanes):
                        self._period()
                    else:
                        self.changed.wait()
        except Exception as error:  # whoever waits for tokens raises it
            self.error = error
            with self.changed:
                self.changed.notify_all()

    def _period(self) -> None:
        for lane in self.lanes:
            lane.take_off()
        (period,) = self.device.run(1)
        period.check(self._periods)
        self._periods += 1
        landed = [self.lanes[token.sequence] for token in period.tokens]
        for lane, token in zip(landed, period.tokens, strict=True):
            lane.land(token, period)
        if not all(lane.wanted for lane in landed):
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._closed or all(lane.wanted or lane.resting for lane in landed),
                                  GRACE_SECONDS)


class Lane:
    """One of the sequences, as a device (`sim.device.protocol.Device`).

    wanted: tokens that are still to come. resting: nobody will ask for more soon.
    """

    def __init__(self, lanes: Lanes, sequence: int) -> None:
        self.name, self._lanes, self._sequence = lanes.device.name, lanes, sequence
        self.wanted, self.resting = 0, True
        self._known: list[int] = []
        self._position = self._ran = self._cycles = 0
        self._sampling = (0.0, 0)
        self._flies = False
        self._results: list[TokenResult] = []
        self._logits = np.zeros(lanes.program.model.vocab_size, np.int32)

    # --- in the thread that drives periods, which holds the lock -----------------------------------------------------

    def take_off(self) -> None:
        """Go on, if tokens are wanted, or else leave."""
        device = self._lanes.device
        if self.wanted and not self._flies:
            device.start(self._sequence, self._known, *self._sampling, cached=self._position)
        elif self._flies and not self.wanted:
            device.end(self._sequence)
        self._flies = bool(self.wanted)

    def land(self, told: Token, period: Period) -> None:
        """A token of the sequence is done."""
        self.wanted -= 1
        self._position += 1
        self._known[self._position :] = [told.token, *self._known[self._position + 1 :]]
        self._ran, self._cycles = self._ran + 1, self._cycles + (period.cycles or 0)
        self._results.append(TokenResult(told.token, period.cycles, period.predicted))
        if not self.wanted:
            self._logits = self._lanes.device.logits(self._sequence)

    # --- in the thread of whoever uses it ----------------------------------------------------------------------------

    def load(self, program: AnyProgram) -> None:
        """Nothing to load: all lanes have one program. Raises ValueError if it is another one."""
        if program is not self._lanes.program:
            raise ValueError("all lanes have one program")

    def start(self, prompt: Sequence[int], temperature: float = 0.0, seed: int = 0, *, cached: int = 0) -> None:
        """Begin anew, when tokens are wanted."""
        check_prompt(self._lanes.program, prompt)
        check_cached(prompt, cached)
        sampler_of(self._lanes.program, temperature, seed)
        with self._lanes.changed:
            self._known, self._position, self._sampling = list(prompt), cached, (temperature, seed)
            self._stop()

    def force(self, token: int) -> None:
        """Replace the next token: the sequence begins anew from there."""
        with self._lanes.changed:
            self._known[self._position :] = [token, *self._known[self._position + 1 :]]
            self._stop()

    def _stop(self) -> None:
        if self._flies:
            self._lanes.device.end(self._sequence)
        self._flies, self.resting = False, False

    def run(self, n: int) -> list[TokenResult]:
        """Wait for the next n tokens. Raises what went wrong with any sequence."""
        check_run(self._lanes.program, self._position, n)
        with self._lanes.changed:
            self._results, self.wanted, self.resting = [], n, False
            self._lanes.changed.notify_all()
            self._lanes.changed.wait_for(lambda: not self.wanted or self._lanes.error)
            if self._lanes.error:
                raise self._lanes.error
            return self._results

    def rest(self) -> None:
        """Nobody will ask for more soon: let the others go on at once."""
        with self._lanes.changed:
            self.resting = True
            self._lanes.changed.notify_all()

    def logits(self) -> np.ndarray:
        """Of the last position that ran."""
        return self._logits

    @property
    def counters(self) -> Counters:
        """Positions of this sequence, and the cycles of the periods in which its tokens came."""
        return Counters(self._ran, self._cycles)

    @property
    def errors(self) -> set[Trap]:
        """Of all chips."""
        with self._lanes.changed:
            return self._lanes.device.errors

    def close(self) -> None:
        """The device is closed with all lanes."""
