"""Model and RTL side by side, compared in every cycle.

Each cycle compares the driven bits of all stream registers, the values of the driven ones, the queues' dispatches,
their parked bits, and every unit's state. The RTL's probes show writes to the state. The writes are applied to a
shadow, which must equal the model's state. A folded VXM shows its vectors late (`arch.isa.vxm_late`).
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from arch.config import PLANES, ChipConfig
from arch.host_map import Control, Space
from arch.isa import vxm_late
from arch.row import Queue, queues
from program.image import Image
from sim.cycle.chip import ModelChip
from sim.cycle.core import planes_of
from sim.cycle.links import C2cModel
from sim.cycle.units import MemModel

SETTLE = 16
"""Cycles compared after the last token's end. By then, nothing is in flight any more."""
WAKE = 64
"""Most cycles from a write to RUN to the start pulse."""
MEM_EVERY = 64
"""Cycles between comparisons of whole memories. The other cycles compare the quads that either side writes."""


class Rtl(Protocol):
    """A debug build of the RTL, for example `sim.rtl.chip.VerilatedChip`."""

    def load(self, image: Image) -> None: ...

    def host_write(self, space: Space, addr: int, data: int) -> None: ...

    def step(self, cycles: int = 1) -> None: ...

    def streams(self, direction: str) -> np.ndarray: ...

    def driven(self, direction: str) -> np.ndarray: ...

    def probe(self, name: str) -> int: ...

    def writes(self, queue: str) -> Mapping[str, int]: ...


class Mismatch(AssertionError):
    """Model and RTL differ. The message names the cycle since the start pulse, and the difference."""

    def __init__(self, cycle: int, what: str, model: object, rtl: object):
        super().__init__(f"cycle {cycle}: {what}\n model: {model}\n rtl:   {rtl}")
        self.cycle = cycle
        self.what = what


def lockstep(config: ChipConfig, program: tuple[Image, int], rtl: Rtl) -> ModelChip:
    """Run a program (image, tokens) on model and RTL, both just reset.

    Returns the model in its final state. Raises Mismatch at the first difference.
    """
    image, tokens = program
    model = ModelChip(config)
    model.load(image)
    rtl.load(image)
    comparison = Lockstep(model, rtl)
    comparison.start(tokens)
    while model.running:
        comparison.cycle()
    for _ in range(SETTLE):
        comparison.cycle()
    comparison.compare_memories()
    return model


class Lockstep:
    """The comparison of one run."""

    def __init__(self, model: ModelChip, rtl: Rtl):
        self.model = model
        self.rtl = rtl
        self.queues = queues(model.config)
        self.shadow = {queue.name: self._shadow(queue) for queue in self.queues}
        self._late = {queue.name: deque([model.units[queue.name].state()] * vxm_late(model.config))
                      for queue in self.queues if queue.unit == "VXM"}

    def _shadow(self, queue: Queue) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self.model.units[queue.name].state().items()}

    def start(self, tokens: int) -> None:
        """Start both sides. Step the RTL to the cycle after its start pulse, in which its queues are not parked."""
        self.model.host_write(Space.CONTROL, Control.RUN.value, tokens)
        self.rtl.host_write(Space.CONTROL, Control.RUN.value, tokens)
        for _ in range(WAKE):
            if not self.rtl.probe("parked"):
                break
            self.rtl.step()
        else:
            raise Mismatch(0, "the RTL did not start", 0, self.rtl.probe("parked"))
        self.model.step()

    def cycle(self) -> None:
        """Compare the registers of the current cycle, step both sides, and compare the cycle's writes."""
        model, rtl = self.model, self.rtl
        self._compare_streams()
        self._same("parked queues", self._bits(icu.parked for icu in model.icus.values()), rtl.probe("parked"))
        issued, writes = rtl.probe("issued"), {queue.name: rtl.writes(queue.name) for queue in self.queues}
        traps = {queue.name: rtl.probe(f"traps_{queue.name}") for queue in self.queues}
        now = model.now
        model.step()
        self._same("dispatches", self._bits(icu.issued == now for icu in model.icus.values()), issued)
        for queue in self.queues:
            self._same(f"{queue.name} traps", 0, traps[queue.name])
            self._compare_unit(queue, writes[queue.name], now)
        if now % MEM_EVERY == 0:
            self.compare_memories()
        rtl.step()

    def _bits(self, flags: Iterator[bool]) -> int:
        return sum(flag << n for n, flag in enumerate(flags))

    def _same(self, what: str, model: int, rtl: int) -> None:
        if model != rtl:
            raise Mismatch(self.model.now, what, bin(model), bin(rtl))

    def _same_array(self, what: str, model: np.ndarray, rtl: np.ndarray) -> None:
        if not np.array_equal(model, rtl):
            where = tuple(int(axis[0]) for axis in np.nonzero(model != rtl))[: model.ndim]
            raise Mismatch(self.model.now, f"{what}{list(where)}", model[where[:-1]], rtl[where[:-1]])

    def _compare_streams(self) -> None:
        for n, direction in enumerate("ew"):
            driven = self.model.streams.driven(n)
            self._same_array(f"{direction} driven", driven, self.rtl.driven(direction))
            values = self.rtl.streams(direction)
            values[~_slots(driven, values.shape[1])] = 0
            self._same_array(f"{direction} streams", self.model.streams.values(n), values)

    def _compare_unit(self, queue: Queue, writes: Mapping[str, int], now: int) -> None:
        unit, shadow = self.model.units[queue.name], self.shadow[queue.name]
        if isinstance(unit, MemModel):
            quads = {writes["addr"]} if writes["we"] else set()
            quads |= {quad for cycle, quad in unit.commits if cycle == now}
            _APPLY["MEM"](shadow, writes)
            for quad in quads:
                self._same_array(f"{queue.name} quad {quad} ", planes_of(unit.quads)[quad], shadow["mem"][quad])
            self._same_array(f"{queue.name} index ", unit.index_fields(), shadow["index"])
            return
        if isinstance(unit, C2cModel):
            for name, value in unit.seen(now).items():
                self._same(f"{queue.name} {name}", value, writes[name])
            return
        _APPLY[queue.unit](shadow, writes)
        state = unit.state()
        if late := self._late.get(queue.name):
            late.append(state)
            state = late.popleft()
        for name, array in state.items():
            if name not in _UNSEEN:
                self._same_array(f"{queue.name} {name} ", array, shadow[name])

    def compare_memories(self) -> None:
        """Compare all quads of all slices."""
        for name, unit in self.model.units.items():
            if isinstance(unit, MemModel):
                self._same_array(f"{name} quad ", unit.bytes, self.shadow[name]["mem"])


# --- the RTL's state writes, applied to a shadow ----------------------------------------------------------------------

_UNSEEN = {"red"}
"""State that the RTL does not show. Its effects are compared."""


def _slots(driven: np.ndarray, streams: int) -> np.ndarray:
    """Driven bits [position] as bool [position, stream]. The contents of other slots are undefined."""
    return (driven[:, None] >> np.arange(streams, dtype=np.uint32) & 1).astype(bool)


def _group(value: int, lanes: int) -> np.ndarray:
    """uint8 [plane, lane] of a stream group."""
    return np.frombuffer(value.to_bytes(PLANES * lanes, "little"), np.uint8).reshape(PLANES, lanes)


def _group_lanes(value: int, lanes: int) -> np.ndarray:
    """int32 lanes of a stream group."""
    return np.ascontiguousarray(_group(value, lanes).T).view("<i4")[:, 0]


def _plane(value: int, lanes: int, kind: type = np.uint8) -> np.ndarray:
    return np.frombuffer(value.to_bytes(lanes, "little"), kind)


def _lanes(value: int, lanes: int) -> np.ndarray:
    """int32 lanes of a value that holds them one after the other."""
    return np.frombuffer(value.to_bytes(4 * lanes, "little"), "<i4")


def _mask(value: int, bits: int) -> np.ndarray:
    return np.array([bool(value >> n & 1) for n in range(bits)])


def _apply_mem(shadow: dict[str, np.ndarray], writes: Mapping[str, int]) -> None:
    if writes["we"]:
        quad = shadow["mem"][writes["addr"]]
        enabled = _mask(writes["we"], quad.size).reshape(quad.shape)
        quad[enabled] = _group(writes["data"], quad.shape[1])[enabled]
    if writes["index_we"]:
        shadow["index"][writes["index"]] = [writes[f"index_data.{name}"] for name in ("offset", "lanes", "planes")]


def _apply_vxm(shadow: dict[str, np.ndarray], writes: Mapping[str, int]) -> None:
    lanes = shadow["rf"].shape[1]
    if writes["rf_we"]:
        shadow["rf"][writes["rf_index"]] = _group_lanes(writes["rf_data"], lanes)
    if writes["er_we"]:
        shadow["er"][writes["er_index"]] = _plane(writes["er_data"], lanes, np.int8)


def _apply_mxm(shadow: dict[str, np.ndarray], writes: Mapping[str, int]) -> None:
    lanes = shadow["act"].shape[1]
    if writes["act_we"]:
        shadow["act"][writes["act_index"]] = _plane(writes["act_data"], lanes, np.int8)
    if writes["acc_we"]:
        enabled = _mask(writes["acc_we"], lanes)
        vector = shadow["acc"][writes["acc_index"] % len(shadow["acc"])]
        vector[enabled] = _lanes(writes["acc_data"], lanes)[enabled]


def _apply_sxm(shadow: dict[str, np.ndarray], writes: Mapping[str, int]) -> None:
    if writes["row_we"]:
        rows = shadow["transpose"]
        rows[writes["row_index"]] = _plane(writes["row_data"], rows.shape[1])


_APPLY = {"MEM": _apply_mem, "VXM": _apply_vxm, "MXM": _apply_mxm, "SXM": _apply_sxm}
