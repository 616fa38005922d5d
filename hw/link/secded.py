"""SECDED: single errors are corrected, double errors detected, by a code that is computed beat by beat.

A codeword is laid on the pins of a link bit after bit: bit i travels on pin i % pins, in bit time i // pins. A beat is
two bit times. The data come first; the check bits are the last bits of the last beat. Where bits are left over, the
beats before the last one end with zeros, which are protected like data.

The column of bit k of a beat, its syndrome if it alone is wrong, is A^n b_k, with n beats behind it, a matrix A, and
columns b_k that are units for the last ones. So the sum over a codeword is A times the sum so far plus that of a beat:
sender and receiver need the XORs of a beat only. All columns have odd weight, since A and all b_k have.

A and the b_k were found by search: all columns of a codeword are different, and three in a row on one pin never add up
to one of them, so that a burst of three does not look like a single error. Any other odd number of errors beyond one
may; an even number is seen unless it is a codeword.

Some check bits are sent inverted, so that no training word, nor a line at rest, looks like a codeword.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Choice(NamedTuple):
    """What a code is made of: the columns of A, and b_k of all bits of a beat but the last ones, the check bits'; which
    check bits are inverted."""

    step: tuple[int, ...]
    columns: tuple[int, ...]
    inverted: int


CODES: Mapping[tuple[int, int], Choice] = {
    (32, 5): Choice((0x1C, 0x32, 0x46, 0x51, 0x64, 0x2A, 0x15), (0x2C, 0x43, 0x7A), 0x03),
    (64, 5): Choice((0x0E, 0x68, 0x64, 0x34, 0xD0, 0x1A, 0x49, 0xC1), (0xA4, 0x31), 0x05),
    (64, 9): Choice((0x92, 0x16, 0x0B, 0x52, 0x68, 0x46, 0x1A, 0xC4),
                    (0x31, 0x23, 0x85, 0xE0, 0x94, 0x34, 0xA8, 0x29, 0x62, 0x32), 0x03),
    (128, 18): Choice((0x02A, 0x112, 0x0C8, 0x128, 0x023, 0x0D0, 0x0A1, 0x026, 0x105),
                      (0x02C, 0x1AC, 0x086, 0x06E, 0x187, 0x0B0, 0x049, 0x106, 0x0E5, 0x148, 0x15C, 0x098, 0x085,
                       0x016, 0x122, 0x18D, 0x038, 0x01C, 0x064, 0x015, 0x142, 0x00D, 0x1C0, 0x118, 0x124, 0x0A8,
                       0x03D), 0x03),
}
"""By data bits and pins."""


LOW = 4
"""Bits of a syndrome that are looked up together."""


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
    """The code of `data_bits` for a link of `pins`, one of CODES; it gives the software functions and the hardware."""

    data_bits: int
    pins: int

    def __post_init__(self) -> None:
        if (self.data_bits, self.pins) not in CODES:
            known = ", ".join(f"{bits} on {pins}" for bits, pins in CODES)
            raise ValueError(f"data_bits and pins must be {known}, not {self.data_bits} on {self.pins}")

    @property
    def _choice(self) -> Choice:
        return CODES[self.data_bits, self.pins]

    @property
    def check_bits(self) -> int:
        """Check bits of a codeword."""
        return len(self._choice.step)

    @property
    def beat_bits(self) -> int:
        """Bits of a beat."""
        return 2 * self.pins

    @property
    def beats(self) -> int:
        """Pairs of bit times that a codeword takes."""
        return -(-(self.data_bits + self.check_bits) // self.beat_bits)

    @property
    def bits(self) -> int:
        """Bits of a codeword on the pins."""
        return self.beat_bits * self.beats

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """The syndrome of a single error in each bit of a codeword: different, and of odd weight."""
        beat = (*self._choice.columns, *(1 << n for n in range(self.check_bits)))
        return tuple(self._moved(column, self.beats - 1 - n) for n in range(self.beats) for column in beat)

    def _moved(self, column: int, beats: int) -> int:
        """A column so many beats further back."""
        for _ in range(beats):
            total = 0
            for n, moved in enumerate(self._choice.step):
                total ^= moved if column >> n & 1 else 0
            column = total
        return column

    @property
    def places(self) -> range:
        """The bits of a codeword but the check bits."""
        return range(self.bits - self.check_bits)

    @cached_property
    def data_places(self) -> tuple[int, ...]:
        """The bits of a codeword that hold data, in the order of the data."""
        last = self.beat_bits - self.check_bits
        return (*range(self.data_bits - last), *range(self.bits - self.beat_bits, self.bits - self.check_bits))

    @property
    def check_places(self) -> tuple[int, ...]:
        """The bits of a codeword that hold the check bits, check bit 0 first."""
        return tuple(range(self.bits - self.check_bits, self.bits))

    # --- software --------------------------------------------------------------------------------------------------

    def encode(self, data: int) -> int:
        """The codeword of a datum. Raises ValueError if it does not fit."""
        if data >> self.data_bits or data < 0:
            raise ValueError(f"data must have {self.data_bits} bits, not be {data:#x}")
        word = sum((data >> n & 1) << place for n, place in enumerate(self.data_places))
        return word | self.syndrome(word) << self.bits - self.check_bits

    def syndrome(self, word: int) -> int:
        """Sum of the columns of the bits that are wrong; 0 of a codeword."""
        return self.sum(word) ^ self.inverted

    @property
    def inverted(self) -> int:
        """The check bits that are sent inverted."""
        return self._choice.inverted

    def sum(self, word: int) -> int:
        """XOR of the columns of all bits that are set."""
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

    def placed(self, data: Value) -> Value:
        """A codeword without its check bits, which are 0."""
        bits = [Const(0, 1)] * self.bits
        for n, place in enumerate(self.data_places):
            bits[place] = data[n]
        return Cat(bits)

    def after(self, total: Value, beats: Value) -> Value:
        """The sum of columns behind some beats, as logic; total: that of the beats before them. The check bits are what
        it is behind the others, XOR `inverted`."""
        columns = self.columns[len(self.columns) - len(beats) :]
        moved = [self._moved(1 << n, len(beats) // self.beat_bits) for n in range(self.check_bits)]
        return Cat(Cat(*(beats[n] for n, column in enumerate(columns) if column >> row & 1),
                       *(total[n] for n, column in enumerate(moved) if column >> row & 1)).xor()
                   for row in range(self.check_bits))

    def decoder(self, ratio: int) -> "Decoder":
        """The hardware of `decode`, for so many beats a cycle."""
        return Decoder(self, ratio)


class Decoder(wiring.Component):
    """Collects a codeword and corrects it.

    beats: of a cycle. last: they are a codeword's last ones; the next cycle's are the first of the next.
    arrived: one cycle after `last`. In this cycle alone: data; word, the whole codeword, but for its check bits, which
    are 0; corrected, failed; syndrome, which is 0 in all other cycles.
    word[: len(beats)], cycle by cycle from `arrived` on, is the corrected codeword again.
    """

    def __init__(self, code: Secded, ratio: int):
        self._code = code
        super().__init__({
            "beats": In(ratio * code.beat_bits), "last": In(1), "arrived": Out(1), "data": Out(code.data_bits),
            "word": Out(code.bits), "corrected": Out(1), "failed": Out(1), "syndrome": Out(code.check_bits),
        })

    def elaborate(self, platform):
        m, code = Module(), self._code
        kept = Signal(code.bits, reset_less=True)
        total, after = Signal(code.check_bits, reset_less=True), Signal(code.check_bits)
        found = Signal(code.check_bits, init=code.inverted)  # so that both registers take the same sum
        single, hits = self._matches(m, self.syndrome)
        step, check = len(self.beats), code.check_bits
        m.d.comb += [
            after.eq(code.after(total, self.beats)), self.syndrome.eq(found ^ code.inverted),
            self.word.eq(kept ^ Cat(hits)), self.data.eq(Cat(self.word[place] for place in code.data_places)),
            self.corrected.eq(single), self.failed.eq(self.syndrome.any() & ~single),
        ]
        m.d.sync += [self.arrived.eq(self.last), total.eq(after), found.eq(after),
                     kept.eq(Cat(self.word[step:], self.beats))]
        with m.If(self.last):
            m.d.sync += [total.eq(0), kept[code.bits - check :].eq(0)]
        with m.Else():
            m.d.sync += found.eq(code.inverted)
        return m

    def _matches(self, m: Module, syndrome: Value) -> tuple[Value, list[Value]]:
        """Whether the syndrome is that of a single error; a bit for each place of which it is.

        Each third of the syndrome is decoded once: a column is then the AND of three values.
        """
        code = self._code
        bounds = [code.check_bits * n // 3 for n in range(4)]
        parts = list(pairwise(bounds))
        ones = [Signal(1 << end - begin, name=f"ones{begin}") for begin, end in parts]
        m.d.comb += [one.eq(1 << syndrome[begin:end]) for one, (begin, end) in zip(ones, parts, strict=True)]
        hits = [Cat(one[code.columns[place] >> begin & (1 << end - begin) - 1]
                    for one, (begin, end) in zip(ones, parts, strict=True)).all() for place in code.places]
        # All columns are odd, so one bit of the syndrome follows from the parity and the others.
        upper = code.check_bits - LOW
        known = [Signal(1 << LOW - 1, name=f"known{n}") for n in range(1 << upper)]
        for n, row in enumerate(known):
            lows = [column & (1 << LOW) - 1 for column in code.columns if column >> LOW == n]
            m.d.comb += row.eq(sum(1 << (low & (1 << LOW - 1) - 1) for low in set(lows)))
        single = syndrome.xor() & Cat(known).bit_select(Cat(syndrome[: LOW - 1], syndrome[LOW:]), 1)
        return single, hits
