"""Proof of the burst engine: which element executes in which cycle."""

from amaranth.hdl import Const, Signal, Value
from formal import Opened, Proof, Property, free, implies, latched

from arch.isa import COUNT_BITS, ENGINE, INTERVAL, Op
from hw.burst import Burst

AGE_BITS = COUNT_BITS + INTERVAL.bits + 1


class BurstProof(Proof):
    """A burst engine of `op`, started in any cycles.

    Restarts in the midst of a burst are allowed: what is proven then speaks of the new burst, and of `conflict`.
    fold: cycles of an element.
    early: the engine's state comes from registers of its own.
    """

    def __init__(self, op: Op, burst=None, fold: int = 1, *, early: bool = False):
        self._op, self._burst, self._fold, self._early = op, burst or Burst, fold, early

    def build(self, m):
        fold, burst = self._fold, self._burst(self._op, self._fold, early=self._early)
        body = Opened(m, "burst", burst)
        free(m, burst.start, burst.word)
        op = burst.word.shape()(latched(m, burst.word, burst.start, "op"))
        single = "count" not in op.shape().members
        count, interval = (Const(1, COUNT_BITS), 0) if single else (op.count, op.interval)
        # Element n is the next one, due ENGINE + n * interval cycles behind the start; `age` is the present cycle.
        begun, age, n, due = Signal(), Signal(AGE_BITS), Signal(COUNT_BITS), Signal(AGE_BITS)
        here, last = begun & (n != count) & (age >= due), n == count - 1
        done = here & (age == due + fold - 1)
        m.d.sync += age.eq(age + ~age.all())
        with m.If(burst.start):
            m.d.sync += [begun.eq(1), age.eq(1), n.eq(0), due.eq(ENGINE)]
        with m.Elif(done):
            m.d.sync += [n.eq(n + 1), due.eq(due + interval)]
        self.claim(
            burst.active == here,
            implies(here, (burst.index == n) & (age == due + burst.part)),
            burst.done == done,
            burst.last == (done & last),
            burst.busy == (begun & (n != count)),
            burst.conflict == (burst.start & begun & (n != count) & ~(done & last)),
            implies(begun, Value.cast(burst.op) == Value.cast(op)),
        )
        left, wait = body["left"], body["wait"]
        self.tie(
            implies(~begun, left == 0),
            implies(begun, (burst.index == n) & (n + left == count) & (n <= count) & (count != 0)),
            implies(left != 0, age + wait == due + burst.part),
            implies((wait != 0) | (left == 0), burst.part == 0),
        )
        if self._early:
            state = {"busy": left != 0, "active": (left != 0) & (wait == 0), "final": left == 1}
            self.tie(*[body.all(f"{name}_early")[0] == value for name, value in state.items()],
                     implies(begun, body.all("dense_early")[0] == (1 if single else interval == 1)))
        if not single:
            new = burst.word
            self.assume(implies(burst.start, (new.count != 0) & (new.interval != 0)
                                & ((new.count == 1) | (new.interval >= fold))))
            self.tie(
                implies(begun, (interval != 0) & ((count == 1) | (interval >= fold))),
                implies(begun, due <= ENGINE + (n << INTERVAL.bits)),  # `age` is wide enough
                implies(left != 0, wait < interval),
            )


PROPERTIES = [
    Property(name="burst", claim="element i executes in dispatch + ENGINE + i * interval, and nothing else does; last, "
                                 "busy, conflict and op are exact", top=lambda: BurstProof(Op.DRAIN), depth=2),
    Property(name="burst: registers \"control\"", claim="the same of an engine whose state is known a cycle earlier",
             top=lambda: BurstProof(Op.DRAIN, early=True), depth=2),
    Property(name="burst: folded", claim="the same where an element takes four cycles: `part` counts them, `done` "
                                         "marks the last",
             top=lambda: BurstProof(Op.ALU, fold=4), depth=2),
    Property(name="burst: single", claim="the same of INDEX, which has one element", top=lambda: BurstProof(Op.INDEX),
             depth=2),
]
