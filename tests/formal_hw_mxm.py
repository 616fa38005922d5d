"""Proofs of the MXM: the loops of a MAC burst, and the accumulator file, whatever the multipliers compute."""

from dataclasses import replace

from amaranth.asserts import AnyConst
from amaranth.hdl import Cat, Mux, Signal, Value
from formal import Opened, Proof, Property, free, implies, latched

from arch.config import PLANES, ChipConfig
from arch.isa import COUNT_BITS, ENGINE, Order, Wfmt
from arch.latencies import latencies
from arch.row import queues
from hw.idioms import register
from hw.mxm import ACC_BITS, MacLoops, Mxm

CONFIG = ChipConfig(name="formal", mem_depths=(16, 16), act_depth=4, acc_depth=2)
LATER = replace(CONFIG, registers=("accumulate", "control"))
LANES = CONFIG.lanes
QUEUE = next(queue for queue in queues(CONFIG) if queue.name == "MXM_E")


class LoopsProof(Proof):
    """The loops of a MAC burst, started in any cycles.

    Step number `age - ENGINE` is turn `outer` and step `inner` of it; `base` is the steps of the turns before.
    """

    def __init__(self, loops=None, *, early: bool = False):
        self._loops, self._early = loops or MacLoops, early

    def build(self, m):
        loops = self._loops(early=self._early)
        body = Opened(m, "loops", loops)
        free(m, loops.start, loops.word)
        op = loops.word.shape()(latched(m, loops.word, loops.start, "latched_op"))
        rows = op.order == Order.ROW
        inners, outers = Mux(rows, op.acts, op.accs), Mux(rows, op.accs, op.acts)
        begun, age, base = Signal(), Signal(2 * COUNT_BITS + 1), Signal(2 * COUNT_BITS)
        inner, outer = Signal(COUNT_BITS), Signal(COUNT_BITS)
        here = begun & (outer != outers)
        last = here & (inner == inners - 1) & (outer == outers - 1)
        m.d.sync += age.eq(age + ~age.all())
        with m.If(loops.start):
            m.d.sync += [begun.eq(1), age.eq(ENGINE), base.eq(0), inner.eq(0), outer.eq(0)]
        with m.Elif(here):
            m.d.sync += inner.eq(inner + 1)
            with m.If(inner == inners - 1):
                m.d.sync += [inner.eq(0), outer.eq(outer + 1), base.eq(base + inners)]
        act, acc = Mux(rows, inner, outer), Mux(rows, outer, inner)
        self.assume(implies(loops.start, (loops.word.acts != 0) & (loops.word.accs != 0)))
        self.claim(
            loops.active == here,
            loops.last == last,
            loops.conflict == (loops.start & here & ~last),
            implies(here, (loops.act == op.act + act) & (loops.acc == op.acc + acc) & (loops.first == (act == 0))),
            implies(here, age == ENGINE + base + inner),
            implies(begun, Value.cast(loops.op) == Value.cast(op)),
        )
        self.tie(
            implies(here, (body["act"] == act) & (body["acc"] == acc)),
            implies(begun, (inner < inners) & (outer <= outers) & (inners != 0) & (outers != 0)),
            implies(begun, base <= outer << COUNT_BITS),
            *[implies(here, (body.all(f"{name}_end")[0] == (at + 1 == turns))
                      & (body.all(f"{name}_single")[0] == (turns == 1)))
              for name, at, turns in (("acts", act, op.acts), ("accs", acc, op.accs)) if self._early],
        )


class FileProof(Proof):
    """The accumulator file of a whole MXM, at one vector of it, any, and in all lanes; its queue sends anything.

    The reference keeps the vector from each lane's first clearing step on. It takes the steps from the MAC engine in e
    and the sums as they come out of the adders in e + 4, or a cycle later.
    """

    def __init__(self, mxm=None, config: ChipConfig = CONFIG):
        self._mxm, self._config = mxm or Mxm, config

    def build(self, m):
        mxm = self._mxm(config=self._config, queue=QUEUE)
        body = Opened(m, "mxm", mxm)
        free(m, mxm.word, mxm.valid, mxm.e_in, mxm.w_in, mxm.weights)
        mac, drain, acc = body.submodules.mac, body.submodules.drain, body.submodules.acc
        sums = body.all("sum4")
        vector = AnyConst(range(CONFIG.acc_depth))
        lanes, clear = self._hit(mac, vector), Signal()
        m.d.comb += clear.eq(mac.first & mac.op.clear)
        stages = [(lanes, clear)]
        for k in range(1, latencies(self._config).mxm_acc):
            stage = Signal(LANES, name=f"lanes{k}"), Signal(name=f"clear{k}")
            m.d.sync += [after.eq(before) for before, after in zip(stages[-1], stage, strict=True)]
            stages.append(stage)
        known, held = Signal(LANES), [Signal(ACC_BITS, name=f"held{lane}", reset_less=True) for lane in range(LANES)]
        lanes, clear = stages[-1]
        for lane in range(LANES):
            with m.If(lanes[lane]):
                m.d.sync += [held[lane].eq(Mux(clear, 0, held[lane]) + sums[lane % len(sums)].as_signed()),
                             known[lane].eq(known[lane] | clear)]
        self._drained(m, mxm, drain, vector, known, held)
        at = body["drained_at_now"]
        if "control" in self._config.registers:
            self.tie(implies(drain.busy, (body["drained_at_more"] == (at + 1)[:len(at)]) & body["drained_at_step"]))
        self.tie(implies(drain.busy, at == (drain.op.acc + drain.index)[:len(at)]))
        content = acc.read_port(domain="comb")
        m.d.comb += content.addr.eq(vector)
        for lane in range(LANES):
            self.claim(implies(known[lane], content.data[ACC_BITS * lane :][:ACC_BITS] == held[lane]))

    def _hit(self, mac, vector) -> Value:
        """Lanes of the vector that the present MAC step adds to."""
        def lanes(rows: int) -> Value:
            parts = LANES // rows
            hit = mac.active & ((mac.acc // parts) % CONFIG.acc_depth == vector)
            return Cat(hit & (mac.acc % parts == lane // rows) for lane in range(LANES))

        return Mux(mac.op.wfmt == Wfmt.INT4, lanes(2 * CONFIG.rows), lanes(CONFIG.rows))

    def _drained(self, m, mxm, drain, vector, known, held) -> None:
        """What an element of DRAIN drives one cycle after it executed."""
        here = drain.active & ((drain.op.acc + drain.index) % CONFIG.acc_depth == vector)
        drives, mine = register(m, drain.active, "drives"), register(m, here, "mine")
        was_known, was = register(m, known, "was_known"), [register(m, value, "was") for value in held]
        self.claim(mxm.e_drive == 0, mxm.w_drive == drives.replicate(PLANES))
        for lane in range(LANES):
            got = Cat(mxm.w_data[CONFIG.plane_bits * p + 8 * lane :][:8] for p in range(PLANES))
            self.claim(implies(mine & was_known[lane], got == was[lane]))


PROPERTIES = [
    Property(name="mac loops", claim="steps follow one another in every cycle, acts * accs of them, in the order of "
                                     "ROW and of TILE; last, first and conflict are exact", top=LoopsProof, depth=2),
    Property(name="mac loops, registers \"control\"", claim="the same of loops whose ends are known a cycle earlier",
             top=lambda: LoopsProof(early=True), depth=2),
    Property(name="accumulators", claim="a DRAIN element drives the sum of all MAC steps of MXM_ACC cycles and more "
                                        "before it, from the last clearing one on; other lanes are untouched",
             top=FileProof, depth=6, cut="t:$mul"),
    Property(name="accumulators, register \"accumulate\"", claim="the same with optional registers: MXM_ACC is a "
                                                               "cycle longer",
             top=lambda: FileProof(config=LATER), depth=7, cut="t:$mul"),
]
