"""Errors of the lines between the chips of a rack, as the code of the links sees them.

In the simulation of a rack a link is a number of cycles. Its endpoints (`hw.link`) are tested by themselves. So an
error of the line is applied to the codeword of a flit, and the very code of the endpoints (`hw.link.secded`) says what
comes out: the flit as it was and a corrected error, a failure, or a wrong flit that only the CRC-32 may notice.
What the code does to a codeword depends only on which bits are wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from arch.config import ChipConfig
from arch.rack import Port, RackConfig
from base.errors import TspError
from hw.link.crc import Crc32
from hw.link.parameters import LinkParameters
from hw.link.secded import CODES, Decoded, Verdict

DRIFT = 1.0
"""Core cycles that the delay of a line may change after training (docs/reference/links.md)."""


@dataclass(frozen=True, kw_only=True)
class LineFaults:
    """What is wrong with the lines.

    errors: probability of a bit to be wrong, independently of all others.
    seed: of these errors.
    delay: core cycles by which flits come later than in training.
    cut: whether the line is cut.
    link: a port at an end of the link that `delay` and `cut` are of; None for all links.
    at: the first position that `delay` and `cut` are of.
    """

    errors: float = 0.0
    seed: int = 0
    delay: float = 0.0
    cut: bool = False
    link: Port | None = None
    at: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.errors <= 0.5:
            raise TspError(f"link faults: errors must be a probability in 0..0.5, not {self.errors:g}")
        if self.seed < 0 or self.at < 0:
            raise TspError("link faults: seed and at must be 0 or more")
        if not math.isfinite(self.delay):
            raise TspError(f"link faults: delay must be a number of cycles, not {self.delay:g}")

    def check(self, context: int) -> None:
        """Raises TspError if these faults are of no position of a program."""
        if self.at >= context:
            raise TspError(f"link faults: at must be in 0..{context - 1}, the program's positions, not {self.at}")

    @classmethod
    def parse(cls, text: str) -> "LineFaults":
        """The faults of "errors=1e-6,seed=3" or "cut,link=0.E0,at=20". Raises TspError."""
        found: dict[str, object] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name not in _READ:
                raise TspError(f"link faults must be of {', '.join(_READ)}, such as errors=1e-6,seed=3, not {part!r}")
            if name in found:
                raise TspError(f"link faults: {name} must be given once")
            try:
                found[name] = _READ[name](value)
            except ValueError:
                kind = "a whole number" if _READ[name] is int else "a number"
                raise TspError(f"link faults: {name} must be {kind}, not {value!r}") from None
        for name, owners in _OF.items():
            if name in found and not owners & found.keys():
                raise TspError(f"link faults: {name} has no effect without {' or '.join(sorted(owners))}")
        return cls(**found)  # type: ignore[arg-type]


def _flag(value: str) -> bool:
    if value:
        raise TspError(f"link faults: cut takes no value, not {value!r}")
    return True


_READ = {"errors": float, "seed": int, "delay": float, "cut": _flag, "link": Port.parse, "at": int}
_OF = {"seed": {"errors"}, "link": {"delay", "cut"}, "at": {"delay", "cut"}}
"""Fields that say more of others."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error that the code has not corrected. port: where it was noticed. kind: FAILED, CRC or UNDERFLOW.

    lasting: training anew does not help.
    """

    port: Port
    kind: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"link error {self.kind} at port {self.port}"


@dataclass
class _Line:
    """One direction of a link.

    far: the port that receives. wrong: the flits with errors by their number since the beginning, with the wrong bits
    of their codeword. flits: sent so far.
    """

    far: Port
    link: LinkParameters
    rng: np.random.Generator
    flits: int = 0
    next: int = -1
    wrong: dict[int, int] = field(default_factory=dict)

    def until(self, flits: int, rate: float) -> None:
        """Draw the wrong bits of all flits before number `flits`. A flit's errors do not depend on when it is asked."""
        size = self.link.code.bits
        if self.next < 0:
            self.next = int(self.rng.geometric(rate)) - 1
        while self.next < flits * size:
            flit, bit = divmod(self.next, size)
            self.wrong[flit] = self.wrong.get(flit, 0) ^ 1 << bit
            self.next += int(self.rng.geometric(rate))

    def decoded(self, wrong: int) -> Decoded:
        """What becomes of a flit with these bits of its codeword wrong; `data` are those that stay wrong.

        Found on the flit 0, since what is wrong does not depend on the flit.
        """
        return self.link.code.decode(self.link.code.encode(0) ^ wrong)


class Lines:
    """All lines of a rack with their faults.

    Before each token, `begin` says what the lines change in its flits; after it, `end` says which errors remain.

    corrected: wrong bits that the code has corrected. failed: flits and tokens with errors beyond that.
    """

    def __init__(self, rack: RackConfig, faults: LineFaults) -> None:
        if not rack.links:
            raise TspError(f"link faults: rack {rack.name} has one chip and no links: leave --link-faults out")
        if faults.delay and rack.oscillators:
            raise TspError(f"link faults: delay must be 0 on rack {rack.name}: its chips have clocks of their own, and "
                           "its links put delays right between tokens")
        if faults.link is not None and faults.link not in rack.across:
            raise TspError(f"link faults: port {faults.link} must be linked in rack {rack.name}: its ports are "
                           f"{', '.join(map(str, sorted(rack.across)))}")
        self.faults = faults
        self.corrected = self.failed = 0
        self._lines: dict[Port, _Line] = {}
        for n, near in enumerate(sorted(rack.across)):
            self._lines[near] = _Line(rack.across[near][0], parameters(rack.chips[near.chip]),
                                      np.random.default_rng([faults.seed, n]))
        self._lost: set[Port] = set()

    @property
    def flits(self) -> int:
        """Flits of all lines so far."""
        return sum(line.flits for line in self._lines.values())

    def begin(self, position: int, most: int) -> Mapping[Port, Mapping[int, int]]:
        """The wrong bits of flits that the token at a position may send, by port and number of the flit.

        most: flits that a port sends at most.
        """
        self._lost = {near for near, line in self._lines.items() if self._is_lost(near, line, position)}
        changes: dict[Port, dict[int, int]] = {}
        for near, line in self._lines.items():
            if near in self._lost:
                changes[near] = {n: int.from_bytes(line.rng.bytes(line.link.flit_bits // 8)) for n in range(most)}
            elif self.faults.errors:
                line.until(line.flits + most, self.faults.errors)
                decoded = {n - line.flits: line.decoded(bits) for n, bits in line.wrong.items()}
                changes[near] = {n: found.data for n, found in decoded.items() if found.data}
        return changes

    def _is_lost(self, near: Port, line: _Line, position: int) -> bool:
        """Whether the elastic buffer of a line runs empty."""
        concerned = self.faults.link in (None, near, line.far) and position >= self.faults.at
        return concerned and (self.faults.cut or abs(self.faults.delay) >= DRIFT)

    def end(self, sent: Mapping[Port, int]) -> list[Failure]:
        """What remains of the errors of a token. sent: flits by port."""
        found: list[Failure] = []
        for near, line in self._lines.items():
            count = sent.get(near, 0)
            if near in self._lost:
                found.append(Failure(port=line.far, kind="UNDERFLOW", lasting=True))
            else:
                found += self._judge(line, count)
            line.flits += count
        self.failed += len(found)
        return found

    def _judge(self, line: _Line, count: int) -> list[Failure]:
        """Count what was corrected of a line's flits, and forget their errors."""
        end, changes, failed = line.flits + count, list[int](), False
        for number in sorted(n for n in line.wrong if n < end):
            found = line.decoded(line.wrong.pop(number))
            self.corrected += found.verdict is Verdict.CORRECTED
            failed |= found.verdict is Verdict.FAILED
            changes.append(found.data)
        if failed:
            return [Failure(port=line.far, kind="FAILED")]
        if any(_crc_differs(line.link, wrong) for wrong in changes if wrong):
            return [Failure(port=line.far, kind="CRC")]
        return []


def parameters(config: ChipConfig) -> LinkParameters:
    """The links of a chip: those with as many cycles a slot, if there are some, and with the slower line."""
    known = [LinkParameters(lanes=config.lanes, pins=pins, ratio=ratio)
             for ratio in (1, 2) for bits, pins in CODES if bits == config.plane_bits]
    return next((link for link in known if link.slot == config.slot), known[0])


def _crc_differs(link: LinkParameters, wrong: int) -> bool:
    """Whether the CRC-32 of a link is another for these wrong bits of a flit.

    It goes over codewords without their check bits, cycle by cycle. It is linear, so what else the link carries does
    not matter. Control frames show it in parts; those behind a token show all of it.
    """
    word = sum((wrong >> n & 1) << place for n, place in enumerate(link.code.data_places))
    step = link.cycle_bits
    return Crc32(step).compute([word >> at & (1 << step) - 1 for at in range(0, link.code.bits, step)], start=0) != 0
