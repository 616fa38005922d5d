"""Proves that the chips of a rack take every flit in the cycle of its arrival, and take nothing else.

Where each chip has a clock of its own, cycles are those by its counter, and the links' slack must suffice for a token.
"""

from collections.abc import Sequence

import numpy as np

from arch.host_map import Trap
from arch.legal import IllegalProgram
from arch.rack import SLACKS, Port, RackConfig
from base.errors import TspError

from .proof import VerifyReport


def verify_links(rack: RackConfig, reports: Sequence[VerifyReport]) -> None:
    """Prove that the flits of one bucket match.

    reports: one report for each chip, from `verify_bucket`.

    Raises IllegalProgram, which names the port, if periods differ, if a port without a link is used, if a flit that
    arrives is not taken in its token, or if a flit is taken that was not sent. Raises TspError as `verify_slack` does.
    """
    if len(reports) != len(rack.chips):
        raise IllegalProgram(Trap.DRY, f"rack {rack.name}", -1, -1,
                             f"there must be a program for each of {len(rack.chips)} chips, not {len(reports)}")
    periods = [report.period for report in reports]
    if len(set(periods)) > 1:
        raise IllegalProgram(Trap.NOT_PARKED, f"rack {rack.name}", -1, -1,
                             f"all chips must have the same period, not {', '.join(map(str, periods))}")
    verify_slack(rack, periods[0])
    nothing = np.empty(0, np.int64)
    for chip, report in enumerate(reports):
        for side, number in {**report.sent, **report.received}:
            if (port := Port(chip, side, number)) not in rack.across:
                raise IllegalProgram(Trap.ADDRESS, _name(port), -1, -1,
                                     f"port {port} is not linked in rack {rack.name}")
    for near, (far, latency) in rack.across.items():
        sent = reports[near.chip].sent.get((near.side, near.number), nothing) + latency
        taken = reports[far.chip].received.get((far.side, far.number), nothing)
        _twice(near, sent - latency, "two flits are sent in one slot")
        _twice(far, taken, "a flit is taken twice")
        if (lost := np.setdiff1d(sent, taken)).size:
            raise IllegalProgram(Trap.NOT_PARKED, _name(far), -1, int(lost[0]),
                                 f"no RECEIVE takes the flit that arrives at port {far}")
        if (missing := np.setdiff1d(taken, sent)).size:
            raise IllegalProgram(Trap.EMPTY_READ, _name(far), -1, int(missing[0]), f"no flit arrives at port {far}")


def verify_slack(rack: RackConfig, period: int) -> None:
    """Prove that clocks of their own do not run apart by more than the links' slack while a token runs.

    Raises TspError, which names the rack, what a token needs and what it has.
    """
    if not (own := rack.oscillators) or (needed := own.apart(period)) <= own.slack:
        return
    remedy = f'give it a slack of {needed} cycles and links with as much more latency' if needed <= SLACKS[1] else (
        "use oscillators with fewer ppm, or one clock for all chips")
    raise TspError(f"rack {rack.name}: clocks of +-{own.ppm:g} ppm run {needed} cycles apart in a token of {period:,} "
                   f"cycles, but its slack is {own.slack}: {remedy}, or use a shorter context")


def _twice(port: Port, cycles: np.ndarray, what: str) -> None:
    if (same := np.flatnonzero(np.diff(np.sort(cycles)) == 0)).size:
        raise IllegalProgram(Trap.COLLISION, _name(port), -1, int(np.sort(cycles)[same[0]]), f"port {port}: {what}")


def _name(port: Port) -> str:
    return f"chip {port.chip} C2C_{port.side}"
