"""How a queue stores its words: each distinct word once, and an entry of number and delay for each instruction.

Programs repeat themselves: the buckets of a model differ in a few counts and delays. The entries and the memory of
distinct words together take a third of the bits of a queue of whole words. The two memories are read in sequence, which
takes as long as a memory of whole words and its register.

Halves of words repeat more often than whole words: few counts combine with many addresses. A store may therefore have
two parts, one for the distinct lower halves and one for the upper halves. A word's number is then the concatenation of
the numbers of its halves.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .config import ChipConfig
from .isa import DELAY_BITS, FIELDS, HEADER, ICU_OPS, UNIT_OPS, AnyOp, Op, width
from .row import Queue, queue_depth, queues

SHALLOW = 256
"""Parts with fewer words are built from LUTs. They would leave a block RAM mostly empty."""
C2C_WORDS = 64
"""Distinct words that a C2C's queue holds in a config with `icu_words`."""
UPPER = {"MEM": 39, "MXM": 48}
"""First bit of a word's upper half. MEM words are divided at bit 3 of their address, where both sides have about as
many distinct halves. The stored lower half of an MXM word has 36 bits, the width of a block RAM."""


@dataclass(frozen=True)
class Part:
    """One part of a store.

    words: values that it holds. Value number 0 is 0.
    kept: the bits of a word that make a value.
    """

    words: int
    kept: tuple[int, ...]

    @property
    def number_bits(self) -> int:
        """Bits of an entry that name a value."""
        return (self.words - 1).bit_length()

    @functools.cached_property
    def mask(self) -> int:
        """Mask of the kept bits."""
        return sum(1 << bit for bit in self.kept)

    def of(self, word: int) -> int:
        """The kept bits of a word."""
        return word & self.mask


@dataclass(frozen=True)
class Store:
    """Sizes of one queue's memories.

    depth: entries.
    delay_bits: bits of an entry's delay. A longer delay must be split.
    parts: parts of the stored words, lowest first. They leave out the delay, and bits that are 0 in every program that
    is legal in this config.
    """

    depth: int
    delay_bits: int
    parts: tuple[Part, ...]

    @property
    def words(self) -> int:
        """Distinct words that fit in any case, the empty word ("no word") included."""
        return min(part.words for part in self.parts)

    @property
    def number_bits(self) -> int:
        """Bits of an entry that name a word."""
        return sum(part.number_bits for part in self.parts)

    @property
    def max_delay(self) -> int:
        """The longest delay of an instruction."""
        return (1 << self.delay_bits) - 1


def store_of(config: ChipConfig, queue: Queue) -> Store:
    """The memories of a queue. A debug build stores whole words, because its traps need all bits."""
    depth = queue_depth(config, queue)
    words = _sizes(config, queue) if config.icu_words else (depth,)
    kept = _kept(config, queue)
    halves = [kept]
    if len(words) > 1:
        upper = UPPER[queue.unit]
        halves = [tuple(bit for bit in kept if bit < upper), tuple(bit for bit in kept if bit >= upper)]
    store = Store(depth, DELAY_BITS, tuple(Part(*part) for part in zip(words, halves, strict=True)))
    if config.icu_words:
        return replace(store, delay_bits=min(DELAY_BITS, config.icu_entry_bits - store.number_bits))
    return store


def _sizes(config: ChipConfig, queue: Queue) -> tuple[int, ...]:
    """Distinct words, or distinct halves, that a queue holds."""
    if queue.unit == "C2C":
        return (C2C_WORDS,)
    return config.icu_words[queue.slice + 3 if queue.unit == "MEM" else ("VXM", "SXM", "MXM").index(queue.unit)]


def _kept(config: ChipConfig, queue: Queue) -> tuple[int, ...]:
    """The bits of a word that are stored."""
    first = HEADER["op"].bits + DELAY_BITS
    if config.debug:
        return (*range(HEADER["op"].bits), *range(first, width(queue.unit)))
    used = 0
    for op in (*ICU_OPS, *UNIT_OPS[queue.unit]):
        used |= op.value | _used(config, queue, op) << first
    return tuple(bit for bit in range(width(queue.unit)) if used >> bit & 1)


def _used(config: ChipConfig, queue: Queue, op: AnyOp) -> int:
    """Mask of the bits that an operation's fields can set."""
    mask, at = 0, 0
    for name, field in FIELDS[op].items():
        bits = field.bits
        if name == "addr" or (op is Op.LOOP and name == "stride"):
            bits = (config.mem_depths[queue.slice] - 1).bit_length() if queue.unit == "MEM" else 0
        elif name == "weights":
            bits = max(config.weight_groups_of(queue.slice)).bit_length()
        mask |= ((1 << min(bits, field.bits)) - 1) << at
        at += field.bits
    return mask


class Numbers:
    """Numbers the distinct words of one queue, from 1 on.

    A call raises ValueError if the queue cannot hold the word.
    """

    def __init__(self, config: ChipConfig, queue: Queue):
        self._name, self._config, self._store = queue.name, config.name, store_of(config, queue)
        self._known = [{0: 0} for _ in self._store.parts]

    def __call__(self, word: int) -> int:
        """The number of a word."""
        delay = word >> HEADER["op"].bits & ((1 << DELAY_BITS) - 1)
        if delay > self._store.max_delay:
            raise ValueError(f"queue {self._name} of config {self._config} takes delays up to {self._store.max_delay}, "
                             f"not {delay}")
        total, at = 0, 0
        for part, known in zip(self._store.parts, self._known, strict=True):
            number = known.setdefault(part.of(word), len(known))
            if number >= part.words:
                raise ValueError(f"queue {self._name} of config {self._config} holds at most {part.words - 1} "
                                 f"{_values(part)}")
            total |= number << at
            at += part.number_bits
        return total


def _values(part: Part) -> str:
    """The contents of a part, for messages."""
    return f"distinct values of bits {part.kept[0]}..{part.kept[-1]}"


def distinct(part: Part, words: Iterable[int]) -> int:
    """Distinct values, without 0, that these instructions need in a part of a queue's store."""
    return len({part.of(word) for word in words} - {0})


def overflow(config: ChipConfig, words: dict[str, Iterable[int]]) -> str:
    """One line about the first thing that does not fit the queues; "" if all fits.

    words: instruction words by queue name.
    """
    for queue in queues(config):
        mine = list(words.get(queue.name, ()))
        limit = queue_depth(config, queue)
        if len(mine) > limit:
            return f"queue {queue.name} needs {len(mine)} instructions, config {config.name} has {limit}"
        for part in store_of(config, queue).parts:
            if (needed := distinct(part, mine)) >= part.words:
                return f"queue {queue.name} needs {needed} {_values(part)}, config {config.name} has {part.words - 1}"
    return ""
