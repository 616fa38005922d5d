"""Which sequence is where, period by period, while a rack has as many in flight as chips (decision 0027)."""


class Timeline:
    """Positions of sequences in flight, and the number by which the chips find their bucket.

    In period t, chip i works on sequence (t - i) mod count. A sequence is idle until it starts, and again when it ends.

    count: sequences, and chips. context: positions of each.
    """

    def __init__(self, count: int, context: int) -> None:
        self.count, self._context = count, context
        self.period = 0
        self._next: list[int | None] = [None] * count
        self._flying: list[int | None] = [None] * count

    @property
    def enters(self) -> int:
        """The sequence that is on the first chip in the next period."""
        return self.period % self.count

    @property
    def leaves(self) -> int:
        """The sequence that is on the last chip in the next period."""
        return (self.period + 1) % self.count

    def wait(self, sequence: int) -> int:
        """Periods until a sequence enters the first chip; 0 if it does so in the next one."""
        return (sequence - self.period) % self.count

    def active(self, sequence: int) -> bool:
        """Whether a sequence has started and not ended."""
        return self._next[sequence] is not None

    def position(self, sequence: int) -> int:
        """The position with which an active sequence enters the first chip the next time."""
        position = self._next[sequence]
        assert position is not None
        return position

    def start(self, sequence: int, position: int) -> None:
        """A sequence enters the first chip in the next period, with the token of this position."""
        if self.wait(sequence):
            raise ValueError(f"sequence {sequence} enters in {self.wait(sequence)} periods")
        self._next[sequence], self._flying[sequence] = position, None

    def end(self, sequence: int) -> None:
        """A sequence is idle from now on."""
        self._next[sequence] = self._flying[sequence] = None

    @property
    def least_counter(self) -> int:
        """The least number of the next period: divided by `count`, it stays at least each sequence's position if it
        grows by one a period."""
        return max(0, *(self.count * position - self.wait(sequence) for sequence, position in enumerate(self._next)
                        if position is not None), 0)

    @property
    def free_run(self) -> int:
        """Periods until a sequence reaches the end of its context and can no longer enter; 0 if one has to end now."""
        return min((self.wait(sequence) + self.count * (self._context - position)
                    for sequence, position in enumerate(self._next) if position is not None), default=1 << 31)

    def pass_period(self) -> tuple[int, int] | None:
        """Pass a period; (sequence, position) whose token left the last chip in it, None if that is idle."""
        entered, left = self.enters, self.leaves
        if (position := self._next[entered]) is not None:
            self._flying[entered], self._next[entered] = position, position + 1
        self.period += 1
        found, self._flying[left] = self._flying[left], None
        return None if found is None else (left, found)
