"""The stream registers: two rows of registers through which every value of the chip moves, one position a cycle."""

from amaranth.hdl import Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .config import POSITIONS, ChipConfig
from .slice import PLANE_BITS, any_of


class Streams(wiring.Component):
    """Stream registers E[0..6] and W[0..6] of a chip.

    What a unit drives at position p in cycle t stands in E[p + 1] (or W[p - 1]) in cycle t + 1; where nobody drives,
    the value that stands at p in t moves on. E[0] and W[6] are 0: nothing enters at the ends. Several units may share
    a position.

    config: the chip. positions: the position of each unit, in the order of the ports below.

    e, w: the registers at each position.
    e_data, w_data, e_drive, w_drive: what each unit drives (data is 0 where drive is 0).
    e_driven, w_driven: which streams of the registers hold a driven value (debug builds).
    collision: two units at one position drive the same stream of one direction (debug builds).
    """

    def __init__(self, *, config: ChipConfig, positions: tuple[int, ...]):
        self._config = config
        self._positions = positions
        wide, streams, units = config.streams * PLANE_BITS, config.streams, len(positions)
        ports = {
            "e": Out(wide).array(POSITIONS), "w": Out(wide).array(POSITIONS),
            "e_data": In(wide).array(units), "e_drive": In(streams).array(units),
            "w_data": In(wide).array(units), "w_drive": In(streams).array(units),
        }
        if config.debug:
            ports |= {"e_driven": Out(streams).array(POSITIONS), "w_driven": Out(streams).array(POSITIONS),
                      "collision": Out(1)}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        clashes = []
        for p in range(POSITIONS):
            here = [n for n, position in enumerate(self._positions) if position == p]
            for name, beyond in (("e", p + 1), ("w", p - 1)):
                drives = [getattr(self, f"{name}_drive")[n] for n in here] or [Const(0, self._config.streams)]
                if 0 <= beyond < POSITIONS:
                    data = [getattr(self, f"{name}_data")[n] for n in here]
                    self._hop(m, name, p, beyond, data, any_of(drives))
                clashes += [(a & b).any() for i, a in enumerate(drives) for b in drives[i + 1 :]]
        if self._config.debug:
            m.d.comb += self.collision.eq(any_of(clashes))
        return m

    def _hop(self, m: Module, name: str, p: int, beyond: int, data: list[Value], drive: Value) -> None:
        here, there = getattr(self, name)[p], getattr(self, name)[beyond]
        for s in range(self._config.streams):
            bits = slice(PLANE_BITS * s, PLANE_BITS * (s + 1))
            register = Signal(PLANE_BITS, name=f"{name}{beyond}_{s}", reset_less=True)
            passing = here[bits] & ~drive[s].replicate(PLANE_BITS)
            m.d.sync += register.eq(any_of([passing, *(value[bits] for value in data)]))
            m.d.comb += there[bits].eq(register)
        if self._config.debug:
            row = getattr(self, f"{name}_driven")
            driven = Signal(self._config.streams, name=f"{name}{beyond}_driven")
            m.d.sync += driven.eq(row[p] | drive)
            m.d.comb += row[beyond].eq(driven)
