"""What distinguishes one link from another."""

from dataclasses import dataclass
from functools import cached_property

from .secded import CODES, Secded

BEAT = 2
"""Bits that a pin carries in a clock of the link: one at each edge."""
COUNTER_BITS = 16
"""Of a chip's slot counter."""
SLOT_BITS = 8
"""Of the slot's number in control frames: chips count alike by these. The further ones are a chip's own."""
DEPTH = 16
"""Core cycles of traffic that the elastic buffer holds where both ends of a link have one clock and slots are short."""
SHORT = 4
"""Cycles of a short slot. A longer one may be aligned by up to 7 cycles; DEPTH leaves too few for drifts then."""
UNREACHED = 5
"""Places of the elastic buffer that no legal level reaches: beyond them the writer could come near the place that is
read."""
ROOM = 13
"""Places beyond twice the slack and a slot: those that are unreached, what alignment leaves, and what lines and phases
differ by."""
MOST_SLACK = 20
"""Greatest slack of a link, in core cycles."""
WORDS = {4: 0b00010111, 8: 0b0000100110101111}
"""Training word of a pin, by beats in a slot: no two rotations of it and of its complement are the same."""


@dataclass(frozen=True, kw_only=True)
class LinkParameters:
    """A link in both directions.

    lanes: of the chips; a flit is a byte plane of as many bytes.
    pins: data pins each way, besides the clock.
    ratio: clocks of the link in a core cycle.
    taps: settings of a pin's input delay that training tries; 1 where the delay is fixed.
    slack: core cycles by which the clocks of the two ends may run apart during a token. 0: both ends have one clock,
    which is forwarded (mesochronous); else each has its own (plesiochronous, `hw.link.realign`).
    """

    lanes: int = 8
    pins: int = 9
    ratio: int = 1
    taps: int = 1
    slack: int = 0

    def __post_init__(self) -> None:
        if self.lanes not in (4, 8, 16):
            raise ValueError(f"lanes must be 4, 8 or 16, not {self.lanes!r}")
        if self.ratio not in (1, 2):
            raise ValueError(f"ratio must be 1 or 2, not {self.ratio!r}")
        if not 1 <= self.taps <= 32:
            raise ValueError(f"taps must be in 1..32, not {self.taps!r}")
        if not 0 <= self.slack <= MOST_SLACK:
            raise ValueError(f"slack must be in 0..{MOST_SLACK} cycles, not {self.slack!r}")
        if (self.flit_bits, self.pins) not in CODES:
            known = " or ".join(str(pins) for bits, pins in CODES if bits == self.flit_bits)
            raise ValueError(f"pins must be {known} with {self.lanes} lanes, not {self.pins!r}")

    @property
    def flit_bits(self) -> int:
        """Bits of a flit: of a byte plane."""
        return 8 * self.lanes

    @cached_property
    def code(self) -> Secded:
        """The code of a flit."""
        return Secded(data_bits=self.flit_bits, pins=self.pins)

    @property
    def beat_bits(self) -> int:
        """Bits that all pins carry in a clock of the link: pin p has bits p and pins + p, the earlier first."""
        return BEAT * self.pins

    @property
    def beats(self) -> int:
        """Clocks of the link that a flit takes."""
        return self.code.beats

    @property
    def slot(self) -> int:
        """Core cycles that a flit takes; all slots of a chip begin in cycles that are a multiple of it."""
        return self.beats // self.ratio

    @property
    def phase_bits(self) -> int:
        """Bits of a cycle's number within its slot."""
        return (self.slot - 1).bit_length()

    @property
    def cycle_bits(self) -> int:
        """Bits that all pins carry in a core cycle: its beats, one after the other."""
        return self.ratio * self.beat_bits

    @property
    def depth(self) -> int:
        """Core cycles of traffic that the elastic buffer holds."""
        if not self.slack and self.slot <= SHORT:
            return DEPTH
        return 1 << (2 * self.slack + self.slot + ROOM - 1).bit_length()

    @property
    def high(self) -> int:
        """Greatest legal level of the elastic buffer; the least is 0."""
        return self.depth - UNREACHED

    @property
    def first(self) -> tuple[int, int]:
        """Levels at which training leaves the reader; two, since what is seen of the writer wavers by one."""
        return self.slack + 1, self.slack + 2
