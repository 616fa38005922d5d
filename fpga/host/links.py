"""The links of a rack of boards, as their host sees them: registers, training, and what is wrong in words."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from arch.host_map import Control, Space
from arch.link_map import (
    COMMAND,
    RACK,
    RACK_SETUP,
    RACK_STATUS,
    SETUP,
    STATUS,
    LinkRegister,
    link_address,
    pack,
    unpack,
)
from arch.rack import Port, RackConfig
from base.errors import TspError
from base.progress import progress
from hw.link.receive import Fault
from hw.link.train import State
from sim.device.hosted_chip import HostPort

AHEAD = 32
"""Slots from a RUN to its token, where all chips have one clock."""
REALIGNED = 9
"""Slots, besides a link's latency, in which a chip puts its clock right before it hears a START."""
COMPARED = 18
"""Slots until the CRC is compared again behind what was put right."""
TRIES = 12
"""Times that the ends of a link are trained before it is given up."""
PATIENCE = 5.0
"""Seconds in which a state of training must change, or a link that is trained come up."""
LOST = State.NO_CLOCK, State.FAILED


def number_of(rack: RackConfig, port: Port) -> int:
    """A port's number among its chip's links."""
    return port.number + (rack.chips[port.chip].ports[0] if port.side == "E" else 0)


def parents(rack: RackConfig) -> Mapping[int, Port]:
    """The port of each chip but the root that its counter, and its clock, follow: on the shortest way to the root."""
    found: dict[int, Port] = {}
    for port, (far, _) in sorted(rack.across.items()):
        if rack.depths[far.chip] < rack.depths[port.chip]:
            found.setdefault(port.chip, port)
    return found


def ahead(rack: RackConfig) -> int:
    """Slots from a RUN to its token. Raises TspError if that is more than the register holds."""
    if not rack.oscillators:
        return AHEAD
    hop = REALIGNED + max(-(-latency // rack.chips[port.chip].slot) for port, (_, latency) in rack.across.items())
    slots = (max(rack.depths.values()) + 1) * hop + COMPARED
    if slots >= 1 << RACK_SETUP["ahead"]:
        raise TspError(f"rack {rack.name}: chips with clocks of their own must be fewer links away from chip 0 than "
                       f"{max(rack.depths.values())}")
    return slots


@dataclass(frozen=True, kw_only=True)
class LinkStatus:
    """What an end of a link says; see `arch.link_map.STATUS`."""

    state: State
    lane: int
    up: bool
    faults: tuple[Fault, ...]
    corrected: int
    least: int
    greatest: int
    slot: int

    @staticmethod
    def of(word: int) -> "LinkStatus":
        """The status in a register's word."""
        found = unpack(STATUS, word)
        return LinkStatus(
            state=State(found["state"]), lane=found["lane"], up=bool(found["up"]),
            faults=tuple(fault for fault in Fault if found["errors"] >> fault.value & 1),
            corrected=found["corrected"], least=found["least"], greatest=found["greatest"], slot=found["slot"])


class End:
    """An end of a link.

    chip: its chip's host port. far: the port at the other end.
    """

    def __init__(self, rack: RackConfig, port: Port, chip: HostPort) -> None:
        self.port, self.chip = port, chip
        self.far, self.latency = rack.across[port]
        self._number = number_of(rack, port)
        self._parent = parents(rack).get(port.chip) == port

    def set_up(self, latency: int | None = None) -> None:
        """Write latency and role; by default the rack's latency."""
        self._write(LinkRegister.SETUP, pack(SETUP, latency=self.latency if latency is None else latency, enabled=1,
                                             parent=self._parent))

    def settled(self) -> bool:
        """Whether frames arrive on time, or it is known that they cannot."""
        status = self.status()
        return status.up or Fault.LATENCY in status.faults

    def retrain(self) -> None:
        """Train anew."""
        self._write(LinkRegister.COMMAND, pack(COMMAND, retrain=1))

    def shorten(self, pin: int) -> None:
        """Make the input delay of a pin 0."""
        self._write(LinkRegister.COMMAND, pack(COMMAND, load=1 << pin))

    def lengthen(self, pin: int) -> None:
        """Lengthen the input delay of a pin by a step."""
        self._write(LinkRegister.COMMAND, pack(COMMAND, step=1 << pin))

    def status(self) -> LinkStatus:
        """What it says."""
        return LinkStatus.of(self.chip.host_read(Space.CONTROL, link_address(self._number, LinkRegister.STATUS)))

    def _write(self, register: LinkRegister, word: int) -> None:
        self.chip.host_write(Space.CONTROL, link_address(self._number, register), word)


class Links:
    """All links of a rack. chips: the host ports of its chips."""

    def __init__(self, rack: RackConfig, chips: Sequence[HostPort]) -> None:
        self.rack, self.chips = rack, chips
        self.ends = {port: End(rack, port, chips[port.chip]) for port in sorted(rack.across)}

    def bring_up(self, latencies: Mapping[Port, int] = MappingProxyType({})) -> None:
        """Train all links and set the counters up. Raises TspError that says which line fails, and how.

        latencies: of some ports, in place of the rack's.
        """
        slots = ahead(self.rack)
        self._check_slack()
        with progress(f"training the links of rack {self.rack.name}"):
            for end in self.ends.values():
                end.retrain()
            for n, chip in enumerate(self.chips):
                chip.host_write(Space.CONTROL, RACK, pack(RACK_SETUP, root=n == 0, ahead=slots))
            for port, end in self.ends.items():
                end.set_up(latencies.get(port))
            self._train()
            self._await_up()
        self.clear()

    def _check_slack(self) -> None:
        """Raises TspError if a chip was built for other clocks than the rack's."""
        for n, chip in enumerate(self.chips):
            slack = unpack(RACK_STATUS, chip.host_read(Space.CONTROL, RACK))["slack"]
            if slack != self.rack.slack:
                raise TspError(f"chip {n} of rack {self.rack.name} must have links with {_clocks(self.rack.slack)}, "
                               f"not with {_clocks(slack)}: load a bitstream that was built for the rack")

    def _train(self) -> None:
        """Until both ends of all links send frames.

        An end that does not hear the training word fails, also where the other end has only begun later. It is trained
        again while the other end sends the word; what fails then is a line.
        """
        tries, before, since = dict.fromkeys(self.ends, 0), None, time.monotonic()
        while True:
            found = {port: end.status() for port, end in self.ends.items()}
            states = [status.state for status in found.values()]
            if all(state is State.LINKED for state in states):
                return
            if states != before:
                before, since = states, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise self._untrained(found)
            for port, end in self.ends.items():
                here, there = found[port].state, found[end.far].state
                if here in LOST or (here is State.TRAINED and there is State.LINKED):
                    tries[port] += 1
                    if tries[port] > TRIES:
                        raise self._untrained(found)
                    end.retrain()
                    if there is State.LINKED:
                        self.ends[end.far].retrain()

    def _await_up(self) -> None:
        """Until frames arrive on time everywhere."""
        began = time.monotonic()
        while True:
            found = {port: end.status() for port, end in self.ends.items()}
            if all(status.up for status in found.values()):
                return
            late = [port for port, status in found.items() if Fault.LATENCY in status.faults]
            if late or time.monotonic() - began > PATIENCE:
                raise TspError(self._not_up(found, late))

    def _untrained(self, found: Mapping[Port, LinkStatus]) -> TspError:
        """What is wrong with lines that do not train."""
        silent = [port for port, status in found.items() if status.state is State.NO_CLOCK]
        if silent:
            far = self.ends[silent[0]].far
            return TspError(f"no clock comes to port {silent[0]} from port {far}: is the cable plugged in, and does "
                            "the other board run?")
        port, status = next((port, status) for port, status in found.items() if status.state is not State.LINKED)
        for other, theirs in found.items():
            if theirs.state is State.FAILED:
                port, status = other, theirs
        return TspError(f"the line of data pin {status.lane} from port {self.ends[port].far} to port {port} does not "
                        "train: check its wire (docs/reference/links.md lists the pins)")

    def _not_up(self, found: Mapping[Port, LinkStatus], late: Sequence[Port]) -> str:
        if late:
            latency = self.ends[late[0]].latency
            return (f"port {late[0]} cannot release frames {latency} cycles after they were sent: give the link "
                    "another latency in the rack's file (`tsp link-test` shows which work)")
        port = next(port for port, status in found.items() if not status.up)
        return f"the link at port {port} is trained, but no frames come through: {words(found[port])}"

    def clear(self) -> None:
        """Forget errors and counts on all chips."""
        for chip in self.chips:
            chip.host_write(Space.CONTROL, Control.ERRORS.value, 0)

    def up(self) -> bool:
        """Whether all links can be relied on."""
        return all(end.status().up for end in self.ends.values())


def _clocks(slack: int) -> str:
    return f"a slack of {slack} cycles for clocks of their own" if slack else "one clock"


def words(status: LinkStatus) -> str:
    """What is wrong, for messages."""
    return ", ".join(fault.name for fault in status.faults) or f"state {status.state.name}"
