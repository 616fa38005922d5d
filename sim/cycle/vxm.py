"""The VXM of the cycle model.

Operands are collected in the cycle in which an element samples them. Pending elements are computed together when the
first of their results is due. So several elements cost one call of `arch.numerics.vxm`.
"""

from collections.abc import Callable

import numpy as np

from arch import numerics
from arch.config import PLANES, ChipConfig
from arch.isa import FIELDS, FMT_PLANES, ErUse, Fmt, Instr, Op, Red, Src, vxm_late
from arch.row import Queue

from .core import Streams, Timeline, Unit

ALL = (1 << PLANES) - 1
Operand = Callable[[int], np.ndarray]


STREAMS = {Src.E: 0, Src.W: 1}
"""Direction of the stream for each source that is a stream."""


class VxmModel(Unit):
    """The vector unit: register file, exponent file, one pipeline."""

    def __init__(self, queue: Queue, config: ChipConfig, time: Timeline, streams: Streams):
        super().__init__(queue, config, time, streams)
        self.rf_vectors = [np.zeros(config.lanes, np.int32) for _ in range(config.rf_depth)]
        self.er_vectors = [np.zeros(config.lanes, np.int8) for _ in range(config.er_depth)]
        self.reductions = [np.zeros(config.lanes, np.int64) for _ in range(1 << FIELDS[Op.ALU]["red_slot"].bits)]

    def state(self) -> dict[str, np.ndarray]:
        return {"rf": np.stack(self.rf_vectors), "er": np.stack(self.er_vectors),
                "red": np.stack(self.reductions).astype(np.int32)}

    def dispatch(self, instr: Instr, offsets: tuple[int, int]) -> None:
        burst = VxmBurst(self, instr)
        self.start("alu", instr, burst.element, instr.count, instr.interval, self.config.vxm_fold)

    def register(self, register: int) -> int:
        return self.check(register, self.config.rf_depth, "register")

    def exponent(self, entry: int) -> int:
        return self.check(entry, self.config.er_depth, "exponent entry")

    def write_rf(self, register: int, value: np.ndarray) -> None:
        self.rf_vectors[register] = value

    def write_er(self, entry: int, value: np.ndarray) -> None:
        self.er_vectors[entry] = value


class VxmBurst:
    """One ALU instruction in execution: its operand sources, pending operands, and results."""

    def __init__(self, vxm: VxmModel, instr: Instr):
        self.vxm = vxm
        self.instr = instr
        self._sources = [self._source(name) for name in "abc"]
        self._er = vxm.exponent(instr.er) if instr.er_use is not ErUse.NONE else None
        self._er_dst = vxm.exponent(instr.er_dst) if instr.er_we else None
        self._pending: list[tuple[np.ndarray, ...]] = []
        self._results: list[np.ndarray] = []
        self._exponents: list[np.ndarray] = []
        self._total = np.zeros(vxm.config.lanes, np.int64)

    def _source(self, name: str) -> Operand:
        instr, vxm = self.instr, self.vxm
        lanes = vxm.config.lanes
        src: Src = getattr(instr, f"{name}_src")
        fmt: Fmt = getattr(instr, f"{name}_fmt")
        if src in STREAMS:
            direction, planes = STREAMS[src], FMT_PLANES[fmt]
            return lambda i: vxm.streams.sample(direction, vxm.position, planes, vxm.name).copy()
        if src is Src.RF:
            first, step = getattr(instr, f"{name}_rf"), getattr(instr, f"{name}_inc")
            return lambda i: vxm.rf_vectors[vxm.register(first + i * step)]
        if src is Src.IOTA:
            first = np.arange(lanes, dtype=np.int32)
            return lambda i: first + lanes * i
        constant = np.full(lanes, instr.imm, np.int32)
        return lambda i: constant

    def element(self, i: int) -> None:
        """Element i samples its operands. Its result is computed when the first pending result is due."""
        vxm, instr = self.vxm, self.instr
        now = vxm.time.now
        exponent = vxm.er_vectors[self._er or 0]
        self._pending.append((*(source(i) for source in self._sources), exponent))
        late, times = vxm_late(vxm.config), vxm.latencies
        vxm.time.write(now + times.vxm_drive, self._finish, i)
        if instr.dst_e or instr.dst_w:
            vxm.time.write(now + times.vxm_drive + late, self._drive_result, i)
        if instr.red is not Red.NONE and instr.red_e and i == instr.count - 1:
            vxm.time.write(now + times.vxm_reduce_drive + late, self._finish_reduction)

    def _compute(self) -> None:
        """Results of all pending elements."""
        instr = self.instr
        columns = list(zip(*self._pending, strict=True))
        a, b, c = (numerics.take(np.stack(column).astype(np.int64), fmt)
                   for column, fmt in zip(columns[:3], (instr.a_fmt, instr.b_fmt, instr.c_fmt), strict=True))
        er = 0 if self._er is None else np.stack(columns[3]).astype(np.int64)
        y = numerics.vxm(instr, a, b, c, er)
        self._results.extend(y)
        if self._er_dst is not None:
            self._exponents.extend(numerics.exponent(instr, a, y, er).astype(np.int8))
        self._pending.clear()

    def _finish(self, i: int) -> None:
        """Write the result of element i, in the second half of its cycle."""
        if i == len(self._results):
            self._compute()
        vxm, instr = self.vxm, self.instr
        y = self._results[i]
        if instr.rf_we:
            vxm.write_rf(vxm.register(instr.rf + i * instr.rf_inc), y.astype(np.int32))
        if self._er_dst is not None:
            vxm.write_er(self._er_dst, self._exponents[i])
        if instr.red is not Red.NONE:
            self._accumulate(y, fresh=i == 0 and not instr.red_keep)

    def _drive_result(self, i: int) -> None:
        instr = self.instr
        self._drive(numerics.lay(self._results[i], instr.rep), instr.dst_e, instr.dst_w)

    def _accumulate(self, y: np.ndarray, fresh: bool) -> None:
        red, slots = self.instr.red, self.vxm.reductions
        parts = numerics.reduce(red, y[None], 0)  # |y| for MAXABS, else y
        if not fresh:
            merge = Red.MAX if red is Red.MAXABS else red
            parts = numerics.reduce(merge, np.stack([slots[self.instr.red_slot], parts]), 0)
        slots[self.instr.red_slot] = self._total = parts

    def _finish_reduction(self) -> None:
        self._drive(self._total, eastward=1, westward=0)

    def _drive(self, lanes: np.ndarray, eastward: int, westward: int) -> None:
        vxm = self.vxm
        for direction, enabled in enumerate((eastward, westward)):
            if enabled:
                vxm.streams.drive(direction, vxm.position, ALL, lanes, vxm.name)
