"""How a queue stores its words: each distinct word once, and in the order of issue their numbers and delays.

Programs repeat themselves - the buckets of a model differ in a few counts and delays - so that an entry of a number and
a delay for each instruction, and a memory of the distinct words, take a third of the bits of a queue of whole words.
The two memories are read one behind the other, in the time that a whole word's memory and its register would take.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .config import ChipConfig
from .isa import DELAY_BITS, FIELDS, HEADER, ICU_OPS, UNIT_OPS, Op, Queue, queue_depth, queues, width

SHALLOW = 256
"""Stores of fewer words are made of LUTs, which a block RAM would leave mostly empty."""


@dataclass(frozen=True)
class Store:
    """Sizes of one queue's memories.

    depth: entries. words: distinct words, of which number 0 is the empty word (no word at all). delay_bits: of an
    entry; a longer delay must be split. kept: the bits of a word that are stored, its delay aside: the others are 0 in
    every program that is legal in this config.
    """

    depth: int
    words: int
    delay_bits: int
    kept: tuple[int, ...]

    @property
    def number_bits(self) -> int:
        """Bits of an entry that name a word."""
        return (self.words - 1).bit_length()

    @property
    def max_delay(self) -> int:
        """The longest delay of an instruction."""
        return (1 << self.delay_bits) - 1


def store_of(config: ChipConfig, queue: Queue) -> Store:
    """The memories of a queue. In a debug build words are whole, so that it can tell what is wrong with them."""
    index = queue.slice + 3 if queue.unit == "MEM" else ("VXM", "SXM", "MXM").index(queue.unit)
    depth = queue_depth(config, queue)
    words = config.icu_words[index] if config.icu_words else depth
    delay_bits = min(DELAY_BITS, config.icu_entry_bits - (words - 1).bit_length()) if config.icu_words else DELAY_BITS
    first = HEADER["op"].bits + DELAY_BITS
    if config.debug:
        return Store(depth, words, delay_bits, (*range(HEADER["op"].bits), *range(first, width(queue.unit))))
    ops = (*ICU_OPS, *UNIT_OPS[queue.unit])
    used = 0
    for op in ops:
        used |= op.value | _used(config, queue, op) << first
    return Store(depth, words, delay_bits, tuple(bit for bit in range(width(queue.unit)) if used >> bit & 1))


def _used(config: ChipConfig, queue: Queue, op: Op) -> int:
    """Mask of the bits that can be 1 among the fields of an operation."""
    mask, at = 0, 0
    for name, field in FIELDS[op].items():
        bits = field.bits
        if name == "addr" or (op is Op.LOOP and name == "stride"):
            bits = (config.mem_depths[queue.slice] - 1).bit_length() if queue.unit == "MEM" else 0
        mask |= ((1 << min(bits, field.bits)) - 1) << at
        at += field.bits
    return mask


class Numbers:
    """Gives the distinct words of one queue their numbers, from 1 on.

    Raises ValueError where the queue cannot hold a word.
    """

    def __init__(self, config: ChipConfig, queue: Queue):
        self._name, self._config, self._store = queue.name, config.name, store_of(config, queue)
        self._known = {0: 0}

    def __call__(self, word: int) -> int:
        """The number of a word."""
        delay = word >> HEADER["op"].bits & ((1 << DELAY_BITS) - 1)
        if delay > self._store.max_delay:
            raise ValueError(f"queue {self._name} of config {self._config} holds delays up to {self._store.max_delay}, "
                             f"not {delay}")
        number = self._known.setdefault(without_delay(word), len(self._known))
        if number >= self._store.words:
            most = self._store.words - 1
            raise ValueError(f"queue {self._name} of config {self._config} holds {most} distinct words, "
                             "not more")
        return number


def without_delay(word: int) -> int:
    """What two instructions must have in common to share a stored word."""
    return word & ~((1 << DELAY_BITS) - 1 << HEADER["op"].bits)


def distinct(words: Iterable[int]) -> int:
    """How many words a queue's store must hold for these instructions, the empty word aside."""
    return len({without_delay(word) for word in words} - {0})


def overflow(config: ChipConfig, words: dict[str, Iterable[int]]) -> str:
    """What does not fit the queues, by queue name, as one line; nothing if all fits."""
    for queue in queues(config):
        mine = list(words.get(queue.name, ()))
        limit, most = queue_depth(config, queue), store_of(config, queue).words - 1
        if len(mine) > limit:
            return f"queue {queue.name} needs {len(mine)} instructions, config {config.name} has {limit}"
        if distinct(mine) > most:
            return f"queue {queue.name} needs {distinct(mine)} distinct instructions, config {config.name} has {most}"
    return ""
