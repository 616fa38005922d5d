"""Proof of the stream registers: what stands where, one cycle later."""

from unittest.mock import patch

from amaranth.asserts import AnyConst
from amaranth.hdl import Cat, Const, Mux, Signal, Value
from formal import Opened, Proof, Property, free, implies

from arch.config import CONFIGS, MEM_E, MEM_W, MXM_E, MXM_W, PLANES, POSITIONS, ChipConfig
from arch.row import queues
from hw import stream
from hw.idioms import any_of, one_hot

DEPTH = CONFIGS["tiny"].mem_depths[0]
CONFIG = ChipConfig(name="formal", weight_groups=2, mem_depths=(DEPTH,) * 3, debug=True)
QUEUES = queues(CONFIG)
PLACE_BITS = POSITIONS.bit_length()
LANE_BITS = 8
"""The proof is of planes of one lane: the registers of a plane are one signal, and 16 lanes take 60 times as long."""
ENDS = {"e": ((0, POSITIONS - 1), (MEM_E, MXM_E)), "w": ((POSITIONS - 1, 0), (MEM_W, MXM_W))}
"""Where streams begin and end: the vector group, the weight groups."""
VECTOR = (1 << PLANES) - 1
"""The streams of the vector group."""


def plane(value: Value, s: int) -> Value:
    """What stream s carries."""
    return value[LANE_BITS * s : LANE_BITS * (s + 1)]


def placed(value: Value, group: int) -> Value:
    """Data or drive bits of one group as those of all streams."""
    return Cat(Const(0, group * len(value)), value, Const(0, (CONFIG.groups - 1 - group) * len(value)))


class StreamProof(Proof):
    """All units drive what they like, whole chips of them in a slot too; each stream of each hop is looked at."""

    def __init__(self, module=stream):
        self._module = module

    def build(self, m):
        with patch.multiple(ChipConfig, plane_bits=LANE_BITS, group_bits=PLANES * LANE_BITS):
            unit = self._module.Streams(config=CONFIG, queues=QUEUES)
            Opened(m, "streams", unit)
        self._clear, self._meets = unit.clear, []
        free(m, unit.clear)
        for ports in (unit.e_data, unit.e_drive, unit.w_data, unit.w_drive, unit.weights_data, unit.weights_drive):
            free(m, *ports)
        for name, step in (("e", 1), ("w", -1)):
            rows = getattr(unit, name), getattr(unit, f"{name}_driven")
            drivers = [self._drivers(unit, name, p) for p in range(POSITIONS)]
            for p in range(POSITIONS):
                for s in range(CONFIG.streams):
                    self._slot(m, name, rows, p, step, s, drivers[p])
            self._journey(m, rows, step, drivers)
        self.claim(unit.collision == any_of(self._meets))

    def _drivers(self, unit, name: str, p: int) -> list[tuple[Value, Value]]:
        """(data, drive) of the units at a position, for all streams of a direction."""
        here = [(n, queue) for n, queue in enumerate(QUEUES) if queue.position == p]
        found = [(getattr(unit, f"{name}_data")[n], getattr(unit, f"{name}_drive")[n], 0) for n, _ in here]
        if p == ENDS[name][1][0]:
            found += [(unit.weights_data[n], unit.weights_drive[n].word_select(group - 1, PLANES), group)
                      for n, queue in here if queue.unit == "MEM"
                      for group in ((1, 2) if queue.slice == 0 else (queue.slice,))]
        return [(placed(data, group), placed(drive, group)) for data, drive, group in found]

    def _slot(self, m, name, rows, p, step, s, drivers) -> None:
        """One stream at one position, and where it stands in the next cycle."""
        (values, driven), beyond = rows, p + step
        first, last = ENDS[name][s >= PLANES]
        low, high = sorted((first + step, last))
        if not low <= p <= high:
            self.claim(plane(values[p], s) == 0, ~driven[p][s])
        drives = [drive[s] for _, drive in drivers]
        meet = any_of([Const(0), *(a & b for i, a in enumerate(drives) for b in drives[i + 1 :])])
        self._meets.append(meet)
        if not low <= beyond <= high:
            return
        cleared = self._clear & Const(s < PLANES and beyond in (MEM_W, MEM_E))
        value, here = plane(values[p], s), any_of([Const(0), *drives])
        for data, drive in drivers:
            value = Mux(drive[s], plane(data, s), value)
        # Registers of data keep their value in a reset. What comes to the first position is not defined.
        after, had, known = Signal(LANE_BITS), Signal(), Signal()
        m.d.sync += [after.eq(Mux(cleared, 0, value)), had.eq(driven[p][s] | here),
                     known.eq(cleared | (~meet & (here | Const(p != first))))]
        self.claim(implies(known, plane(values[beyond], s) == after), driven[beyond][s] == had)

    def _journey(self, m, rows, step, drivers) -> None:
        """A value driven anywhere, in any stream: it is at distance d after d cycles, unless it is overwritten."""
        streams = range(CONFIG.streams)

        def chosen_of(value):
            return one_hot(chosen, [plane(value, s) for s in streams])

        chosen = Signal(CONFIG.streams)
        m.d.comb += chosen.eq(1 << AnyConst(streams))
        place, value, alive = Signal(PLACE_BITS), Signal(LANE_BITS), Signal()
        start, launch = Signal(PLACE_BITS), Signal()
        free(m, start, launch)
        for p in range(POSITIONS):
            at = [(chosen_of(data), (drive & chosen).any()) for data, drive in drivers[p]]
            driven = any_of([Const(0), *(drive for _, drive in at)])
            inside = 0 <= p + step < POSITIONS
            cleared = self._clear & (chosen & VECTOR).any() & Const(p + step in (MEM_W, MEM_E))
            self.claim(implies(alive & (place == p), (chosen_of(rows[0][p]) == value) & (rows[1][p] & chosen).any()))
            with m.If(alive & (place == p)):
                m.d.sync += [place.eq(p + step), alive.eq(~driven & ~cleared if inside else 0)]
            for n, (data, drive) in enumerate(at if inside else ()):
                others = any_of([Const(0), *(other for k, (_, other) in enumerate(at) if k != n)])
                with m.If(launch & ~alive & (start == p) & drive & ~others & ~cleared):
                    m.d.sync += [alive.eq(1), place.eq(p + step), value.eq(data)]


PROPERTIES = [
    Property(name="streams", claim="what is driven at p stands at its neighbour in the next cycle, else what stands at "
                                   "p does, and d cycles later d positions on; weights run outward of MEM only; what "
                                   "is cleared for the host is 0; driven bits and collision are exact",
             top=StreamProof, depth=2),
]
