"""What each burst of a token waits for: the burst that decides when it can begin.

A burst depends on those that drive what it samples, on the SEND of the flits that it receives, on the last write of
what it reads, on registers, and on the work of its own engine before it.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from arch import isa, row
from arch.isa import Instr, LinkOp, Op
from arch.latencies import latencies
from arch.rack import Port
from program.program import Program, Segment
from program.rack import AnyProgram, RackProgram

from . import issue
from .streams import STEP, Tap, drives, elements, samples


@dataclass(eq=False)
class Burst:
    """A burst of a chip.

    earliest: cycles from the first burst of its path to this one, if nothing waits. before: the burst that decides it,
    and needs: cycles from its beginning to ours. link: over which it sends to us.
    """

    chip: int
    queue: row.Queue
    instr: Instr
    label: str
    first: int
    last: int
    earliest: int = 0
    before: "Burst | None" = None
    needs: int = 0
    link: tuple[Port, Port] | None = None

    def depend(self, before: "Burst", cycles: int, link: tuple[Port, Port] | None = None) -> None:
        """Note that this burst begins `cycles` after another one at the earliest, if nothing decides more."""
        needs = max(0, min(cycles, self.first - before.first))
        if before.first < self.first and (self.before is None or before.earliest + needs > self.earliest):
            self.before, self.needs, self.link, self.earliest = before, needs, link, before.earliest + needs


def bursts_of(program: Program, number: int, chip: int, segment: Segment) -> Iterator[Burst]:
    """The bursts of a segment on a chip."""
    events = {(event.queue, event.first): event for event in program.events(number) if event.segment == segment.name}
    for queue in row.queues(program.config):
        words = program.queues[queue.name]
        for pc, cycle in issue.dispatches(program.config, words, program.starts[queue.name][number], queue.unit):
            if event := events.get((queue.name, cycle + isa.ENGINE)):
                yield Burst(chip, queue, isa.decode(words[pc], queue.unit), event.label, event.first, event.last)


def linked(program: AnyProgram, bursts: list[Burst]) -> list[Burst]:
    """The bursts in the order of their cycles, each with the one that decides when it begins."""
    bursts.sort(key=lambda burst: (burst.first, burst.chip))
    across = program.rack.across if isinstance(program, RackProgram) else {}
    chips = program.chips if isinstance(program, RackProgram) else (program,)
    past = [_Past(chip) for chip in chips]
    sends: dict[Port, list[Burst]] = defaultdict(list)
    for burst in bursts:
        if burst.instr.op is LinkOp.RECEIVE:
            _depend_on_send(burst, sends, across)
        past[burst.chip].add(burst)
        if burst.instr.op is LinkOp.SEND:
            for number in range(chips[burst.chip].config.ports_of(burst.queue.side)):
                if burst.instr.ports >> number & 1:
                    sends[Port(burst.chip, burst.queue.side, number)].append(burst)
    return bursts


def _depend_on_send(burst: Burst, sends: dict[Port, list[Burst]], across) -> None:
    far = Port(burst.chip, burst.queue.side, burst.instr.port)
    near, latency = across[far]
    for send in reversed(sends[near]):
        begin = send.first + isa.C2C_SEND + latency
        count, interval = elements(send.instr)
        if begin <= burst.first <= begin + (count - 1) * interval:
            return burst.depend(send, burst.first - send.first, (near, far))


@dataclass
class _Driven:
    """Where a burst's values are found: the packet of its first element, counted as by `streams`."""

    burst: Burst
    tap: Tap
    packet: int
    cycles: range


class _Past:
    """The earlier bursts of a chip, by what later ones may need of them."""

    def __init__(self, program: Program) -> None:
        self._program, self._config = program, program.config
        self._driven: dict[tuple, list[_Driven]] = defaultdict(list)
        self._engines: dict[tuple, Burst] = {}
        self._writes: dict[str, list[Burst]] = defaultdict(list)
        self._registers: dict[tuple[str, int], Burst] = {}
        self._tensors = _Tensors(program)

    def add(self, burst: Burst) -> None:
        """Find what a burst depends on, and keep it for those after it."""
        self._after_streams(burst)
        self._after_memory(burst)
        self._after_registers(burst)
        op, unit = burst.instr.op, burst.queue.name
        feeds = {Op.MAC: (Op.LOAD, 0), Op.DRAIN: (Op.MAC, latencies(self._config).mxm_acc),
                 Op.TRANSPOSE_OUT: (Op.TRANSPOSE_IN, 0)}
        if op in feeds and (before := self._engines.get((unit, feeds[op][0]))):
            burst.depend(before, before.last - before.first + 1 + feeds[op][1])
        if before := self._engines.get((unit, op)):
            burst.depend(before, before.last - before.first + 1)
        self._engines[unit, op] = burst
        for tap in drives(burst.instr, burst.queue, self._config):
            first = _range(burst, tap)
            self._driven[tap.dir, tap.group].append(
                _Driven(burst, tap, first.start - STEP[tap.dir] * burst.queue.position, first))

    def _after_streams(self, burst: Burst) -> None:
        for tap in samples(burst.instr, burst.queue, self._config):
            packet = burst.first + tap.latency - STEP[tap.dir] * burst.queue.position
            upstream = [driven for driven in self._driven[tap.dir, tap.group] if driven.tap.planes & tap.planes
                        and 0 <= packet - driven.packet < len(driven.cycles) * driven.cycles.step
                        and (packet - driven.packet) % driven.cycles.step == 0
                        and (burst.queue.position - driven.burst.queue.position) * STEP[tap.dir] > 0]
            for driven in upstream:
                burst.depend(driven.burst, burst.first - driven.burst.first)

    def _after_memory(self, burst: Burst) -> None:
        if burst.instr.op is Op.READ:
            for write in self._writes[burst.queue.name]:
                if self._tensors.meet(write, burst):
                    burst.depend(write, write.last - write.first + 1)
        if burst.instr.op is Op.WRITE:
            self._writes[burst.queue.name].append(burst)

    def _after_registers(self, burst: Burst) -> None:
        """The vector unit's registers and exponents, and index registers."""
        used, set_ = _registers(burst.instr, burst.queue.name)
        late = latencies(self._config).vxm_rf
        for name in used:
            if before := self._registers.get(name):
                burst.depend(before, before.last - before.first + late)
        self._registers |= dict.fromkeys(set_, burst)


def _range(burst: Burst, tap: Tap) -> range:
    """The cycles in which a burst drives."""
    count, interval = elements(burst.instr)
    begin = burst.first + (count - 1) * interval * tap.once + tap.latency
    return range(begin, burst.first + (count - 1) * interval + tap.latency + 1, interval)


def _registers(instr: Instr, queue: str) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The registers that a burst uses, and those that it sets."""
    if instr.op in (Op.READ, Op.WRITE):
        return [(f"{queue} index", instr.index)] if instr.index else [], []
    if instr.op is Op.INDEX:
        return [], [(f"{queue} index", instr.index)]
    if instr.op is not Op.ALU:
        return [], []
    used = [("rf", getattr(instr, f"{name}_rf") + n) for name in "abc"
            if getattr(instr, f"{name}_src") is isa.Src.RF
            for n in range(instr.count if getattr(instr, f"{name}_inc") else 1)]
    if instr.er_use is not isa.ErUse.NONE:
        used.append(("er", instr.er))
    found = [("rf", instr.rf + n) for n in range(instr.count if instr.rf_inc else 1)] if instr.rf_we else []
    return used, found + ([("er", instr.er_dst)] if instr.er_we else [])


@dataclass
class _Tensors:
    """Whether what a burst reads may be what another one wrote."""

    program: Program
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for symbol in self.program.symbols.values():
            layers = self.program.model.n_layers if symbol.stride else 1
            end = symbol.addr + (layers - 1) * symbol.stride + symbol.quads
            self.spans[f"MEM_{symbol.slice}"].append((symbol.addr, end))

    def meet(self, write: Burst, read: Burst) -> bool:
        """Quads in common; where an index register moves one of them, anywhere in its tensor."""
        (low, high), (first, end) = self._reach(write), self._reach(read)
        return low < end and first < high

    def _reach(self, burst: Burst) -> tuple[int, int]:
        instr = burst.instr
        far = instr.addr + (instr.count - 1) * instr.stride
        low, high = min(instr.addr, far), max(instr.addr, far) + 1
        if instr.index:
            return next(((a, b) for a, b in self.spans[burst.queue.name] if a <= instr.addr < b), (low, high))
        return low, high
