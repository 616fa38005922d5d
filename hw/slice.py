"""What every functional slice is made of: the burst engine, and how int32 lanes lie on the planes of a group."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .config import PLANES, ChipConfig
from .isa import COUNT_BITS, FIELDS, INTERVAL, Op, Trap, layout, width


def fields(op: Op, word: Value) -> data.View:
    """An instruction word seen as the fields of `op`."""
    shape = layout(op)
    return data.View(shape, Value.cast(word)[: shape.size])


class Burst(wiring.Component):
    """A burst engine: works through the elements of one instruction at a time.

    `start` (the dispatch pulse, cycle t) latches `word` into `op`. Element i executes in cycle
    t + ENGINE + i * interval, where ENGINE = 1; `active` is high in exactly these cycles, `index` is then i, and
    `last` marks the last of them. `op` and `index` hold from t + 1 until the next start (`index` has advanced after
    each element). The engine is `busy` from t + 1 to the last element, and may be started again in the very cycle of
    the last element; `conflict` pulses where it is started earlier than that (the old burst is then lost).

    op: the operation whose layout the engine latches; one without `count` and `interval` has a single element.
    fold: cycles that an element takes. If more than one, `active` is high in all of them, number `part` of which the
    present one is and `part_following` the next one, if that is active too; `index` and `last` are then of the
    element and of its last cycle, which `done` marks. Intervals must be as long, but of a single element.
    """

    def __init__(self, op: Op, fold: int = 1):
        shape = layout(op)
        super().__init__({
            "start": In(1), "word": In(shape), "op": Out(shape),
            "active": Out(1), "index": Out(COUNT_BITS), "last": Out(1), "busy": Out(1), "conflict": Out(1),
            **({"part": Out(range(fold)), "part_following": Out(range(fold)), "done": Out(1)} if fold > 1 else {}),
        })
        self._single, self._fold = "count" not in shape.members, fold
        if fold == 1:
            self.part, self.part_following, self.done = Const(0, 0), Const(0, 0), self.active

    def elaborate(self, platform):
        m = Module()
        left = Signal(COUNT_BITS)
        wait = Signal(INTERVAL.bits)
        op = Signal.like(self.op, reset_less=True)
        index = Signal(COUNT_BITS, reset_less=True)
        m.d.comb += [
            self.op.eq(op),
            self.index.eq(index),
            self.busy.eq(left != 0),
            self.active.eq(self.busy & (wait == 0)),
            self.last.eq(self.done & (left == 1)),
            self.conflict.eq(self.start & self.busy & ~self.last),
        ]
        if self._fold > 1:
            m.d.comb += [self.part_following.eq(Mux(self.start, 0, self.part + self.active)),
                         self.done.eq(self.active & (self.part == self._fold - 1))]
            m.d.sync += self.part.eq(self.part_following)
        with m.If(self.start):
            m.d.sync += [op.eq(self.word), left.eq(1 if self._single else self.word.count), wait.eq(0), index.eq(0)]
        with m.Elif(self.done):
            m.d.sync += [left.eq(left - 1), index.eq(index + 1)]
            if not self._single:
                m.d.sync += wait.eq(op.interval - self._fold)
        with m.Elif(self.busy & ~self.active if self._fold > 1 else self.busy):
            m.d.sync += wait.eq(wait - 1)
        return m


def group_lanes(group: Value) -> list[Value]:
    """The int32 lanes (32 bits each, plane 0 least significant) of a group."""
    plane_bits = len(group) // PLANES
    return [Cat(group[plane_bits * p + at :][:8] for p in range(PLANES)) for at in range(0, plane_bits, 8)]


def lanes_group(lanes: list[Value]) -> Value:
    """The bits of a group that carries these int32 lanes."""
    return Cat(lane[8 * p : 8 * p + 8] for p in range(PLANES) for lane in lanes)


def any_of(terms: list[Value]) -> Value:
    """OR of any number of values of one width."""
    total = terms[0]
    for term in terms[1:]:
        total = total | term
    return total


def one_hot(select: Value, values: list[Value]) -> Value:
    """AND-OR multiplexer: the values whose bit of `select` is set, ORed; 0 if none is."""
    return any_of([Mux(select[i], value, 0)[: len(value)] for i, value in enumerate(values)])


def named(m: Module, value: Value, name: str) -> Signal:
    """A value that is used in several places: Amaranth writes an expression out wherever it is used."""
    out = Signal(len(value), name=name)
    m.d.comb += out.eq(value)
    return out


def register(m: Module, value: Value, name: str) -> Signal:
    """A datapath register without reset, loaded in every cycle."""
    out = Signal(len(value), name=name, reset_less=True)
    m.d.sync += out.eq(value)
    return out


def delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """A value so many cycles later."""
    for n in range(cycles):
        value = register(m, value, f"{name}_late{n + 1}")
    return value


def latched(m: Module, engine: Burst, value: Value, name: str) -> Signal:
    """What `value`, made of the engine's word, is as the burst begins: decoded one cycle before the first element."""
    out = Signal(len(value), name=name, reset_less=True)
    with m.If(engine.start):
        m.d.sync += out.eq(value)
    return out


def stepping(m: Module, engine: Burst, first: Value, step: Value, name: str) -> tuple[Signal, Signal]:
    """The address of the present element (`first`, then, where `step`, one more each element), and that of the next
    cycle. It comes out of a register: what it addresses waits for no adder."""
    now, following = (Signal(len(first), name=f"{name}_{when}", reset_less=True) for when in ("now", "following"))
    m.d.comb += following.eq(Mux(engine.start, first, now + (step & engine.done)))
    m.d.sync += now.eq(following)
    return now, following


def stream_ports(config: ChipConfig) -> dict:
    """Ports of a unit that taps and drives the vector group in both directions; data counts only where it drives."""
    bits = config.group_bits
    return {
        "e_in": In(bits), "w_in": In(bits),
        "e_data": Out(bits), "w_data": Out(bits), "e_drive": Out(PLANES), "w_drive": Out(PLANES),
    }


def unit_ports(config: ChipConfig, unit: str, probe: data.StructLayout) -> dict:
    """Ports of every functional unit; `probe` (state writes) and the trap ports only in debug builds."""
    ports = {"word": In(width(unit)), "valid": In(1), "busy": Out(1), **stream_ports(config)}
    if config.debug:
        ports |= {"e_driven": In(PLANES), "w_driven": In(PLANES), "traps": Out(len(Trap)), "probe": Out(probe)}
    return ports


def trap(m: Module, unit: wiring.Component, kind: Trap, condition: Value) -> None:
    """Connects the bit of one kind of trap."""
    m.d.comb += unit.traps[kind.value].eq(condition)


def illegal(op: Op, view: data.View) -> Value:
    """Whether a field of the instruction holds no member of its enumeration."""
    wrong = [~any_of([getattr(view, name).as_value() == member.value for member in spec.kind])
             for name, spec in FIELDS[op].items() if spec.kind]
    return any_of(wrong)[0] if wrong else Const(0)
