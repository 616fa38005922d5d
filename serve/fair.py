"""A queue that is fair between owners, and a token bucket."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Takes from each owner in turn, and what an owner put in first comes first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[T]:
        return (item for items in self._waiting.values() for item in items)

    def put(self, owner: str, item: T) -> None:
        """Behind what the owner has put in before."""
        self._waiting.setdefault(owner, deque()).append(item)

    def take(self) -> T:
        """The first item of the owner whose turn it is, who then comes last. Raises IndexError if there is none."""
        if not self._waiting:
            raise IndexError("the queue is empty")
        owner, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[owner] = items
        return item

    def remove(self, owner: str, item: T) -> bool:
        """Take out an item, wherever it is; False if it is not there."""
        items = self._waiting.get(owner, deque())
        if item not in items:
            return False
        items.remove(item)
        if not items:
            del self._waiting[owner]
        return True


class Bucket:
    """A token bucket that fills all the time.

    a_minute: what flows in, and the most that it holds. now: of a monotonic clock, in seconds.
    """

    def __init__(self, a_minute: float, now: float) -> None:
        self.limit, self._level, self._seen = a_minute, float(a_minute), now

    def level(self, now: float) -> float:
        """What there is; less than 0 after `spend`."""
        self._level = min(self.limit, self._level + (now - self._seen) * self.limit / 60)
        self._seen = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until there is so much, or all that it can hold."""
        return max(0.0, min(amount, self.limit) - self.level(now)) * 60 / self.limit

    def spend(self, amount: float, now: float) -> None:
        """Take so much, even if there is less."""
        self._level = self.level(now) - amount

    def reset(self, now: float) -> float:
        """Seconds until it is full."""
        return (self.limit - self.level(now)) * 60 / self.limit
