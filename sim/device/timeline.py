"""Which sequence is where, period by period, while a device works on several."""

from abc import ABC, abstractmethod


class Timeline(ABC):
    """Positions of sequences, and the number by which chips find their bucket. A sequence is idle until it starts, and
    again when it ends.

    count: sequences. context: positions of each. period: number of the next one.
    """

    periods_a_token = 1
    """Periods in which the number of a bucket grows by a position."""

    def __init__(self, count: int, context: int) -> None:
        self.count, self._context = count, context
        self.period = 0
        self._next: list[int | None] = [None] * count

    @property
    @abstractmethod
    def entering(self) -> list[int]:
        """The sequences whose next token begins in the next period."""

    @abstractmethod
    def wait(self, sequence: int) -> int:
        """Periods until a sequence may start; 0 if it may in the next one."""

    def active(self, sequence: int) -> bool:
        """Whether a sequence has started and not ended."""
        return self._next[sequence] is not None

    def position(self, sequence: int) -> int:
        """The position of the token of an active sequence that begins next."""
        position = self._next[sequence]
        assert position is not None
        return position

    def start(self, sequence: int, position: int) -> None:
        """A sequence begins in the next period, with the token of this position."""
        if self.wait(sequence):
            raise ValueError(f"sequence {sequence} enters in {self.wait(sequence)} periods")
        self._next[sequence] = position

    def end(self, sequence: int) -> None:
        """A sequence is idle from now on."""
        self._next[sequence] = None

    def full(self, sequence: int) -> bool:
        """Whether a sequence is at the end of its context and has to end."""
        return self._next[sequence] == self._context

    @property
    def least_counter(self) -> int:
        """The least number of the next period: divided by `periods_a_token`, it stays at least each sequence's
        position if it grows by one a period."""
        return max(0, *(self.periods_a_token * position - self.wait(sequence)
                        for sequence, position in enumerate(self._next) if position is not None), 0)

    @property
    def free_run(self) -> int:
        """Periods until a sequence reaches the end of its context; 0 if one has to end now."""
        return min((self.wait(sequence) + self.periods_a_token * (self._context - position)
                    for sequence, position in enumerate(self._next) if position is not None), default=1 << 31)

    @abstractmethod
    def pass_period(self) -> list[tuple[int, int]]:
        """Pass a period; (sequence, position) of the tokens that were done in it."""


class InTurn(Timeline):
    """A rack works on as many sequences as it has chips: in period t, chip i on sequence (t - i) mod count
    (decision 0027)."""

    def __init__(self, count: int, context: int) -> None:
        super().__init__(count, context)
        self.periods_a_token = count
        self._flying: list[int | None] = [None] * count

    @property
    def entering(self) -> list[int]:
        """The sequence that is on the first chip in the next period."""
        return [self.period % self.count]

    @property
    def leaves(self) -> int:
        """The sequence that is on the last chip in the next period."""
        return (self.period + 1) % self.count

    def wait(self, sequence: int) -> int:
        """Periods until a sequence enters the first chip."""
        return (sequence - self.period) % self.count

    def start(self, sequence: int, position: int) -> None:
        """A sequence enters the first chip in the next period."""
        super().start(sequence, position)
        self._flying[sequence] = None

    def end(self, sequence: int) -> None:
        """A sequence is idle from now on, and so is its token in flight."""
        super().end(sequence)
        self._flying[sequence] = None

    def pass_period(self) -> list[tuple[int, int]]:
        """Pass a period; the token that left the last chip in it, if it is of no idle sequence."""
        (entered,), left = self.entering, self.leaves
        if (position := self._next[entered]) is not None:
            self._flying[entered], self._next[entered] = position, position + 1
        self.period += 1
        found, self._flying[left] = self._flying[left], None
        return [] if found is None else [(left, found)]


class Together(Timeline):
    """A chip works on all sequences in each period (decision 0033)."""

    @property
    def entering(self) -> list[int]:
        """All of them."""
        return list(range(self.count))

    def wait(self, sequence: int) -> int:
        """A sequence may always start."""
        return 0

    def pass_period(self) -> list[tuple[int, int]]:
        """Pass a period; a token of each active sequence."""
        self.period += 1
        found = [(sequence, position) for sequence, position in enumerate(self._next) if position is not None]
        for sequence, position in found:
            self._next[sequence] = position + 1
        return found
