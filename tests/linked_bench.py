"""Chips with their endpoints in Verilator: hosts that set links up and run tokens, phases, lines and errors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
from linked_rig import LINE_BITS, UNIT_INTERVAL, LinkedRack, name_of, number_of

from arch.config import CONFIGS
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
from arch.rack import Link, Port, RackConfig
from fpga.host.links import ahead
from hw.link.parameters import COUNTER_BITS, SLOT_BITS, LinkParameters
from program.image import Image
from sim.rtl.rack import SteppedHost, prefix
from sim.rtl.ticked import Ticked

CHIP = replace(CONFIGS["micro"], name="micro_linked", mem_depths=(64, 64), icu_depth=256, vxm_icu_depth=256,
               ports=(1, 1), slot=4, icu_words=())
LINK = LinkParameters(lanes=4, pins=5)
LATENCY = 14
"""Of links that counters follow."""
CLOSING = 15
"""Of links that close a ring, between chips whose counters follow the same one."""
MOST = 6000
"""Core cycles in which links come up, and in which runs end."""
RISE = 4
"""Cycles from RUN to `running`."""
SAMPLES = 2
"""Times a cycle that the start of a token is looked for."""
DRIFTS = 32
"""Cycles, at most, in which no clock gains two ticks on another."""


def ring(chips: int, *latencies: int) -> RackConfig:
    """Each chip's eastern port is linked with the next one's western port, the last one's with the first one's.

    latencies: of the links of chip 0's eastern port and so on; by default the last link closes the ring.
    """
    given = latencies or (LATENCY,) * (chips - 1) + (CLOSING,)
    links = tuple(Link(ports=(Port(n, "E", 0), Port((n + 1) % chips, "W", 0)), latency=latency)
                  for n, latency in enumerate(given))
    return RackConfig(name=f"linked ring of {chips}", chips=(CHIP,) * chips, links=links)


@cache
def _model(rack: RackConfig, link: LinkParameters) -> Ticked:
    """One for all latencies: they are in registers."""
    return Ticked(LinkedRack(rack, link), "linked_rack", held=True)


class LinkedBench:
    """A rack behind its reset. late: ticks of each chip's clock. lengths: of each port's outgoing lines, in ticks.

    wired: has the rack's links, and others, which no host enables. parents: the port that each chip's counter follows;
    W0 by default. apart: the reset of each chip ends some cycles after the one of the chip before, so that slots begin
    in different cycles until counters follow the root's. ppm: by which each chip's clock is fast.
    """

    def __init__(self, rack: RackConfig, *, wired: RackConfig | None = None,
                 parents: Sequence[Port | None] | None = None, late: Sequence[int] | None = None,
                 lengths: Sequence[int] | None = None, skew: int = 0, seed: int = 0, apart: bool = False,
                 ppm: Sequence[float] = ()):
        self.rack, self.wired, self.parents, self.ppm = rack, wired or rack, parents, ppm
        self._late, self._owed, self.held = [0] * len(rack.chips), [0.0] * len(rack.chips), False
        self.model = _model(replace(self.wired, oscillators=None, links=tuple(
            replace(link, latency=1) for link in self.wired.links)), replace(LINK, slack=rack.slack))
        self.core = 2 * UNIT_INTERVAL * LINK.ratio
        self.hosts = [Host(self, n) for n in range(len(rack.chips))]
        self.model.restart()
        rng = np.random.default_rng(seed)
        for n in range(len(rack.chips)):
            self._late[n] = late[n] if late else int(rng.integers(256))
            self.drive(n, late=self._late[n], off=0, host_write=0, host_read=0)
        for n, port in enumerate(self.wired.across):
            base = lengths[n] if lengths else int(rng.integers(skew, 20))
            line = [base + int(rng.integers(-skew, skew + 1)) for _ in range(LINK.pins)] + [base]
            self.lines(port, skew=sum(ticks << LINE_BITS * k for k, ticks in enumerate(line)), cut=0, flip=0)
        held = (1 << len(rack.chips)) - 1
        self.model.reset = held
        self.step(4)
        for n in range(len(rack.chips) if apart else 0):
            self.model.reset = held & -2 << n
            self.step(int(rng.integers(CHIP.slot)))
        self.model.reset = 0

    def drive(self, chip: int, **inputs: int) -> None:
        for name, value in inputs.items():
            setattr(self.model, prefix(self.rack, chip) + name, value)

    def port(self, chip: int, name: str) -> int:
        return getattr(self.model, prefix(self.rack, chip) + name)

    def lines(self, port: Port, **inputs: int) -> None:
        for name, value in inputs.items():
            setattr(self.model, f"{name}_{name_of(port)}", value)

    def step(self, cycles: int = 1) -> None:
        if not self.ppm:
            self.model.run(cycles * self.core)
            return
        while cycles > 0:
            some = min(cycles, DRIFTS)
            self.model.run(some * self.core)
            self._drift(some * self.core)
            cycles -= some

    def _drift(self, ticks: int) -> None:
        """Let clocks gain what they gain in some ticks, tick by tick; nothing while a host has access."""
        for n, ppm in enumerate(() if self.held else self.ppm):
            self._owed[n] += ticks * ppm * 1e-6
            if abs(self._owed[n]) >= 1:
                gained = 1 if self._owed[n] > 0 else -1
                self._owed[n] -= gained
                self._late[n] = (self._late[n] - gained) % 256
                self.drive(n, late=self._late[n])

    def set_up(self) -> None:
        """Every host writes its registers."""
        for host in self.hosts:
            host.register(RACK, pack(RACK_SETUP, root=host.number == 0, ahead=ahead(self.rack)))
        for port, (_, latency) in self.rack.across.items():
            followed = self.parents[port.chip] if self.parents else Port(port.chip, "W", 0)
            parent = followed == port and port.chip > 0
            self.hosts[port.chip].link(port, LinkRegister.SETUP, pack(SETUP, latency=latency, enabled=1, parent=parent))

    def up(self) -> bool:
        """Wait until all links are up; whether they are."""
        for _ in range(MOST // 64):
            self.step(64)
            if all(self.hosts[port.chip].status(port)["up"] for port in self.rack.across):
                return True
        return False

    def start(self, images: Sequence[Image] = ()) -> None:
        """Set up, wait, load, and forget what was wrong until then."""
        self.set_up()
        assert self.up(), self.status()
        for host, image in zip(self.hosts, images, strict=bool(images)):
            host.load(image)
        self.clear()

    def clear(self) -> None:
        """Forget errors and counts on all chips."""
        for host in self.hosts:
            host.register(Control.ERRORS.value, 0)

    def run(self, tokens: int, each_step=lambda: None) -> list[list[tuple[int, int]]]:
        """Run tokens; of each chip's tokens, the counter where they began and the cycles that they took by it."""
        self.launch(tokens)
        begun: list[list[int]] = [[] for _ in self.hosts]
        samples = SAMPLES if self.ppm else 1
        for now in range(MOST):
            for _ in range(samples):  # so that none is missed of a clock that is fast
                for n, found in enumerate(begun):
                    if self.port(n, "token_start") and (counter := self.port(n, "counter")) not in found[-1:]:
                        found.append(counter)
                self.model.run(self.core // samples)
            if now > RISE and not any(self.port(n, "running") for n in range(len(self.hosts))):
                break
            self._drift(self.core)
            each_step()
        else:
            raise AssertionError(f"every run must end: {self.status()}")
        again, numbers = 1 << SLOT_BITS + LINK.phase_bits, 1 << COUNTER_BITS + LINK.phase_bits
        return [[(counter % again, (later - counter) % numbers) for counter, later in pairwise(found)]
                + [(found[-1] % again, host.register(Control.TOKEN_CYCLES.value))] if found else []
                for found, host in zip(begun, self.hosts, strict=True)]

    def launch(self, tokens: int) -> None:
        """RUN on all chips, on the root last."""
        for host in reversed(self.hosts):
            host.register(Control.RUN.value, tokens)

    def retrain(self) -> None:
        """Train all links again, and let the counters follow the root's again."""
        for port in self.rack.across:
            self.hosts[port.chip].link(port, LinkRegister.COMMAND, pack(COMMAND, retrain=1))
        self.set_up()
        assert self.up(), self.status()
        self.clear()

    def errors(self) -> list[int]:
        return [host.register(Control.ERRORS.value) for host in self.hosts]

    def corrected(self) -> int:
        return sum(self.hosts[port.chip].status(port)["corrected"] for port in self.rack.across)

    def status(self) -> str:
        return "; ".join(f"{port}: {self.hosts[port.chip].status(port)}" for port in self.rack.across)


class Host(SteppedHost):
    """A chip's host, with the registers of its links."""

    def __init__(self, bench: LinkedBench, number: int):
        super().__init__(bench, number)
        self.bench, self.rack = bench, bench.rack

    def write(self, accesses: np.ndarray) -> None:
        with self._held():
            super().write(accesses)

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        with self._held():
            return super().read(space, addrs)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """No clock gains on the others: an access takes one cycle of its chip. What clocks have gained just before is
        let pass first: a clock that is put back has no edge in that cycle if the last one was at its begin."""
        self.bench.held = True
        if self.bench.ppm:
            self.bench.model.run(self.bench.core)
        yield
        self.bench.held = False

    def register(self, address: int, value: int | None = None) -> int:
        """Read a register of CONTROL, or write it."""
        if value is None:
            return self.host_read(Space.CONTROL, address)
        self.host_write(Space.CONTROL, address, value)
        return value

    def link(self, port: Port, register: LinkRegister, value: int | None = None) -> int:
        return self.register(link_address(number_of(self.rack, port), register), value)

    def status(self, port: Port) -> dict[str, int]:
        return unpack(STATUS, self.link(port, LinkRegister.STATUS))

    def slot(self) -> int:
        return unpack(RACK_STATUS, self.register(RACK))["slot"]

    def slack(self) -> int:
        return unpack(RACK_STATUS, self.register(RACK))["slack"]
