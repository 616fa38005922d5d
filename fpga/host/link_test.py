"""Tests the links of a rack of boards: training, latency, wrong bits, and the eye of each pin."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from arch.host_map import Control, Space
from arch.rack import LATENCIES, Link, Port
from base.errors import TspError
from hw.link.parameters import LinkParameters
from hw.link.receive import Fault
from sim.lines import parameters

from .links import End, Links

SETTINGS = 16
"""Settings of an input delay that training tries on a board."""
AROUND = 3
"""Cycles around a declared latency that are tried."""
POLL = 0.02
"""Seconds between looks at a link."""
SETTLES = 0.5
"""Seconds in which it is known of a link whether frames come out on time, when it is so of another one."""


@dataclass(kw_only=True)
class EndReport:
    """What was found at one end of a link, of what comes in there.

    bits: that came in while errors were counted. corrected, faults: among them.
    levels: how often the elastic buffer had which level when a training was over.
    latencies: those, in cycles, at which frames come out on time.
    eyes: by data pin, which settings of the input delay give no error, the shortest first; the list ends early where
    the test was stopped.
    """

    port: Port
    far: Port
    declared: int
    bits: int = 0
    corrected: int = 0
    faults: tuple[Fault, ...] = ()
    levels: dict[int, int] = field(default_factory=dict)
    latencies: list[int] = field(default_factory=list)
    eyes: list[list[bool]] = field(default_factory=list)

    @property
    def narrow(self) -> list[int]:
        """Pins whose eyes are narrower than two settings."""
        return [pin for pin, eye in enumerate(self.eyes) if widest(eye) < 2]

    @property
    def good(self) -> bool:
        """No error that was not corrected, and all eyes open."""
        return not self.faults and not self.narrow


def widest(eye: list[bool]) -> int:
    """Settings in the longest run of good ones."""
    longest = run = 0
    for good in eye:
        run = run + 1 if good else 0
        longest = max(longest, run)
    return longest


def middle(eye: list[bool]) -> int:
    """The setting in the middle of the longest run of good ones; 0 if there is none."""
    size = widest(eye)
    first = next((n for n in range(len(eye)) if size and all(eye[n : n + size])), 0)
    return first + size // 2


class LinkTest:
    """A test of links that a host can reach. say: told what is being done."""

    def __init__(self, links: Links, say: Callable[[str], None] = lambda line: None) -> None:
        self.links, self._say = links, say
        self.reports = {port: EndReport(port=port, far=end.far, declared=end.latency)
                        for port, end in links.ends.items()}

    def run(self, seconds: float, trainings: int, eyes: bool = True) -> list[EndReport]:
        """All tests; the links are up afterwards. Raises TspError where a line does not train."""
        self.train(trainings)
        self.count(seconds)
        self.find_latencies()
        if eyes:
            self.measure_eyes()
        self.links.bring_up()
        return list(self.reports.values())

    def train(self, times: int) -> None:
        """Train all links some times, and see where the elastic buffers stand."""
        self._say(f"training {times} times")
        for _ in range(times):
            self.links.bring_up()
            for port, end in self.links.ends.items():
                levels, level = self.reports[port].levels, end.status().least
                levels[level] = levels.get(level, 0) + 1

    def count(self, seconds: float) -> None:
        """Count wrong bits. An idle link carries a pseudo-random sequence, which its receiver compares."""
        self._say(f"counting wrong bits for {seconds:g} s")
        self.links.clear()
        began, cycles = time.monotonic(), self._cycles()
        while time.monotonic() - began < seconds:
            time.sleep(POLL)
            for port, end in self.links.ends.items():
                self._note(self.reports[port], end)
        passed = self._cycles() - cycles
        for port, report in self.reports.items():
            report.bits = passed * self._parameters(port).cycle_bits

    def _note(self, report: EndReport, end: End) -> None:
        status = end.status()
        report.corrected = max(report.corrected, status.corrected)
        report.faults = status.faults

    def find_latencies(self) -> None:
        """Which latencies of a link work, of those around the declared one, while all others have theirs."""
        least, greatest = LATENCIES
        for link in self.links.rack.links:
            self._say(f"trying other latencies of the link between {link.ports[0]} and {link.ports[1]}")
            for latency in range(max(link.latency - AROUND, least), min(link.latency + AROUND, greatest) + 1):
                for port in self._on_time(link, latency):
                    self.reports[port].latencies.append(latency)

    def _on_time(self, link: Link, latency: int) -> set[Port]:
        """The ends of a link at which frames come out on time with another latency."""
        ends = {port: self.links.ends[port] for port in link.ports}
        try:
            self.links.bring_up(dict.fromkeys(link.ports, latency))
        except TspError:  # of this link or of another one
            over = time.monotonic() + SETTLES
            while time.monotonic() < over and not all(end.settled() for end in ends.values()):
                time.sleep(POLL)
            return {port for port, end in ends.items() if end.status().up}
        return set(ends)

    def measure_eyes(self) -> None:
        """Each pin's delay, setting by setting."""
        self.links.bring_up()
        for port, end in self.links.ends.items():
            report = self.reports[port]
            for pin in range(self._parameters(port).pins):
                self._say(f"measuring the eye of data pin {pin} at port {port}")
                report.eyes.append(self._eye(end, pin))
                self._restore(end, pin, report.eyes[-1])

    def _eye(self, end: End, pin: int) -> list[bool]:
        found = []
        for setting in range(SETTINGS):
            end.lengthen(pin) if setting else end.shorten(pin)
            end.chip.host_write(Space.CONTROL, Control.ERRORS.value, 0)  # and what came before the new setting
            end.chip.host_write(Space.CONTROL, Control.ERRORS.value, 0)
            time.sleep(0.001)
            status = end.status()
            found.append(not status.faults and not status.corrected)
        return found

    def _restore(self, end: End, pin: int, eye: list[bool]) -> None:
        """Put the pin's delay into the middle of its eye, as training does."""
        end.shorten(pin)
        for _ in range(middle(eye)):
            end.lengthen(pin)

    def _cycles(self) -> int:
        return self.links.chips[0].host_read(Space.CONTROL, Control.CYCLES.value)

    def _parameters(self, port: Port) -> LinkParameters:
        return parameters(self.links.rack.chips[port.chip])
