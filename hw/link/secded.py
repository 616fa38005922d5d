"""SECDED: single errors are corrected, double errors detected, in a code of odd-weight columns (Hsiao, 1970).

A codeword is laid on the pins of a link bit after bit: bit i travels on pin i % pins, in bit time i // pins. In every
beat of two bit times the data come first, as many in each beat, then check bits and, where bits are left over, zeros.

Which column of the parity matrix stands at which bit is free otherwise, and used: three errors in a row on one pin
never look like a single error. Any other odd number of errors beyond one may; an even number is seen unless it is a
codeword.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property
from itertools import combinations
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Verdict(IntEnum):
    """What a decoder says of a codeword."""

    CLEAN = 0
    CORRECTED = 1  #: one bit was wrong and is right now
    FAILED = 2  #: more than one bit was wrong; the data are not to be used


class Decoded(NamedTuple):
    """Data of a codeword, the verdict, and the syndrome (0 of a clean codeword)."""

    data: int
    verdict: Verdict
    syndrome: int


@dataclass(frozen=True, kw_only=True)
class Secded:
    """The code of `data_bits` for a link of `pins`; it gives the software functions and the hardware.

    A codeword takes `beats` beats of the pins. Its bits whose column has one bit set are check bits; those without a
    column are zeros, which no decoder looks at; the others are the data, in order.
    """

    data_bits: int
    pins: int

    def __post_init__(self) -> None:
        if self.data_bits not in range(8, 248):
            raise ValueError(f"data_bits must be in 8..247, not {self.data_bits!r}")
        if self.pins < 1 or self.data_bits % self.beats:
            raise ValueError(f"pins must be such that {self.data_bits + self.check_bits} bits take a number of beats "
                             f"that divides {self.data_bits}, not {self.pins!r}")

    @property
    def check_bits(self) -> int:
        """Least number of check bits: half of all columns are odd, and each bit needs one of its own."""
        return next(n for n in range(4, 12) if self.data_bits + n <= 1 << n - 1)

    @property
    def beats(self) -> int:
        """Pairs of bit times that a codeword takes."""
        return -(-(self.data_bits + self.check_bits) // (2 * self.pins))

    @property
    def bits(self) -> int:
        """Bits of a codeword on the pins."""
        return 2 * self.pins * self.beats

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """The syndrome of a single error in each bit of a codeword: different, and of odd weight; 0 of a zero."""
        light = _light_columns(self.data_bits, self.check_bits)
        check, data = light[: self.check_bits], light[self.check_bits :]
        check += [0] * (self.bits - len(light))
        each, most = len(data) // self.beats, len(check) // self.beats
        order = [column for beat in range(self.beats)
                 for column in (*data[each * beat :][:each], *check[beat :: self.beats][:most])]
        return _arranged(tuple(order), self.pins)

    @cached_property
    def data_places(self) -> tuple[int, ...]:
        """The bits of a codeword that hold data, in the order of the data."""
        return tuple(i for i, column in enumerate(self.columns) if column.bit_count() > 1)

    @cached_property
    def check_places(self) -> tuple[int, ...]:
        """The bits of a codeword that hold the check bits, check bit 0 first."""
        return tuple(self.columns.index(1 << n) for n in range(self.check_bits))

    # --- software --------------------------------------------------------------------------------------------------

    def encode(self, data: int) -> int:
        """The codeword of a datum. Raises ValueError if it does not fit."""
        if data >> self.data_bits or data < 0:
            raise ValueError(f"data must have {self.data_bits} bits, not be {data:#x}")
        word = sum((data >> n & 1) << place for n, place in enumerate(self.data_places))
        check = self.syndrome(word)
        return word | sum((check >> n & 1) << place for n, place in enumerate(self.check_places))

    def syndrome(self, word: int) -> int:
        """XOR of the columns of all bits that are set; 0 of a codeword."""
        total = 0
        for i, column in enumerate(self.columns):
            total ^= column if word >> i & 1 else 0
        return total

    def decode(self, word: int) -> Decoded:
        """What the decoder makes of a word, with errors or without."""
        syndrome = self.syndrome(word)
        verdict = Verdict.CLEAN
        if syndrome:
            verdict = Verdict.CORRECTED if syndrome in self.columns else Verdict.FAILED
        if verdict is Verdict.CORRECTED:
            word ^= 1 << self.columns.index(syndrome)
        return Decoded(sum((word >> place & 1) << n for n, place in enumerate(self.data_places)), verdict, syndrome)

    # --- hardware --------------------------------------------------------------------------------------------------

    def encoded(self, m: Module, data: Value) -> Value:
        """The codeword of `data`, as logic without registers."""
        check = [Cat(data[n] for n, place in enumerate(self.data_places) if self.columns[place] >> row & 1).xor()
                 for row in range(self.check_bits)]
        word = [Const(0, 1)] * self.bits
        for n, place in enumerate(self.data_places):
            word[place] = data[n]
        for n, place in enumerate(self.check_places):
            word[place] = check[n]
        return Cat(word)

    def decoder(self) -> "Decoder":
        """The hardware of `decode`."""
        return Decoder(self)


class Decoder(wiring.Component):
    """Corrects a codeword in one stage.

    code: sampled in a cycle in which `valid` is high. data, arrived, corrected, failed, syndrome: one cycle later;
    `arrived` is `valid` one cycle later, `corrected` and `failed` are low without it. `data` and `syndrome` hold until
    the next codeword.
    """

    def __init__(self, code: Secded):
        self._code = code
        super().__init__({
            "code": In(code.bits), "valid": In(1), "data": Out(code.data_bits), "arrived": Out(1),
            "corrected": Out(1), "failed": Out(1), "syndrome": Out(code.check_bits),
        })

    def elaborate(self, platform):
        m, code = Module(), self._code
        syndrome, raw = Signal(code.check_bits), Signal(code.data_bits)
        m.d.comb += [syndrome.eq(Cat(self._row(row) for row in range(code.check_bits))),
                     raw.eq(Cat(self.code[place] for place in code.data_places))]
        single, hits = self._matches(m, syndrome)
        with m.If(self.valid):
            m.d.sync += [self.data.eq(raw ^ Cat(hits)), self.syndrome.eq(syndrome)]
        m.d.sync += [self.arrived.eq(self.valid), self.corrected.eq(self.valid & single),
                     self.failed.eq(self.valid & syndrome.any() & ~single)]
        return m

    def _row(self, row: int) -> Value:
        """The data in the order in which `encoded` takes them, then the check bit: a proof sees what cancels out."""
        code = self._code
        return Cat(self.code[place] for place in (*code.data_places, code.check_places[row])
                   if code.columns[place] >> row & 1).xor()

    def _matches(self, m: Module, syndrome: Value) -> tuple[Value, list[Value]]:
        """Whether the syndrome is that of a single error; a bit for each datum that it is of.

        Each half of the syndrome is decoded once: a column is then the AND of two values.
        """
        half = self._code.check_bits // 2
        low, high = Signal(1 << half), Signal(1 << self._code.check_bits - half)
        m.d.comb += [low.eq(1 << syndrome[:half]), high.eq(1 << syndrome[half:])]

        def hit(column: int) -> Value:
            return low[column & (1 << half) - 1] & high[column >> half]

        partners: dict[int, list[int]] = {}
        for column in filter(None, self._code.columns):
            partners.setdefault(column >> half, []).append(column & (1 << half) - 1)
        single = Cat(high[upper] & Cat(low[lower] for lower in lowers).any()
                     for upper, lowers in sorted(partners.items())).any()
        return single, [hit(self._code.columns[place]) for place in self._code.data_places]


# --- the choice of columns -----------------------------------------------------------------------------------------


def _light_columns(data_bits: int, check_bits: int) -> list[int]:
    """Odd columns: those of weight 1, then the lightest, chosen so that all rows are about as heavy."""
    chosen, rows = [1 << n for n in range(check_bits)], [1] * check_bits
    for weight in range(3, check_bits + 1, 2):
        group = [sum(1 << bit for bit in bits) for bits in combinations(range(check_bits), weight)]
        while group and len(chosen) < data_bits + check_bits:
            best = min(group, key=lambda column: (sorted(_loads(rows, column), reverse=True), column))
            group.remove(best)
            chosen.append(best)
            rows = _loads(rows, best)
    return chosen


def _loads(rows: list[int], column: int) -> list[int]:
    return [load + (column >> bit & 1) for bit, load in enumerate(rows)]


@cache
def _arranged(columns: tuple[int, ...], pins: int) -> tuple[int, ...]:
    """The columns in an order in which no three neighbours on a pin add up to one of them; data stay among data.

    Exchanges two at a time and keeps what is no worse; the seed is fixed, so the order is always the same.
    """
    order, used, rng = list(columns), frozenset(columns) - {0}, random.Random(0)

    def bad(last: int) -> bool:
        triple = [order[i] for i in (last - 2 * pins, last - pins, last) if 0 <= i < len(order)]
        return len(triple) == 3 and all(triple) and triple[0] ^ triple[1] ^ triple[2] in used

    def around(i: int) -> set[int]:
        return {i, i + pins, i + 2 * pins}

    wrong = sum(map(bad, range(len(order))))
    for a, b in _pairs(len(order), rng):
        if not wrong:
            return tuple(order)
        if (order[a].bit_count() > 1) != (order[b].bit_count() > 1):
            continue
        near = around(a) | around(b)
        before = sum(map(bad, near))
        order[a], order[b] = order[b], order[a]
        more = sum(map(bad, near)) - before
        if more > 0 and rng.random() > 0.08**more:
            order[a], order[b] = order[b], order[a]
        else:
            wrong += more
    raise ValueError(f"pins must leave triples apart: {len(columns)} bits on {pins} pins do not")


def _pairs(count: int, rng: random.Random, limit: int = 400_000) -> Iterator[tuple[int, int]]:
    for _ in range(limit):
        yield int(rng.random() * count), int(rng.random() * count)
