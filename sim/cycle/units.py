"""MEM, MXM and SXM of the cycle model."""

from collections.abc import Callable
from typing import Any

import numpy as np

from arch import numerics
from arch.config import MEM_E, MXM_E, PLANES, SXM_E, ChipConfig
from arch.host_map import Trap
from arch.isa import (
    ADDR_BITS,
    ENGINE,
    MXM_MAX,
    AnyOp,
    Dir,
    DrainMax,
    Instr,
    Op,
    Order,
    Red,
    Wfmt,
)
from arch.row import Queue

from .core import LANE_MASKS, Streams, Timeline, Unit, planes_of

ALL = (1 << PLANES) - 1
_ADDRESS_MASK = (1 << ADDR_BITS) - 1
_LAZY = 256
"""Most MAC steps that are collected before they are evaluated together."""


class MemModel(Unit):
    """A MEM slice: quads as int32 lanes (plane k = byte k), index registers, a read and a write engine."""

    def __init__(self, queue: Queue, config: ChipConfig, time: Timeline, streams: Streams):
        super().__init__(queue, config, time, streams)
        outward = Dir.E if queue.position == MEM_E else Dir.W
        self._outward, self._outer = outward.value, queue.slice > 0
        self._weight_groups = config.weight_groups_of(queue.slice)
        self.quads = np.zeros((config.mem_depths[queue.slice], config.lanes), np.int32)
        self._all_lanes = numerics.Index.everything(config.lanes).lanes
        self.indices = [numerics.Index.everything(config.lanes)] * config.index_regs
        self.commits = [(-1, -1), (-1, -1)]
        """(cycle, quad) of the latest commit in an even cycle, and in an odd cycle."""

    @property
    def bytes(self) -> np.ndarray:
        """Contents: a writable view, uint8 [quad, plane, lane]."""
        return planes_of(self.quads)

    def index_fields(self) -> np.ndarray:
        """(offset, lane mask, plane mask) of every index register."""
        return np.array([(index.offset, index.lanes, index.planes) for index in self.indices])

    def state(self) -> dict[str, np.ndarray]:
        return {"mem": self.bytes.copy(), "index": self.index_fields()}

    def dispatch(self, instr: Instr, offsets: tuple[int, int]) -> None:
        register = self.check(instr.index, self.config.index_regs, "index register")
        direction = instr.dir.value
        if instr.op is Op.INDEX:
            self.time.read(self.time.now + ENGINE, self._load_index, register, direction)
            return
        index = self.indices[register]
        base = instr.addr + index.offset + sum(offset for k, offset in enumerate(offsets) if instr.rel >> k & 1)
        stride, planes = instr.stride, instr.planes
        if instr.op is Op.READ:
            keep = None if index.planes == ALL else LANE_MASKS[index.planes]
            target = self._target(instr)
            self.start("read", instr, lambda i: self._read(base + i * stride, keep, target), instr.count,
                       instr.interval)
        else:
            mask = self._write_mask(planes, index)
            source = direction, self.position, planes
            self.start("write", instr, lambda i: self._write(base + i * stride, mask, source), instr.count,
                       instr.interval)

    def _target(self, instr: Instr) -> tuple[int, int, int, int]:
        """(direction, position, planes, group) that a READ drives."""
        if instr.weights:
            if instr.weights not in self._weight_groups:
                self.trap(Trap.ADDRESS, f"the slice does not drive weight group {instr.weights}")
            return self._outward, self.position, instr.planes, instr.weights
        direction = instr.dir.value
        if self._outer and direction == self._outward:
            self.trap(Trap.ADDRESS, "only slice 0 drives the vector group outward")
        return direction, self.position, instr.planes, 0

    def _load_index(self, register: int, direction: int) -> None:
        value = numerics.Index.of(self.streams.sample(direction, self.position, ALL, self.name),
                                  self.config.index_bits)
        self.time.write(self.time.now, self.indices.__setitem__, register, value)

    def _address(self, address: int) -> int:
        return self.check(address & _ADDRESS_MASK, len(self.quads), "address")

    def _read(self, address: int, keep: np.int32 | None, target: tuple[int, int, int, int]) -> None:
        address = self._address(address)
        now = self.time.now
        if self.commits[now & 1] == (now, address):
            self.trap(Trap.BANK_CONFLICT, f"quad {address} is read in the cycle in which a write to it is committed")
        value = self.quads[address].copy() if keep is None else self.quads[address] & keep
        direction, position, planes, group = target
        self.time.write(now + self.latencies.mem_read, self.streams.drive, direction, position, planes, value,
                        self.name, group)

    def _write(self, address: int, mask: np.ndarray | None, source: tuple[int, int, int]) -> None:
        address = self._address(address)
        value = self.streams.sample(*source, self.name).copy()
        commit = self.time.now + 1
        self.commits[commit & 1] = commit, address
        self.time.write(commit, self._commit, address, mask, value)

    def _write_mask(self, planes: int, index: numerics.Index) -> np.ndarray | None:
        """Byte mask [lane] of a write; None if it writes the whole quad."""
        planes &= index.planes
        if planes == ALL and index.lanes == self._all_lanes:
            return None
        enabled = np.array([index.lanes >> lane & 1 for lane in range(self.config.lanes)], np.int32)
        return -enabled & LANE_MASKS[planes]

    def _commit(self, address: int, mask: np.ndarray | None, value: np.ndarray) -> None:
        if mask is None:
            self.quads[address] = value
        else:
            self.quads[address] ^= (self.quads[address] ^ value) & mask


class MxmModel(Unit):
    """An MXM: activation buffer, accumulator file, and MAC steps. The steps are evaluated when their sums are read."""

    def __init__(self, queue: Queue, config: ChipConfig, time: Timeline, streams: Streams):
        super().__init__(queue, config, time, streams)
        self._act = [np.zeros(config.lanes, np.int8) for _ in range(config.act_depth)]
        self._acc = np.zeros((config.acc_depth, config.lanes), np.int32)
        self._steps: list[tuple[int, np.ndarray, np.ndarray, int, bool, bool]] = []
        self._greatest = self._following = np.zeros(config.lanes, np.int32)
        outward = Dir.E if queue.position == MXM_E else Dir.W
        self._outward, self._inward = outward.value, 1 - outward.value

    @property
    def act(self) -> np.ndarray:
        """Activation buffer, int8 [entry, lane]."""
        return np.stack(self._act)

    @property
    def acc(self) -> np.ndarray:
        """Accumulator file, int32 [vector, lane]."""
        self._settle()
        return self._acc.copy()

    def state(self) -> dict[str, np.ndarray]:
        return {"act": self.act, "acc": self.acc}

    def dispatch(self, instr: Instr, offsets: tuple[int, int]) -> None:
        if instr.op is Op.LOAD:
            plane, act = instr.plane, instr.act
            self.start("load", instr, lambda i: self._load(act + i, plane), instr.count, instr.interval)
        elif instr.op is Op.DRAIN:
            acc, what = instr.acc, instr.max
            if what is not DrainMax.NONE and not self.config.drain_max:
                self.trap(Trap.OPCODE, f"config {self.config.name} has no maximum in its drains")
            self.start("drain", instr, lambda i: self._drain(acc + i, what, i == 0), instr.count, instr.interval)
        else:
            self._start_mac(instr)

    def _start_mac(self, instr: Instr) -> None:
        acts, accs, act, acc, clear = instr.acts, instr.accs, instr.act, instr.acc, instr.clear
        narrow = instr.wfmt is Wfmt.INT4
        if narrow and not self.config.int4:
            self.trap(Trap.OPCODE, f"config {self.config.name} has no INT4")
        inner = acts if instr.order is Order.ROW else accs

        def work(i: int) -> None:
            outer, within = divmod(i, inner)
            j, n = (within, outer) if instr.order is Order.ROW else (outer, within)
            self._mac(act + j, acc + n, bool(clear and j == 0), narrow)

        self.start("mac", instr, work, acts * accs, 1)

    def _load(self, entry: int, plane: int) -> None:
        entry = self.check(entry, self.config.act_depth, "activation entry")
        lanes = self.streams.sample(self._outward, self.position, 1 << plane, self.name)
        self.time.write(self.time.now, self._act.__setitem__, entry, (lanes >> 8 * plane).astype(np.int8))

    def _mac(self, act: int, acc: int, clear: bool, narrow: bool) -> None:
        entry = self._act[self.check(act, self.config.act_depth, "activation entry")]
        weights = self.streams.sample_weights(self._outward, self.position, self.name).copy()
        self._steps.append((self.time.now + self.latencies.mxm_acc, weights, entry, acc, clear, narrow))
        if len(self._steps) >= _LAZY:
            self._settle()

    def _settle(self) -> None:
        """Commit the MAC steps whose sums have reached the accumulator file."""
        steps = self._steps
        due = len(steps)
        while due and steps[due - 1][0] > self.time.now:
            due -= 1
        if not due:
            return
        products = self._products(steps[:due])
        for (_, _, _, acc, clear, narrow), product in zip(steps[:due], products, strict=True):
            size = self.config.rows << narrow
            vector, part = divmod(acc, self.config.lanes // size)
            lanes = self._acc[vector % self.config.acc_depth, part * size : (part + 1) * size]
            if clear:
                lanes[:] = product[:size]
            else:
                lanes += product[:size]
        del steps[:due]

    def _products(self, steps: list[tuple[int, np.ndarray, np.ndarray, int, bool, bool]]) -> np.ndarray:
        """Row sums, int32 [step, row], as `numerics.dot` computes them. int8 steps use the first half of the rows."""
        weights = planes_of(np.stack([step[1] for step in steps])).reshape(len(steps), self.config.rows, -1)
        acts = np.stack([step[2] for step in steps]).astype(np.int32)
        weights = weights.view(np.int8).astype(np.int32)
        narrow = np.array([step[5] for step in steps])
        if not narrow.any():
            return np.einsum("srl,sl->sr", weights, acts)
        nibbles = np.stack([((weights + 8) & 15) - 8, weights >> 4], axis=2).reshape(len(steps), -1, self.config.lanes)
        wide = np.concatenate([weights, np.zeros_like(weights)], axis=1)
        return np.einsum("srl,sl->sr", np.where(narrow[:, None, None], nibbles, wide), acts)

    def _drain(self, vector: int, what: DrainMax, first: bool) -> None:
        self._settle()
        value = self._acc[vector % self.config.acc_depth].copy()
        if what is DrainMax.DRIVE:
            value = self._greatest
        elif what is not DrainMax.NONE:
            begins = first and what is DrainMax.FIRST
            following = value if begins else np.maximum(value, self._following)
            self._following = following
            self.time.write(self.time.now + MXM_MAX - 1, self.__setattr__, "_greatest", following)
        self.time.write(self.time.now + self.latencies.mxm_drain, self.streams.drive, self._inward, self.position, ALL,
                        value, self.name)


class SxmModel(Unit):
    """An SXM: permutation maps, the lane engine, and a transpose buffer with an input and an output engine."""

    def __init__(self, queue: Queue, config: ChipConfig, time: Timeline, streams: Streams, maps: np.ndarray):
        super().__init__(queue, config, time, streams)
        self._maps = maps
        outward = Dir.E if queue.position == SXM_E else Dir.W
        self._outward, self._inward = outward.value, 1 - outward.value
        self._rows = np.zeros((config.lanes, config.lanes), np.uint8)

    def state(self) -> dict[str, np.ndarray]:
        return {"transpose": self._rows.copy()}

    def dispatch(self, instr: Instr, offsets: tuple[int, int]) -> None:
        if instr.op in (Op.TRANSPOSE_IN, Op.TRANSPOSE_OUT) and not self.config.sxm_transpose:
            self.trap(Trap.OPCODE, f"config {self.config.name} has no {instr.op.name}")
            return
        if instr.op is Op.TRANSPOSE_IN:
            plane = 1 << instr.plane
            shift = 8 * instr.plane
            self.start("in", instr, lambda i: self._transpose_in(i, plane, shift), instr.count, instr.interval)
            return
        if instr.op is Op.TRANSPOSE_OUT:
            self.start("out", instr, self._transpose_out, instr.count, instr.interval)
            return
        works: dict[AnyOp, Callable[..., Any]] = {
            Op.PERMUTE: self._permute, Op.SHIFT: self._shift, Op.REDUCE: self._reduce}
        work = works[instr.op](instr)
        self.start("lanes", instr, lambda i: self._drive(work(i, self._sample(ALL))), instr.count, instr.interval)

    def _sample(self, planes: int) -> np.ndarray:
        return self.streams.sample(self._outward, self.position, planes, self.name)

    def _drive(self, value: np.ndarray) -> None:
        self.time.write(self.time.now + self.latencies.sxm_drive, self.streams.drive, self._inward, self.position, ALL,
                        value, self.name)

    def _permute(self, instr: Instr):
        lanes = self._maps[self.check(instr.map, self.config.sxm_maps, "map")].copy()
        return lambda i, x: x[lanes]

    def _shift(self, instr: Instr):
        lane, step, distribute, lanes = instr.lane, instr.lane_inc, instr.distribute, self.config.lanes
        spread = np.zeros(lanes, int) if distribute else np.arange(lanes)
        return lambda i, x: x[(spread + lane + i * step) % lanes]

    def _reduce(self, instr: Instr):
        red = instr.red
        if red in (Red.NONE, Red.MAXABS):
            self.trap(Trap.OPCODE, f"REDUCE must be SUM, MAX or MIN, not {red.name}")
            red = Red.SUM
        segment = self.check(instr.segment, self.config.lane_bits + 1, "segment")
        return lambda i, x: numerics.lane_reduce(red, segment, x.astype(np.int64)).astype(np.int32)

    def _transpose_in(self, i: int, planes: int, shift: int) -> None:
        row = self.check(i, self.config.lanes, "transpose row")
        value = (self._sample(planes) >> shift).astype(np.uint8)
        self.time.write(self.time.now, self._rows.__setitem__, row, value)

    def _transpose_out(self, i: int) -> None:
        column = self._rows[:, self.check(i, self.config.lanes, "transpose column")].astype(np.int64)
        value = (column * 0x01010101).astype(np.uint32).view(np.int32)
        self._drive(value)
