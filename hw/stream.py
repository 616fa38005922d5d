"""The stream registers: two rows of registers through which every value of the chip moves, one position a cycle."""

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from arch.config import MEM_E, MEM_W, MXM_E, MXM_W, PLANES, POSITIONS, ChipConfig
from arch.row import Queue

from .idioms import any_of

WEIGHTS = {"w": (MEM_W, MXM_W), "e": (MEM_E, MXM_E)}
"""Where the weight streams of a hemisphere begin and end; they run outward, which is `w` or `e`."""


class Streams(wiring.Component):
    """Stream registers E[0..6] and W[0..6] of a chip: the vector group everywhere, the weight groups outward of MEM.

    A value driven at position p in cycle t is in E[p + 1], or W[p - 1], in cycle t + 1. A value that is not overwritten
    travels d positions in d cycles. E[0] and W[6] are 0: nothing enters at the ends. Several units may share a
    position. A slot that was never driven has no defined value.

    config: the chip. queues: its units, in the order of the ports below.

    e, w: the registers at each position, the vector group lowest.
    e_data, w_data, e_drive, w_drive: what each unit drives on the vector group; a drive bit each plane.
    weights_data, weights_drive: what each unit drives outward on a weight group; a drive bit each group and plane.
    clear: clears the vector group at the positions of MEM in the next cycle, where a host word is ORed in.
    e_driven, w_driven: which streams of the registers hold a driven value (debug builds).
    collision: two units at one position drive the same stream of one direction (debug builds).
    """

    def __init__(self, *, config: ChipConfig, queues: tuple[Queue, ...]):
        self._config = config
        self._queues = queues
        group, streams, units = config.group_bits, config.streams, len(queues)
        wide = config.groups * group
        ports = {
            "e": Out(wide).array(POSITIONS), "w": Out(wide).array(POSITIONS),
            "e_data": In(group).array(units), "e_drive": In(PLANES).array(units),
            "w_data": In(group).array(units), "w_drive": In(PLANES).array(units),
            "weights_data": In(group).array(units), "weights_drive": In(PLANES * config.weight_groups).array(units),
            "clear": In(1),
        }
        if config.debug:
            ports |= {"e_driven": Out(streams).array(POSITIONS), "w_driven": Out(streams).array(POSITIONS),
                      "collision": Out(1)}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        clashes = []
        for name, step in (("e", 1), ("w", -1)):
            for p in range(POSITIONS):
                if not 0 <= p + step < POSITIONS:
                    continue
                for group in range(self._config.groups):
                    producers = self._producers(name, p, group)
                    if group == 0 or self._outward(name, p):
                        self._hop(m, name, p, group, producers)
                    clashes += [(a & b).any() for i, (_, a) in enumerate(producers) for _, b in producers[i + 1 :]]
        if self._config.debug:
            m.d.comb += self.collision.eq(any_of(clashes))
        return m

    def _outward(self, name: str, p: int) -> bool:
        """Whether weight streams run through the hop behind position p."""
        low, high = sorted(WEIGHTS[name])
        return low <= p <= high

    def _passes(self, name: str, p: int, group: int) -> bool:
        """Whether a value can arrive at position p from the hop before it."""
        return p != (WEIGHTS[name][0] if group else {"e": 0, "w": POSITIONS - 1}[name])

    def _producers(self, name: str, p: int, group: int) -> list[tuple[Value, Value]]:
        """(data, drive) of the units at a position that drive a group in direction `name`."""
        here = [(n, queue) for n, queue in enumerate(self._queues) if queue.position == p]
        if group == 0:
            return [(getattr(self, f"{name}_data")[n], getattr(self, f"{name}_drive")[n]) for n, _ in here]
        if p != WEIGHTS[name][0]:
            return []
        return [(self.weights_data[n], self.weights_drive[n].word_select(group - 1, PLANES)) for n, queue in here
                if group in self._config.weight_groups_of(queue.slice)]

    def _hop(self, m: Module, name: str, p: int, group: int, producers: list[tuple[Value, Value]]) -> None:
        beyond, row = p + (1 if name == "e" else -1), getattr(self, name)
        plane_bits = self._config.plane_bits
        for plane in range(PLANES):
            s = PLANES * group + plane
            bits = slice(plane_bits * plane, plane_bits * (plane + 1))
            values = [(data[bits], drive[plane]) for data, drive in producers]
            if self._passes(name, p, group):
                values.insert(0, (row[p][plane_bits * s : plane_bits * (s + 1)], Const(1)))
            value = values[0][0] if values else Const(0, plane_bits)
            for data, drive in values[1:]:
                value = Mux(drive, data, value)
            register = Signal(plane_bits, name=f"{name}{beyond}_{s}", reset_less=True)
            m.d.sync += register.eq(value)
            if group == 0 and beyond in (MEM_W, MEM_E):
                with m.If(self.clear):
                    m.d.sync += register.eq(0)
            m.d.comb += row[beyond][plane_bits * s : plane_bits * (s + 1)].eq(register)
        if self._config.debug:
            driven, bits = getattr(self, f"{name}_driven"), slice(PLANES * group, PLANES * (group + 1))
            register = Signal(PLANES, name=f"{name}{beyond}_driven{group}")
            m.d.sync += register.eq(any_of([driven[p][bits], *(drive for _, drive in producers)]))
            m.d.comb += driven[beyond][bits].eq(register)
