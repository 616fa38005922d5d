"""Proves from a program's instruction words alone that the program is legal, before it runs.

Time on this machine is exact, so the proof is a replay. Every queue is unrolled to its dispatches (all turns of all
loops), and every burst to its elements. Arrays over cycles show where two of them would use the same resource. The
proof knows nothing of the data, with one exception: the caller states the range of the offsets that index registers
hold (`index_bounds`, `index_least`).

The proof is stricter than the machine, whose traps fire only on what happens:

- Each use of an index register may have any offset in least..bound, and the register must have bits for all of them.
- Streams are empty at a token's start. Every effect (drive, commit, register) is complete when the period ends.
- A queue ends with its only SYNC, which is outside loops. No word follows it.

The proof does not cover what the machine does not trap: that memory is written before it is read, and that a value is
the intended one. `VerifyReport.flows` tells which word's value every sample sees. Accumulator entries wrap.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from arch import isa, row
from arch.config import MEM_E, MXM_E, PLANES, SXM_E, ChipConfig
from arch.host_map import Trap
from arch.isa import Dir, DrainMax, ErUse, LinkOp, Op, Order, Red, Src, Wfmt
from arch.latencies import Latencies, latencies
from arch.legal import IllegalProgram
from arch.queue_store import Numbers

from .dispatches import Word, unroll
from .streams import Flow, Lane, Streams

__all__ = ["Flow", "IllegalProgram", "VerifyReport", "verify_bucket"]

ALL = (1 << PLANES) - 1
VECTOR = 0
"""Number of the vector group."""


def _effects(times: Latencies) -> dict[isa.AnyOp, int]:
    """Cycles from an element to its last effect, with an unfolded VXM."""
    return {Op.READ: times.mem_read, Op.WRITE: isa.MEM_WRITE_TO_READ, Op.INDEX: isa.MEM_INDEX, Op.LOAD: isa.MXM_LOAD,
            Op.MAC: times.mxm_acc, Op.DRAIN: max(times.mxm_drain, isa.MXM_MAX),
            Op.ALU: max(times.vxm_rf, times.vxm_reduce_drive),
            Op.PERMUTE: times.sxm_drive, Op.SHIFT: times.sxm_drive, Op.REDUCE: times.sxm_drive,
            Op.TRANSPOSE_IN: isa.SXM_TRANSPOSE, Op.TRANSPOSE_OUT: times.sxm_drive,
            LinkOp.SEND: isa.C2C_SEND, LinkOp.RECEIVE: isa.C2C_RECEIVE}


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was proven of a bucket's program.

    period: cycles from start pulse to start pulse.
    last: cycle of the last effect, at most `period`.
    words: all words of units, by queue and number.
    elements: elements executed in a token.
    flows: which word's drives every word samples.
    unread: (word, direction, group) of drives that are never sampled.
    sent: by (end of the row, port), the cycles in which slots with flits begin, in order.
    received: by (end of the row, port), the cycles in which flits are taken, in order.
    """

    period: int
    last: int
    words: tuple[Word, ...]
    elements: int
    flows: tuple[Flow, ...]
    unread: tuple[tuple[int, Dir, int], ...]
    sent: Mapping[tuple[str, int], np.ndarray] = field(default_factory=dict)
    received: Mapping[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Producers and consumers as text, one flow a line."""
        return [f"{self.words[flow.producer].label} -> {flow.direction.name}{flow.group} -> "
                f"{self.words[flow.consumer].label}: {flow.samples}" for flow in self.flows]


def verify_bucket(config: ChipConfig, words: Mapping[str, Sequence[int]], period: int,
                  index_bounds: Mapping[tuple[str, int], int],
                  index_least: Mapping[tuple[str, int], int] = MappingProxyType({})) -> VerifyReport:
    """Prove that a bucket's program is legal. Call it for every bucket after `assemble`, before a program is written.

    words: instruction words by queue name, from the bucket's start PC to SYNC (`Code.words`).
    period: cycles from start pulse to start pulse (`Bucket.period`).
    index_bounds: greatest offset that an index register ever holds, by (slice, register), with slice names as in
    `ir.Mem` ("W0"). The program may use only these registers and register 0. For compiled programs, see
    `compiler.verify.index_reach.index_bounds`.
    index_least: least such offset, if not 0.

    Raises IllegalProgram, a TspError of one line that names queue, word, cycle and offence, at the first offence.
    """
    queues = row.queues(config)
    if set(words) != {queue.name for queue in queues}:
        raise IllegalProgram(Trap.DRY, "program", -1, -1, f"queues must be those of config {config.name}")
    least = isa.least_period(config)
    if period < least:
        raise IllegalProgram(Trap.NOT_PARKED, "program", -1, -1, f"period must be at least {least}, not {period}")
    proof = _Proof(config, period, index_bounds, index_least)
    for queue in queues:
        depth = row.queue_depth(config, queue)
        if len(words[queue.name]) > depth:
            raise IllegalProgram(Trap.DRY, queue.name, depth, -1, f"the queue holds {depth} words")
        for word in unroll(config, queue, words[queue.name], period):
            proof.add(word)
        _check_stored(config, queue, words[queue.name])
    return proof.conclude()


def _check_stored(config: ChipConfig, queue: row.Queue, words: Sequence[int]) -> None:
    """Raises IllegalProgram unless the queue can store all words: delays and distinct words have their limits."""
    number_of = Numbers(config, queue)
    for number, word in enumerate(words):
        try:
            number_of(word)
        except ValueError as error:
            raise IllegalProgram(Trap.OPCODE, queue.name, number, -1, str(error)) from None


def _in_order(parts: Mapping[tuple[str, int], Sequence[np.ndarray]]) -> dict[tuple[str, int], np.ndarray]:
    return {port: np.sort(np.concatenate(cycles)) for port, cycles in parts.items()}


class _Proof:
    """Checks all words of a program, first one by one (`add`), then together (`conclude`)."""

    def __init__(self, config: ChipConfig, period: int, bounds: Mapping[tuple[str, int], int],
                 least: Mapping[tuple[str, int], int]) -> None:
        self.config, self.period, self.bounds, self.least = config, period, bounds, least
        self.late, self.times = isa.vxm_late(config), latencies(config)
        self.effects = _effects(self.times)
        self.words: list[Word] = []
        self.streams = Streams(period)
        self.last = 0
        self.sent: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
        self.received: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
        self.engines: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.quads: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray, int, int]]] = defaultdict(list)

    def add(self, word: Word) -> None:
        """Check a word's fields and lifetime, and note the resources that it uses."""
        self.words.append(word)
        self._lifetime(word)
        op = word.instr.op
        self.engines[word.queue.name, isa.ENGINES[op]].append(len(self.words) - 1)
        match op:
            case Op.READ | Op.WRITE | Op.INDEX:
                self._mem(word)
            case Op.LOAD | Op.MAC | Op.DRAIN:
                self._mxm(word)
            case Op.ALU:
                self._vxm(word)
            case LinkOp.SEND | LinkOp.RECEIVE:
                self._c2c(word)
            case _:
                self._sxm(word)

    def conclude(self) -> VerifyReport:
        """Check for conflicts between words."""
        for (_, engine), members in self.engines.items():
            self._engine_free(engine, [self.words[member] for member in members])
        for queue in row.queues(self.config):
            if queue.unit == "MEM":
                self._banks_free(queue.name)
        flows, unread = self.streams.replay(self.words)
        elements = sum(word.burst[0] * len(word.cycles) for word in self.words)
        return VerifyReport(period=self.period, last=self.last, words=tuple(self.words), elements=elements,
                            flows=tuple(flows), unread=tuple(unread),
                            sent=_in_order(self.sent), received=_in_order(self.received))

    # -- one word --

    def _lifetime(self, word: Word) -> None:
        last = int(self._end(word).max())
        if last >= self.period:
            raise word.error(Trap.NOT_PARKED, last, f"an element executes after the period of {self.period}")
        effect = last + self.effects[word.instr.op]  # `last` includes the delay of a folded VXM
        if effect > self.period:
            raise word.error(Trap.NOT_PARKED, effect, f"its effect comes after the period of {self.period}")
        self.last = max(self.last, effect)

    def _end(self, word: Word) -> np.ndarray:
        """Last cycle in which a word's engine works [turns]."""
        return word.last + (self.late if word.instr.op is Op.ALU else 0)

    def _within(self, word: Word, values: int | np.ndarray, limit: int, what: str) -> None:
        """Check that `values`, broadcast over turns and elements, are in 0..limit - 1."""
        low, high = (values, values) if isinstance(values, int) else (values.min(), values.max())
        if low >= 0 and high < limit:
            return
        every = np.broadcast_to(values, word.elements.shape)
        at = np.unravel_index(int(np.argmax((every < 0) | (every >= limit))), every.shape)
        raise word.error(Trap.ADDRESS, word.elements[at], f"{what} must be in 0..{limit - 1}, not {every[at]}")

    def _drive(self, word: Word, lane: Lane, planes: int, cycles: np.ndarray) -> None:
        self.streams.drive(len(self.words) - 1, word.queue.position, lane, planes, cycles)

    def _sample(self, word: Word, lane: Lane, planes: int) -> None:
        self.streams.sample(len(self.words) - 1, word.queue.position, lane, planes, word.elements)

    # -- units --

    def _mem(self, word: Word) -> None:
        instr = word.instr
        self._within(word, instr.index, self.config.index_regs, "index register")
        if instr.op is Op.INDEX:
            self._sample(word, (instr.dir, VECTOR), ALL)
            return
        low, spread = self._addresses(word)
        if instr.op is Op.READ:
            self._drive(word, self._read_lane(word), instr.planes, word.elements + self.times.mem_read)
        else:
            self._sample(word, (instr.dir, VECTOR), instr.planes)
        busy = word.elements + (0 if instr.op is Op.READ else isa.MEM_WRITE_TO_READ - 1)
        self.quads[word.queue.name, isa.ENGINES[instr.op]].append((busy, low, spread, len(self.words) - 1))

    def _read_lane(self, word: Word) -> Lane:
        instr, slice_ = word.instr, word.queue.slice
        outward = Dir.E if word.queue.position == MEM_E else Dir.W
        if instr.weights:
            if instr.weights not in self.config.weight_groups_of(slice_):
                raise word.error(Trap.ADDRESS, word.first[0], f"the slice does not drive weight group {instr.weights}")
            return outward, instr.weights
        if slice_ and instr.dir is outward:
            raise word.error(Trap.ADDRESS, word.first[0], "only slice 0 drives the vector group outward")
        return instr.dir, VECTOR

    def _addresses(self, word: Word) -> tuple[np.ndarray, int]:
        """(lowest address of every element, most quads that an index register adds to it)."""
        instr, depth = word.instr, self.config.mem_depths[word.queue.slice]
        least = spread = 0
        if instr.index:
            key = word.queue.slice_name, instr.index
            if key not in self.bounds:
                raise word.error(Trap.ADDRESS, word.first[0], f"index register {instr.index} has no declared bound")
            bits = self.config.index_bits
            if self.bounds[key] >> bits:
                raise word.error(Trap.ADDRESS, word.first[0], f"index register {instr.index} has {bits} bits, too few "
                                                              f"for offsets up to {self.bounds[key]}")
            least = self.least.get(key, 0)
            spread = self.bounds[key] - least
        moved = word.offsets @ np.array([instr.rel & 1, instr.rel >> 1 & 1])
        low = instr.addr + least + moved[:, None] + np.arange(instr.count) * instr.stride & (1 << isa.ADDR_BITS) - 1
        self._within(word, low, depth - spread, f"address (with offsets up to {spread})" if spread else "address")
        return low, spread

    def _mxm(self, word: Word) -> None:
        instr = word.instr
        outward, inward = (Dir.E, Dir.W) if word.queue.position == MXM_E else (Dir.W, Dir.E)
        if instr.op is Op.DRAIN:
            if instr.max is not DrainMax.NONE and not self.config.drain_max:
                raise word.error(Trap.OPCODE, word.cycles[0], f"config {self.config.name} has no maximum in its drains")
            self._drive(word, (inward, VECTOR), ALL, word.elements + self.times.mxm_drain)
            return
        number = np.arange(word.burst[0])
        if instr.op is Op.LOAD:
            self._sample(word, (outward, VECTOR), 1 << instr.plane)
        else:
            if instr.wfmt is Wfmt.INT4 and not self.config.int4:
                raise word.error(Trap.OPCODE, word.cycles[0], f"config {self.config.name} has no INT4")
            number = number % instr.acts if instr.order is Order.ROW else number // instr.accs
            for group in range(1, self.config.groups):
                self._sample(word, (outward, group), ALL)
        self._within(word, instr.act + number, self.config.act_depth, "activation entry")

    def _vxm(self, word: Word) -> None:
        instr, rf, fold = word.instr, self.config.rf_depth, self.config.vxm_fold
        if instr.count > 1 and instr.interval < fold:
            raise word.error(Trap.ENGINE_BUSY, word.cycles[0],
                             f"interval must be at least {fold}, not {instr.interval}")
        number = np.arange(instr.count)
        for source, fmt, register, inc in (
            (instr.a_src, instr.a_fmt, instr.a_rf, instr.a_inc), (instr.b_src, instr.b_fmt, instr.b_rf, instr.b_inc),
            (instr.c_src, instr.c_fmt, instr.c_rf, instr.c_inc),
        ):
            if source is Src.RF:
                self._within(word, register + number * inc, rf, "register")
            elif source in (Src.E, Src.W):
                self._sample(word, (Dir.E if source is Src.E else Dir.W, VECTOR), isa.FMT_PLANES[fmt])
        if instr.er_use is not ErUse.NONE:
            self._within(word, instr.er, self.config.er_depth, "exponent entry")
        if instr.er_we:
            self._within(word, instr.er_dst, self.config.er_depth, "exponent entry")
        if instr.rf_we:
            self._within(word, instr.rf + number * instr.rf_inc, rf, "register")
        for direction, enabled in ((Dir.E, instr.dst_e), (Dir.W, instr.dst_w)):
            if enabled:
                self._drive(word, (direction, VECTOR), ALL, word.elements + self.times.vxm_drive + self.late)
        if instr.red is not Red.NONE and instr.red_e:
            self._drive(word, (Dir.E, VECTOR), ALL, word.last + self.times.vxm_reduce_drive + self.late)

    def _sxm(self, word: Word) -> None:
        instr = word.instr
        match instr.op:
            case Op.PERMUTE:
                self._within(word, instr.map, self.config.sxm_maps, "map")
            case Op.REDUCE:
                if instr.red in (Red.NONE, Red.MAXABS):
                    raise word.error(Trap.OPCODE, word.cycles[0], f"red must be SUM, MAX or MIN, not {instr.red.name}")
                self._within(word, instr.segment, self.config.lane_bits + 1, "segment")
            case Op.TRANSPOSE_IN | Op.TRANSPOSE_OUT:
                if not self.config.sxm_transpose:
                    raise word.error(Trap.OPCODE, word.cycles[0], f"config {self.config.name} has no {instr.op.name}")
                self._within(word, np.arange(instr.count), self.config.lanes, "transpose row")
        outward, inward = (Dir.E, Dir.W) if word.queue.position == SXM_E else (Dir.W, Dir.E)
        if instr.op is not Op.TRANSPOSE_OUT:
            self._sample(word, (outward, VECTOR), 1 << instr.plane if instr.op is Op.TRANSPOSE_IN else ALL)
        if instr.op is not Op.TRANSPOSE_IN:
            self._drive(word, (inward, VECTOR), ALL, word.elements + self.times.sxm_drive)

    def _c2c(self, word: Word) -> None:
        instr, side, config = word.instr, word.queue.side, self.config
        ports, slot = config.ports_of(side), config.slot
        outward, inward = (Dir.E, Dir.W) if side == "E" else (Dir.W, Dir.E)
        if self.period % slot:
            raise word.error(Trap.COLLISION, self.period, f"the period must be a multiple of {slot}, a slot's cycles")
        if instr.op is LinkOp.RECEIVE:
            self._within(word, instr.port, ports, "port")
            self._drive(word, (inward, VECTOR), instr.planes, word.elements + isa.C2C_RECEIVE)
            self.received[side, instr.port].append(word.elements.ravel())
            return
        self._within(word, instr.ports.bit_length() - 1, ports, "port")
        self._sample(word, (outward, VECTOR), 1 << instr.plane)
        begins = word.elements + isa.C2C_SEND
        if (begins % slot).any():
            off = begins.ravel()[int(np.argmax(begins.ravel() % slot > 0))]
            raise word.error(Trap.COLLISION, off, f"cycle must be a multiple of {slot}, the first of a slot")
        first, last = config.quiet_slots * slot, self.period - slot
        if begins.min() < first or begins.max() >= last:
            at = begins.min() if begins.min() < first else begins.max()
            raise word.error(Trap.COLLISION, at, f"cycle must be in {first}..{last - 1}: the first slots of a token, "
                                                 "and the last, belong to the links")
        for port in range(ports):
            if instr.ports >> port & 1:
                self.sent[side, port].append(begins.ravel())

    # -- all words --

    def _engine_free(self, engine: str, words: Sequence[Word]) -> None:
        first, last = (np.concatenate(times) for times in zip(*((w.first, self._end(w)) for w in words), strict=True))
        owner = np.repeat(np.arange(len(words)), [len(word.cycles) for word in words])
        order = np.argsort(first)
        early = last[order][:-1] >= first[order][1:]
        if early.any():
            before, after = (int(member) for member in order[int(np.argmax(early)) :][:2])
            raise words[int(owner[after])].error(
                Trap.ENGINE_BUSY, first[after] - isa.ENGINE,
                f"engine {engine!r} works for {words[int(owner[before])].label} until cycle {last[before]}")

    def _banks_free(self, slice_name: str) -> None:
        """Check that no quad is read in the cycle in which a write to it commits.

        Each engine is already known to have at most one element a cycle.
        """
        reads, commits = (self._by_cycle(self.quads[slice_name, engine]) for engine in ("read", "write"))
        low, high, owner = reads
        c_low, c_high, c_owner = commits
        meet = (owner >= 0) & (c_owner >= 0) & (low <= c_high) & (c_low <= high)
        if meet.any():
            cycle = int(np.argmax(meet))
            what = f"may read quad {max(low[cycle], c_low[cycle])} while {self.words[c_owner[cycle]].label} commits it"
            raise self.words[owner[cycle]].error(Trap.BANK_CONFLICT, cycle, what)

    def _by_cycle(self, accesses: list[tuple[np.ndarray, np.ndarray, int, int]]) -> tuple[np.ndarray, ...]:
        """A slice's accesses by cycle: (lowest quad, highest quad, word). The word is -1 if there is no access."""
        low, high = np.zeros(self.period + 1, np.int64), np.zeros(self.period + 1, np.int64)
        owner = np.full(self.period + 1, -1)
        for cycles, quads, spread, word in accesses:
            low[cycles], high[cycles], owner[cycles] = quads, quads + spread, word
        return low, high, owner
