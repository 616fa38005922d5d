"""A cycle-accurate model of one chip, built from `arch.isa` and `arch.numerics` without the RTL.

After `step()`, every register that a program can observe has the value of the RTL's register in the same cycle. The
model is also the strict machine: an illegal program raises `ProgramError` in the cycle of its offence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from arch.config import ChipConfig
from arch.host_map import WORD, Control, Space, Trap, bucket_of, fields_of, lanes_of
from arch.identity import chip_digest
from arch.isa import PC_BITS, least_period, routable, width
from arch.latencies import latencies
from arch.row import Queue, queue_depth, queues
from base.progress import Tell
from program.image import Image, each
from sim.device.hosted_chip import HostedChip

from .core import ProgramError, Streams, Timeline, Unit
from .icu import IcuModel
from .links import C2cModel, Wire
from .units import MemModel, MxmModel, SxmModel
from .vxm import VxmModel

__all__ = ["ModelChip", "ProgramError"]

PC_MASK = (1 << PC_BITS) - 1


@dataclass
class Sequencer:
    """Registers of the token sequencer.

    run, position, token_cycles: the registers that the host sees.
    began: cycle of the last start pulse.
    pulse: cycle of the next start pulse, or of the last token's end; -1 while idle.
    """

    run: int = 0
    position: int = 0
    token_cycles: int = 0
    began: int = -1
    pulse: int = -1


class ModelChip(HostedChip):
    """One chip: host port, sequencer, queues, units, streams.

    `now` is the current cycle. All state is that of the registers in this cycle. `step()` advances by one cycle.

    config: the chip's config.
    strict: an illegal program raises ProgramError. Otherwise it sets bits in ERRORS, and its further results are
    unspecified.
    """

    def __init__(self, config: ChipConfig, *, strict: bool = True):
        self.config = config
        self._start = latencies(config).start
        self.time = Timeline(strict)
        self.streams = Streams(config, self.time)
        self.maps = np.zeros((config.sxm_maps, config.lanes), np.uint8)
        self.buckets = np.zeros((config.buckets, 2), np.uint64)
        self.sequencer = Sequencer()
        self.units = {queue.name: self._unit(queue) for queue in queues(config)}
        self.icus = {queue.name: IcuModel(queue, queue_depth(config, queue), self.time, self.units[queue.name])
                     for queue in queues(config)}
        self._queues = list(self.icus.values())
        self._mems: list[MemModel] = [unit for unit in self.units.values() if isinstance(unit, MemModel)]
        self._c2cs = [unit for unit in self.units.values() if isinstance(unit, C2cModel)]
        self._held: dict[int, int] = {}

    def _unit(self, queue: Queue) -> Unit:
        common = queue, self.config, self.time, self.streams
        if queue.unit == "SXM":
            return SxmModel(*common, self.maps)
        return {"MEM": MemModel, "MXM": MxmModel, "VXM": VxmModel, "C2C": C2cModel}[queue.unit](*common)

    def connect(self, side: str, port: int, out: Wire, into: Wire) -> None:
        """Connect a port.

        out: the wire that takes sent flits.
        into: the wire that brings flits to receive.
        """
        unit = self.units[f"C2C_{side}"]
        assert isinstance(unit, C2cModel)
        unit.out[port], unit.into[port] = out, into

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Cycles since reset."""
        return self.time.now

    @property
    def running(self) -> bool:
        """Whether a token runs, or starts in this cycle."""
        return self.sequencer.pulse >= 0

    def step(self) -> None:
        """Advance by one cycle."""
        time = self.time
        if self.sequencer.pulse == time.now:
            self._pulse()
        time.run_cycle()
        time.now += 1
        self.streams.enter()

    def run(self, n_tokens: int) -> list[int]:
        """Run `n_tokens` tokens from the current position.

        Returns the cycles of each token, from its start pulse to the next. It returns when nothing is in flight any
        more, so the host sees the writes of the last cycles.
        """
        self.host_write(Space.CONTROL, Control.RUN.value, n_tokens)
        cycles = []
        began = self.sequencer.began
        while self.running:
            self.step()
            if self.sequencer.began != began and began >= 0:
                cycles.append(self.sequencer.token_cycles)
            began = self.sequencer.began
        self.settle()
        return cycles

    def settle(self) -> None:
        """Step until nothing is in flight. Call it while no token runs."""
        while not self.time.idle:
            self.step()

    def _pulse(self) -> None:
        """The sequencer's work in a start pulse's cycle: end a token, begin the next one, or both."""
        seq, now = self.sequencer, self.time.now
        if seq.began >= 0:
            self._check_parked()
            seq.token_cycles = now - seq.began
            seq.run -= 1
        if not seq.run:
            seq.began = seq.pulse = -1
            return
        bucket = self._bucket()
        if bucket is None:
            seq.run, seq.began, seq.pulse = 0, -1, -1
            return
        seq.began, seq.pulse = now, now + int(self.buckets[bucket, 0])
        seq.position += 1
        for unit in self._c2cs:
            unit.began = now
        for icu in self._queues:
            icu.start(now + self._start, bucket)

    def _bucket(self) -> int | None:
        """The bucket of the current position; None if the position is beyond all buckets."""
        for bucket, (period, limit) in enumerate(self.buckets.tolist()):
            if limit > self.sequencer.position:
                if period < (least := least_period(self.config)):
                    raise ProgramError(Trap.NOT_PARKED, self.now, "sequencer",
                                       f"period must be at least {least}, not {period}")
                return bucket
        self.time.trap(Trap.ADDRESS, "sequencer", f"position {self.sequencer.position} is beyond every bucket")
        return None

    def _check_parked(self) -> None:
        for name, icu in self.icus.items():
            if not icu.parked:
                self.time.trap(Trap.NOT_PARKED, name, "the queue has not reached SYNC")
            if self.units[name].busy:
                self.time.trap(Trap.NOT_PARKED, name, "an engine is busy")
        for unit in self._c2cs:
            unit.check_taken()

    # --- host port -----------------------------------------------------------------------------------------------

    def host_write(self, space: Space, addr: int, data: int) -> None:
        """Write a 128-bit word. Only CONTROL may be touched while a token runs."""
        self._check_idle(space)
        if space is Space.MEM:
            row = data.to_bytes(WORD // 8, "little")[: self.config.lanes]
            self._mem_bytes(addr)[:] = np.frombuffer(row, np.uint8)
        elif space is Space.ICU:
            self._write_icu(addr, data)
        elif space is Space.START:
            at = fields_of(Space.START, addr)
            self._queues[at["queue"]].starts[at["bucket"]] = data & PC_MASK
        elif space is Space.BUCKET:
            self.buckets[addr] = bucket_of(data)
        elif space is Space.MAP:
            self._write_map(addr, lanes_of(data, self.config.lanes))
        else:
            self._write_control(Control(addr), data)

    def load(self, image: Image, tell: Tell = lambda done: None) -> None:
        """Write an image and position 0. The memories are written directly."""
        for name, data in image.mems.items():
            self.mem(name)[: len(data)] = data
        super().load(replace(image, mems={}), tell)

    def write(self, accesses: np.ndarray) -> None:
        """Host writes. They take no cycle."""
        ends = [*np.flatnonzero(np.diff(accesses["space"])) + 1, len(accesses)]
        for part in np.split(accesses, ends[:-1]):
            if len(part) and part["space"][0] == Space.MEM.value:
                self._check_idle(Space.MEM)
                self._write_mems(part)
            else:
                for access in each(part):
                    self.host_write(*access)

    def _write_mems(self, accesses: np.ndarray) -> None:
        at, rows = fields_of(Space.MEM, accesses["addr"]), accesses["data"].view(np.uint8)[:, : self.config.lanes]
        for number in np.unique(at["slice"]):
            chosen = at["slice"] == number
            self._mems[number].bytes[at["quad"][chosen], at["plane"][chosen]] = rows[chosen]

    def read(self, space: Space, addrs: Sequence[int]) -> list[int]:
        """Host words. Reads take no cycle."""
        return [self.host_read(space, addr) for addr in addrs]

    def host_read(self, space: Space, addr: int) -> int:
        """Read a 128-bit word. Only MEM and CONTROL can be read; the other spaces read as 0."""
        self._check_idle(space)
        if space is Space.MEM:
            return int.from_bytes(self._mem_bytes(addr).tobytes(), "little")
        return self._read_control(Control(addr)) if space is Space.CONTROL else 0

    def _check_idle(self, space: Space) -> None:
        if space is not Space.CONTROL and self.running:
            raise RuntimeError(f"the host must access {space.name} only while no token runs")

    def _mem_bytes(self, addr: int) -> np.ndarray:
        at = fields_of(Space.MEM, addr)
        return self._mems[at["slice"]].bytes[at["quad"], at["plane"]]

    def _write_icu(self, addr: int, data: int) -> None:
        """Write a part of an instruction. Upper parts are held until part 0 completes the word."""
        at = fields_of(Space.ICU, addr)
        self._held[at["part"]] = data
        if not at["part"]:
            icu = self._queues[at["queue"]]
            word = sum(value << WORD * k for k, value in self._held.items())
            icu.write(at["instruction"], word & (1 << width(icu.queue.unit)) - 1)

    def _write_map(self, number: int, lanes: list[int]) -> None:
        if not routable(lanes):
            raise ValueError(f"map {number} must be routable (see arch.isa.routable), not {lanes}")
        self.maps[number] = lanes

    def _write_control(self, control: Control, data: int) -> None:
        seq = self.sequencer
        if control is Control.RUN:
            if self.running:
                raise RuntimeError("RUN must be written only while no token runs")
            seq.run = data
            seq.pulse = self.time.now if data else -1
        elif control is Control.POSITION:
            seq.position = data
        elif control is Control.ERRORS:
            self.time.errors = 0

    def _read_control(self, control: Control) -> int:
        return {
            Control.RUN: self.sequencer.run,
            Control.POSITION: self.sequencer.position,
            Control.CYCLES: self.time.now,
            Control.TOKEN_CYCLES: self.sequencer.token_cycles,
            Control.ERRORS: self.time.errors,
            Control.IDENTITY: int(chip_digest(self.config), 16),
        }[control]

    # --- memory -------------------------------------------------------------------------------------------------

    def mem(self, name: str) -> np.ndarray:
        """Contents of a MEM slice ("MEM_E0"): a writable view, uint8 [quad, plane, lane]."""
        unit = self.units[name]
        if not isinstance(unit, MemModel):
            raise KeyError(f"name must be a MEM slice, not {name!r}")
        return unit.bytes

    # --- inspection ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """A copy of all architectural state of the current cycle, which lockstep compares.

        Keys:

        - E, W: uint8 [position, stream, lane]. E_driven, W_driven: bits [position].
        - <queue>.<array> of every unit (MEM: mem, index; VXM: rf, er; MXM: act, acc; SXM: transpose).
        - <queue>.pc, .parked, and .timer, the cycles to the next dispatch (0 if parked).
        """
        state = {"E": self.streams.values(0), "W": self.streams.values(1),
                 "E_driven": self.streams.driven(0), "W_driven": self.streams.driven(1)}
        for name, unit in self.units.items():
            state |= {f"{name}.{key}": value for key, value in unit.state().items()}
            icu = self.icus[name]
            state[f"{name}.pc"] = np.array(icu.pc)
            state[f"{name}.parked"] = np.array(icu.parked)
            state[f"{name}.timer"] = np.array(0 if icu.parked else icu.next_dispatch - self.now)
        return state
