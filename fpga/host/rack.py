"""Boards whose chips are linked, as one device."""

import time
from collections.abc import Sequence
from contextlib import suppress

from arch.host_map import Control, Space
from arch.link_map import LinkTrap
from arch.rack import RackConfig
from base.errors import TspError
from sim.device.port_chip import PortChip
from sim.device.protocol import ChipFault
from sim.device.rack import Changes, HostedRack, RackDevice, Ran
from sim.lines import Failure

from .board import Link, check_identity, open_line
from .links import Links, number_of, parents

LINK_TRAPS = sum(1 << trap.value for trap in LinkTrap)
RECOVERY = 0.2
"""Seconds in which a link recovers from wrong bits by itself: it needs 16 slots."""


class BoardChips(HostedRack):
    """The chips of boards, whose links are up.

    boards: the lines to the boards, in the order of the rack's chips.
    """

    has_lines = True

    def __init__(self, rack: RackConfig, boards: Sequence[Link]) -> None:
        self.rack, self._boards = rack, boards
        self.chips = self._chips = [PortChip(config, board)
                                    for config, board in zip(rack.chips, boards, strict=True)]
        self.links = Links(rack, self.chips)
        self._corrected = self._failed = 0

    def run(self, n_tokens: int, changes: Changes | None = None) -> Ran:
        """Run tokens, one by one. Ends early after one during which a link failed; links are then up again.

        Raises ChipFault if they are not. changes: not of real lines.
        """
        if changes:
            raise ValueError("changes must be empty: the lines of boards are real")
        cycles: list[list[int]] = [[] for _ in self._chips]
        for _ in range(n_tokens):
            before = self._chips[0].state()[Control.POSITION]
            self._begin()
            states = [chip.wait() for chip in self._chips]
            if failures := self._failures():
                self._recover()
                return Ran(cycles=cycles, failures=failures)
            if states[0][Control.POSITION] == before:
                break
            for own, state in zip(cycles, states, strict=True):
                own.append(state[Control.TOKEN_CYCLES])
        return Ran(cycles=cycles)

    def _begin(self) -> None:
        """RUN on all chips, on the root last: its START finds the others ready."""
        for chip, board in reversed(list(zip(self._chips, self._boards, strict=True))):
            chip.begin()
            board.settle()

    def _failures(self) -> list[Failure]:
        """What the links say of the last token. Counts what they corrected."""
        found: list[Failure] = []
        for n, chip in enumerate(self._chips):
            bits = chip.host_read(Space.CONTROL, Control.ERRORS.value)
            if not bits & LINK_TRAPS:
                continue
            before = len(found)
            for end in self.links.ends.values():
                if end.port.chip == n and (faults := end.status().faults):
                    found.append(Failure(port=end.port, kind=faults[0].name))
            if len(found) == before:
                port = next(port for port in self.links.ends if port.chip == n)
                found.append(Failure(port=port, kind="START"))
        self._failed += len(found)
        return found

    def _recover(self) -> None:
        """All links up again, without errors. What else the chips have trapped is trapped again with the token."""
        self._count()
        self.links.clear()
        end = time.monotonic() + RECOVERY
        while time.monotonic() < end:
            if self.links.up():
                return
        try:
            self.links.bring_up()
        except TspError as error:
            raise ChipFault(str(error)) from None

    def _count(self) -> None:
        self._corrected += sum(end.status().corrected for end in self.links.ends.values())

    @property
    def link_errors(self) -> tuple[int, int]:
        """Errors that were corrected, and tokens' errors that were not."""
        now = sum(end.status().corrected for end in self.links.ends.values())
        return self._corrected + now, self._failed

    @property
    def now(self) -> int:
        return self._chips[0].host_read(Space.CONTROL, Control.CYCLES.value)

    def check(self) -> None:
        """Raises TspError if a board does not answer, or was restarted."""
        for board in self._boards:
            board.check()

    def close(self) -> None:
        """Close the lines."""
        for board in self._boards:
            board.close()


class RackOfBoards(RackDevice):
    """Boards at the ends of lines, as a device.

    clock_mhz: clock of the chips.
    """

    def __init__(self, name: str, chips: BoardChips, clock_mhz: float) -> None:
        super().__init__(name, chips)
        self._boards, self.clock_mhz = chips, clock_mhz

    def check(self) -> None:
        """Raises TspError if a board does not answer, or was restarted and has lost its program."""
        self._boards.check()


def open_boards(ports: Sequence[str], rack: RackConfig) -> tuple[list[Link], float]:
    """The boards at serial ports, and their clock in MHz: the rack's chips in their order, the root first.

    Raises TspError if a port is not that of such a board. Nothing stays open then.
    """
    if len(ports) != len(rack.chips):
        raise TspError(f"rack {rack.name} has {len(rack.chips)} chips, so --device must name as many serial ports, the "
                       f"root's first: PORT0,PORT1, not {','.join(ports)}")
    if len(set(ports)) < len(ports):
        raise TspError(f"--device must name each board's own port, not {','.join(ports)}")
    boards: list[Link] = []
    try:
        for port in ports:
            line = open_line(port)
            try:
                boards.append(Link(line, port))
            except TspError as error:
                line.close()
                raise _silent(error, boards) from None
        _check(ports, boards, rack)
    except TspError:
        for board in boards:
            with suppress(OSError):
                board.close()
        raise
    return boards, boards[0].identity.clock_khz / 1e3


def _silent(error: TspError, before: Sequence[Link]) -> TspError:
    """A board without a clock from its link says nothing."""
    if not before or "no board answers" not in str(error):
        return error
    return TspError(f"{error} If its bitstream takes the clock of the link, the cable and the root's bitstream must be "
                    "there, too")


def _check(ports: Sequence[str], boards: Sequence[Link], rack: RackConfig) -> None:
    """Raises TspError unless the boards are the rack's chips in this order."""
    followed = {} if rack.oscillators else parents(rack)
    for n, (port, board) in enumerate(zip(ports, boards, strict=True)):
        check_identity(port, board.identity, rack.chips[n], "rack")
        clock, expected = board.identity.clock_link, number_of(rack, followed[n]) + 1 if n in followed else 0
        if n == 0 and clock:
            raise TspError(f"{port} is a board that takes its clock from a link, so it cannot be chip 0, the root: "
                           f"name the ports in the order of the rack's chips, such as {','.join(reversed(ports))}")
        if n and clock != expected:
            here, there = (f"from its link {link - 1}" if link else "from its own oscillator"
                           for link in (clock, expected))
            raise TspError(f"{port}, chip {n} of rack {rack.name}, must take its clock {there}, but takes it {here}: "
                           f"load the bitstream of chip {n}")
    clocks = {port: board.identity.clock_khz for port, board in zip(ports, boards, strict=True)}
    if len(set(clocks.values())) > 1:
        told = ", ".join(f"{port} {khz / 1e3:g} MHz" for port, khz in clocks.items())
        raise TspError(f"the boards of a rack must have one clock, not {told}")


def open_rack(ports: Sequence[str], rack: RackConfig) -> RackOfBoards:
    """A rack of boards, whose links are trained. Raises TspError."""
    boards, mhz = open_boards(ports, rack)
    chips = BoardChips(rack, boards)
    try:
        chips.links.bring_up()
    except TspError:
        chips.close()
        raise
    return RackOfBoards(",".join(ports), chips, mhz)
