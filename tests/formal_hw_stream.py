"""Proof of the stream registers: what stands where, one cycle later."""

from unittest.mock import patch

from amaranth.asserts import AnyConst
from amaranth.hdl import Cat, Const, Mux, Signal
from formal import Opened, Proof, Property, free, implies

from hw import stream
from hw.config import CONFIGS, POSITIONS, ChipConfig
from hw.isa import queues
from hw.slice import any_of, one_hot

BASE = CONFIGS["tiny"]
CONFIG = ChipConfig(name="formal", weight_groups=1, mem_depths=BASE.mem_depths, debug=True)
PLACES = tuple(queue.position for queue in queues(CONFIG))
PLACE_BITS = POSITIONS.bit_length()
LANE_BITS = 8
"""The proof is of planes of one lane: the registers of a plane are one signal, and 16 lanes take 60 times as long."""


class StreamProof(Proof):
    """All units drive what they like, with data 0 where they do not drive; each stream of each hop is looked at."""

    def __init__(self, module=stream):
        self._module = module

    def build(self, m):
        with patch.object(self._module, "PLANE_BITS", LANE_BITS):
            unit = self._module.Streams(config=CONFIG, positions=PLACES)
            Opened(m, "streams", unit)
        self._meets = []
        for name, step in (("e", 1), ("w", -1)):
            ports = [(getattr(unit, f"{name}_data")[n], getattr(unit, f"{name}_drive")[n]) for n in range(len(PLACES))]
            for data, drive in ports:
                anything = Signal.like(data)
                free(m, anything, drive)
                m.d.comb += data.eq(anything & Cat(bit.replicate(LANE_BITS) for bit in drive))
            rows = getattr(unit, name), getattr(unit, f"{name}_driven")
            for p in range(POSITIONS):
                here = [port for port, place in zip(ports, PLACES, strict=True) if place == p]
                self._position(m, rows, p, step, here)
            self._journey(m, rows, step, ports)
        self.claim(unit.collision == any_of(self._meets))

    def _position(self, m, rows, p, step, here) -> None:
        """Every stream of one position, and where it stands in the next cycle."""
        values, driven = rows
        beyond, before = p + step, p - step
        if not 0 <= before < POSITIONS:
            self.claim(values[p] == 0, driven[p] == 0)
        for s in range(CONFIG.streams):
            plane = slice(LANE_BITS * s, LANE_BITS * (s + 1))
            drives = [drive[s] for _, drive in here]
            meet = any_of([Const(0), *(a & b for i, a in enumerate(drives) for b in drives[i + 1 :])])
            self._meets.append(meet)
            if not 0 <= beyond < POSITIONS:
                continue
            value = values[p][plane]
            for data, drive in here:
                value = Mux(drive[s], data[plane], value)
            after, had, clash = Signal(LANE_BITS), Signal(), Signal()
            m.d.sync += [after.eq(value), had.eq(driven[p][s] | any_of([Const(0), *drives])), clash.eq(meet)]
            reset = Signal(init=1)  # registers of data keep their value in a reset
            m.d.sync += reset.eq(0)
            self.claim(implies(~clash & ~reset, values[beyond][plane] == after), driven[beyond][s] == had)

    def _journey(self, m, rows, step, ports) -> None:
        """A value driven anywhere, in any stream: at distance d it stands d cycles later, if nobody drove over it."""
        streams = range(CONFIG.streams)

        def plane(value):
            return one_hot(chosen, [value[LANE_BITS * s :][:LANE_BITS] for s in streams])

        chosen = Signal(CONFIG.streams)
        m.d.comb += chosen.eq(1 << AnyConst(streams))
        place, value, alive = Signal(PLACE_BITS), Signal(LANE_BITS), Signal()
        start, launch = Signal(PLACE_BITS), Signal()
        free(m, start, launch)
        for p in range(POSITIONS):
            here = [port for port, place_of in zip(ports, PLACES, strict=True) if place_of == p]
            at = [(plane(data), (drive & chosen).any()) for data, drive in here]
            driven = any_of([Const(0), *(drive for _, drive in at)])
            inside = 0 <= p + step < POSITIONS
            self.claim(implies(alive & (place == p), (plane(rows[0][p]) == value) & (rows[1][p] & chosen).any()))
            with m.If(alive & (place == p)):
                m.d.sync += [place.eq(p + step), alive.eq(~driven if inside else 0)]
            for n, (data, drive) in enumerate(at if inside else ()):
                others = any_of([Const(0), *(other for k, (_, other) in enumerate(at) if k != n)])
                with m.If(launch & ~alive & (start == p) & drive & ~others):
                    m.d.sync += [alive.eq(1), place.eq(p + step), value.eq(data)]


PROPERTIES = [
    Property(name="streams", claim="what is driven at p stands at its neighbour in the next cycle, else what stands at "
                                   "p does, and d cycles later d positions on; driven bits and collision are exact",
             top=StreamProof, depth=2),
]
