"""Links of the cycle model: the wires between chips, and the C2C units at their ends."""

from collections.abc import Mapping

import numpy as np

from arch.config import ChipConfig
from arch.host_map import Trap
from arch.isa import C2C_RECEIVE, C2C_SEND, Instr, LinkOp
from arch.row import Queue

from .core import Streams, Timeline, Unit


class Wire:
    """One direction of a link: flits by the cycle of their arrival.

    latency: cycles from SEND to arrival.
    changes: wrong bits of a flit, by its number since `sent` was 0.
    """

    def __init__(self, latency: int):
        self.latency = latency
        self.flits: dict[int, np.ndarray] = {}
        self.sent = 0
        self.changes: Mapping[int, int] = {}

    def send(self, cycle: int, flit: np.ndarray) -> None:
        """Send a flit whose slot begins in this cycle."""
        if wrong := self.changes.get(self.sent):
            flit = flit ^ np.frombuffer(wrong.to_bytes(len(flit), "little"), np.uint8)
        self.sent += 1
        self.flits[cycle + C2C_SEND + self.latency] = flit

    def take(self, cycle: int) -> np.ndarray | None:
        """Remove and return the flit that arrives in this cycle; None if there is none."""
        return self.flits.pop(cycle, None)

    def missed(self, cycle: int) -> bool:
        """Whether a flit arrived before this cycle and was not taken."""
        return any(arrival < cycle for arrival in self.flits)


class C2cModel(Unit):
    """A C2C. SEND puts the sampled plane on the wires of its ports. RECEIVE drives the flit that a wire brings."""

    def __init__(self, queue: Queue, config: ChipConfig, time: Timeline, streams: Streams):
        super().__init__(queue, config, time, streams)
        self.ports = config.ports_of(queue.side)
        self.out: list[Wire | None] = [None] * self.ports
        self.into: list[Wire | None] = [None] * self.ports
        self.began = 0
        """Cycle of the last start pulse. A slot begins in it."""
        self.shown: tuple[int, dict[str, int]] = -1, {}
        self._outward, self._inward = (0, 1) if queue.side == "E" else (1, 0)

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def seen(self, cycle: int) -> dict[str, int]:
        """The flits that the unit sent and took in a cycle, as the RTL's probe shows them."""
        nothing = {"sent": 0, "sent_data": 0, "taken": 0, "taken_data": 0}
        return nothing | (self.shown[1] if self.shown[0] == cycle else {})

    def _show(self, **values: int) -> None:
        now = self.time.now
        self.shown = now, (self.shown[1] if self.shown[0] == now else {}) | values

    def dispatch(self, instr: Instr, offsets: tuple[int, int]) -> None:
        if instr.op is LinkOp.SEND:
            plane, ports = instr.plane, instr.ports
            self.start("send", instr, lambda i: self._send(plane, ports), instr.count, instr.interval)
        else:
            port, planes = instr.port, instr.planes
            self.start("receive", instr, lambda i: self._receive(port, planes), instr.count, instr.interval)

    def _send(self, plane: int, ports: int) -> None:
        now = self.time.now
        self.check(ports.bit_length() - 1, self.ports, "port")
        if (now - self.began) % self.config.slot:
            self.trap(Trap.COLLISION, f"SEND must execute in the first cycle of a slot of {self.config.slot}, "
                                      f"not {(now - self.began) % self.config.slot} cycles later")
        lanes = self.streams.sample(self._outward, self.position, 1 << plane, self.name)
        flit = (lanes >> 8 * plane).astype(np.uint8)
        for number, wire in enumerate(self.out):
            if ports >> number & 1 and wire:
                wire.send(now, flit)
        self._show(sent=ports & (1 << self.ports) - 1, sent_data=int.from_bytes(flit.tobytes(), "little"))

    def _receive(self, port: int, planes: int) -> None:
        wire, now = self.into[self.check(port, self.ports, "port")], self.time.now
        flit = wire.take(now) if wire else None
        if flit is None:
            self.trap(Trap.EMPTY_READ, f"no flit arrives at port {port}")
            return
        value = (flit.astype(np.uint32) * np.uint32(0x01010101)).view(np.int32)
        self._show(taken=1 << port, taken_data=int.from_bytes(flit.tobytes(), "little"))
        self.time.write(now + C2C_RECEIVE, self.streams.drive, self._inward, self.position, planes, value, self.name)

    def check_taken(self) -> None:
        """Check, at a token's end, that every flit that arrived was taken."""
        for port, wire in enumerate(self.into):
            if wire and wire.missed(self.time.now):
                self.trap(Trap.NOT_PARKED, f"a flit that arrived at port {port} was not taken")
                wire.flits.clear()
