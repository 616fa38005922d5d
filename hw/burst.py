"""The burst engine: one instruction word becomes a burst of elements, each in a known cycle."""

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from arch.config import ChipConfig
from arch.isa import COUNT_BITS, INTERVAL, AnyOp, Op, layout


def fields(op: AnyOp, word: Value, config: ChipConfig | None = None) -> data.View:
    """An instruction word seen as the fields of `op`. config: as `layout` takes it."""
    shape = layout(op, config)
    return data.View(shape, Value.cast(word)[: shape.size])


def is_op(opcode: Value, op: AnyOp) -> Value:
    """Whether a word's opcode is that of `op`, which may be another list's than the word is seen by."""
    return opcode == op if isinstance(op, Op) else opcode.as_value() == op.value


class Burst(wiring.Component):
    """A burst engine: executes one instruction at a time, element by element.

    The dispatch pulse `start`, in cycle t, latches `word` into `op`. Element i executes in cycle
    t + ENGINE + i * interval, with ENGINE = 1. `active` is high in exactly these cycles, `index` is then i, and `last`
    marks the last of them. `op` holds from t + 1 until the next start. `index` advances after each element.

    The engine is `busy` from t + 1 to its last element. It may start again in the cycle of the last element. An earlier
    start loses the old burst, and `conflict` pulses.

    op: the operation whose layout the engine latches. An operation without `count` and `interval` has one element.
    config: of the chip, if `layout` is to know it.
    fold: cycles that an element takes. With fold > 1, `active` is high in all cycles of an element, `part` counts them,
    and `part_following` is its next value. `done` marks an element's last cycle, and `last` the last cycle of the last
    element. Intervals are then at least `fold`, unless the burst has one element.
    early: `busy`, `active`, `last` and addresses (`stepping`) come from registers that are loaded a cycle earlier. With
    fold > 1 it has no effect.
    """

    def __init__(self, op: Op, fold: int = 1, config: ChipConfig | None = None, *, early: bool = False):
        shape = layout(op, config)
        super().__init__({
            "start": In(1), "word": In(shape), "op": Out(shape),
            "active": Out(1), "index": Out(COUNT_BITS), "last": Out(1), "busy": Out(1), "conflict": Out(1),
            **({"part": Out(range(fold)), "part_following": Out(range(fold)), "done": Out(1)} if fold > 1 else {}),
        })
        self._single, self._fold, self.early = "count" not in shape.members, fold, early and fold == 1
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
            *(self._flags(m, left, wait) if self.early else (
                self.busy.eq(left != 0),
                self.active.eq(self.busy & (wait == 0)),
                self.last.eq(self.done & (left == 1)),
            )),
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

    def _flags(self, m: Module, left: Signal, wait: Signal) -> list:
        """The state of the engine, from registers: `final` is set if no more than one element is left."""
        busy, active, final, dense = (Signal(name=f"{name}_early") for name in ("busy", "active", "final", "dense"))
        count = Const(1) if self._single else self.word.count
        with m.If(self.start):
            m.d.sync += [busy.eq(count != 0), active.eq(count != 0), final.eq(count == 1),
                         dense.eq(1 if self._single else self.word.interval == 1)]
        with m.Elif(active):
            m.d.sync += [busy.eq(~final), active.eq(~final & dense), final.eq(left == 2)]
        with m.Elif(busy):
            m.d.sync += active.eq(wait == 1)
        return [self.busy.eq(busy), self.active.eq(active), self.last.eq(active & final)]

    def following(self, m: Module, first: Value, step: Value, now: Value, name: str) -> Value:
        """What `now` is in the next cycle: `first` at a start, then one `step` more after each element.

        first, step: of the engine's word. The sum comes from a register that is loaded a cycle earlier.
        """
        more, steps = Signal(len(now), name=f"{name}_more", reset_less=True), Signal(name=f"{name}_step")
        with m.If(self.start):
            m.d.sync += [more.eq(first + step), steps.eq(step)]
        with m.Elif(self.done):
            m.d.sync += more.eq(more + steps)
        return Mux(self.start, first, Mux(self.done, more, now))


def latched(m: Module, engine: Burst, value: Value, name: str) -> Signal:
    """An expression of the engine's word, latched at dispatch: ready one cycle before the first element."""
    out = Signal(len(value), name=name, reset_less=True)
    with m.If(engine.start):
        m.d.sync += out.eq(value)
    return out


def stepping(m: Module, engine: Burst, first: Value, step: Value, name: str) -> tuple[Signal, Signal]:
    """The address of this cycle's element, and of the next cycle's.

    It begins at `first` and grows by one each element where `step`, an expression of the engine's word, is set. It
    comes from a register, so the memory behind it waits for no adder.
    """
    now, following = (Signal(len(first), name=f"{name}_{when}", reset_less=True) for when in ("now", "following"))
    if engine.early:
        m.d.comb += following.eq(engine.following(m, first, step, now, name))
    else:
        step = step if isinstance(step, Const) else latched(m, engine, step, f"{name}_steps")
        m.d.comb += following.eq(Mux(engine.start, first, now + (step & engine.done)))
    m.d.sync += now.eq(following)
    return now, following
